"""Smaller weights and integer arithmetic: one recipe's compression, whatever its kind."""

import time

from torch import nn

from fluxvae.compress.forms import CompressedDecoder, Solved
from fluxvae.compress.mixed import Allocation, allocate, compress_allocation
from fluxvae.compress.plain import Log, compress_weights, required
from fluxvae.compress.store import Store, key_of
from fluxvae.compress.w8a8 import quantize_w8a8
from fluxvae.data.calibration import Calibration
from fluxvae.errors import CompressionError
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe


def compress(
    weights: Weights,
    recipe: Recipe,
    calibration: Calibration | None,
    *,
    allocation: Allocation | None = None,
    store: Store | None = None,
    log: Log = lambda _: None,
) -> Solved:
    """The decoder of ``weights`` compressed as the recipe says.

    ``allocation`` replays mixed bits that were found before. ``store``: where to look for the same
    compression solved before, and to keep it; the result has the same bits either way. Raises
    CompressionError when calibration latents are needed and not given, or a budget cannot be met.
    """
    compression = recipe.compression
    if compression is None or recipe.granularity is None:
        raise CompressionError("the recipe asks for no compression")
    seen = required(compression, calibration) if compression.needs_calibration else None
    key = None if store is None else key_of(weights, recipe, seen, allocation)
    found = store.find(key, weights, recipe, log) if store and key else None
    if found is not None:
        log(f"{compression.label()}: found in the cache (solved in {found.seconds:.1f} s)")
        return found
    began = time.monotonic()
    made = _compressed(build_decoder(weights), recipe, seen, allocation, log)
    solved = Solved(made, time.monotonic() - began)
    if store and key:
        store.keep(key, solved, weights, recipe, log)
    return solved


def _compressed(
    decoder: nn.Module,
    recipe: Recipe,
    calibration: Calibration | None,
    allocation: Allocation | None,
    log: Log,
) -> CompressedDecoder:
    compression, granularity, precision = recipe.compression, recipe.granularity, recipe.precision
    assert compression is not None
    assert granularity is not None
    if compression.kind not in ("w8a8", "mixed"):
        return compress_weights(decoder, compression, granularity, precision, calibration, log)
    seen = required(compression, calibration)
    if compression.kind == "w8a8":
        return quantize_w8a8(decoder, compression, precision, seen, log)
    if allocation is None:
        allocation = allocate(decoder, compression, granularity, precision, seen, log=log)
    return compress_allocation(decoder, allocation, precision, seen, log=log)
