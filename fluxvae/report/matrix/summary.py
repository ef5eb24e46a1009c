"""summary.md of a matrix: its figures as Markdown tables."""

from collections.abc import Iterator

from fluxvae.report.figures import MISSING, size_words
from fluxvae.report.matrix.ablation import Line, Table, tables
from fluxvae.report.matrix.charts import CHARTS, front_names, missing_words, points
from fluxvae.report.matrix.figures import (
    STATES,
    Item,
    Matrix,
    counts_words,
    decibels,
    host_words,
    interval,
    significant,
)
from fluxvae.report.roundtrip.summary import escape, table


def matrix_text(matrix: Matrix) -> str:
    """The whole file, from the results alone."""
    count = f"{len(matrix.items)} cell{'' if len(matrix.items) == 1 else 's'}"
    lines = [f"# Matrix of {count}", "", f"{counts_words(matrix).capitalize()}.", ""]
    for note in matrix.summary.provenance.notes:
        lines += [f"> {escape(note)}", ""]
    lines += [*_remarks(matrix), *_cells(matrix), *_fronts(matrix)]
    for found in tables(matrix):
        lines += _ablation(found)
    lines += _made(matrix)
    return "\n".join(lines).rstrip("\n") + "\n"


def _remarks(matrix: Matrix) -> Iterator[str]:
    found = [item for item in matrix.items if item.remarks]
    if found:
        yield "## What to look at"
        yield ""
        for item in found:
            words = "; ".join(map(escape, item.remarks))
            yield f"- {escape(item.row.label)} ({STATES[item.state]}): {words}"
        yield ""


def _cells(matrix: Matrix) -> Iterator[str]:
    yield "## Cells"
    yield ""
    yield (
        "Worst first. Latency is the median of the runs' medians, with their 10th to 90th "
        "percentile in brackets; PSNR is the worst photo's against the float32 decoder."
    )
    yield ""
    yield from table(
        ("cell", "state", "worst PSNR, dB ↑", "latency, ms ↓", "runs", "bytes ↓", "of fp16",
         "first load, s", "later load, s", "peak memory", "energy, mJ"),
        (_cell(item) for item in matrix.items),
        left=2,
    )  # fmt: skip


def _cell(item: Item) -> tuple[str, ...]:
    row = item.row
    latency = MISSING if row.latency_ms is None else (
        f"{significant(row.latency_ms)} [{interval(row)}]"
    )  # fmt: skip
    return (
        escape(row.label),
        STATES[item.state],
        decibels(item.quality),
        latency,
        str(len(row.runs_ms)) if row.runs_ms else MISSING,
        MISSING if row.bytes is None else f"{row.bytes:,}",
        MISSING if row.fraction is None else f"{row.fraction:.3f}",
        significant(row.first_load_s),
        significant(row.later_load_s),
        size_words(row.peak_memory_bytes),
        significant(row.energy_mj),
    )


def _fronts(matrix: Matrix) -> Iterator[str]:
    yield "## Pareto fronts"
    yield ""
    for group in matrix.groups:
        if len(matrix.groups) > 1:
            yield f"### {escape(group.title)}"
            yield ""
        for chart in CHARTS:
            shown = points(group, chart)
            words = [escape(name) for name in front_names(group, chart)]
            missing = missing_words(group, chart, shown)
            yield (
                f"- {chart.title}: "
                + " ".join([", ".join(words) + "." if words else "", missing]).strip()
            )
        yield ""


def _ablation(found: Table) -> Iterator[str]:
    yield f"## {escape(found.title)}: one change at a time"
    yield ""
    yield f"From {escape(found.base_label)}."
    yield ""
    yield from table(("change", "PSNR, dB", "latency, ms", "bytes"), map(_line, found.single))
    yield escape(found.check)
    yield ""
    if found.together:
        yield from table(
            ("changes together", "PSNR, dB", "beyond", "latency, ms", "beyond", "bytes", "beyond"),
            map(_line, found.together),
        )


def _line(line: Line) -> tuple[str, ...]:
    figures = (f"{c.text} ({c.note})" if c.note else c.text for c in line.cells)
    return (escape(line.changes), *figures)


def _made(matrix: Matrix) -> Iterator[str]:
    found = matrix.summary.provenance
    yield "## Where this is from"
    yield ""
    yield from (f"- host: {escape(host_words(host))}" for host in found.hosts)
    for versions in found.versions:
        yield "- " + ", ".join(f"{escape(n)} {escape(v)}" for n, v in sorted(versions.items()))
    yield from (
        f"- weights {escape(n)}: sha256 {escape(d)}" for n, d in found.weights_digests.items()
    )
    yield from (
        f"- inputs {escape(n)}: sha256 {escape(d)}" for n, d in found.inputs_digests.items()
    )
    yield ""
    yield "To make it again, with the matrix.toml that lies beside this file:"
    yield ""
    yield from (f"    {' '.join(command.split())}" for command in found.commands)
    yield ""
