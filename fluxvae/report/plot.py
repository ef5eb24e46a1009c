"""plot.svg: bytes against quality, and the Pareto front."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fluxvae.report.figures import (
    AGAINST,
    INFINITY,
    Against,
    Report,
    badness,
    pareto,
    shorten,
)
from fluxvae.roundtrip_record import REFERENCE, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, PALE, FRONT, OTHER = "#1c1d20", "#d9dbe0", "#0b57d0", "#767b84"
SETTINGS: Any = {
    "svg.hashsalt": "fluxvae",  # ids of the file, random otherwise
    "svg.fonttype": "none",  # text stays text: selectable, and readable to a screen reader
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# Places of a label around its point, in points: the first that hits nothing is taken. Above and to
# the left of the front there is nothing, so its labels look there first; others below.
PLACES = ((-6, 5), (7, -5), (7, 0), (7, 5), (-7, 0), (-6, -5), (0, 9), (0, -9),
          (-6, 18), (7, -18), (7, 18), (-6, -18), (0, 21), (0, -21))  # fmt: skip
BELOW = ((7, -5), *PLACES[2:], PLACES[0])


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
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        inches, grid = ((3.6, 6.4), (2, 1)) if narrow else ((9.6, 3.9), (1, 2))
        drawing = Figure(figsize=inches, layout="constrained")
        canvas = FigureCanvasSVG(drawing)
        axes = drawing.subplots(*grid)
        for place, against in zip(axes, AGAINST, strict=True):
            _panel(place, report, against)
        drawing.draw_without_rendering()  # the layout settles before labels look for room
        for place, against in zip(axes, AGAINST, strict=True):
            _labels(place, points(report, against), _reference(report, against))
        drawing.set_layout_engine("none")
        text = io.StringIO()
        canvas.print_svg(text, metadata={"Date": None, "Title": title(report)})
    return text.getvalue()


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
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    finite = [p.quality for p in shown if math.isfinite(p.quality)]
    top = _ceiling(finite)
    front = sorted((p for p in shown if p.front), key=lambda p: p.size)
    axes.plot([p.size for p in front], [_height(p, top) for p in front], color=FRONT, linewidth=1.4,
              drawstyle="steps-post", alpha=0.6)  # fmt: skip
    for p in shown:
        axes.plot(p.size, _height(p, top), "o", markersize=7, color=FRONT if p.front else OTHER,
                  markeredgecolor="white", markeredgewidth=0.8)  # fmt: skip
    if len(finite) < len(shown):
        axes.axhline(top, color=OTHER, linewidth=0.8, linestyle=":")
    axes.margins(x=0.16, y=0.16)
    axes.set_xlim(left=0)
    if main.better == "lower":
        axes.invert_yaxis()  # better is up, as in the text
    reference = _reference(report, against)
    if reference is not None:
        axes.axhline(reference, color=OTHER, linewidth=1, linestyle="--")
        axes.annotate("fp32 decode", (0.01, reference), (0, 3), fontsize=8.5, color=INK,
                      xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip


def _reference(report: Report, against: Against) -> float | None:
    """What the fp32 decode itself reaches, where that can be drawn."""
    spread = None if report.main is None else report.spread(REFERENCE, report.main, against)
    return spread.median if spread is not None and math.isfinite(spread.median) else None


def _axis_name(metric: Metric) -> str:
    unit = f", {metric.unit}" if metric.unit else ""
    way = "" if metric.better == "higher" else " (lower is better)"
    return shorten(f"median {metric.label}{unit}{way}", 48)


def _ceiling(finite: list[float]) -> float:
    """Where infinity is drawn: above everything finite."""
    if not finite:
        return 100.0
    return max(finite) + max(0.25 * (max(finite) - min(finite)), 3.0)


def _height(point: Point, top: float) -> float:
    return point.quality if math.isfinite(point.quality) else top


def _labels(axes: Axes, shown: tuple[Point, ...], reference: float | None) -> None:
    """Names beside their points, none over another, a point or a line where there is room."""
    from matplotlib.transforms import Bbox

    frame = axes.get_window_extent()
    top = _ceiling([p.quality for p in shown if math.isfinite(p.quality)])
    spots = [axes.transData.transform((p.size, _height(p, top))) for p in shown]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in spots]
    taken += _front_boxes([s for s, p in zip(spots, shown, strict=True) if p.front])
    if reference is not None:
        _, y = axes.transData.transform((0, reference))
        taken += [Bbox.from_extents(frame.x0, y - 1, frame.x1, y + 1),
                  Bbox.from_bounds(frame.x0, y, 80, 14)]  # fmt: skip
    points_to_pixels = axes.figure.dpi / 72
    for point in sorted(shown, key=lambda p: (not p.front, p.size)):
        name = shorten(point.label, 22) + ("" if math.isfinite(point.quality) else f" ({INFINITY})")
        at = (point.size, _height(point, top))
        text = axes.annotate(name, at, (0, 0), textcoords="offset points", fontsize=8.5,
                             parse_math=False)  # fmt: skip
        size = text.get_window_extent()
        spot = axes.transData.transform(at)
        order = PLACES if point.front else BELOW
        boxes = [_box(spot, place, points_to_pixels, size) for place in order]
        costs = [_cost(box, taken, frame) for box in boxes]
        best = costs.index(min(costs))
        text.set(position=order[best], ha=_side(order[best][0], "right", "left"),
                 va=_side(order[best][1], "top", "bottom"))  # fmt: skip
        taken.append(boxes[best])


def _side(offset: int, before: str, after: str) -> str:
    """Alignment of a text that lies before (left, below) or after its point."""
    return "center" if offset == 0 else before if offset < 0 else after


def _box(spot: Any, place: tuple[int, int], scale: float, size: Any) -> Any:
    """Where a text of the extent ``size`` lies, in pixels, when its label has this place."""
    from matplotlib.transforms import Bbox

    lengths = (size.width, size.height)
    left, bottom = (
        at + offset * scale - length * (0.5 if offset == 0 else offset < 0)
        for at, offset, length in zip(spot, place, lengths, strict=True)
    )
    return Bbox.from_bounds(left, bottom, size.width, size.height)


def _cost(box: Any, taken: list[Any], frame: Any) -> int:
    """How much a label there would hide, or lie outside."""
    inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 + 12 and frame.y0 < box.y0 < frame.y1
    return int(box.count_overlaps(taken)) + (0 if inside else 3)


def _front_boxes(spots: list[Any]) -> list[Any]:
    """The front's steps, as thin boxes that labels keep off."""
    from matplotlib.transforms import Bbox

    boxes = []
    for (x0, y0), (x1, y1) in pairwise(sorted(map(tuple, spots))):
        boxes.append(Bbox.from_extents(x0, y0 - 1, x1, y0 + 1))
        boxes.append(Bbox.from_extents(x1 - 1, min(y0, y1), x1 + 1, max(y0, y1)))
    return boxes
