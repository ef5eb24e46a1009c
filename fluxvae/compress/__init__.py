"""Smaller weights and integer arithmetic: one recipe's compression, whatever its kind."""

from collections.abc import Callable

from torch import nn

from fluxvae.compress.forms import CompressedDecoder
from fluxvae.compress.mixed import Allocation, compress_mixed
from fluxvae.compress.plain import compress_weights
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
    if calibration is None and compression.needs_calibration:
        raise CompressionError(
            f"{compression.label()} is found by looking at latents: pass calibration latents, or "
            "use the plain method"
        )
    if compression.kind == "w8a8":
        assert calibration is not None
        return quantize_w8a8(decoder, compression, recipe.precision, calibration, log)
    if compression.kind == "mixed":
        assert calibration is not None
        return compress_mixed(
            decoder,
            compression,
            granularity,
            recipe.precision,
            calibration,
            allocation=allocation,
            log=log,
        )
    return compress_weights(decoder, compression, granularity, recipe.precision, calibration, log)
