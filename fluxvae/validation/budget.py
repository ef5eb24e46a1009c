"""Where an artifact's error comes from: conversion, then precision, then compression.

Each stage is a program of its own, held against the float32 torch decoder on the same cases: the
float32 program without compression, the same at the artifact's precision, the artifact itself. So
each figure includes the stages before it, and none compares a compressed model with itself.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fluxvae.artifact.backends import Runner, choose_backend, make_runner
from fluxvae.artifact.open import open_artifact
from fluxvae.artifact.record import Record
from fluxvae.convert.fp16_safety import as_recorded, kept
from fluxvae.convert.program import write_model
from fluxvae.data.latents import Latent
from fluxvae.data.spaces import passage
from fluxvae.files import scratch
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_decoder
from fluxvae.networks.source import Weights
from fluxvae.recipes import Recipe, Size
from fluxvae.validation.metrics import Metrics, compare
from fluxvae.validation.validate import Case, build_cases


@dataclass(frozen=True)
class BudgetCase:
    """One case: distance from the torch decoder after each stage of ``Budget.stages``."""

    case: str
    kind: str
    metrics: tuple[Metrics, ...]


@dataclass(frozen=True)
class Budget:
    """All cases at one size. ``stages`` name what each program adds to the one before it."""

    size: Size
    stages: tuple[str, ...]
    cases: tuple[BudgetCase, ...]


def stages_of(recipe: Recipe) -> tuple[tuple[str, Recipe | None], ...]:
    """What each stage adds, and the recipe of its program; None for the artifact itself.

    Stages that add nothing are left out: a float32 artifact has no precision to lose.
    """
    plain = replace(recipe, compression=None, output="tensor")
    exact = replace(plain, precision="float32", io_precision="auto", fp16_safety="report")
    stages: list[tuple[str, Recipe | None]] = [("conversion", exact)]
    if recipe.precision != "float32":
        stages.append(("precision", plain))
    last = "compression" if recipe.compression else ""
    if recipe.output == "image":
        last = f"{last} and 8 bits" if last else "8-bit output"
    if last:
        return (*stages, (last, None))
    return (*stages[:-1], (stages[-1][0], None))


def error_budget(
    path: Path,
    record: Record,
    weights: Weights,
    *,
    encoder: Weights | None,
    latents: tuple[Latent, ...] = (),
    backend: str = "auto",
    compute_units: str = "all",
) -> Budget:
    """Distance of every stage of the artifact at ``path``, at its smallest size.

    The cases are those of ``validate``. The programs before the artifact are converted afresh
    from ``weights`` into a temporary folder. Raises as ``validate`` and ``write_model`` do.
    """
    size = min(record.recipe.sizes)
    way = passage(record.recipe, weights)
    cases = tuple(build_cases(record, size, encoder, latents, way))
    decoder = build_decoder(weights)
    with torch.no_grad():
        images = [decoder(torch.from_numpy(way.inwards(case.latent))).numpy() for case in cases]
    chosen = choose_backend(backend)
    columns = []
    for _, recipe in stages_of(record.recipe):
        with scratch(Path(tempfile.gettempdir())) as folder:
            runner = _runner(path, record, recipe, weights, size, folder, chosen, compute_units)
            as_image = recipe is None and record.recipe.output == "image"
            columns.append(list(_distances(runner, cases, images, as_image, record)))
    rows = zip(cases, zip(*columns, strict=True), strict=True)
    return Budget(
        size,
        tuple(name for name, _ in stages_of(record.recipe)),
        tuple(BudgetCase(case.name, case.kind, metrics) for case, metrics in rows),
    )


def _runner(
    path: Path,
    record: Record,
    recipe: Recipe | None,
    weights: Weights,
    size: Size,
    folder: Path,
    backend: str,
    units: str,
) -> Runner:
    """The artifact itself, or a stage's program at one size."""
    if recipe is None:
        artifact = open_artifact(path)
        function = next(f for f, s in artifact.functions_and_sizes() if s == size)
        return artifact.runner(function, backend, units)
    one = replace(recipe, sizes=(size,), shapes="fixed")
    twin = folder / f"stage{one.suffix}"
    decoder = as_recorded(build_decoder(weights), record.safety)
    keep = kept(record.safety) if one.precision == "float16" else {}
    write_model(decoder, one, weights.contract.channels, twin, keep=keep)
    return make_runner(read_package(twin), None, one.layout, backend, units)


def _distances(
    runner: Runner,
    cases: tuple[Case, ...],
    images: list[np.ndarray],
    as_image: bool,
    record: Record,
) -> Iterator[Metrics]:
    peak = record.contract.peak
    for case, image in zip(cases, images, strict=True):
        reference = image.clip(*record.contract.span) if as_image else image
        yield compare(runner(case.latent), reference, peak=peak)
