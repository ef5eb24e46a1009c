"""Decoders of several programs to Core ML: two halves, or a front and tiles. See ``convert``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fluxvae.convert.program import (
    INPUT_NAME,
    MAIN,
    OUTPUT_NAME,
    Port,
    input_side,
    join_functions,
    output_side,
    prepared,
    write_program,
)
from fluxvae.convert.rewrite.split import (
    Frozen,
    Measuring,
    count_norms,
    front_and_up,
    halves,
)
from fluxvae.errors import ConvertError
from fluxvae.files import scratch
from fluxvae.networks.structure import receptive_field
from fluxvae.recipes import Recipe, Size, latent_shape

FEATURES = "features"  # what one part hands to the next, NCHW
STATISTICS = "statistics"  # of every GroupNorm of the up part: (1, norms, groups, 2)
FRONT, TILE = "front", "tile"  # functions of a tiled package
STRIDES = {"strided": 2, "whole": 1}


@dataclass(frozen=True)
class _Function:
    """One function to convert: its module, what goes in and what comes out."""

    name: str
    network: nn.Module
    inputs: tuple[Port, ...]
    output: str
    dtype: str


def seam_dtype(recipe: Recipe) -> str:
    """Of what parts hand over: it must hold every value that the programs compute, exactly."""
    wide = "float32" in (recipe.precision, recipe.io_dtype)
    return "float32" if wide else "float16"


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


def write_halves(
    decoder: nn.Module, recipe: Recipe, channels: int, paths: tuple[Path, Path], *, verbose: bool
) -> None:
    """The two halves of a decoder as packages, with the same functions each."""
    seam = seam_dtype(recipe)
    before, after = [], []
    for size in recipe.sizes:
        first, second = halves(prepared(decoder, recipe, size))
        latent = _latent_port(recipe, size, channels)
        before.append(
            _Function(size.function, input_side(first, recipe), (latent,), FEATURES, seam)
        )
        port = Port(FEATURES, _features(first, size, channels, recipe), seam)
        after.append(
            _Function(
                size.function, output_side(second, recipe), (port,), OUTPUT_NAME, recipe.io_dtype
            )
        )
    for functions, path in zip((before, after), paths, strict=True):
        _write(functions, recipe, path, verbose, single=recipe.shapes == "fixed")


def write_tiled(
    decoder: nn.Module, recipe: Recipe, channels: int, path: Path, *, verbose: bool
) -> None:
    """One package: ``front`` for whole images, ``tile``, and for KL decoders ``statistics``.

    One package of several functions rather than several packages: there is one file to ship and
    none to mix up, and ``statistics`` and ``tile`` are the same weights, stored once. Its price,
    iOS 18 / macOS 15, is what the Swift library needs anyway.
    """
    front, up = front_and_up(prepared(decoder, recipe, recipe.sizes[0]))
    halo = receptive_field(up)
    if halo != recipe.halo:
        raise ConvertError(f"a tile's halo would be {halo} latent pixels, not {recipe.halo}")
    seam = seam_dtype(recipe)
    norms, groups = count_norms(up)
    functions = []
    for size in recipe.sizes if norms else recipe.sizes[:1]:
        names = function_names(recipe, size)
        latent = _latent_port(recipe, size, channels, open_axes=not norms)
        functions.append(_Function(names[0], input_side(front, recipe), (latent,), FEATURES, seam))
        if norms:
            step = STRIDES[recipe.tile_statistics]
            batch, width, rows, columns = _features(front, size, channels, recipe)
            port = Port(FEATURES, (batch, width, rows // step, columns // step), seam)
            functions.append(_Function(names[1], Measuring(up), (port,), STATISTICS, seam))
    width = _features(front, recipe.sizes[0], channels, recipe)[1]
    last = output_side(Frozen(up) if norms else up, recipe)
    for name, shape in tile_shapes(recipe).items():
        ports = [Port(FEATURES, (1, width, *shape), seam)]
        ports += [Port(STATISTICS, (1, norms, groups, 2), seam)] if norms else []
        functions.append(_Function(name, last, tuple(ports), OUTPUT_NAME, recipe.io_dtype))
    _write(functions, recipe, path, verbose, single=False)


def layers_of(decoder: nn.Module, recipe: Recipe) -> tuple[dict[str, nn.Module], ...]:
    """What each package of the artifact must hold: by function, the modules whose layers it has.

    The same cuts as ``write_halves`` and ``write_tiled`` make, for a check after saving.
    """
    several = recipe.shapes == "multifunction"
    if recipe.tile is None:
        pairs = {
            size.function if several else MAIN: halves(prepared(decoder, recipe, size))
            for size in recipe.sizes
        }
        return tuple({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))
    front, up = front_and_up(prepared(decoder, recipe, recipe.sizes[0]))
    layers: dict[str, nn.Module] = dict.fromkeys(tile_shapes(recipe), up)
    for size in recipe.sizes:
        names = function_names(recipe, size)
        layers |= {names[0]: front, names[1]: up[:-1]}  # no statistics come after the last norm
    return (layers,)


def _latent_port(recipe: Recipe, size: Size, channels: int, *, open_axes: bool = False) -> Port:
    axes = (1, 2) if recipe.layout == "nhwc" else (2, 3)
    shape = latent_shape(recipe, size, channels)
    return Port(INPUT_NAME, shape, recipe.io_dtype, axes if open_axes else ())


def _features(front: nn.Module, size: Size, channels: int, recipe: Recipe) -> tuple[int, ...]:
    """Shape of what ``front`` hands over for an image of ``size``; nothing is computed."""
    latent = latent_shape(replace(recipe, layout="nchw"), size, channels)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        return tuple(front(torch.empty(latent)).shape)


def _write(
    functions: Sequence[_Function], recipe: Recipe, path: Path, verbose: bool, *, single: bool
) -> None:
    def convert(made: _Function, to: Path) -> None:
        write_program(
            made.network, recipe, made.inputs, made.output, made.dtype, to, verbose=verbose
        )

    if single:
        convert(functions[0], path)
        return
    with scratch(path.parent) as folder:
        parts = {made.name: folder / f"{made.name}.mlpackage" for made in functions}
        for made in functions:
            convert(made, parts[made.name])
        join_functions(parts, recipe, path, verbose=verbose)
