"""Floors for compressed artifacts: what a sound one keeps, by how its values are stored and found.

Compression is meant to cost, so these tell a broken artifact from a compressed one; they are no
grades. Each is the worst figure measured, less ``MARGIN``: see docs/validation.md for the rows.
"""

from dataclasses import dataclass

from fluxvae.recipes.compression import Compression, parse_budget

MARGIN = 3.0  # dB: other photos and other weights; fp16's own limits have the same


@dataclass(frozen=True)
class Worst:
    """Lowest PSNR in dB that was measured on photos, on noise, and on nasty latents."""

    photo: float
    normal: float
    nasty: float


# Per tensor where that is possible: the finer granularities were better in every case.
PLAIN = {
    "pal1": Worst(-7.8, -5.5, -11.1),
}


def compressed_floor(compression: Compression, kind: str) -> float:
    """Least PSNR in dB of a case of ``kind`` (photo, user, normal or nasty).

    Bits chosen for a PSNR have to keep it on photos, without a margin.
    """
    if compression.kind == "mixed":
        budget = parse_budget(compression.budget or "")
        if budget.unit == "dB" and kind in ("photo", "user"):
            return budget.value
    worst = worst_measured(compression)
    return {"normal": worst.normal, "nasty": worst.nasty}.get(kind, worst.photo) - MARGIN


def worst_measured(compression: Compression) -> Worst:
    """The figures of the least that ``compression`` may be: mixed bits may all be 2."""
    stored = {"palette": f"pal{compression.bits}", "mixed": "pal2"}.get(
        compression.kind, compression.kind
    )
    return PLAIN[stored]
