"""What the charts of a matrix show: which cells, which front, and why something is left out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from fluxvae.report.figures import pareto
from fluxvae.report.matrix.figures import Group, Item, short_value, values_of

MOST_COLOURS, MOST_MARKS = 8, 6
MOST_POINTS = 400  # in a chart; more are a smear, and slow to draw
_MEGA = 1e6


@dataclass(frozen=True)
class Measure:
    """A figure of a cell: its axis in words, which way is better, and why there may be none."""

    words: str
    axis: str
    better: str  # "lower" or "higher"
    value: Callable[[Item], float | None]
    reason: str


@dataclass(frozen=True)
class Chart:
    """Two measures; ``x`` is one of which less is better."""

    id: str
    title: str
    x: Measure
    y: Measure


@dataclass(frozen=True)
class Point:
    """A cell in a chart; ``low`` and ``high`` bound its x where that has a spread."""

    item: Item
    x: float
    y: float
    low: float
    high: float
    front: bool


@dataclass(frozen=True)
class Look:
    """Which axis of a group is shown by colours, and which axes together by marks."""

    colour_axis: str | None
    colours: tuple[str, ...]
    mark_axes: tuple[str, ...]
    marks: tuple[tuple[str, ...], ...]

    def colour(self, item: Item) -> int:
        """A number below ``MOST_COLOURS``."""
        if self.colour_axis is None:
            return 0
        return self.colours.index(getattr(item.cell, self.colour_axis))

    def mark(self, item: Item) -> int:
        """A number below ``MOST_MARKS``."""
        return self.marks.index(tuple(getattr(item.cell, a) for a in self.mark_axes))

    @property
    def mark_names(self) -> tuple[str, ...]:
        return tuple(" ".join(map(short_value, values)) for values in self.marks)


LATENCY = Measure(
    "latency", "latency, ms (lower is better)", "lower", lambda i: i.row.latency_ms,
    "no cell here has a latency: none was measured",
)  # fmt: skip
ERROR = Measure(
    "error", "worst PSNR, dB (higher is better)", "higher", lambda i: i.quality,
    "no cell here has an error: nothing was compared with the float32 decoder",
)  # fmt: skip
BYTES = Measure(
    "bytes", "artifact, MB (lower is better)", "lower",
    lambda i: None if i.row.bytes is None else i.row.bytes / _MEGA,
    "no cell here has an artifact",
)  # fmt: skip
ENERGY = Measure(
    "energy", "energy, mJ per decode (lower is better)", "lower", lambda i: i.row.energy_mj,
    "no cell here has its energy: that is measured on macOS alone, with administrator rights "
    "(ask fluxvae power probe)",
)  # fmt: skip
CHARTS = (
    Chart("latency-error", "Latency against error", LATENCY, ERROR),
    Chart("latency-bytes", "Latency against bytes", LATENCY, BYTES),
    Chart("error-bytes", "Error against bytes", BYTES, ERROR),
    Chart("energy-latency", "Energy against latency", LATENCY, ENERGY),
)


def points(group: Group, chart: Chart) -> tuple[Point, ...]:
    """Cells that have both figures, with the front among them."""
    found = [
        (item, x, y)
        for item in group.items
        if (x := chart.x.value(item)) is not None and (y := chart.y.value(item)) is not None
    ]
    sign = 1 if chart.y.better == "higher" else -1
    front = pareto((x, sign * y) for _, x, y in found)
    return tuple(
        Point(item, x, y, *_bounds(chart, item, x), on)
        for (item, x, y), on in zip(found, front, strict=True)
    )


def missing_words(group: Group, chart: Chart, shown: Sequence[Point]) -> str:
    """Why the chart, or cells of it, are left out; empty when nothing is."""
    count = len(group.items)
    for measure in (chart.y, chart.x):
        if all(measure.value(item) is None for item in group.items):
            return f"Left out: {measure.reason}."
    if not shown:
        return f"Left out: no cell has both {chart.x.words} and {chart.y.words}."
    lacking, crowd = count - len(shown), len(shown) - len(drawn(shown))
    words = []
    if lacking:
        words.append(f"{lacking} of {count} cells are not drawn: they have no {chart.x.words} or "
                     f"no {chart.y.words}.")  # fmt: skip
    if crowd:
        words.append(f"{crowd} of {count} cells, none on the front, are left out for room.")
    return " ".join(words)


def drawn(shown: Sequence[Point]) -> tuple[Point, ...]:
    """At most ``MOST_POINTS``: those on the front before others."""
    kept = sorted(shown, key=lambda p: not p.front)[:MOST_POINTS]
    return tuple(kept) if len(kept) < len(shown) else tuple(shown)


def front_names(group: Group, chart: Chart) -> list[str]:
    """Cells on the front, the cheapest first."""
    on = sorted((p for p in points(group, chart) if p.front), key=lambda p: (p.x, p.y))
    return [group.name(p.item) for p in on]


def look(group: Group) -> Look:
    """The axis with the most values gets the colours, the others the marks, as far as they go."""
    counts = {axis: len(values_of(group.items, axis)) for axis in group.axes}
    fit = sorted((a for a in counts if counts[a] <= MOST_COLOURS), key=lambda a: -counts[a])
    colour = fit[0] if fit else None
    marked: list[str] = []
    for axis in fit[1:]:
        if math.prod(counts[a] for a in [*marked, axis]) <= MOST_MARKS:
            marked.append(axis)
    marks = tuple(product(*(values_of(group.items, a) for a in marked)))
    return Look(
        colour, values_of(group.items, colour) if colour else (), tuple(marked), marks or ((),)
    )


def _bounds(chart: Chart, item: Item, x: float) -> tuple[float, float]:
    low, high = item.row.latency_p10_ms, item.row.latency_p90_ms
    return (x, x) if chart.x is not LATENCY or low is None or high is None else (low, high)
