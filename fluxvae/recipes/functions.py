"""Names of what an artifact consists of: packages, functions, inputs and outputs.

Standard library only.
"""

from pathlib import Path

from fluxvae.recipes.recipe import Recipe
from fluxvae.recipes.sizes import Size

INPUT_NAME = "latent"
OUTPUT_NAME = "image"
MAIN = "main"  # coremltools' name for the only function of a package
FEATURES = "features"  # what one part passes to the next, NCHW
STATISTICS = "statistics"  # of every GroupNorm of the up part: (1, norms, groups, 2)
FRONT, TILE = "front", "tile"  # functions of a tiled package
STRIDES = {"strided": 2, "whole": 1}


def artifact_paths(path: Path, chunks: int) -> tuple[Path, ...]:
    """Where an artifact's packages go: ``x.mlpackage``, or ``x_part1of2.mlpackage`` and the other.

    ``path`` is the artifact's name as if it were one.
    """
    if chunks == 1:
        return (path,)
    numbers = range(1, chunks + 1)
    return tuple(path.with_name(f"{path.stem}_part{n}of{chunks}{path.suffix}") for n in numbers)


def function_names(recipe: Recipe, size: Size) -> tuple[str, str]:
    """The functions ``front`` and ``statistics`` of a tiled package for images of one size.

    A tiny decoder's front takes every size; it has no statistics.
    """
    if recipe.decoder == "tiny":
        return FRONT, STATISTICS
    return f"{FRONT}_{size.function}", f"{STATISTICS}_{size.function}"


def tile_shapes(recipe: Recipe) -> dict[str, tuple[int, int]]:
    """Functions of tiles and what they take, in latent pixels.

    A tiny decoder's square ``tile`` makes images of every size. Each of the recipe's sizes that
    other tiles suit better has a function of its own; it shares the weights.
    """
    square = (recipe.tile_input, recipe.tile_input)
    own = {size: recipe.tile_shape(size) for size in recipe.sizes}
    shapes = {f"{TILE}_{size.function}": s for size, s in own.items() if s != square}
    if recipe.decoder == "tiny" or len(shapes) < len(own):
        shapes[TILE] = square
    return shapes
