"""Doing a matrix: which cells are there already, which are to be done, and the pages after it."""

import fnmatch
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from fluxvae.errors import UsageError
from fluxvae.experiments.file import Matrix
from fluxvae.experiments.folder import (
    MATRIX,
    PAGES,
    WORK,
    archive,
    is_reported,
    kept,
    locked,
    orphans,
    write_digest,
    write_report,
)
from fluxvae.experiments.plan import Abilities, cell_key, decoder_name, reason_not, tool_versions
from fluxvae.experiments.queue import Planned, Pool, Queue, Say, Serial
from fluxvae.experiments.sources import Sources, find_sources
from fluxvae.files import write_text
from fluxvae.records.experiment import CELLS, RESULT, Cell, Result
from fluxvae.records.summary import flags_of
from fluxvae.schema import save

MakePool = Callable[[Path], AbstractContextManager[Pool]]


@dataclass(frozen=True)
class Outcome:
    """A run's end: every cell of the matrix that has a result, and how many were done just now."""

    results: tuple[Result, ...]
    computed: int
    pages: tuple[Path, ...]

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(r.status for r in self.results))


def plan_cells(
    cells: Iterable[Cell], sources: Sources, versions: dict[str, str], abilities: Abilities
) -> list[Planned]:
    """Keys and reasons of all cells. Raises UsageError when two have one key."""
    planned: list[Planned] = []
    for cell in cells:
        name = decoder_name(cell)
        calibration = sources.inputs.calibration(name)
        key = cell_key(
            cell,
            sources.decoders[name].digest,
            sources.inputs.digest(name, cell.sizes),
            calibration,
            versions,
            sources.matrix.settings,
        )
        reason = reason_not(cell, abilities, calibrated=calibration is not None)
        planned.append(Planned(cell, key, reason))
    first = {p.key: p for p in reversed(planned)}
    for item in planned:
        if first[item.key] is not item:
            raise UsageError(
                f"two cells are the same artifact in other words: {first[item.key].cell.label()} "
                f"and {item.cell.label()}; leave one of them out"
            )
    return planned


def choose_cells(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """Those whose label fits one of the patterns (``flux2-*``), all without one. UsageError."""
    if not patterns:
        return list(cells)
    found = [c for c in cells if any(fnmatch.fnmatch(c.label(), p) for p in patterns)]
    if not found:
        raise UsageError(
            f"no cell fits --only {' --only '.join(patterns)}; the first of {len(cells)} is called "
            f"{cells[0].label()}"
        )
    return found


def run_matrix(
    matrix: Matrix,
    folder: Path,
    *,
    abilities: Abilities,
    make_pool: MakePool | None = None,
    harness: Path | None = None,
    store: Path | None = None,
    only: Sequence[str] = (),
    offline: bool = False,
    say: Say = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> Outcome:
    """Do every cell of ``matrix`` that is not done yet, in ``folder``; then write the pages.

    ``make_pool(work)``: who does it, default ``Serial``. ``check`` is called between cells.
    ``store``: folder of solved compressions on this machine.
    Raises MatrixError for a folder of other weights or inputs, OutputError when the disk is full;
    cells that were finished by then are kept.
    """
    chosen = set(choose_cells(matrix.cells, only))
    with locked(folder):
        write_text(folder / MATRIX, matrix.text, overwrite=True)
        sources = find_sources(folder, matrix, offline=offline, say=say)
        versions = tool_versions()
        planned = plan_cells(matrix.cells, sources, versions, abilities)
        results = _finished(folder, planned, matrix, say)
        todo = [p for p in planned if p.key not in results and p.cell in chosen]
        say(f"{len(results)} of {len(planned)} cells are done; to do: {len(todo)}")
        if todo:
            queue = Queue(folder, matrix, sources, versions, harness, store, say, check)
            with (make_pool or _serial)(folder / WORK) as pool:
                results |= queue.do(todo, pool)
        pages = tuple(folder / page for page in PAGES)
        if todo or not is_reported(folder):
            say("writing the pages")
            pages = write_report(folder)
    ordered = tuple(results[p.key] for p in planned if p.key in results)
    return Outcome(ordered, len(todo), pages)


def _finished(
    folder: Path, planned: Sequence[Planned], matrix: Matrix, say: Say
) -> dict[str, Result]:
    """Cells that are done and whole, by key; what is not of this matrix any more is archived."""
    stale = archive(folder, orphans(folder, [p.name for p in planned]))
    if stale:
        say(f"{stale} cells are not of this matrix any more: moved to {folder / 'old'}")
    results = {}
    for item in planned:
        found = kept(folder, item.key, item.cell)
        if found is not None and _is_finished(found, item):
            results[item.key] = _flagged(folder, found, item, matrix)
    return results


def _serial(work: Path) -> AbstractContextManager[Pool]:
    return nullcontext(Serial(work))


def _is_finished(result: Result, item: Planned) -> bool:
    """Failed cells are tried again, as are those whose n/a holds no more, or in other words."""
    if result.status == "n/a":
        return result.reason == item.reason
    return result.status == "done" and item.reason is None


def _flagged(folder: Path, result: Result, item: Planned, matrix: Matrix) -> Result:
    """The result with the flags of today's thresholds, written again where they are others."""
    flags = flags_of(result, matrix.thresholds)
    if flags == result.flags or result.status != "done":
        return result
    changed = replace(result, flags=flags)
    cell_path = folder / CELLS / item.name
    save(changed, cell_path / RESULT)
    write_digest(cell_path)
    return changed
