"""Images in tiles against images in one go: distance, work, memory and time.

Usage: python scripts/measure_tiling.py [--weights FOLDER] [--size 1024] [--photo coffee] [--kl 384]

Tiny decoders: real ones from FOLDER (taef1_decoder.safetensors and taef2_decoder.pth with their
encoders, as https://github.com/madebyollin/taesd has them), else the demo weights; both as saved
programs run by the reference executor. KL decoders: random weights of few channels, in torch; the
schemes are compared, real KL weights are not judged.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fluxvae.artifact.open import open_artifact
from fluxvae.artifact.save import save_artifact
from fluxvae.artifact.tiles import Grid, grid, pooled, samples
from fluxvae.convert.rewrite.split import Frozen, Measuring, front_and_up
from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.networks.build import build_encoder
from fluxvae.networks.catalog import KLForm
from fluxvae.networks.kl import KLDecoder
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import HALO, Recipe, Size, artifact_name, parse_sizes
from fluxvae.recipes.latents import FLUX1_SCALE, FLUX1_SHIFT
from fluxvae.validation.metrics import compare
from fluxvae.validation.tile_costs import tile_costs

FILES = {
    "flux1": ("taef1_decoder.safetensors", "taef1_encoder.safetensors"),
    "flux2": ("taef2_decoder.pth", "taef2_encoder.pth"),
}
WIDTHS = (32, 64, 64, 64)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", default="1024")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--photo", default="coffee")
    parser.add_argument("--variants", default="flux1,flux2")
    parser.add_argument("--kl", type=int, default=384)
    given = parser.parse_args()
    for variant in filter(None, given.variants.split(",")):
        tiny(variant, given.weights, parse_sizes(given.size), given.tile, given.photo)
    if given.kl:
        kl(Size(given.kl, given.kl), given.photo)


def tiny(variant: str, folder: Path | None, sizes: tuple[Size, ...], tile: int, photo: str) -> None:
    """One tiled artifact, and a whole one for each size."""
    specs = [str(folder / name) if folder else "demo" for name in FILES[variant]]
    weights = load_weights(variant, specs[0])
    encoder = build_encoder(load_weights(variant, specs[1], part="encoder"))
    kind = weights.source.kind
    with tempfile.TemporaryDirectory() as place:

        def saved(recipe: Recipe) -> Path:
            return save_artifact(weights, recipe, Path(place) / artifact_name(recipe, kind))[0]

        tiles = open_artifact(saved(tiled_recipe(variant, tile, sizes)))
        for size in sizes:
            latent = photo_latent(encoder, size, photo)
            image, seconds = timed(tiles.runner(None, "reference"), latent)
            whole = open_artifact(saved(Recipe(variant, sizes=(size,))))
            expected, all_seconds = timed(whole.runner(None, "reference"), latent)
            equal = "bit-equal" if np.array_equal(image, expected) else (
                f"{compare(image, expected).psnr_db:.1f} dB"
            )  # fmt: skip
            costs = tile_costs(tiles, size)
            print(
                f"{variant} {kind} {photo} {equal}; CPU {seconds:.1f} s, whole {all_seconds:.1f} s"
            )
            print(f"  {costs.sentence()}", flush=True)


def tiled_recipe(variant: str, tile: int, sizes: tuple[Size, ...]) -> Recipe:
    shapes = "fixed" if len(sizes) == 1 else "multifunction"
    return Recipe(variant, tile=tile, sizes=sizes, shapes=shapes)


def photo_latent(encoder: nn.Module, size: Size, photo: str) -> np.ndarray:
    (chosen,) = (p for p in EVALUATION_PHOTOS if p.name == photo)
    with torch.no_grad():
        return encoder(torch.from_numpy(photo_image(chosen, size.height, size.width))).numpy()


def timed(run: Callable[[np.ndarray], np.ndarray], latent: np.ndarray) -> tuple[np.ndarray, float]:
    start = time.process_time()
    image = run(latent)
    return image, time.process_time() - start


def random_kl() -> KLDecoder:
    """Few channels; gains and shifts of the norms are not the identity."""
    decoder = KLDecoder(16, KLForm(WIDTHS, WIDTHS, quant_convs=False)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, value in decoder.named_parameters():
        if value.dim() > 1:
            scale = (2 / value[0].numel()) ** 0.5
            nn.init.normal_(value, 0, scale / 2 if "conv2" in name else scale, generator=generator)
        else:
            gain = float("norm" in name and name.endswith("weight"))
            nn.init.normal_(value, gain, 0.2, generator=generator)
    return decoder


def kl(size: Size, photo: str) -> None:
    """PSNR of each way to have statistics, against the whole decode; peak 2."""
    decoder = random_kl()
    encoder = build_encoder(load_weights("flux1", "demo", part="encoder"))
    sampler = torch.from_numpy(photo_latent(encoder, size, photo))
    halo = HALO["full"]
    side = size.height // 16 + halo
    tiles = grid(size.height // 8, size.width // 8, (side, side), halo)
    for name, z in (
        ("photo", sampler / FLUX1_SCALE + FLUX1_SHIFT),
        ("noise", torch.randn(sampler.shape, generator=torch.Generator().manual_seed(1))),
    ):
        with torch.no_grad():
            whole = decoder(z)
            front, up = front_and_up(decoder)
            features, measure = front(z), Measuring(up)
            schemes = {
                "whole pass": measure(features),
                "strided, as artifacts do it": strided(measure, samples(features.numpy(), 2)),
                "every second row and column": strided(measure, single(features.numpy())),
                "2x averaged features": measure(nn.functional.avg_pool2d(features, 2)),
                "none: each tile its own": None,
            }
            for scheme, statistics in schemes.items():
                image = joined(up, features, statistics, tiles)
                found = compare(image, whole.numpy(), peak=2)
                print(f"KL {size} {name:<6} {scheme:<28} {found.psnr_db:6.1f} dB", flush=True)


def strided(measure: nn.Module, parts: Iterable[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(pooled([measure(torch.from_numpy(part)).numpy() for part in parts]))


def single(features: np.ndarray) -> list[np.ndarray]:
    """Every second row and column, from the four places to start."""
    return [np.ascontiguousarray(features[:, :, r::2, c::2]) for r in (0, 1) for c in (0, 1)]


def joined(
    up: nn.Module, features: torch.Tensor, statistics: torch.Tensor | None, tiles: Grid
) -> np.ndarray:
    height, width = (8 * extent for extent in features.shape[2:])
    image = np.empty((1, 3, height, width), np.float32)
    frozen = Frozen(up)
    for row, column in tiles:
        rows = slice(row.start, row.start + tiles.shape[0])
        columns = slice(column.start, column.start + tiles.shape[1])
        part = features[:, :, rows, columns]
        made = up(part) if statistics is None else frozen(part, statistics)
        inner = [slice(8 * (c.low - c.start), 8 * (c.high - c.start)) for c in (row, column)]
        image[:, :, 8 * row.low : 8 * row.high, 8 * column.low : 8 * column.high] = made[
            :, :, inner[0], inner[1]
        ].numpy()
    return image


if __name__ == "__main__":
    main()
