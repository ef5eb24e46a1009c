"""Prints what latents of pictures measure: the figures behind the bounds of fluxvae.data.spaces.

    python scripts/measure_latents.py flux1 taef1_encoder.safetensors
    python scripts/measure_latents.py flux2 taef2_encoder.pth

The pictures are scikit-image's and scikit-learn's, in middles, corners and reductions, and made
ones (flat, dark, noisy, periodic). Takes some minutes.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fluxvae.data import spaces
from fluxvae.networks.build import build_encoder
from fluxvae.networks.catalog import find_decoder
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Recipe
from fluxvae.recipes.axes import FIRST, LAST, LatentInput, latent_input
from fluxvae.recipes.latents import artifact_contract

SIDES = (64, 128, 256, 512)
MADE = 128  # side of the made pictures
ORDERS = [(packed, last) for packed in (False, True) for last in (False, True)]
# FLUX.2's: about what its inverse batch norm does to photos.
TO_VAE = {"flux1": lambda z: z / 0.3611 + 0.1159, "flux2": lambda z: 1.8 * z}


def files() -> list[Path]:
    import skimage
    import sklearn

    folders = (
        Path(skimage.__file__).parent / "data",
        Path(sklearn.__file__).parent / "datasets" / "images",
    )
    found = [path for folder in folders for path in sorted(folder.iterdir())]
    return [path for path in found if path.suffix in (".png", ".jpg", ".gif")]


def cuts(picture: Image.Image) -> Iterator[np.ndarray]:
    shorter = min(picture.size)
    left, top = ((length - shorter) // 2 for length in picture.size)
    square = picture.crop((left, top, left + shorter, top + shorter))
    for side in SIDES:
        if side > shorter:
            continue
        middle = (shorter - side) // 2
        yield np.asarray(square.crop((middle, middle, middle + side, middle + side)))
        if side <= 256:
            yield np.asarray(picture.crop((0, 0, side, side)))
            yield np.asarray(square.resize((side, side), Image.Resampling.LANCZOS))


def made() -> Iterator[np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(0))
    y, x = np.mgrid[0:MADE, 0:MADE] / (MADE - 1)
    colours = [(r, g, b) for r in (0, 1) for g in (0, 1) for b in (0, 1)]
    colours += [(level,) * 3 for level in np.linspace(0.1, 0.9, 9)]
    plain = [np.broadcast_to(np.array(colour, float), (MADE, MADE, 3)) for colour in colours]
    plain += [np.stack([x, y, 1 - x], 2), np.repeat(x[..., None], 3, 2)]
    plain += [np.repeat(((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1)[..., None], 3, 2).astype(float)]
    plain += [((x * n).astype(int) + (y * n).astype(int))[..., None] % 2 * np.ones(3)
              for n in (4, 8, 16)]  # fmt: skip
    for picture in (*plain, generator.random((MADE, MADE, 3))):
        for spread in (0, 0.01, 0.03):
            noise = generator.normal(0, spread, picture.shape) if spread else 0
            yield np.rint(255 * np.clip(picture + noise, 0, 1)).astype(np.uint8)


def wanted(variant: str, decoder: str) -> LatentInput:
    recipe = Recipe(variant, decoder=decoder)
    contract = artifact_contract(recipe, find_decoder(variant, decoder).contract)
    return latent_input(recipe, contract, ())


def level(latent: np.ndarray) -> float:
    return float(np.exp(np.log(np.sqrt((latent**2).mean((0, 2, 3)))).mean()))


def print_range(name: str, values: list[float]) -> None:
    figures = np.percentile(values, [0, 1, 50, 99, 100])
    print(f"{name:<40}" + "".join(f"{figure:8.2f}" for figure in figures))


def main() -> None:
    variant, file = sys.argv[1:]
    network = build_encoder(load_weights(variant, file, part="encoder"))
    pictures = [c for path in files() for c in cuts(Image.open(path).convert("RGB"))]
    pictures += made()
    with torch.no_grad():
        planes = (p.transpose(2, 0, 1)[None].astype(np.float32) / 255 for p in pictures)
        latents = [network(torch.from_numpy(p)).numpy() for p in planes]
    sampler, vae = wanted(variant, "tiny"), wanted(variant, "full")
    others = [TO_VAE[variant](latent).astype(np.float32) for latent in latents]
    print(f"{variant}, {len(latents)} pictures: least, 1 %, half, 99 %, most")
    for name, group in (("sampler", latents), ("VAE", others)):
        print_range(f"{name}: standard deviation", [float(z.std()) for z in group])
        print_range(f"{name}: mean magnitude of a channel", [level(z) for z in group])
    print_range("correlation of neighbours", [spaces.nearness(z) for z in latents])

    def noted(group: list[np.ndarray], takes: LatentInput, order: str = FIRST) -> str:
        count = sum(spaces.unlike(latent, takes, order) is not None for latent in group)
        return f"{count} of {len(group)}"

    for order in (FIRST, LAST):
        print(f"noted though right, {order}: {noted(latents, sampler, order)} (sampler), "
              f"{noted(others, vae, order)} (VAE)")  # fmt: skip
    print(f"VAE's space noted for a sampler's decoder: {noted(others, sampler)}")
    print(f"sampler's space noted for the VAE's decoder: {noted(latents, vae)}")
    for packed, last in ORDERS[1:]:
        wrong = [spaces.load(spaces.store(z, packed, last), z.shape, False, False) for z in latents]
        name = f"{'patches' if packed else 'maps'}, channels {'last' if last else 'first'}"
        print(f"{name}, read as maps, channels first: {noted(wrong, sampler)} noted")


if __name__ == "__main__":
    main()
