"""Cheap compressed decoders to start a training from: none of the code under test made them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from fluxvae.compress.checkpoint import save_checkpoint
from fluxvae.compress.forms import (
    Activation,
    CompressedDecoder,
    Palettized,
    Quantized,
    to_float16,
)
from fluxvae.networks.build import build_decoder
from fluxvae.networks.structure import conv_sites
from fluxvae.networks.weights import load_weights
from fluxvae.recipes.compression import Compression

LEAST = float(np.finfo(np.float16).tiny)  # smaller scales have fewer digits
W8A8 = Compression("w8a8", method="plain")


def minmax(
    decoder: nn.Sequential, latents: list[np.ndarray], stretch: float = 1
) -> CompressedDecoder:
    """int8 weights by their largest value, inputs by the range seen; the last convolution float.

    ``stretch`` above 1 makes every scale too large, so that there is something to learn.
    """
    sites = conv_sites(decoder)[:-1]
    largest: dict[str, float] = {}

    def watch(name: str) -> object:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            largest[name] = max(largest.get(name, 0.0), float(inputs[0].abs().max()))

        return decoder.get_submodule(name).register_forward_pre_hook(hook)

    handles = [watch(site.name) for site in sites]
    with torch.no_grad():
        for latent in latents:
            decoder(torch.from_numpy(latent))
    for handle in handles:
        handle.remove()  # type: ignore[attr-defined]
    weights, activations = {}, {}
    for site in sites:
        values = decoder.get_submodule(site.name).weight.detach().numpy()
        largest_weight = np.abs(values).max(axis=(1, 2, 3), keepdims=True)
        scale = to_float16(np.maximum(stretch * largest_weight / 127, LEAST))
        data = np.clip(np.rint(values / scale), -128, 127).astype(np.int8)
        weights[site.name] = Quantized("int8", data, scale)
        step = to_float16(np.array([stretch * largest[site.name] / 127]))
        activations[site.name] = Activation(float(step[0]))
    return CompressedDecoder(decoder, weights, activations, {"start": "min-max"})


def tables(
    decoder: nn.Sequential, bits: int, *, groups: int = 1, scaled: bool = True
) -> CompressedDecoder:
    """Each weight at the nearest of evenly spaced values, in tables with a scale per channel."""
    weights = {}
    for site in conv_sites(decoder):
        values = decoder.get_submodule(site.name).weight.detach().numpy()
        largest = np.abs(values).max(axis=(1, 2, 3))
        scale = to_float16(largest) if scaled else np.ones_like(largest)
        reach = 1.0 if scaled else float(largest.max())
        lut = to_float16(np.linspace(-reach, reach, 2**bits))
        near = np.abs((values / scale[:, None, None, None])[..., None] - lut).argmin(-1)
        split = groups if values.shape[0] % groups == 0 else 1
        weights[site.name] = Palettized(
            bits, near.astype(np.uint8), np.tile(lut, (split, 1)), scale if scaled else None
        )
    return CompressedDecoder(decoder, weights, {}, {"start": "even"})


def noise_latents(channels: int, side: int, count: int = 2) -> list[np.ndarray]:
    random = np.random.Generator(np.random.PCG64(5))
    return [random.normal(size=(1, channels, side, side)).astype(np.float32) for _ in range(count)]


def demo_start(folder: Path, stretch: float = 8.0) -> Path:
    """A checkpoint of flux2's demo decoder in int8, not trained yet."""
    weights = load_weights("flux2", "demo")
    start = minmax(build_decoder(weights), noise_latents(32, 8), stretch)
    return save_checkpoint(folder / "start.safetensors", start, weights, W8A8, {})


def image_folder(folder: Path, count: int = 3, side: int = 72) -> Path:
    """PNGs cut from a photo that is no evaluation photo."""
    import skimage.data

    pixels = skimage.data.astronaut()
    folder.mkdir(exist_ok=True)
    for index in range(count):
        place = 60 + 80 * index
        piece = pixels[place : place + side, place : place + side]
        Image.fromarray(np.ascontiguousarray(piece)).save(folder / f"{index}.png")
    return folder
