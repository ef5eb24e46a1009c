"""Saving any artifact, also one of several programs: two packages, or one that works in tiles."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fluxvae.artifact.save import (
    Part,
    Record,
    Tiles,
    make_record,
    read_record,
    safety_cost,
    save_artifact,
    stamp,
)
from fluxvae.compress.forms import CompressedDecoder
from fluxvae.compress.guard import check_layers
from fluxvae.convert.fp16_safety import make_safe
from fluxvae.convert.parts import (
    FEATURES,
    STATISTICS,
    STRIDES,
    function_names,
    layers_of,
    tile_shapes,
    write_halves,
    write_tiled,
)
from fluxvae.convert.program import INPUT_NAME, OUTPUT_NAME
from fluxvae.errors import ConvertError
from fluxvae.files import commit, staging
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Program
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe, artifact_paths, latent_shape


def save_any(
    weights: Weights,
    recipe: Recipe,
    path: Path,
    *,
    compressed: CompressedDecoder | None = None,
    encoder: Weights | None = None,
    overwrite: bool = False,
    check: Callable[[Path], None] | None = None,
    report: Callable[[str], None] = lambda _: None,
    verbose: bool = False,
) -> tuple[Path, ...]:
    """``save_artifact`` for every recipe; the packages made. ``check`` gets the first one's draft.

    Two halves get their names together, or neither does. Raises as ``save_artifact``.
    """
    if recipe.chunks == 1 and recipe.tile is None:  # all others refuse compression
        saved = save_artifact(
            weights, recipe, path, compressed=compressed, encoder=encoder,
            overwrite=overwrite, check=check, report=report, verbose=verbose,
        )  # fmt: skip
        return (saved,)
    paths = artifact_paths(path, recipe.chunks)
    recipe = recipe.resolved()
    with staging(*paths, overwrite=overwrite) as folder:
        safety = make_safe(build_decoder(weights), recipe, weights, encoder)
        for warning in safety.warnings:
            report(f"warning: {warning}")
        record = make_record(recipe, weights, None, safety.notes)
        decoder, channels = safety.decoder, weights.contract.channels
        drafts = [folder / place.name for place in paths]
        if recipe.tile is None:
            write_halves(decoder, recipe, channels, (drafts[0], drafts[1]), verbose=verbose)
        else:
            write_tiled(decoder, recipe, channels, drafts[0], verbose=verbose)
        safety_cost(drafts[0], safety, report)  # of rescaling: nothing else is for parts
        for draft, own in zip(drafts, _records(record, paths), strict=True):
            stamp(draft, own)
        _read_again(drafts, record)
        for draft, layers in zip(drafts, layers_of(decoder, recipe), strict=True):
            check_layers(draft, layers, recipe.precision)
        if check is not None:
            check(drafts[0])
        commit(folder, *paths, overwrite=overwrite)
    return paths


def _records(record: Record, paths: Sequence[Path]) -> list[Record]:
    recipe = record.recipe
    if recipe.tile is not None:
        stride = None if recipe.decoder == "tiny" else STRIDES[recipe.tile_statistics]
        return [replace(record, tiles=Tiles(tile_shapes(recipe), recipe.halo, stride))]
    whole = record.whole()
    others = reversed(paths)
    return [
        replace(record, part=Part(number, len(paths), whole, other.name))
        for number, other in enumerate(others, 1)
    ]


def _read_again(drafts: Sequence[Path], record: Record) -> None:
    """Read what was saved with the executor's own reader and hold it against the recipe."""
    programs = [read_package(draft) for draft in drafts]
    for program, own in zip(programs, _records(record, drafts), strict=True):
        if read_record(program) != own:
            raise ConvertError("a saved package does not give back the metadata written into it")
        for name in program.functions:
            Session(program, name)  # every operation known, every constant readable
    if record.recipe.tile is None:
        _check_halves(programs, record)
    else:
        _check_tiled(programs[0], record)


def _check_halves(programs: Sequence[Program], record: Record) -> None:
    first, second = programs
    if set(first.functions) != set(second.functions):
        raise ConvertError("the two halves do not have the same functions")
    taken = set()
    for name in first.functions:
        before, after = first.signatures[name], second.signatures[name]
        _expect(before.inputs[0].name, INPUT_NAME)
        _expect(before.outputs[0].name, FEATURES)
        _expect(after.inputs[0].name, FEATURES)
        _expect(after.outputs[0].name, OUTPUT_NAME)
        taken.add(before.inputs[0].shape)
        _run_dry(first, name, after.inputs[0].shape)
    _expect_shapes(taken, record)


def _check_tiled(program: Program, record: Record) -> None:
    recipe = record.recipe
    for name, shape in tile_shapes(recipe).items():
        features = {f.name: f for f in program.signatures[name].inputs}[FEATURES]
        if features.shape[2:] != shape:
            raise ConvertError(f"the saved {name} takes {features.shape}, not a map of {shape}")
    taken = set()
    for size in recipe.sizes[:1] if recipe.decoder == "tiny" else recipe.sizes:
        front, statistics = function_names(recipe, size)
        taken.add(program.signatures[front].inputs[0].shape)
        _expect(program.signatures[front].outputs[0].name, FEATURES)
        if recipe.decoder != "tiny":
            _expect(program.signatures[statistics].outputs[0].name, STATISTICS)
    if recipe.decoder != "tiny":
        _expect_shapes(taken, record)


def _run_dry(program: Program, name: str, expected: tuple[int, ...]) -> None:
    """What the first half hands over, by its own operations, is what the second one takes."""
    session = Session(program, name, device="meta")
    (latent,) = session.signature.inputs
    last: tuple[int, ...] = ()
    for op, outputs in session.iterate({latent.name: np.zeros(latent.shape, np.float32)}):
        if FEATURES in outputs:
            last = tuple(outputs[FEATURES].shape)
        del op
    if last != expected:
        raise ConvertError(f"the first half hands over {last}; the second one takes {expected}")


def _expect(found: str, wanted: str) -> None:
    if found != wanted:
        raise ConvertError(f"a saved package has the feature {found!r}; expected {wanted!r}")


def _expect_shapes(taken: set[tuple[int, ...]], record: Record) -> None:
    recipe = record.recipe
    shapes = {latent_shape(recipe, s, record.contract.channels) for s in recipe.sizes}
    if taken != shapes:
        raise ConvertError(
            f"the saved model takes the shapes {sorted(taken)}; expected {sorted(shapes)}"
        )
