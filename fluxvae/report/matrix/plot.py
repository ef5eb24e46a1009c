"""The charts of a matrix as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fluxvae.report import drawing as draw
from fluxvae.report.figures import shorten
from fluxvae.report.matrix.charts import Chart, Look, Point, drawn, look, points
from fluxvae.report.matrix.figures import Group, Item

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Colours and marks of the values of axes; the page has other shades of them in the dark.
COLOURS = ("#1a5fb4", "#b35900", "#1d7a4c", "#a8297a", "#6b3fc4", "#00798f", "#7d5a1e", "#c4242f")
MARKS = ("o", "s", "^", "D", "v", "P")
PAPER = "#ffffff"
MOST_ROWS = 60  # cells in the chart of runs
_DECADE = 20  # beyond this ratio an axis is logarithmic
_ROW = 0.2  # inches


def chart_svg(group: Group, chart: Chart, *, narrow: bool = False) -> str:
    """A chart of the group's cells as an SVG document; ``narrow``: for a phone.

    The same cells give the same text. Each point is a group whose id ends in the item's index.
    """
    import matplotlib as mpl

    kind = "n" if narrow else "w"
    with mpl.rc_context(draw.SETTINGS | {"svg.hashsalt": f"{group.title} {chart.id} {kind}"}):
        drawing = draw.new_drawing((3.4, 3.5) if narrow else (5.6, 4.1))
        axes = drawing.subplots()
        shown = drawn(points(group, chart))
        top = draw.ceiling([p.y for p in shown])
        _scatter(axes, shown, chart, look(group), top, f"{kind}{chart.id}", narrow)
        drawing.draw_without_rendering()  # the layout settles before labels look for room
        _labels(axes, group, shown, top, narrow)
        drawing.set_layout_engine("none")
        return draw.svg_text(drawing, chart.title)


def measured(group: Group) -> tuple[Item, ...]:
    """Cells with a latency, the fastest first."""
    found = [i for i in group.items if i.row.latency_ms is not None]
    return tuple(sorted(found, key=lambda i: (i.row.latency_ms or 0.0, i.row.label)))


def runs_svg(group: Group, *, narrow: bool = False) -> str:
    """Every run of the fastest ``MOST_ROWS`` cells as a dot, on a bar from p10 to p90."""
    import matplotlib as mpl

    kind, shown, style = "n" if narrow else "w", measured(group)[:MOST_ROWS], look(group)
    with mpl.rc_context(draw.SETTINGS | {"svg.hashsalt": f"{group.title} runs {kind}"}):
        drawing = draw.new_drawing((3.4 if narrow else 8.6, 0.7 + _ROW * len(shown)))
        axes = drawing.subplots()
        for line, item in enumerate(shown):
            _runs(axes, line, item, COLOURS[style.colour(item)], f"{kind}runs-{item.index}")
        names = [shorten(group.name(item), 22 if narrow else 40) for item in shown]
        axes.set_yticks(range(len(shown)), names, fontsize=8.5 if narrow else 9, parse_math=False)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        draw.pale_grid(axes)
        _scale(axes.set_xscale, axes.xaxis, [ms for i in shown for ms in i.row.runs_ms], narrow)
        axes.set_xlabel("median latency of a run, ms")
        return draw.svg_text(drawing, "Every run of every cell")


def _runs(axes: Axes, line: int, item: Item, colour: str, gid: str) -> None:
    row = item.row
    p10, middle, p90 = np.percentile(row.runs_ms, (10, 50, 90))
    axes.plot([p10, p90], [line, line], color=colour, linewidth=5, alpha=0.3,
              solid_capstyle="butt")  # fmt: skip
    axes.plot(middle, line, "|", color=draw.INK, markersize=9, markeredgewidth=1.6, gid=gid)
    apart = {n - 1 for n in row.outliers}
    usual = [ms for number, ms in enumerate(row.runs_ms) if number not in apart]
    crossed = [row.runs_ms[number] for number in sorted(apart)]
    axes.plot(usual, [line] * len(usual), "o", color=colour, markersize=3.4)
    if crossed:
        axes.plot(crossed, [line] * len(crossed), "x", color=draw.INK, markersize=5.5,
                  markeredgewidth=1.3)  # fmt: skip


def _scatter(
    axes: Axes,
    shown: Sequence[Point],
    chart: Chart,
    style: Look,
    top: float,
    prefix: str,
    narrow: bool,
) -> None:
    axes.set_xlabel(chart.x.axis)
    axes.set_ylabel(chart.y.axis)
    draw.pale_grid(axes)
    front = sorted((p for p in shown if p.front), key=lambda p: p.x)
    draw.front_line(axes, [(p.x, _height(p, top)) for p in front])
    for p in shown:
        y, colour = _height(p, top), COLOURS[style.colour(p.item)]
        if p.low < p.high:
            axes.plot([p.low, p.high], [y, y], color=colour, linewidth=1.2, alpha=0.5)
        if p.item.row.flags:
            axes.plot(p.x, y, "o", markersize=13, markerfacecolor="none", markeredgecolor=draw.INK,
                      markeredgewidth=0.9)  # fmt: skip
        failed = p.item.row.verdict == "fail"
        fill, edge, width = (PAPER, colour, 1.6) if failed else (colour, PAPER, 0.7)
        axes.plot(p.x, y, MARKS[style.mark(p.item)], markersize=6.5, color=fill,
                  markeredgecolor=edge, markeredgewidth=width,
                  gid=f"{prefix}-{p.item.index}")  # fmt: skip
    if any(math.isinf(p.y) for p in shown):
        axes.axhline(top, color=draw.OTHER, linewidth=0.8, linestyle=":")
        axes.annotate("equal images", (0.01, top), (0, 6), fontsize=8.5,
                      xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip
    axes.margins(x=0.1, y=0.14)
    _scale(axes.set_xscale, axes.xaxis, [p.x for p in shown], narrow)
    _scale(axes.set_yscale, axes.yaxis, [_height(p, top) for p in shown], narrow)


def _scale(
    set_scale: Callable[[str], None], axis: Axis, values: Sequence[float], narrow: bool
) -> None:
    """Logarithmic where values differ greatly."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    if min(values) > 0 and max(values) > _DECADE * min(values):
        set_scale("log")
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(4 if narrow else 6))


def _height(point: Point, top: float) -> float:
    return point.y if math.isfinite(point.y) else top


def _labels(axes: Axes, group: Group, shown: Sequence[Point], top: float, narrow: bool) -> None:
    """Names of the cells on the front, as far as there is room; the text below names all."""
    spots = [axes.transData.transform((p.x, _height(p, top))) for p in shown]
    taken = draw.taken_boxes(spots, [p.front for p in shown])
    if any(math.isinf(p.y) for p in shown):
        taken += draw.line_boxes(axes, top, 18)  # of equal images
    order = (*draw.PLACES, *draw.BELOW)
    for point in sorted((p for p in shown if p.front), key=lambda p: p.x):
        name = shorten(group.name(point.item), 26 if narrow else 34)
        draw.place_label(axes, name, (point.x, _height(point, top)), taken, order, points=spots)
