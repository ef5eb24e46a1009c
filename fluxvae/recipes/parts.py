"""Artifacts of several programs: two halves (``chunks``), or a front and tiles (``tile``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fluxvae.errors import UsageError
from fluxvae.recipes.sizes import LARGEST_SIDE, SCALE

if TYPE_CHECKING:
    from fluxvae.recipes.recipe import Recipe

TILE_STATISTICS = ("strided", "whole")
# Latent pixels that reach into a tile from each side, from where the front hands over; exact from
# the graph: fluxvae.networks.structure.receptive_field computes them, tests compare these with it.
HALO = {"tiny": 9, "full": 7, "small": 7}


def check_parts(recipe: Recipe) -> None:
    """Raise UsageError for what an artifact of several programs cannot be."""
    what = "--chunks" if recipe.tile is None else "--tile"
    tiled = recipe.tile is not None
    for wrong, why in (
        (tiled and recipe.chunks != 1, "goes without --chunks"),
        (recipe.format == "neuralnetwork", "needs ML Programs: use --format mlprogram"),
        (recipe.compression is not None, "has no compressed form: leave compression out"),
        (recipe.nhwc_model, "hands over NCHW: use --layout nhwc without --nhwc-model"),
        (
            recipe.fp16_safety == "mixed",
            "has no mixed precision: use --fp16-safety rescale, or --precision float32",
        ),
        (recipe.shapes == "enumerated", "has no enumerated shapes: use --shapes multifunction"),
        (tiled and recipe.latents == "packed", "takes maps: use --latents vae or sampler"),
        (tiled and recipe.output == "image", "puts tensors together: use --output tensor"),
    ):
        if wrong:
            raise UsageError(f"{what} {why}")
    if recipe.tile is not None:
        check_tile(recipe.tile, recipe.decoder)
        _check_sizes(recipe)
    if recipe.tile_statistics == "whole" and (not tiled or recipe.decoder == "tiny"):
        raise UsageError(
            "--tile-statistics is for the tiles of a KL decoder: the tiny decoders' tiles need none"
        )


def check_tile(tile: int, decoder: str) -> None:
    """Raise UsageError for tiles that cannot be: no multiple of 8, or nothing but halo."""
    halo = HALO[decoder] * SCALE
    if tile % SCALE or not 0 < tile <= LARGEST_SIDE:
        raise UsageError(
            f"--tile {tile} is not possible: expected a multiple of {SCALE} up to {LARGEST_SIDE}, "
            "such as 512"
        )
    if tile <= halo:
        raise UsageError(
            f"--tile {tile} is smaller than its halo: {halo} px of the picture around a tile "
            f"reach into it, and nothing would be left; expected {halo + SCALE} or more, "
            "such as 512"
        )


def best_tile(height: int, width: int, side: int, halo: int) -> tuple[int, int]:
    """The tile for a map of ``height`` x ``width``: least work in no more than ``side`` squared.

    Rows and columns of what a tile takes, its halo included, in the map's pixels. As many equal
    tiles as fit exactly: those at an end need no halo there, so two of n make 2 n - 2 halo.
    """

    def needed(total: int, count: int) -> int:
        return -(-(total + 2 * halo * (count - 1)) // count)

    choices = [
        (rows * columns * needed(height, rows) * needed(width, columns), rows * columns, rows)
        for rows in range(1, max(1, height - 2 * halo) + 1)
        for columns in range(1, max(1, width - 2 * halo) + 1)
        if needed(height, rows) * needed(width, columns) <= side**2
    ]
    _, count, rows = min(choices)
    return needed(height, rows), needed(width, count // rows)


def _check_sizes(recipe: Recipe) -> None:
    odd = [s for s in recipe.sizes if s.height % (2 * SCALE) or s.width % (2 * SCALE)]
    if odd and recipe.decoder != "tiny" and recipe.tile_statistics == "strided":
        raise UsageError(
            f"--tile-statistics strided takes every second latent pixel: expected multiples of "
            f"{2 * SCALE} px, got --size {odd[0]}"
        )


def artifact_paths(path: Path, chunks: int) -> tuple[Path, ...]:
    """Where an artifact's packages go: ``x.mlpackage``, or ``x_part1of2.mlpackage`` and the other.

    ``path`` is the artifact's name as if it were one.
    """
    if chunks == 1:
        return (path,)
    numbers = range(1, chunks + 1)
    return tuple(path.with_name(f"{path.stem}_part{n}of{chunks}{path.suffix}") for n in numbers)
