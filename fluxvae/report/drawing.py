"""Drawing with matplotlib: settings, an SVG's text, and labels that keep off each other."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
NEAR = 6  # pixels; points of less between them share one label
BELOW = ((7, -5), *PLACES[2:], PLACES[0])


def new_drawing(inches: tuple[float, float]) -> Figure:
    """A figure (width, height) whose texts have the sizes that they have in an SVG."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawing = Figure(figsize=inches, layout="constrained")
    FigureCanvasSVG(drawing)
    return drawing


def svg_text(drawing: Figure, title: str) -> str:
    """The figure as an SVG document: the same figure gives the same text."""
    text = io.StringIO()
    canvas: Any = drawing.canvas
    canvas.print_svg(text, metadata={"Date": None, "Title": title})
    return text.getvalue()


def pale_grid(axes: Axes) -> None:
    """Thin lines behind all that is drawn."""
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


def front_line(axes: Axes, front: Sequence[tuple[float, float]]) -> None:
    """Steps through the points of a front, given from left to right."""
    axes.plot([x for x, _ in front], [y for _, y in front], color=FRONT, linewidth=1.4,
              drawstyle="steps-post", alpha=0.6)  # fmt: skip


def ceiling(values: Sequence[float]) -> float:
    """Where infinity is drawn: above everything finite."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 100.0
    return max(finite) + max(0.25 * (max(finite) - min(finite)), 3.0)


def place_label(
    axes: Axes,
    name: str,
    at: tuple[float, float],
    taken: list[Any],
    order: Any = PLACES,
    *,
    size: float = 8.5,
    points: Sequence[Any] | None = None,
) -> bool:
    """Write ``name`` beside the point ``at`` where it hides the least of the boxes in ``taken``.

    Its own box joins them. ``at`` in the units of the axes, boxes in pixels; the layout has to be
    settled. With all ``points`` (pixels) a label is left out where it would hide something, or lie
    nearer to another of them than to its own; whether it is there.
    """
    text = axes.annotate(name, at, (0, 0), textcoords="offset points", fontsize=size,
                         parse_math=False)  # fmt: skip
    extent, frame = text.get_window_extent(), axes.get_window_extent()
    spot = axes.transData.transform(at)
    boxes = [_box(spot, offset, axes.figure.dpi / 72, extent) for offset in order]
    costs = [_cost(box, taken, frame) for box in boxes]
    if points is not None:
        costs = [
            cost
            + (box.y1 > frame.y1 + 2)
            + any(_gap(box, p) + NEAR < _gap(box, spot) for p in points)
            for cost, box in zip(costs, boxes, strict=True)
        ]
    best = costs.index(min(costs))
    if costs[best] and points is not None:
        text.remove()
        return False
    text.set(position=order[best], ha=_side(order[best][0], "right", "left"),
             va=_side(order[best][1], "top", "bottom"))  # fmt: skip
    taken.append(boxes[best])
    return True


def taken_boxes(spots: Sequence[Any], on_front: Sequence[bool]) -> list[Any]:
    """What labels keep off, in pixels: boxes around points, and the steps of the front."""
    from matplotlib.transforms import Bbox

    points = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in spots]
    return points + _front_boxes([s for s, on in zip(spots, on_front, strict=True) if on])


def line_boxes(axes: Axes, height: float, name: float) -> list[Any]:
    """The same for a level line at ``height``, and its name of so many pixels above its start."""
    from matplotlib.transforms import Bbox

    frame, (_, y) = axes.get_window_extent(), axes.transData.transform((0, height))
    return [
        Bbox.from_extents(frame.x0, y - 1, frame.x1, y + 1),
        Bbox.from_bounds(frame.x0, y, 80, name),
    ]


def _side(offset: int, before: str, after: str) -> str:
    """Alignment of a text that lies before (left, below) or after its point."""
    return "center" if offset == 0 else before if offset < 0 else after


def _box(spot: Any, offset: tuple[int, int], scale: float, size: Any) -> Any:
    """Where a text of the extent ``size`` lies, in pixels, when its label has this offset."""
    from matplotlib.transforms import Bbox

    lengths = (size.width, size.height)
    left, bottom = (
        at + shift * scale - length * (0.5 if shift == 0 else shift < 0)
        for at, shift, length in zip(spot, offset, lengths, strict=True)
    )
    return Bbox.from_bounds(left, bottom, size.width, size.height)


def _gap(box: Any, spot: Any) -> float:
    """Pixels between a label and a point; 0 where it covers that."""
    x, y = spot
    return math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1))


def _cost(box: Any, taken: list[Any], frame: Any) -> int:
    """How much a label there would hide, or lie outside."""
    inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 + 12 and frame.y0 < box.y0 < frame.y1
    return int(box.count_overlaps(taken)) + (0 if inside else 3)


def _front_boxes(spots: list[Any]) -> list[Any]:
    """Steps of a front through ``spots`` (pixels), as thin boxes that labels keep off."""
    from matplotlib.transforms import Bbox

    boxes = []
    for (x0, y0), (x1, y1) in pairwise(sorted(map(tuple, spots))):
        boxes.append(Bbox.from_extents(x0, y0 - 1, x1, y0 + 1))
        boxes.append(Bbox.from_extents(x1 - 1, min(y0, y1), x1 + 1, max(y0, y1)))
    return boxes
