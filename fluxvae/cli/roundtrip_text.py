"""What ``fluxvae roundtrip`` prints: medians by variant, the worst image, parts of an ablation."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from fluxvae.cli.text import hanging, size_text
from fluxvae.records.ablation import ALL, combined_psnr
from fluxvae.records.roundtrip import REFERENCE, Ablation, Figures, Result, Roundtrip

SHOWN = ("psnr", "ssim", "flip", "ssimulacra2")
MANY = 5  # skipped inputs named one by one


def text_of(record: Roundtrip) -> str:
    """Aligned text within 100 columns, from the record alone."""
    pictures, weights = len(record.pictures), record.weights
    lines = [
        f"{record.family}, {weights}, {record.size} px: {pictures} of {record.source}",
        "medians against the float32 decode (the conversion's own loss):",
        *_table(record, "loss"),
        "medians against the originals (what the viewer gets):",
        *_table(record, "total"),
    ]
    lines += [f"worst of {label}: {words}" for label, words in _worst(record)]
    for variant in dict.fromkeys(a.variant for a in record.ablations):
        lines += ["", *_parts([a for a in record.ablations if a.variant == variant])]
    out = [m for m in record.metrics if m.left_out]
    lines += [hanging(f"left out: {m.label}: {m.left_out}", 0) for m in out]
    lines += [f"skipped: {s.name}: {s.reason}" for s in record.skipped[:MANY]]
    if len(record.skipped) > MANY:
        lines.append(f"skipped: {len(record.skipped) - MANY} more, in the record")
    return "\n".join(lines)


def _table(record: Roundtrip, which: str) -> list[str]:
    wide = max(len(v.label) for v in record.variants)
    lines = [
        f"  {'variant':<{max(wide, 7)}}  {'weights':>8}  {'of fp16':>7}  {'PSNR dB':>8}  "
        f"{'SSIM':>8}  {'FLIP':>7}  {'SSIMULACRA2':>11}"
    ]
    for variant in record.variants:
        found = [r for r in record.results if r.variant == variant.label]
        if which == "loss" and variant.label == REFERENCE:
            continue
        size = size_text(variant.bytes) if variant.bytes else "-"
        share = f"{variant.fraction:.3f}" if variant.fraction else "-"
        psnr, ssim, flip, second = (_median(found, which, name) for name in SHOWN)
        lines.append(
            f"  {variant.label:<{max(wide, 7)}}  {size:>8}  {share:>7}  {_number(psnr, 2):>8}  "
            f"{_number(ssim, 5):>8}  {_number(flip, 5):>7}  {_number(second, 2):>11}"
        )
    return lines


def _figures(result: Result, which: str) -> Figures:
    return result.loss if which == "loss" else result.total


def _median(results: Sequence[Result], which: str, name: str) -> float:
    """None is infinity for PSNR, the only figure here that may be None."""
    values = [_figures(r, which)[name] for r in results]
    return median(float("inf") if v is None else v for v in values)


def _number(value: float | None, decimals: int) -> str:
    return "equal" if value is None or value == float("inf") else f"{value:.{decimals}f}"


def _worst(record: Roundtrip) -> list[tuple[str, str]]:
    """The image with the largest FLIP against the float32 decode, by variant."""
    lines = []
    for variant in record.variants[1:]:
        found = [r for r in record.results if r.variant == variant.label]
        worst = max(found, key=lambda r: r.loss["flip"] or 0.0)
        psnr = _number(worst.loss["psnr"], 2)
        words = f"{worst.picture} (FLIP {_number(worst.loss['flip'], 5)}, {psnr} dB)"
        lines.append((variant.label, words))
    return lines


def _parts(parts: Sequence[Ablation]) -> list[str]:
    """PSNR of each part alone, and of all together beside what independent errors would give."""
    wide = max(len(a.part) for a in parts)
    lines = [f"{parts[0].variant}, one part at a time (median PSNR against the float32 decode):"]
    medians = {a.part: _median_psnr(a) for a in parts}
    for part in parts:
        lines.append(f"  {part.part:<{wide}}  {_number(medians[part.part], 2):>8} dB")
    alone = [psnr for part, psnr in medians.items() if part != ALL]
    summed = _number(combined_psnr(alone), 2)
    lines.append(f"  {'parts added':<{wide}}  {summed:>8} dB if their errors were independent")
    return lines


def _median_psnr(part: Ablation) -> float | None:
    values = [f["psnr"] for f in part.loss.values()]
    found = median(float("inf") if v is None else v for v in values)
    return None if found == float("inf") else found
