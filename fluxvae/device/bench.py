"""Benchmarks of one artifact: fresh processes, every sample kept, and the statistics they allow.

A run is one process: load, first calls, N timed predictions, and after a pause first calls again.
Samples of one process are correlated (memory layout, caches, thermal state), so
the unit of every statistic here is the run, represented by its median, and never the single
prediction. First calls are a figure of their own: a Neural Engine that rested for more than 5 s
takes about 260 ms to wake, with a ramp of some three calls (arXiv 2606.22283).

Percentiles are numpy's default (linear). An outlier run is flagged and stays in every figure.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from fluxvae import __version__, schema
from fluxvae.device.harness import Harness, run_harness
from fluxvae.errors import ArtifactError, BenchError, ToolError, UsageError
from fluxvae.records.harness import (
    UNITS,
    Environment,
    FirstCalls,
    HarnessReport,
    Input,
    Latency,
    Run,
    Units,
)
from fluxvae.records.statistics import LEAST_FOR_OUTLIERS, outliers, percentile
from fluxvae.schema import load

Driver = Literal["swift", "python"]
Start = Callable[[Driver, Units], HarnessReport]
FIRST_CALLS = 3  # that are kept apart, at least: as many as the ramp has


@dataclass(frozen=True)
class Settings:
    """What was asked for. ``cooldown_s``: seconds of rest between two processes.

    ``warmup``: predictions before the samples, of which there are ``FIRST_CALLS`` in any case.
    ``idle_s``: pause before the first calls after it; None for what the compute units need.
    """

    iterations: int = 200
    warmup: int = FIRST_CALLS
    idle_s: float | None = None
    runs: int = 7
    cooldown_s: float = 0.0
    drivers: tuple[Driver, ...] = ("swift",)
    compute_units: tuple[Units, ...] = ("all",)
    function: str | None = None
    size: str | None = None
    io: str | None = None
    strict_host: bool = False

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.runs < 1 or self.warmup < 0 or self.cooldown_s < 0:
            raise UsageError(
                "a benchmark needs --iterations and --runs of 1 or more, and a --warmup and "
                "--cooldown that are not negative"
            )
        if not 0 <= (self.idle_s or 0) <= 3600:
            raise UsageError(f"--idle is {self.idle_s}, expected 0 to 3600 seconds")
        if self.strict_host and self.drivers != ("swift",):
            raise UsageError("--strict-host is judged by the Swift harness: use --driver swift")


@dataclass(frozen=True)
class Process:
    """One run: one fresh process on one set of compute units. ``number`` counts rounds from 1."""

    number: int
    driver: Driver
    environment: Environment
    input: Input | None
    run: Run
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """A run that gave no result, in one sentence; its driver and compute units had no later one."""

    number: int
    driver: Driver
    compute_units: Units
    failure: str


@dataclass(frozen=True)
class Summary:
    """Over the runs of one driver and set of compute units; milliseconds.

    ``median``, ``p10`` and ``p90`` are of the runs' medians. ``outliers``: numbers of the runs
    that are outliers; they are in the figures all the same. ``first_calls``: the first
    ``FIRST_CALLS`` of each kind, each the median over the runs. ``peak_memory_bytes``: the largest
    of all runs, None when unknown.
    """

    driver: Driver
    compute_units: Units
    backend: str
    runs: int
    median: float
    p10: float
    p90: float
    first_load_median: float
    second_load_median: float
    first_calls: FirstCalls
    outliers: tuple[int, ...]
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Model:
    """What was measured: path as given, function, and what the artifact says of itself."""

    path: str
    function: str | None
    metadata: dict[str, str]


@dataclass(frozen=True)
class Record(schema.Record):
    """A whole benchmark, as it is written to a file."""

    header: ClassVar = schema.Header(
        BenchError, "a record of `fluxvae bench --out`", "give such a record, or measure again",
        "fluxvae-bench", version=2, sort_keys=True,
    )  # fmt: skip
    fluxvae: str
    model: Model
    settings: Settings
    processes: tuple[Process, ...]
    summaries: tuple[Summary, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]


def expand_units(text: str) -> tuple[Units, ...]:
    """``each`` to all four sets of compute units, any other name to itself."""
    return tuple(u for u in UNITS if text in ("each", u))


def latency(samples_ms: Sequence[float]) -> Latency:
    """Figures of one run's samples, in the samples' unit. Raises ValueError when there are none."""
    values = np.asarray(samples_ms, np.float64)
    if not values.size:
        raise ValueError("no samples")
    p10, median, p90, p95, p99 = np.percentile(values, [10, 50, 90, 95, 99])
    return Latency(
        count=values.size,
        mean=float(values.mean()),
        stddev=float(values.std(ddof=1)) if values.size > 1 else 0.0,
        median=float(median),
        p10=float(p10),
        p90=float(p90),
        p95=float(p95),
        p99=float(p99),
        min=float(values.min()),
        max=float(values.max()),
    )


def bench(
    start: Start,
    settings: Settings,
    *,
    say: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Record:
    """Run every process and summarise. ``start(driver, units)`` runs one and gives its report.

    Rounds are interleaved: each round runs every driver on every set of compute units once, so
    that a slow drift of the machine meets all of them alike. A driver that fails on a set of
    compute units is not started on it again, and the others go on. Raises UsageError as ``start``
    does, and BenchError with what failed where nothing was measured.
    """
    plan = product(range(1, settings.runs + 1), settings.compute_units, settings.drivers)
    processes: list[Process] = []
    failures: dict[tuple[Driver, Units], Failure] = {}
    model: Model | None = None
    for index, (number, units, driver) in enumerate(plan):
        if (driver, units) in failures:
            continue
        if index and settings.cooldown_s:
            sleep(settings.cooldown_s)
        what = f"run {number} of {settings.runs}, {driver}, {units}"
        try:
            report = start(driver, units)
            process = _process(number, driver, units, report)
        except (ArtifactError, BenchError, ToolError) as error:
            if not processes and len(settings.drivers) * len(settings.compute_units) == 1:
                raise  # no others are there to go on with
            failures[driver, units] = Failure(number, driver, units, str(error))
            say(f"{what}: FAILED: {error}")
            continue
        model = model or Model(report.model.path, report.model.function, report.model.metadata)
        processes.append(process)
        say(f"{what}: median {process.run.latency.median:.3f} ms")
    if model is None:
        raise _nothing(tuple(failures.values()))
    done = tuple(processes)
    return Record(
        fluxvae=__version__,
        model=model,
        settings=settings,
        processes=done,
        summaries=tuple(summarise(done)),
        failures=tuple(failures.values()),
        notes=tuple(_notes(done)),
    )


def _nothing(failures: Sequence[Failure]) -> BenchError:
    """Why nothing was measured: the one reason, or all where they differ."""
    reasons = {f.failure for f in failures}
    if len(reasons) == 1:
        return BenchError(*reasons)
    every = "; ".join(f"{f.driver} {f.compute_units}: {f.failure}" for f in failures)
    return BenchError(f"nothing was measured: {every or 'no driver or no compute units'}")


def start_swift(harness: Harness, model: str, settings: Settings, units: Units) -> HarnessReport:
    """One fresh process of the harness. Raises as ``run_harness``."""
    arguments = ["bench", model, "--compute-units", units]
    arguments += ["--iterations", str(settings.iterations), "--warmup", str(settings.warmup)]
    for option, value in (
        ("--idle", None if settings.idle_s is None else f"{settings.idle_s:g}"),
        ("--function", settings.function),
        ("--size", settings.size),
        ("--io", settings.io),
    ):
        if value is not None:
            arguments += [option, value]
    if settings.strict_host:
        arguments.append("--strict-host")
    return run_harness(harness, arguments)


def _process(number: int, driver: Driver, units: Units, report: HarnessReport) -> Process:
    runs = [run for run in report.runs or () if run.compute_units == units]
    if len(runs) != 1:
        raise BenchError(f"the {driver} driver was to measure {units} once, and gave {len(runs)}")
    return Process(number, driver, report.environment, report.input, runs[0], report.notes)


def groups(
    processes: Sequence[Process],
) -> dict[tuple[Driver, Units], list[Process]]:
    """Runs by driver and compute units, in the order of their first run."""
    found: dict[tuple[Driver, Units], list[Process]] = {}
    for process in processes:
        found.setdefault((process.driver, process.run.compute_units), []).append(process)
    return found


def summarise(processes: Sequence[Process]) -> Iterator[Summary]:
    """One summary for each driver and set of compute units."""
    for (driver, units), members in groups(processes).items():
        medians = [p.run.latency.median for p in members]
        p10, median, p90 = (percentile(medians, q) for q in (10, 50, 90))
        peaks = [p.run.peak_memory_bytes for p in members]
        known = [p for p in peaks if p is not None]
        yield Summary(
            driver=driver,
            compute_units=units,
            backend=members[0].environment.backend,
            runs=len(members),
            median=median,
            p10=p10,
            p90=p90,
            first_load_median=percentile((p.run.load.first_ms for p in members), 50),
            second_load_median=percentile((p.run.load.second_ms for p in members), 50),
            first_calls=_first_calls([p.run.first_calls for p in members]),
            outliers=tuple(members[i].number for i in outliers(medians)),
            peak_memory_bytes=max(known, default=None),
        )


def _first_calls(runs: Sequence[FirstCalls]) -> FirstCalls:
    def medians(calls: Sequence[Sequence[float]]) -> tuple[float, ...]:
        return tuple(percentile(c, 50) for c in zip(*calls, strict=False))[:FIRST_CALLS]

    after_load, after_idle = zip(*((r.after_load_ms, r.after_idle_ms) for r in runs), strict=True)
    return FirstCalls(medians(after_load), runs[0].idle_s, medians(after_idle))


def _notes(processes: Sequence[Process]) -> Iterator[str]:
    if any(p.environment.backend == "reference" for p in processes):
        yield (
            "Measured on fluxvae's reference executor, not on Core ML: these times say nothing "
            "about a Mac."
        )
    fewest = min(len(members) for members in groups(processes).values())
    if fewest < LEAST_FOR_OUTLIERS:
        yield f"Fewer than {LEAST_FOR_OUTLIERS} runs: too few to detect outliers."
    yield from dict.fromkeys(note for p in processes for note in p.notes)


def read_record(path: Path) -> Record:
    """A record of ``save``. Raises BenchError in one sentence.

    The summaries are computed again from the samples: a record whose figures do not follow from
    its own samples is refused.
    """
    record = load(Record, path)
    _check_figures(record, path)
    return record


def _check_figures(record: Record, path: Path) -> None:
    for process in record.processes:
        wanted = asdict(latency(process.run.samples_ms or (0.0,)))
        for name, figure in asdict(process.run.latency).items():
            # Swift sums in another order, which moves float64 in its last digits only
            if not np.isclose(figure, wanted[name], rtol=1e-9, atol=1e-9):
                raise BenchError(
                    f"{path}: run {process.number} says {name} {figure}, but its samples give "
                    f"{wanted[name]}: the file was changed"
                )
    if record.summaries != tuple(summarise(record.processes)):
        raise BenchError(f"{path}: the summaries do not follow from the runs: it was changed")
