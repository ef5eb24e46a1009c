"""Several recipes of one network in one table, on the same photos.

Every recipe is converted and saved; the saved package is run by the reference executor and compared
with the float32 torch network. Compression did not look at any of the photos.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fluxvae.artifact.backends import on_network, raw_runner
from fluxvae.data.calibration import encode, read_folder
from fluxvae.data.photos import EVALUATION_PHOTOS, crop_image, photo_image
from fluxvae.errors import UsageError
from fluxvae.experiments.maker import PLAIN_NAMES, Maker, label_of, weight_bytes
from fluxvae.files import size_of
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_network
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe, Size, parse_label
from fluxvae.validation.evidence import Evidence
from fluxvae.validation.inspect import quantization_evidence
from fluxvae.validation.validate import Case, measure


@dataclass(frozen=True, eq=False)  # arrays have no useful ==
class View(Case):
    """A held-out picture's latent and the float32 torch image of it; of an encoder the picture and
    its latent.
    """

    reference: np.ndarray


@dataclass(frozen=True)
class ViewResult:
    """One picture through one artifact. PSNR of the unclamped output; SSIM of it clamped, NaN of
    latents.
    """

    name: str
    psnr_db: float
    max_abs: float
    ssim: float


@dataclass(frozen=True)
class Row:
    """One recipe. ``bytes`` of the weight file, ``fraction`` of float16's; figures are means."""

    label: str
    recipe: Recipe
    path: Path
    kept: bool  # made by an earlier run
    bytes: int
    package_bytes: int
    fraction: float
    psnr_db: float
    ssim: float
    evidence: Evidence
    views: tuple[ViewResult, ...]


@dataclass(frozen=True)
class Comparison:
    """All rows, the uncompressed one first."""

    weights: Weights
    size: Size
    rows: tuple[Row, ...]


def parse_recipes(text: str, base: Recipe) -> tuple[Recipe, ...]:
    """``fp16,int8,pal4-plain`` to recipes like ``base``; ``fp16`` comes first, asked for or not.

    Raises UsageError for unknown names, names that come twice, or that ``base``'s target is too
    old for.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    compressions = [parse_label(name) for name in names if name not in PLAIN_NAMES]
    for compression in compressions:
        if compressions.count(compression) > 1:
            raise UsageError(f"recipe {compression.label()!r} is given twice in {text!r}")
    return (base, *(replace(base, compression=c) for c in compressions))


def load_views(
    images: str,
    weights: Weights,
    encoder: Weights | None,
    size: Size,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[View, ...]:
    """The pictures to measure on. ``photos``: those for evaluation, which nothing is trained on or
    calibrated with; else a folder, of whose images it is the middle, in the order of names.

    ``say`` is called with notes. Raises CompressionError.
    """
    if images == "photos":
        found = [(p.name, photo_image(p, size.height, size.width)) for p in EVALUATION_PHOTOS]
    else:
        read = read_folder(Path(images), "use --images photos", say)
        found = [(name, _middle(pixels, size)) for name, pixels in read]
    network, views = build_network(weights), []
    given = encode(encoder, [image for _, image in found])
    for (name, _), values in zip(found, given, strict=True):
        with torch.no_grad():
            views.append(View(name, "photo", values, network(torch.from_numpy(values)).numpy()))
    return tuple(views)


def compare_variants(maker: Maker, recipes: Sequence[Recipe], views: Sequence[View]) -> Comparison:
    """Make (or find) each recipe's artifact, run it on ``views``, and tabulate.

    ``recipes`` start with the uncompressed one and have one size. An artifact that is there already
    is measured again and not made again. Raises OutputError, before anything is made, when another
    artifact has the path, and what ``maker.save`` raises.
    """
    kept = [maker.is_there(recipe) for recipe in recipes]
    rows: list[Row] = []
    for recipe, there in zip(recipes, kept, strict=True):
        label = label_of(recipe)
        maker.log(f"{label}: {'already there' if there else 'converting'}")
        if not there:
            maker.save(recipe)
        plain = rows[0] if rows else None
        rows.append(_row(maker, recipe, there, views, plain))
        maker.log(f"{label}: {rows[-1].psnr_db:.2f} dB, {rows[-1].bytes} bytes")
    return Comparison(maker.weights, recipes[0].sizes[0], tuple(rows))


def _row(maker: Maker, recipe: Recipe, kept: bool, views: Sequence[View], plain: Row | None) -> Row:
    path, contract = maker.path(recipe), maker.weights.contract
    program = read_package(path)
    run = on_network(raw_runner(program, None, "reference"), recipe, contract)
    peak = None if recipe.encodes else contract.peak
    measured = measure(run, views, lambda view: view.reference, peak=peak)
    results = tuple(
        ViewResult(
            one.case.name,
            one.metrics.psnr_db,
            one.metrics.max_abs,
            math.nan if recipe.encodes else one.ssim(contract),
        )
        for one in measured
    )
    size = weight_bytes(path)
    return Row(
        label=label_of(recipe),
        recipe=recipe,
        path=path,
        kept=kept,
        bytes=size,
        package_bytes=size_of(path),
        fraction=size / plain.bytes if plain else 1.0,
        psnr_db=math.fsum(r.psnr_db for r in results) / len(results),
        ssim=math.fsum(r.ssim for r in results) / len(results),
        evidence=quantization_evidence(program),
        views=results,
    )


def _middle(pixels: np.ndarray, size: Size) -> np.ndarray:
    wanted = (size.height, size.width)
    room = (max(0, have - want) // 2 for have, want in zip(pixels.shape, wanted, strict=False))
    top, left = room
    return crop_image(pixels, top, left, *wanted)
