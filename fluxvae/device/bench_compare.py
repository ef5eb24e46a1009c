"""Two benchmark records side by side: faster, slower, or not distinguishable.

The samples of the test are the medians of the runs. Rule: a two-sided Mann-Whitney U test
(scipy; exact where there are no ties) at 5 %. It asks only that runs are exchangeable, not for a
normal distribution. Fewer than 4 runs on each side can never reach 5 % (3 against 3 gives 10 % at
best), so then nothing is distinguishable, and it says so. The ratio of the medians comes with a
95 % bootstrap interval (percentile, 9999 resamples of the runs, seeded), for its size: a
difference can be certain and too small to matter.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import comb
from typing import Literal

import numpy as np
from scipy import stats

from fluxvae.device.bench import Driver, Process, Record, groups
from fluxvae.errors import BenchError
from fluxvae.records.harness import FirstCalls, Units

ALPHA = 0.05
RESAMPLES = 9999
Verdict = Literal["faster", "slower", "not distinguishable"]


@dataclass(frozen=True)
class Comparison:
    """B against A for one driver and set of compute units; medians of run medians, milliseconds.

    ``ratio`` is ``b / a``: below 1, B is faster. ``low`` and ``high`` bound it at 95 %; None for
    fewer than two runs. ``verdict`` is about B. ``first_calls_a`` and ``first_calls_b`` are as in
    ``bench.Summary``, shown and not judged; None for runs that are not of a record.
    """

    driver: Driver
    compute_units: Units
    a: float
    b: float
    runs_a: int
    runs_b: int
    ratio: float
    low: float | None
    high: float | None
    p_value: float
    verdict: Verdict
    note: str | None
    first_calls_a: FirstCalls | None = None
    first_calls_b: FirstCalls | None = None


@dataclass(frozen=True)
class Comparisons:
    """Every pair that both records have, and what else differs between the two."""

    rows: tuple[Comparison, ...]
    notes: tuple[str, ...]


def compare_records(a: Record, b: Record) -> Comparisons:
    """Compare what both records measured. Raises BenchError when they have nothing in common."""
    first, second = groups(a.processes), groups(b.processes)
    common = [key for key in first if key in second]
    if not common:
        raise BenchError(
            "the two records measured nothing in common: "
            f"{_names(first)} in the first, {_names(second)} in the second"
        )
    calls = [{(s.driver, s.compute_units): s.first_calls for s in r.summaries} for r in (a, b)]
    rows = tuple(
        replace(
            compare_runs(*key, _medians(first[key]), _medians(second[key])),
            first_calls_a=calls[0][key],
            first_calls_b=calls[1][key],
        )
        for key in common
    )
    return Comparisons(rows, tuple(_differences(a, b)))


def compare_runs(
    driver: Driver, units: Units, a: np.ndarray, b: np.ndarray, *, resamples: int = RESAMPLES
) -> Comparison:
    """The rule itself, on the runs' medians of both sides."""
    ratio = float(np.median(b) / np.median(a))
    p_value = float(stats.mannwhitneyu(a, b, alternative="two-sided").pvalue)
    interval = _interval(a, b, resamples)
    best = 2 / comb(a.size + b.size, a.size)  # the least p that so few runs can give
    note = None
    if best >= ALPHA:
        note = f"{a.size} and {b.size} runs cannot show anything at 5 %: take --runs 4 or more"
    verdict: Verdict = "not distinguishable"
    if p_value < ALPHA and ratio != 1:
        verdict = "faster" if ratio < 1 else "slower"
    return Comparison(
        driver=driver,
        compute_units=units,
        a=float(np.median(a)),
        b=float(np.median(b)),
        runs_a=a.size,
        runs_b=b.size,
        ratio=ratio,
        low=None if interval is None else interval[0],
        high=None if interval is None else interval[1],
        p_value=p_value,
        verdict=verdict,
        note=note,
    )


def _interval(a: np.ndarray, b: np.ndarray, resamples: int) -> tuple[float, float] | None:
    if min(a.size, b.size) < 2:
        return None

    def ratio(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        quotient: np.ndarray = np.median(y, axis=axis) / np.median(x, axis=axis)
        return quotient

    found = stats.bootstrap(
        (a, b),
        ratio,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.Generator(np.random.PCG64(0)),
    ).confidence_interval
    return float(found.low), float(found.high)


def _medians(members: list[Process]) -> np.ndarray:
    return np.array([p.run.latency.median for p in members], np.float64)


def _names(found: dict[tuple[Driver, Units], list[Process]]) -> str:
    return ", ".join(f"{driver} {units}" for driver, units in found)


def _differences(a: Record, b: Record) -> Iterator[str]:
    """What a reader must know before believing that the model makes the difference."""
    first, second = a.processes[0].environment, b.processes[0].environment
    for what in ("backend", "chip", "os_version", "os_build", "arch", "cores", "memory_bytes"):
        x, y = getattr(first, what), getattr(second, what)
        if x != y:
            yield f"The hosts differ in {what}: {x} and {y}."
    for what in ("iterations", "warmup", "idle_s", "cooldown_s", "function", "size"):
        x, y = getattr(a.settings, what), getattr(b.settings, what)
        if x != y:
            yield f"The settings differ in {what}: {x} and {y}."
    if a.fluxvae != b.fluxvae:
        yield f"Measured by different versions of fluxvae: {a.fluxvae} and {b.fluxvae}."
    for name, record in (("first", a), ("second", b)):
        for f in record.failures:
            yield f"{f.driver} {f.compute_units} failed in the {name} record: {f.failure}"
        flagged = [f"run {n} ({s.driver}, {s.compute_units})"
                   for s in record.summaries for n in s.outliers]  # fmt: skip
        if flagged:
            yield f"Outlier runs in the {name} record, kept: {', '.join(flagged)}."
