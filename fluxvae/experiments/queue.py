"""The order of a run: which job waits for which, who does it, what becomes of each.

The loop is the same for one process after the other here and for a Dask cluster: a pool takes jobs
and gives finished folders back. What several cells need (compressed weights, stages of the error
budget) is a job of its own, done before them and kept in ``solved``.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from fluxvae.experiments.file import Matrix
from fluxvae.experiments.folder import WORK, commit_cell, verify_delivery
from fluxvae.experiments.inputs import CALIBRATION, LATENTS, Tensor
from fluxvae.experiments.job import (
    OUT,
    SOLVED,
    STAGE,
    Job,
    result_of,
    write_cell,
)
from fluxvae.experiments.plan import (
    Pace,
    decoder_name,
    folder_name,
    recipe_of,
    solve_key,
    stage_key,
)
from fluxvae.experiments.process import FAILED, LOG, perform
from fluxvae.experiments.sources import Sources
from fluxvae.files import read_text
from fluxvae.records.experiment import Cell, Result
from fluxvae.records.summary import worst_psnr

SHARED = "solved"
Say = Callable[[str], None]


class Pool(Protocol):
    """Who does jobs. ``next`` blocks until one is done and gives its ``out`` folder."""

    splits: bool  # whether making and measuring may need different machines

    def submit(self, job: Job) -> None: ...

    def next(self) -> tuple[Job, Path]: ...


@dataclass(frozen=True)
class Planned:
    """One cell to be. ``reason``: why it is n/a, None when it can be done."""

    cell: Cell
    key: str
    reason: str | None

    @property
    def name(self) -> str:
        return folder_name(self.key, self.cell)


@dataclass
class Serial:
    """Runs jobs one at a time as child processes."""

    work: Path
    splits: bool = False
    queue: list[Job] = field(default_factory=list)

    def submit(self, job: Job) -> None:
        self.queue.append(job)

    def next(self) -> tuple[Job, Path]:
        job = self.queue.pop(0)
        return job, perform(job, self.work / job.name)


@dataclass
class Queue:
    """One run's state: what waits for what."""

    folder: Path
    matrix: Matrix
    sources: Sources
    versions: dict[str, str]
    harness: Path | None
    store: Path | None
    say: Say
    check: Callable[[], None]
    waiting: dict[str, list[str]] = field(default_factory=dict)  # name of a job -> jobs it needs
    jobs: dict[str, Job] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)
    results: dict[str, Result] = field(default_factory=dict)
    total: int = 0  # cells
    last: float = field(default_factory=time.monotonic)  # when a job ended, of cells or shared
    pace: Pace = field(default_factory=Pace)

    def do(self, todo: Sequence[Planned], pool: Pool) -> dict[str, Result]:
        """Results by key. Raises OutputError when the disk is full, and what the pool raises."""
        self.total = len(todo)
        for item in todo:
            if item.reason is None:
                self._enlist(item, pool.splits)
            else:
                job = self._job(item)
                self._settle(job, self._write(job, result_of(job, "n/a", item.reason)))
        while self.waiting:
            self.check()
            ready = [n for n, needs in self.waiting.items() if not needs and n not in self.started]
            for name in sorted(ready, key=lambda n: self.jobs[n].kind not in ("solve", "stage")):
                self.started.add(name)
                pool.submit(self.jobs[name])
            job, out = pool.next()
            self.check()
            self._finished(job, out)
        return self.results

    def _enlist(self, item: Planned, splits: bool) -> None:
        """A cell's job and those that it needs first."""
        recipe, name = recipe_of(item.cell), decoder_name(item.cell)
        job, needs = self._job(item), []
        digest, calibration = job.weights_digest, self.sources.inputs.calibration(name)
        solving = solve_key(item.cell, digest, calibration, self.versions)
        if solving is not None:
            inputs = self._tensors(name, CALIBRATION)
            needs += self._share("solved", SOLVED, replace(
                job, kind="solve", key=solving, inputs=inputs), job)  # fmt: skip
        for stage, made in recipe.stages().items():
            if made is None:
                continue
            size = f"{made.sizes[0].height}x{made.sizes[0].width}"
            inputs = self._tensors(name, size)
            seen = self.sources.inputs.digest(name, size)
            key = stage_key(made, digest, seen, self.versions)
            needs += self._share(f"stage:{stage}", STAGE, replace(
                job, kind="stage", key=key, recipe=made.to_dict(), inputs=inputs), job)  # fmt: skip
        split = splits and bool(self.matrix.settings.measure_needs)
        self.jobs[job.name] = replace(job, measured=not split)
        self.waiting[job.name] = needs

    def _share(self, role: str, file: str, job: Job, reader: Job) -> list[str]:
        """Where a shared result is, or will be, for ``reader``; the job to wait for, if any."""
        kept_at = self.folder / SHARED / f"{job.key}{Path(file).suffix}"
        reader.files[role] = str(kept_at.absolute())
        if kept_at.exists():
            return []
        if job.name not in self.jobs:
            self.jobs[job.name] = replace(job, files=self._files(job))
            self.waiting[job.name] = []
        return [job.name]

    def _job(self, item: Planned) -> Job:
        name = decoder_name(item.cell)
        inputs: dict[str, Tensor] = {}
        for size in item.cell.sizes.split(","):
            inputs |= self._tensors(name, size)
        job = Job(
            kind="cell",
            key=item.key,
            cell=item.cell,
            recipe={} if item.reason else recipe_of(item.cell).to_dict(),
            settings=self.matrix.settings,
            thresholds=self.matrix.thresholds,
            weights_digest=self.sources.decoders[name].digest,
            inputs_digest=self.sources.inputs.digest(name, item.cell.sizes),
            versions=self.versions,
            inputs=inputs,
            files={},
        )
        return job if item.reason else replace(job, files=self._files(job))

    def _tensors(self, decoder: str, group: str) -> dict[str, Tensor]:
        inputs = self.sources.inputs
        return {name: inputs.tensors[name] for name in inputs.names(decoder, group)}

    def _files(self, job: Job) -> dict[str, str]:
        weights = self.sources.weights_file(decoder_name(job.cell), self.folder / WORK)
        files: dict[str, Path | None] = {
            "weights": weights,
            "latents": self.folder / "inputs" / LATENTS,
        }
        files |= {"harness": self.harness, "store": self.store}
        return {role: str(path.absolute()) for role, path in files.items() if path is not None}

    def _finished(self, job: Job, out: Path) -> None:
        del self.waiting[job.name]
        now = time.monotonic()
        self.pace.add(now - self.last)
        self.last = now
        if job.kind in ("solve", "stage"):
            self._store(job, out)
        elif job.kind == "cell" and not job.measured and verify_delivery(job, out).status == "done":
            later = replace(
                job, kind="measure", measured=True, files={**job.files, "made": str(out)}
            )
            self.jobs[job.name], self.waiting[job.name] = later, []
            self.started.discard(job.name)
            return
        else:
            self._settle(job, commit_cell(self.folder, job, out))
        for done in (out, Path(job.files.get("made", out))):
            shutil.rmtree(done.parent, ignore_errors=True)

    def _store(self, job: Job, out: Path) -> None:
        """Keep what several cells need; without it they fail for the same reason."""
        failure = out / FAILED
        if failure.exists():
            what = "compression" if job.kind == "solve" else "the error budget"
            reason = f"{what}: {read_text(failure)}"
            for name in [n for n, needs in self.waiting.items() if job.name in needs]:
                del self.waiting[name]
                reader = self.jobs[name]
                self._settle(reader, self._write(reader, result_of(reader, "failed", reason)))
            return
        source = out / (SOLVED if job.kind == "solve" else STAGE)
        target = self.folder / SHARED / f"{job.key}{source.suffix}"
        target.parent.mkdir(exist_ok=True)
        source.replace(target)
        for needs in self.waiting.values():
            if job.name in needs:
                needs.remove(job.name)
        self.say(f"{_title(job)}: done ({self._left()})")

    def _write(self, job: Job, result: Result) -> Result:
        """A cell's folder without any process: n/a, or failed with what it needs."""
        out = self.folder / WORK / job.name / OUT
        out.mkdir(parents=True)
        (out / LOG).write_text(f"{result.status}: {result.reason}\n", encoding="utf-8")
        write_cell(out, result)
        return commit_cell(self.folder, job, out)

    def _settle(self, job: Job, result: Result) -> None:
        self.results[result.key] = result
        count = len(self.results)
        outcome = result.reason or f"{result.verdict}, {_decibels(result)}"
        label = f"{count}/{self.total} {job.cell.label()}"
        self.say(f"{label}: {result.status} ({outcome}; {self._left()})")

    def _left(self) -> str:
        return self.pace.left("" for _ in self.waiting)


def _title(job: Job) -> str:
    """A shared job, for people."""
    if job.kind == "solve":
        return f"compressing {job.cell.variant} as {job.cell.compression} for {job.cell.precision}"
    return f"error budget of {job.cell.variant} {job.recipe['layout']} {job.recipe['precision']}"


def _decibels(result: Result) -> str:
    worst = worst_psnr(result)
    return "no finite PSNR" if worst is None else f"worst {worst:.1f} dB"
