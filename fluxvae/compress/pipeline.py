"""One recipe's compression, whatever its kind."""

from collections.abc import Callable

from torch import nn

from fluxvae.calibration import Calibration
from fluxvae.compress.forms import CompressedDecoder
from fluxvae.compress.mixed import Allocation, compress_allocation
from fluxvae.compress.plain import compress_weights
from fluxvae.compress.w8a8 import quantize_w8a8
from fluxvae.errors import CompressionError
from fluxvae.recipes import Recipe


def compress_decoder(
    decoder: nn.Sequential,
    recipe: Recipe,
    calibration: Calibration | None,
    *,
    allocation: Allocation | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> CompressedDecoder:
    """``decoder`` (float32) compressed as the recipe says.

    ``allocation`` replays bits by layer instead of finding them anew. Raises CompressionError when
    calibration latents are needed and not given, or a budget cannot be met.
    """
    compression = recipe.compression
    if compression is None or recipe.granularity is None:
        raise CompressionError("the recipe asks for no compression")
    if calibration is None and compression.needs_calibration:
        raise CompressionError(
            f"{compression.label()} is found by looking at latents: pass calibration latents"
        )
