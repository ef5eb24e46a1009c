"""The bounds that a sound artifact keeps: docs/validation.md has the measurements behind them.

Floors for compressed artifacts are by how their values are stored. Compression is meant to cost, so
these separate a broken artifact from a compressed one; they are not grades. Each is the worst
figure measured, less ``MARGIN``.
"""

import math
from dataclasses import dataclass

from fluxvae.artifact.record import Record
from fluxvae.recipes.compression import Compression, parse_budget
from fluxvae.validation.metrics import Metrics

MARGIN = 3.0  # dB: other photos and other weights; the limits of float16 have 2 to 3 as well
SMALL_SIDE = 96  # pixels; see ``_encoder_limit``
STRIDED_DB = 38.0  # what tiles with strided statistics promise; see fluxvae.validation.tile_costs


@dataclass(frozen=True)
class Limit:
    """One bound on one metric: ``at_most`` for max_abs, ``at_least`` for psnr_db."""

    metric: str
    bound: float

    def holds(self, metrics: Metrics) -> bool:
        """False for NaN, so that a non-finite output never passes."""
        value = getattr(metrics, self.metric)
        if math.isnan(value):
            return False
        return bool(value >= self.bound if self.metric == "psnr_db" else value <= self.bound)

    def __str__(self) -> str:
        if self.metric == "psnr_db":
            return f">= {self.bound:g} dB"
        return f"max <= {self.bound:g}"


@dataclass(frozen=True)
class Worst:
    """Lowest PSNR in dB that was measured on photos, on noise, and on extreme latents."""

    photo: float
    normal: float
    extreme: float


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
# Of encoders, in dB of each latent's own range: the published, demo and random weights at 64 px.
# Tables of 2 bits for noise as 3 bits had it with scales; those of 8 bits as of 6, not measured.
MEASURED_ENCODERS = {
    "pal1": Worst(-21.8, -11.0, -37.1),
    "pal2": Worst(5.3, 9.1, -10.2),
    "pal3": Worst(9.6, 9.1, -2.9),
    "pal4": Worst(13.4, 24.1, -0.1),
    "pal6": Worst(23.4, 35.7, 10.0),
    "pal8": Worst(23.4, 35.7, 10.0),
    "int8": Worst(27.0, 34.3, 13.7),
    "int4": Worst(19.0, 17.0, 5.4),
    "w8a8": Worst(26.7, 31.2, 20.1),
}
FEWEST_MIXED = "pal2"  # what every layer of a mixed allocation has at least


def compressed_floor(compression: Compression, kind: str, part: str = "decoder") -> float:
    """Least PSNR in dB of a case of ``kind``: photo, user, normal or extreme.

    Bits chosen for a PSNR have to keep it on photos and the user's latents, without a margin.
    """
    if compression.kind == "mixed" and kind in ("photo", "user"):
        budget = parse_budget(compression.budget or "")
        if budget.unit == "dB":
            return budget.value
    stored = {"palette": f"pal{compression.bits}", "mixed": FEWEST_MIXED}
    measured = MEASURED if part == "decoder" else MEASURED_ENCODERS
    worst = measured[stored.get(compression.kind, compression.kind)]
    return {"normal": worst.normal, "extreme": worst.extreme}.get(kind, worst.photo) - MARGIN


def limit_for(record: Record, kind: str) -> Limit:
    """The bound for one kind of case: see docs/validation.md for the measurements behind it."""
    plain = _limit_without_compression(record, kind)
    if record.recipe.compression is None:
        return plain
    floor = compressed_floor(record.recipe.compression, kind, record.recipe.part)
    return Limit("psnr_db", min(floor, plain.bound) if plain.metric == "psnr_db" else floor)


def _limit_without_compression(record: Record, kind: str) -> Limit:
    if record.recipe.encodes:
        return _encoder_limit(record, kind)
    if record.recipe.decoder != "tiny":
        return _kl_limit(record, kind)
    if record.recipe.output == "image":
        # A flat image may lie half a level off everywhere: rounding is not averaged out there.
        return Limit("psnr_db", 48.0 if kind == "extreme" else 57.0)
    if record.recipe.precision == "float32":
        return Limit("max_abs", 5e-5 if kind == "extreme" else 2e-5)
    return Limit("psnr_db", {"photo": 60.0, "user": 60.0, "normal": 68.0}.get(kind, 50.0))


def _encoder_limit(record: Record, kind: str) -> Limit:
    """The same for encoders, in dB of each latent's own range.

    float16, photos: 60.4 dB and more from 96 px on, 58.5 at 64 px, whose few latent pixels have a
    narrower range; noise 70.3. Flat images, of which a GroupNorm divides by nearly nothing: 42.4
    (TAEF2, grey). float32: 1.1e-5, flat images 103 dB. Demo, real and random weights, 64 to 256 px.
    """
    extreme = kind == "extreme"
    if record.recipe.precision == "float32":
        return Limit("psnr_db", 100.0) if extreme else Limit("max_abs", 2e-5)
    small = min(min(s.height, s.width) for s in record.recipe.sizes) < SMALL_SIDE
    photo = 55.5 if small else 60.0
    return Limit("psnr_db", 39.0 if extreme else {"normal": 68.0}.get(kind, photo))


def _kl_limit(record: Record, kind: str) -> Limit:
    """The same for the KL decoders: three times as many operations, and an image of -1..1."""
    if record.tiles is not None and (record.tiles.stride or 1) > 1:
        # Strided statistics: 41 dB and more on photos and noise, 31 on flat latents, whose borders
        # are all there is to measure (random KL weights, 192 x 224 px).
        return Limit("psnr_db", 26.0 if kind == "extreme" else STRIDED_DB)
    extreme = kind == "extreme"
    if record.recipe.output == "image":
        return Limit("psnr_db", 48.0 if extreme else 55.0)
    if record.recipe.precision == "float32":
        return Limit("max_abs", 5e-5 if extreme else 2e-5)
    return Limit("psnr_db", 58.0 if extreme else 60.0)
