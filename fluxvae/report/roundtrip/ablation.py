"""Ablations: each part alone, the sum of the parts, and all together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fluxvae.records.ablation import ALL, CONVERTED, combined_psnr
from fluxvae.records.roundtrip import Ablation, Figures, Metric
from fluxvae.records.statistics import percentile
from fluxvae.report.figures import (
    Report,
    badness,
    figure,
    number,
    resolution,
)

# What a metric says of equal images: losses are counted from there.
PERFECT = {"ssim": 1.0, "ms_ssim": 1.0, "flip": 0.0, "max_abs": 0.0, "lpips": 0.0,
           "ssimulacra2": 100.0, "clip": 100.0}  # fmt: skip


@dataclass(frozen=True)
class Attribution:
    """One variant's table: a row for each part, ``medians`` over pictures by metric name.

    ``compounding`` is one sentence about the main metric, None when it is not known.
    """

    variant: str
    rows: tuple["Row", ...]
    compounding: str | None


@dataclass(frozen=True)
class Row:
    """``kind``: reference, converted (the fp32 program, no part changed), part, sum or all."""

    kind: str
    name: str
    medians: dict[str, float | None]


def attributions(report: Report) -> tuple[Attribution, ...]:
    """The tables of a record, in its order."""
    variants = dict.fromkeys(a.variant for a in report.record.ablations)
    return tuple(_attribution(report, variant) for variant in variants)


def _attribution(report: Report, variant: str) -> Attribution:
    mine = [a for a in report.record.ablations if a.variant == variant]
    base = [a for a in mine if a.part == CONVERTED]
    parts = [a for a in mine if a.part not in (ALL, CONVERTED)]
    whole = [a for a in mine if a.part == ALL]
    perfect = {m.name: math.inf if m.name == "psnr" else PERFECT.get(m.name)
               for m in report.metrics}  # fmt: skip
    rows = [Row("reference", "fp32 (reference)", perfect)]
    rows += [Row("converted", f"{a.part}, no part", _medians(report, a.loss)) for a in base]
    rows += [Row("part", a.part, _medians(report, a.loss)) for a in parts]
    summed = _medians(report, summed_losses(report, parts))
    if len(parts) > 1:
        rows.append(Row("sum", "sum of the parts", summed))
    rows += [Row("all", "all together", _medians(report, a.loss)) for a in whole]
    sentence = _compounding(report, summed, rows[-1].medians) if whole and len(parts) > 1 else None
    return Attribution(variant, tuple(rows), sentence)


def _medians(report: Report, losses: dict[str, Figures]) -> dict[str, float | None]:
    medians: dict[str, float | None] = {}
    for metric in report.metrics:
        values = [v for f in losses.values() if (v := figure(f, metric)) is not None]
        medians[metric.name] = percentile(values, 50) if values else None
    return medians


def summed_losses(report: Report, parts: Sequence[Ablation]) -> dict[str, Figures]:
    """By picture, what the parts' losses add up to; a picture that a part lacks is left out.

    PSNR by its mean squared errors, which add exactly when the parts' errors are uncorrelated;
    others by their distance from what equal images have. A metric without such a value is missing.
    """
    pictures = [p.name for p in report.record.pictures if all(p.name in a.loss for a in parts)]
    sums: dict[str, Figures] = {}
    for name in pictures:
        sums[name] = {}
        for metric in report.metrics:
            values = [figure(a.loss[name], metric) for a in parts]
            known = [v for v in values if v is not None]
            add = _adder(metric)
            if add is not None and known and len(known) == len(values):
                total = add(known)
                sums[name][metric.name] = None if math.isinf(total) else total
    return sums


def _adder(metric: Metric) -> Callable[[Sequence[float]], float] | None:
    if metric.name == "psnr":
        return _add_psnr
    perfect = PERFECT.get(metric.name)
    return None if perfect is None else lambda values: perfect + sum(v - perfect for v in values)


def _add_psnr(values: Sequence[float]) -> float:
    """``combined_psnr`` with infinity as a number."""
    found = combined_psnr(None if math.isinf(v) else v for v in values)
    return math.inf if found is None else found


def _compounding(
    report: Report, summed: dict[str, float | None], whole: dict[str, float | None]
) -> str | None:
    main = report.main
    if main is None:
        return None
    parts, together = summed[main.name], whole[main.name]
    if parts is None or together is None or math.isinf(parts) or math.isinf(together):
        return None
    apart = badness(together, main) - badness(parts, main)
    what = f"{number(abs(apart), main)} {main.unit}".strip() + f" of {main.label}"
    if abs(apart) < resolution(main):
        return f"Together the parts cost what they add up to in {main.label}."
    more = "more" if apart > 0 else "less"
    return f"Together the parts cost {what} {more} than they add up to."
