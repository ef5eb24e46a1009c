"""Smaller weights and integer arithmetic: one recipe's compression, whatever its kind."""

from collections.abc import Callable

from torch import nn

from fluxvae.compress.forms import CompressedDecoder
from fluxvae.compress.mixed import Allocation, allocate, compress_allocation
from fluxvae.compress.plain import compress_weights, required
from fluxvae.compress.w8a8 import quantize_w8a8
from fluxvae.data.calibration import Calibration
from fluxvae.errors import CompressionError
from fluxvae.recipes import Recipe


def compress(
    decoder: nn.Module,
    recipe: Recipe,
    calibration: Calibration | None,
    *,
    allocation: Allocation | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> CompressedDecoder:
    """``decoder`` (float32) compressed as the recipe says.

    ``allocation`` replays mixed bits that were found before. Raises CompressionError when
    calibration latents are needed and not given, or a budget cannot be met.
    """
    compression, granularity = recipe.compression, recipe.granularity
    if compression is None or granularity is None:
        raise CompressionError("the recipe asks for no compression")
    precision = recipe.precision
    if compression.kind not in ("w8a8", "mixed"):
        return compress_weights(decoder, compression, granularity, precision, calibration, log)
    seen = required(compression, calibration)
    if compression.kind == "w8a8":
        return quantize_w8a8(decoder, compression, precision, seen, log)
    if allocation is None:
        allocation = allocate(decoder, compression, granularity, precision, seen, log=log)
    return compress_allocation(decoder, allocation, precision, seen, log=log)
