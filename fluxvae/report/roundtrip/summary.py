"""summary.md: the figures of a round trip as Markdown tables."""

import re
from collections.abc import Iterable, Iterator

from fluxvae.records.roundtrip import Metric
from fluxvae.report.figures import (
    AGAINST,
    DASH,
    MISSING,
    Against,
    Report,
    Spread,
    number,
    on_front,
    with_unit,
)
from fluxvae.report.roundtrip.ablation import Attribution, attributions

READING = (
    "Each figure is the median over the pictures, with its 10th and 90th percentile in brackets "
    "(linear interpolation)."
)
SUMS = (
    "The sum adds mean squared errors for PSNR, which is exact when the parts' errors are "
    "uncorrelated, and distances from equal images for the others."
)
# An underscore within a word is only itself.
_ACTIVE = re.compile(r"([\\`*{}\[\]<>#|~$&!]|(?<!\w)_|_(?!\w))")


def summary_text(report: Report) -> str:
    """The whole file, from the record alone."""
    record = report.record
    count = f"{len(record.pictures)} picture{'' if len(record.pictures) == 1 else 's'}"
    lines = [
        f"# Round trip of {record.family} at {record.size} px",
        "",
        f"{count} ({escape(record.source)}) through the encoder {escape(record.encoder)} and the "
        f"decoder {escape(record.weights)}.",
        "",
        *_variants(report),
        *_spreads(report, "loss"),
        *_spreads(report, "total"),
        *_worst(report),
    ]
    for attribution in attributions(report):
        lines += _ablation(report, attribution)
    lines += [*_left_out(report), *_changes(report), *_made(report)]
    return "\n".join(lines).rstrip("\n") + "\n"


def escape(text: str) -> str:
    """Text of others on one line, with nothing that Markdown or HTML would act on."""
    return _ACTIVE.sub(r"\\\1", " ".join(text.split()))


def table(head: Iterable[str], body: Iterable[Iterable[str]], left: int = 1) -> Iterator[str]:
    """A Markdown table: ``left`` columns of text, the rest numbers; a blank line after it."""
    names = list(head)
    yield f"| {' | '.join(names)} |"
    yield "|" + "|".join("---" if i < left else "--:" for i in range(len(names))) + "|"
    for row in body:
        yield f"| {' | '.join(row)} |"
    yield ""


def _variants(report: Report) -> Iterator[str]:
    front = on_front(report)
    yield "## Variants"
    yield ""
    yield from table(
        ("variant", "what it is", "evidence", "Pareto front", "weights, bytes", "of fp16"),
        (
            (
                escape(v.label),
                escape(v.words),
                escape(v.evidence or MISSING),
                ("yes" if front[v.label] else "no") if v.label in front else MISSING,
                MISSING if v.bytes is None else f"{v.bytes:,}",
                MISSING if v.fraction is None else f"{v.fraction:.3f}",
            )
            for v in report.record.variants
        ),
        left=4,
    )


def _spreads(report: Report, against: Against) -> Iterator[str]:
    means = {"loss": "the conversion's own loss", "total": "what the viewer gets"}[against]
    shown = report.candidates if against == "loss" else report.record.variants
    main = report.main
    if main is None:
        return
    yield f"## Against {AGAINST[against]}: {means}"
    yield ""
    yield READING
    yield ""
    yield from table(
        ("variant", *map(heading, report.metrics), f"worst picture ({escape(main.label)})"),
        (
            (
                escape(v.label),
                *(spread_text(report.spread(v.label, m, against), m) for m in report.metrics),
                _worst_text(report.spread(v.label, main, against), main),
            )
            for v in shown
        ),
    )


def heading(metric: Metric) -> str:
    """A column's name with its unit and the direction that is better."""
    unit = f", {escape(metric.unit)}" if metric.unit else ""
    return f"{escape(metric.label)}{unit} {'↑' if metric.better == 'higher' else '↓'}"


def spread_text(spread: Spread | None, metric: Metric) -> str:
    """``median [p10-p90]``."""
    if spread is None:
        return MISSING
    low, high = number(spread.p10, metric), number(spread.p90, metric)
    return f"{number(spread.median, metric)} [{low}{DASH}{high}]"


def _worst_text(spread: Spread | None, metric: Metric) -> str:
    if spread is None:
        return MISSING
    return f"{escape(spread.worst)} ({escape(with_unit(spread.worst_value, metric))})"


def _worst(report: Report) -> Iterator[str]:
    if not report.metrics:
        return
    yield f"## Worst picture by each metric, against {AGAINST['loss']}"
    yield ""
    yield from table(
        ("variant", *(escape(m.label) for m in report.metrics)),
        (
            (
                escape(v.label),
                *(_worst_text(report.spread(v.label, m, "loss"), m) for m in report.metrics),
            )
            for v in report.candidates
        ),
        left=1 + len(report.metrics),
    )


def _ablation(report: Report, attribution: Attribution) -> Iterator[str]:
    yield f"## {escape(attribution.variant)}: one part at a time"
    yield ""
    yield f"Medians against {AGAINST['loss']}, each part changed alone. {SUMS}"
    yield ""
    yield from table(
        ("part", *map(heading, report.metrics)),
        (
            (escape(row.name), *(number(row.medians[m.name], m) for m in report.metrics))
            for row in attribution.rows
        ),
    )
    if attribution.compounding is not None:
        yield escape(attribution.compounding)
        yield ""


def _left_out(report: Report) -> Iterator[str]:
    skipped = [(s.name, s.reason) for s in report.record.skipped]
    left_out = [(m.label, m.left_out) for m in report.record.metrics if m.left_out is not None]
    count = len(report.record.pictures)
    left_out += [
        (m.label, f"undefined for {lacking} of {count} pictures")
        for m, lacking in report.undefined()
    ]
    for title, pairs in (("Pictures skipped", skipped), ("Metrics left out", left_out)):
        if pairs:
            yield f"## {title}"
            yield ""
            yield from (f"- {escape(name)}: {escape(reason)}" for name, reason in pairs)
            yield ""


def _changes(report: Report) -> Iterator[str]:
    changed = [p for p in report.record.pictures if p.changes]
    if changed:
        yield "## What was done to pictures before encoding"
        yield ""
        yield from (f"- {escape(p.name)}: {escape('; '.join(p.changes))}" for p in changed)
        yield ""


def _made(report: Report) -> Iterator[str]:
    record = report.record
    yield "## Made with"
    yield ""
    yield f"- weights: {escape(record.weights)}, sha256 {escape(record.weights_digest)}"
    yield f"- encoder: {escape(record.encoder)}, sha256 {escape(record.encoder_digest)}"
    yield from (f"- {escape(m.label)}: {escape(m.library)}" for m in report.metrics)
    yield from (f"- {escape(n)} {escape(v)}" for n, v in sorted(record.tools.items()))
