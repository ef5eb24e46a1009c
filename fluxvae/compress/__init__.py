"""Smaller weights and integer arithmetic: one recipe's compression, whatever its kind."""

import time

from fluxvae.compress.forms import CompressedDecoder, Solved
from fluxvae.compress.mixed import Allocation, allocate, compress_allocation
from fluxvae.compress.plain import Log, compress_weights, required
from fluxvae.compress.store import Store, key_of
from fluxvae.compress.w8a8 import quantize_w8a8
from fluxvae.convert.rewrite.attention import pointwise
from fluxvae.convert.rewrite.latents import folded_layers, folded_sites
from fluxvae.data.calibration import Calibration
from fluxvae.errors import CompressionError
from fluxvae.networks.build import build_network
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
    """The network of ``weights`` compressed as the recipe says, for every form of its latent.

    Its attention's layers are convolutions. Those that the recipe's latents are folded into stay
    float.
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
    made = _compressed(weights, recipe, seen, allocation, log)
    solved = Solved(made, time.monotonic() - began)
    if store and key:
        store.keep(key, solved, weights, recipe, log)
    return solved


def _compressed(
    weights: Weights,
    recipe: Recipe,
    calibration: Calibration | None,
    allocation: Allocation | None,
    log: Log,
) -> CompressedDecoder:
    compression, granularity, precision = recipe.compression, recipe.granularity, recipe.precision
    network = pointwise(build_network(weights))
    keep = folded_sites(network, weights.part, recipe.latent_form)
    assert compression is not None
    assert granularity is not None
    if compression.kind not in ("w8a8", "mixed"):
        return compress_weights(
            network, compression, granularity, precision, calibration, log, keep=keep
        )
    seen = required(compression, calibration)
    if compression.kind == "w8a8":
        return quantize_w8a8(network, compression, precision, seen, log, keep=keep)
    if allocation is None:
        folded = folded_layers(network, weights.variant, weights.part, recipe.latent_form)
        allocation = allocate(
            network, compression, granularity, precision, seen, log=log, keep=keep, folded=folded
        )
    return compress_allocation(network, allocation, precision, seen, log=log, keep=keep)
