"""Floors for compressed artifacts: what a sound one keeps, by how its values are stored.

Compression is meant to cost, so these tell a broken artifact from a compressed one; they are no
grades. Each is the worst figure measured, less ``MARGIN``: docs/validation.md has the rows.
"""

from dataclasses import dataclass

from fluxvae.recipes.compression import Compression, parse_budget

MARGIN = 3.0  # dB: other photos and other weights; the limits of float16 have 2 to 3 as well


@dataclass(frozen=True)
class Worst:
    """Lowest PSNR in dB that was measured on photos, on noise, and on extreme latents."""

    photo: float
    normal: float
    nasty: float


# The least of each kind: --recipe plain, one table or scale for a whole tensor where there is such
# a form, every convolution in 8 bits. The finer and the better ones measured higher throughout.
MEASURED = {
    "pal1": Worst(-7.8, -5.5, -11.1),
    "pal2": Worst(10.0, 9.2, -1.1),
    "pal3": Worst(15.2, 12.3, 2.0),
    "pal4": Worst(21.1, 19.2, 9.0),
    "pal6": Worst(34.4, 34.9, 24.6),
    "pal8": Worst(47.5, 48.6, 37.4),
    "int8": Worst(34.7, 35.2, 27.3),
    "int4": Worst(19.9, 15.1, 4.9),
    "w8a8": Worst(35.6, 28.6, 2.1),
}
FEWEST_MIXED = "pal2"  # what every layer of a mixed allocation has at least


def compressed_floor(compression: Compression, kind: str) -> float:
    """Least PSNR in dB of a case of ``kind``: photo, user, normal or nasty.

    Bits chosen for a PSNR have to keep it on photos and the user's latents, without a margin.
    """
    if compression.kind == "mixed" and kind in ("photo", "user"):
        budget = parse_budget(compression.budget or "")
        if budget.unit == "dB":
            return budget.value
    stored = {"palette": f"pal{compression.bits}", "mixed": FEWEST_MIXED}
    worst = MEASURED[stored.get(compression.kind, compression.kind)]
    return {"normal": worst.normal, "nasty": worst.nasty}.get(kind, worst.photo) - MARGIN
