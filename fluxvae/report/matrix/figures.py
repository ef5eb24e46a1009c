"""A matrix as its pages need it: cells ranked, grouped, named shortly and put into words."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fluxvae.errors import MatrixError
from fluxvae.records.experiment import AXES, NONE, Cell, Host, Result, Row, Summary, read_results
from fluxvae.records.summary import judged, summarize
from fluxvae.report.figures import DASH, INFINITY, MISSING, size_words

# Worst first. A cell is in the first state that holds for it.
STATES = {
    "failed": "failed",
    "fail": "limits not met",
    "flagged": "flagged",
    "pass": "pass",
    "unjudged": "not judged",
    "n/a": "n/a",
}
_TASK = ("variant", "decoder", "sizes")  # cells of different tasks have no front in common
_SHORT = {"float16": "fp16", "float32": "fp32"}


@dataclass(frozen=True)
class Item:
    """One cell: its result, its line of the summary, and its index in ``Matrix.items``."""

    result: Result
    row: Row
    index: int

    @property
    def cell(self) -> Cell:
        return self.result.cell

    @cached_property
    def quality(self) -> float | None:
        """The worst photo's PSNR in dB; infinite when all images are equal, None when unknown."""
        errors = judged(self.result)
        if self.row.psnr_db is not None or not errors:
            return self.row.psnr_db
        return math.inf if all(e.max_abs == 0 for e in errors) else None

    @property
    def state(self) -> str:
        """One of ``STATES``."""
        row = self.row
        if row.status != "done":
            return row.status
        if row.verdict == "fail":
            return "fail"
        if row.flags:
            return "flagged"
        return "pass" if row.verdict == "pass" else "unjudged"

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """Why one should look at it: the reason, failed limits, crossed thresholds, outliers."""
        row, found = self.row, []
        if row.reason is not None:
            found.append(row.reason)
        found += [
            f"{e.input}: limit not met ({e.limit})" for e in self.result.errors if not e.passed
        ]
        if self.quality is None and self.result.errors:
            found.append("the image is not finite")
        found += row.flags
        found += [f"outlier: run {n} took {significant(row.runs_ms[n - 1])} ms"
                  for n in row.outliers]  # fmt: skip
        return tuple(found)


@dataclass(frozen=True)
class Group:
    """Cells that can be compared: of one decoder and size, measured on one host."""

    items: tuple[Item, ...]
    title: str

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """In what its cells differ."""
        return varying(i.cell for i in self.items)

    def name(self, item: Item) -> str:
        """The item's values of those axes."""
        return short_name(item.cell, self.axes)


@dataclass(frozen=True)
class Matrix:
    """All results of a run folder, and the summary that follows from them."""

    results: tuple[Result, ...]
    summary: Summary

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """Worst first: by state, then by error; cells that cannot be done last."""
        pairs = zip(self.results, self.summary.rows, strict=True)
        found = sorted((Item(result, row, 0) for result, row in pairs), key=_rank)
        return tuple(Item(item.result, item.row, n) for n, item in enumerate(found))

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """In what the cells differ."""
        return varying(r.cell for r in self.results)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Cells that were done, by what can be compared."""
        sorted_items = sorted(self.items, key=lambda i: i.row.label)
        done = [i for i in sorted_items if i.row.status == "done"]
        hosts = len({i.result.host for i in done}) > 1
        keys = dict.fromkeys(_group_key(i) for i in done)
        return tuple(
            Group(tuple(i for i in done if _group_key(i) == key), _group_title(*key, hosts))
            for key in keys
        )

    @cached_property
    def counts(self) -> dict[str, int]:
        """Cells by state, those that there are."""
        states = [i.state for i in self.items]
        return {state: states.count(state) for state in STATES if state in states}

    @property
    def not_done(self) -> tuple[Item, ...]:
        """Cells that have a reason instead of figures."""
        return tuple(i for i in self.items if i.row.status != "done")

    def item(self, key: str) -> Item:
        return next(i for i in self.items if i.row.key == key)


def read_matrix(folder: Path) -> Matrix:
    """The results in ``folder``. Raises MatrixError when one is damaged, or there is none."""
    results = read_results(folder)
    if not results:
        raise MatrixError(
            f"{folder} has no result of a cell: run `fluxvae matrix run MATRIX --out {folder}`"
        )
    return Matrix(results, summarize(results))


def varying(cells: Iterable[Cell]) -> tuple[str, ...]:
    """Axes in which the cells do not all have the same value."""
    listed = list(cells)
    return tuple(a for a in AXES if len({getattr(c, a) for c in listed}) > 1)


def values_of(items: Sequence[Item], axis: str) -> tuple[str, ...]:
    """The values of an axis in order; ``none`` first."""
    return tuple(sorted({getattr(i.cell, axis) for i in items}, key=lambda v: (v != NONE, v)))


def short_name(cell: Cell, axes: Iterable[str]) -> str:
    """The values of the axes, ``nchw fp16 pal4``; the cell's label when there are none."""
    return " ".join(short_value(getattr(cell, axis)) for axis in axes) or cell.label()


def short_value(value: str) -> str:
    """``float16`` as ``fp16``; others as they are."""
    return _SHORT.get(value, value)


def decoder_name(cell: Cell) -> str:
    """The variant, and the kind of decoder where that is not the tiny one."""
    return cell.variant if cell.decoder == "tiny" else f"{cell.variant}-{cell.decoder}"


def counts_words(matrix: Matrix) -> str:
    """``21 pass, 1 failed, ...``."""
    return ", ".join(f"{count} {STATES[state]}" for state, count in matrix.counts.items())


def significant(value: float | None, digits: int = 3) -> str:
    """A figure to ``digits`` digits, never fewer than those before the point: 0.0123, 12.3, 1234"""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return INFINITY if value > 0 else f"-{INFINITY}"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 9)}f}"


def decibels(value: float | None) -> str:
    """Two decimals."""
    if value is None or math.isinf(value):
        return significant(value)
    return f"{value:.2f}"


def interval(row: Row) -> str:
    """The 10th to 90th percentile of the runs' medians in ms."""
    return f"{significant(row.latency_p10_ms)}{DASH}{significant(row.latency_p90_ms)}"


def signed(value: float | None, words: str) -> str:
    """``words`` of the absolute value behind its sign."""
    if value is None:
        return MISSING
    return f"{'+' if value > 0 else '-' if value < 0 else '±'}{words}"


def signed_bytes(value: float | None) -> str:
    return signed(value, size_words(int(abs(value or 0))))


def signed_ms(value: float | None) -> str:
    return signed(value, significant(abs(value or 0)))


def signed_db(value: float | None) -> str:
    return signed(value, decibels(abs(value or 0)))


def within_spread(row: Row, base: Row) -> bool:
    """Whether two latencies are not distinguishable: their p10 to p90 overlap."""
    bounds = (row.latency_p10_ms, row.latency_p90_ms, base.latency_p10_ms, base.latency_p90_ms)
    low, high, base_low, base_high = bounds
    if low is None or high is None or base_low is None or base_high is None:
        return False
    return low <= base_high and base_low <= high


def host_words(host: Host) -> str:
    """One line on a host."""
    system = f"{host.system} {host.release}" + (f" ({host.build})" if host.build else "")
    memory = f"{size_words(host.memory)} of memory" if host.memory else None
    parts = (system, host.arch, host.chip, memory, f"Python {host.python}")
    return ", ".join(part for part in parts if part)


def _rank(item: Item) -> tuple[int, float, str, str]:
    quality = -math.inf if item.quality is None else item.quality
    return list(STATES).index(item.state), quality, item.row.label, item.row.key


def _group_key(item: Item) -> tuple[tuple[str, ...], Host]:
    return tuple(getattr(item.cell, a) for a in _TASK), item.result.host


def _group_title(task: tuple[str, ...], host: Host, hosts: bool) -> str:
    variant, decoder, sizes = task
    return f"{decoder_name(Cell(variant, decoder))} at {sizes}" + (
        f", {host.system} on {host.chip or host.arch}" if hosts else ""
    )
