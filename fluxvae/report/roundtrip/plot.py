"""plot.svg: bytes against quality, and the Pareto front."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxvae.records.roundtrip import REFERENCE, Metric
from fluxvae.report import drawing as draw
from fluxvae.report.figures import (
    AGAINST,
    INFINITY,
    Against,
    Report,
    badness,
    pareto,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Point:
    """A variant: megabytes, and the median of the main metric (may be infinite)."""

    label: str
    size: float
    quality: float
    front: bool


def plot_svg(report: Report, *, narrow: bool = False) -> str:
    """The plot as an SVG document: against the fp32 decode, and against the original.

    The same record gives the same text. ``narrow``: one panel above the other, for a phone.
    """
    import matplotlib as mpl

    with mpl.rc_context(draw.SETTINGS):
        inches, grid = ((3.6, 6.4), (2, 1)) if narrow else ((9.6, 3.9), (1, 2))
        drawing = draw.new_drawing(inches)
        axes = drawing.subplots(*grid)
        for panel, against in zip(axes, AGAINST, strict=True):
            _panel(panel, report, against)
        drawing.draw_without_rendering()  # the layout settles before labels look for room
        for panel, against in zip(axes, AGAINST, strict=True):
            _labels(panel, points(report, against), _reference(report, against))
        drawing.set_layout_engine("none")
        return draw.svg_text(drawing, title(report))


def title(report: Report) -> str:
    """What the plot shows, in words."""
    return f"Bytes of weights against {report.main.label if report.main else 'quality'}"


def points(report: Report, against: Against) -> tuple[Point, ...]:
    """Variants that have bytes and a median of the main metric."""
    main = report.main
    found = [] if main is None else [
        (v.label, v.bytes / 1e6, spread.median)
        for v in report.candidates
        if v.bytes is not None and (spread := report.spread(v.label, main, against)) is not None
    ]  # fmt: skip
    front = pareto([(size, -badness(q, main)) for _, size, q in found]) if main else []
    return tuple(Point(*values, on) for values, on in zip(found, front, strict=True))


def _panel(axes: Axes, report: Report, against: Against) -> None:
    axes.set_title(f"Against {AGAINST[against]}", loc="left", fontsize=11)
    axes.set_xlabel("weights, MB")
    main, shown = report.main, points(report, against)
    if main is None or not shown:
        axes.text(0.5, 0.5, "no figures", ha="center", va="center", transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    axes.set_ylabel(_axis_name(main), parse_math=False)
    draw.pale_grid(axes)
    finite = [p.quality for p in shown if math.isfinite(p.quality)]
    top = draw.ceiling(finite)
    front = sorted((p for p in shown if p.front), key=lambda p: p.size)
    draw.front_line(axes, [(p.size, _height(p, top)) for p in front])
    for p in shown:
        colour = draw.FRONT if p.front else draw.OTHER
        axes.plot(p.size, _height(p, top), "o", markersize=7, color=colour,
                  markeredgecolor="white", markeredgewidth=0.8)  # fmt: skip
    if len(finite) < len(shown):
        axes.axhline(top, color=draw.OTHER, linewidth=0.8, linestyle=":")
    axes.margins(x=0.16, y=0.16)
    axes.set_xlim(left=0)
    if main.better == "lower":
        axes.invert_yaxis()  # better is up, as in the text
    reference = _reference(report, against)
    if reference is not None:
        axes.axhline(reference, color=draw.OTHER, linewidth=1, linestyle="--")
        axes.annotate("fp32 decode", (0.01, reference), (0, 3), fontsize=8.5, color=draw.INK,
                      xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip


def _reference(report: Report, against: Against) -> float | None:
    """What the fp32 decode itself reaches, where that can be drawn."""
    spread = None if report.main is None else report.spread(REFERENCE, report.main, against)
    return spread.median if spread is not None and math.isfinite(spread.median) else None


def _axis_name(metric: Metric) -> str:
    unit = f", {metric.unit}" if metric.unit else ""
    way = "" if metric.better == "higher" else " (lower is better)"
    return shorten(f"median {metric.label}{unit}{way}", 48)


def _height(point: Point, top: float) -> float:
    return point.quality if math.isfinite(point.quality) else top


def _labels(axes: Axes, shown: tuple[Point, ...], reference: float | None) -> None:
    """Names beside their points, none over another, a point or a line where there is room."""
    top = draw.ceiling([p.quality for p in shown])
    spots = [axes.transData.transform((p.size, _height(p, top))) for p in shown]
    taken = draw.taken_boxes(spots, [p.front for p in shown])
    if reference is not None:
        taken += draw.line_boxes(axes, reference, 14)
    for point in sorted(shown, key=lambda p: (not p.front, p.size)):
        name = shorten(point.label, 22) + ("" if math.isfinite(point.quality) else f" ({INFINITY})")
        order = draw.PLACES if point.front else draw.BELOW
        draw.place_label(axes, name, (point.size, _height(point, top)), taken, order)
