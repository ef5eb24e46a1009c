"""Saving an artifact: conversion, metadata, a second reading, and only then its final name."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch import nn

from fluxvae.artifact.record import (
    Record,
    planned_record,
    read_record,
    record_of_each,
    stamp,
)
from fluxvae.compress.forms import CompressedDecoder, require_granularity
from fluxvae.compress.guard import check_weights, site_names
from fluxvae.compress.write import write_compressed
from fluxvae.convert.fp16_safety import make_safe, report_cost
from fluxvae.convert.functions import Named, functions_of, image_shape
from fluxvae.convert.program import write_packages
from fluxvae.errors import CompressionError, ConvertError
from fluxvae.files import commit, staging
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Program
from fluxvae.networks.build import build_network
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe, Size
from fluxvae.recipes.functions import (
    FEATURES,
    INPUT_NAME,
    OUTPUT_NAME,
    STATISTICS,
    artifact_paths,
    function_names,
)
from fluxvae.recipes.plan import Plan, plan_of


def save_artifact(
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
    """Convert, stamp, read again, run ``check``, and give the artifact its final name ``path``.

    Returns the packages made: one, or two halves (named by ``artifact_paths``), which get their
    names together or not at all; ``check`` gets the first one's draft. ``compressed`` is what the
    recipe's compression gave for these weights; None without any. ``encoder`` makes the photo
    latents that the recipe's ``fp16_safety`` measures on; ``report`` gets what it found and what it
    cost, in sentences.

    Until the last step everything lives in a hidden folder beside ``path``, which is removed on
    any failure or interruption. Raises OutputError when ``path`` exists (without ``overwrite``),
    cannot be written or does not fit on the disk; ConvertError when conversion or the second
    reading fails; CompressionError when the saved weights are not those asked for; whatever
    ``check`` raises.
    """
    if (recipe.compression is None) != (compressed is None):
        raise CompressionError("a recipe with compression needs its result, and no other does")
    plan = plan_of(recipe, weights.contract)
    if compressed is not None and plan.recipe.granularity is not None:
        require_granularity(compressed, plan.recipe.granularity)
    paths = artifact_paths(path, plan.recipe.chunks)
    with staging(*paths, overwrite=overwrite) as folder:
        decoder = build_network(weights) if compressed is None else compressed.decoder
        safety = make_safe(decoder, plan.recipe, weights, encoder)
        for warning in safety.warnings:
            report(f"warning: {warning}")
        draft = folder / path.name
        write_packages(safety.decoder, plan, draft, keep=safety.keep, verbose=verbose)
        drafts = [folder / one.name for one in paths]
        layers = [] if plan.target is None else _layers(plan, safety.decoder)
        if compressed is not None:
            _expect_all(compressed, layers)
            for one, own in zip(drafts, layers, strict=True):
                write_compressed(one, compressed, plan.recipe.precision, own)
        notes = safety.notes | report_cost(drafts[0], safety, report)
        record = replace(planned_record(plan, weights, compressed), safety=notes)
        _stamp_and_read(drafts, record)
        for one, own in zip(drafts, layers, strict=bool(layers)):  # none of neural networks
            check_weights(one, compressed or safety.decoder, plan.recipe.precision, own)
        if check is not None:
            check(drafts[0])
        commit(folder, *paths, overwrite=overwrite)
    return paths


def _expect_all(
    compressed: CompressedDecoder, layers: Sequence[dict[str, tuple[Named, ...]]]
) -> None:
    """Raise CompressionError when a compressed layer is in no function of the artifact."""
    run = {
        name
        for package in layers
        for function in package.values()
        for name, _ in site_names(compressed.decoder, function)
    }
    lost = sorted(set(compressed.weights) - run)
    if lost:
        raise CompressionError(
            f"the compressed layer {lost[0]} is not in the model as it was compressed "
            f"({len(lost)} of {len(compressed.weights)} are not): compress, or train, for the same "
            "--latents; fluxvae qat trains for the network's own, without --latents"
        )


def _layers(plan: Plan, network: nn.Module) -> list[dict[str, tuple[Named, ...]]]:
    """By package and function: its layers in the order they run."""
    packages = functions_of(network, plan, {})
    return [{made.name: made.in_order() for made in functions} for functions in packages]


def _stamp_and_read(drafts: Sequence[Path], record: Record) -> None:
    """Stamp what was saved, read it with the executor's own reader, and compare with the recipe.

    Raises ConvertError.
    """
    programs = []
    for draft, own in zip(drafts, record_of_each(record, drafts), strict=True):
        stamp(draft, own)
        programs.append(read_package(draft))
        if read_record(programs[-1]) != own:
            raise ConvertError("the saved model does not give back the metadata written into it")
        for name in programs[-1].functions:
            Session(programs[-1], name)  # every operation known, every constant readable
    first, last = programs[0], programs[-1]
    if set(first.functions) != set(last.functions):
        raise ConvertError("the two halves do not have the same functions")
    ends = (INPUT_NAME, OUTPUT_NAME)
    if record.recipe.encodes:
        ends = (OUTPUT_NAME, INPUT_NAME)
    taken = _check_steps(programs, *ends) if record.tiles is None else _check_tiled(first, record)
    recipe = record.recipe
    if recipe.encodes:
        shapes = {_taken_image(size, recipe) for size in recipe.sizes}
    else:
        shapes = {record.contract.shape(s.height, s.width, recipe.layout) for s in recipe.sizes}
    if taken != shapes and not (record.tiles is not None and recipe.decoder == "tiny"):
        raise ConvertError(
            f"the saved model takes the shapes {sorted(taken)}; expected {sorted(shapes)}"
        )


def _taken_image(size: Size, recipe: Recipe) -> tuple[int, ...]:
    """As a model's description has it: an 8-bit image without channels."""
    if recipe.input == "image":
        return (size.height, size.width)
    return image_shape(size, recipe.layout)


def _check_steps(programs: Sequence[Program], into: str, out: str) -> set[tuple[int, ...]]:
    """The shapes that programs take which run one after the other, if they fit together.

    ``into`` and ``out`` are the names of the artifact's input and output.
    """
    names = (into, *[FEATURES] * (len(programs) - 1), out)
    taken: set[tuple[int, ...]] = set()
    for function in programs[0].functions:
        for program, wanted in zip(programs, pairwise(names), strict=True):
            _expect_features(program, function, *wanted)
        (latent,) = programs[0].signatures[function].inputs
        taken |= set(latent.shapes or (latent.shape,))
        for first, second in pairwise(programs):
            _run_dry(first, function, second.signatures[function].inputs[0].shape)
    return taken


def _check_tiled(program: Program, record: Record) -> set[tuple[int, ...]]:
    """The latent shapes that the fronts of a tiled package take, if its functions fit together."""
    assert record.tiles is not None
    for name, shape in record.tiles.shapes.items():
        features = {f.name: f for f in program.signatures[name].inputs}[FEATURES]
        if features.shape[2:] != shape:
            raise ConvertError(f"the saved {name} takes {features.shape}, not a map of {shape}")
    taken = set()
    fronts = record.recipe.sizes if record.tiles.stride is not None else record.recipe.sizes[:1]
    for size in fronts:
        front, statistics = function_names(record.recipe, size)
        _expect_features(program, front, INPUT_NAME, FEATURES)
        taken.add(program.signatures[front].inputs[0].shape)
        if record.tiles.stride is not None:
            _expect_features(program, statistics, FEATURES, STATISTICS)
    return taken


def _expect_features(program: Program, function: str, into: str, out: str) -> None:
    signature = program.signatures[function]
    found = [feature.name for feature in (*signature.inputs, *signature.outputs)]
    if found != [into, out]:
        raise ConvertError(f"the saved model has the features {found}; expected {[into, out]}")


def _run_dry(program: Program, name: str, expected: tuple[int, ...]) -> None:
    """What the first half passes on, by its own operations, is what the second one takes."""
    session = Session(program, name, device="meta")
    (latent,) = session.signature.inputs
    last: tuple[int, ...] = ()
    for _, outputs in session.iterate({latent.name: np.zeros(latent.shape, np.float32)}):
        if FEATURES in outputs:
            last = tuple(outputs[FEATURES].shape)
    if last != expected:
        raise ConvertError(f"the first half passes on {last}; the second one takes {expected}")
