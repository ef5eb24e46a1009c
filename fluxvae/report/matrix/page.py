"""index.html of a matrix: figures, tables and where they are from, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluxvae.report.figures import size_words
from fluxvae.report.html import THEME, Entry, dump_page, sortable, themed
from fluxvae.report.matrix import ablation as matrix_ablation
from fluxvae.report.matrix.charts import (
    CHARTS,
    ENERGY,
    Chart,
    front_names,
    look,
    missing_words,
    points,
)
from fluxvae.report.matrix.figures import (
    STATES,
    Group,
    Item,
    Matrix,
    counts_words,
    decibels,
    host_words,
    interval,
    short_name,
    short_value,
    significant,
    values_of,
)
from fluxvae.report.matrix.plot import COLOURS, MARKS, MOST_ROWS, chart_svg, measured, runs_svg

DETAILS = 200  # cells that the page tells all of
# The marks of the plots, as paths around 0 in a square of 16.
SHAPES = {
    "o": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0",
    "s": "M-4.5-4.5h9v9h-9z",
    "^": "M0-5.5 5.5 5h-11z",
    "D": "M0-6 6 0 0 6-6 0z",
    "v": "M0 5.5 5.5-5h-11z",
    "P": "M-2-5.5h4V-2h3.5v4H2v3.5h-4V2h-3.5v-4H-2z",
}
_COLUMNS = ("psnr", "latency", "bytes", "first", "later", "memory", "energy")
_HEADS = {
    "psnr": ("worst PSNR", "dB ↑"),
    "latency": ("latency", "ms ↓"),
    "bytes": ("artifact", "↓"),
    "first": ("first load", "s ↓"),
    "later": ("later load", "s ↓"),
    "memory": ("peak memory", "↓"),
    "energy": ("energy", "mJ ↓"),
}


def write_page(matrix: Matrix, path: Path) -> None:
    """Write the page to ``path``; the same results give the same bytes."""
    rows = [_row(matrix, item) for item in matrix.items]
    columns = [c for c in _COLUMNS if any(row["entries"][c].sort is not None for row in rows)]
    dump_page(
        path,
        "matrix.html",
        styles=("base.css", "matrix.css"),
        scripts=("tables.js", "matrix.js"),
        matrix=matrix,
        summary=matrix.summary,
        notes=matrix.summary.provenance.notes,
        counts=counts_words(matrix),
        states=STATES,
        axes={axis: values_of(matrix.items, axis) for axis in matrix.axes},
        groups=[_group(group) for group in matrix.groups],
        columns=columns,
        heads=_HEADS,
        unmeasured=[_HEADS[c][0] for c in _COLUMNS if c not in columns],
        rows=rows,
        details=matrix.items[:DETAILS],
        readout=[{"name": r["label"], "words": r["words"]} for r in rows],
        tables=matrix_ablation.tables(matrix),
        host_words=host_words,
        short_value=short_value,
        significant=significant,
        decibels=decibels,
        size_words=size_words,
    )


def _row(matrix: Matrix, item: Item) -> dict[str, Any]:
    entries = _entries(item)
    figures = [
        f"{entries[c].text} {unit}" + (f" [{entries[c].note}]" if c == "latency" else "")
        for c, unit in (("psnr", "dB"), ("latency", "ms"), ("bytes", ""))
        if entries[c].sort is not None
    ]
    return {
        "item": item,
        "label": item.row.label,
        "name": short_name(item.cell, matrix.axes),
        "state": item.state,
        "rank": list(STATES).index(item.state),
        "values": [(axis, getattr(item.cell, axis)) for axis in matrix.axes],
        "entries": entries,
        "words": ", ".join(figures),
    }


def _entries(item: Item) -> dict[str, Entry]:
    row = item.row
    spread = interval(row) if row.latency_ms is not None else ""
    fraction = "" if row.fraction is None else f"{row.fraction:.1%} of fp16"
    return {
        "psnr": _entry(decibels(item.quality), item.quality),
        "latency": _entry(significant(row.latency_ms), row.latency_ms, spread),
        "bytes": _entry(size_words(row.bytes), row.bytes, fraction),
        "first": _entry(significant(row.first_load_s), row.first_load_s),
        "later": _entry(significant(row.later_load_s), row.later_load_s),
        "memory": _entry(size_words(row.peak_memory_bytes), row.peak_memory_bytes),
        "energy": _entry(significant(row.energy_mj), row.energy_mj),
    }


def _entry(text: str, value: float | None, note: str = "") -> Entry:
    return Entry(text, None if value is None else sortable(value), note)


def _group(group: Group) -> dict[str, Any]:
    style, timed = look(group), measured(group)
    return {
        "title": group.title,
        "executor": bool(timed) and group.items[0].result.host.system != "Darwin",
        "legend": _legend(style.colour_axis, style.colours, style.mark_axes, style.mark_names),
        "charts": [_chart(group, chart) for chart in CHARTS],
        "wide": _themed(runs_svg(group)) if timed else "",
        "narrow": _themed(runs_svg(group, narrow=True)) if timed else "",
        "unshown": max(0, len(timed) - MOST_ROWS),
    }


def _chart(group: Group, chart: Chart) -> dict[str, Any]:
    shown = points(group, chart)
    return {
        "id": chart.id,
        "title": chart.title,
        "missing": missing_words(group, chart, shown),
        "front": front_names(group, chart) if shown else [],
        "energy": chart.y is ENERGY,
        "wide": _themed(chart_svg(group, chart)) if shown else "",
        "narrow": _themed(chart_svg(group, chart, narrow=True)) if shown else "",
    }


def _legend(
    axis: str | None, colours: Sequence[str], mark_axes: Sequence[str], marks: Sequence[str]
) -> list[dict[str, Any]]:
    """Lists of what colours and marks stand for: a title, and (shape, colour, words)."""
    found = []
    if axis is not None:
        values: list[Any] = [(SHAPES["o"], n, short_value(v)) for n, v in enumerate(colours)]
        found.append({"title": _axis_words(axis), "values": values})
    if mark_axes:
        values = [(SHAPES[MARKS[n]], None, words) for n, words in enumerate(marks)]
        found.append({"title": ", ".join(map(_axis_words, mark_axes)), "values": values})
    return found


def _axis_words(axis: str) -> str:
    return axis.replace("_", " ")


def _themed(svg: str) -> str:
    colours = {colour: f"c{n}" for n, colour in enumerate(COLOURS)}
    return themed(svg, THEME | colours)
