"""The simplest compressed decoders, made without any of our recipes: for tests of what is around.

int8 weights per output channel, rounded to nearest; 8-bit inputs from the ranges of one latent.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fluxvae.artifact.save import save_artifact
from fluxvae.compress.forms import (
    Activation,
    CompressedDecoder,
    CompressedWeight,
    Palettized,
    Quantized,
    to_float16,
)
from fluxvae.compress.layerwise import Problem
from fluxvae.networks.build import build_decoder
from fluxvae.networks.structure import conv_sites
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe


def int8_weights(decoder: nn.Sequential) -> dict[str, Quantized]:
    """Every convolution's weight as int8 with a scale for each output channel."""
    forms = {}
    for site in conv_sites(decoder):
        weight = decoder.get_submodule(site.name).weight.numpy()
        largest = np.abs(weight).max((1, 2, 3), keepdims=True)
        # the next float16 above, so that nothing is clipped
        scale = to_float16(np.maximum(largest / 127, 1e-6) * (1 + 2**-10))
        data = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
        forms[site.name] = Quantized("int8", data, scale)
    return forms


def input_ranges(decoder: nn.Sequential, latent: np.ndarray) -> dict[str, Activation]:
    """Symmetric int8 ranges of the inputs of every convolution but the first and the last."""
    largest: dict[str, float] = {}

    def watch(name: str) -> object:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest[name] = float(inputs[0].abs().max())

        return hook

    sites = conv_sites(decoder)[1:-1]
    hooks = [decoder.get_submodule(s.name).register_forward_pre_hook(watch(s.name)) for s in sites]
    with torch.no_grad():
        decoder(torch.from_numpy(latent))
    for hook in hooks:
        hook.remove()
    scales = {name: float(to_float16(np.array([top / 127]))[0]) for name, top in largest.items()}
    return {name: Activation(scale) for name, scale in scales.items()}


def save_simple(weights: Weights, recipe: Recipe, path: Path, latent: np.ndarray) -> Path:
    """An artifact of ``recipe`` whose weights (and, for w8a8, inputs) are rounded simply."""
    decoder = build_decoder(weights)
    assert recipe.compression is not None
    quantized = recipe.compression.kind == "w8a8"
    inputs = input_ranges(decoder, latent) if quantized else {}
    compressed = CompressedDecoder(decoder, int8_weights(decoder), inputs)
    return save_artifact(weights, recipe, path, compressed=compressed, overwrite=True)[0]


def stored_bytes(form: CompressedWeight, precision: str) -> int:
    """Bytes the form takes in a weight file, its tables and scales included, padding not."""
    float_bytes = 2 if precision == "float16" else 4
    if isinstance(form, Palettized):
        scales = 0 if form.scale is None else form.scale.size
        packed = (form.indices.size * form.bits + 7) // 8
        return packed + float_bytes * (form.lut.size + scales)
    packed = form.data.size if form.dtype == "int8" else (form.data.size + 1) // 2
    return packed + float_bytes * form.scale.size


def added_error(problem: Problem, weight: Tensor) -> float:
    """Mean squared error at one output that rounding to ``weight`` adds (best bias)."""
    rows = (weight - problem.weight).flatten(1).double()
    return float(((rows @ problem.gram) * rows).sum() / rows.shape[0])
