"""What a round trip compares: recipes that are made here, and artifacts that exist already."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from fluxvae.artifact.backends import Runner
from fluxvae.artifact.open import TILED, Artifact, open_artifact, require_command
from fluxvae.data.spaces import latent_transform
from fluxvae.errors import UsageError
from fluxvae.experiments.maker import PLAIN_NAMES, Maker, ignore, label_of, weight_bytes
from fluxvae.experiments.workers import worker_processes
from fluxvae.files import data_sha256, files_of
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe, Size, parse_label
from fluxvae.records.roundtrip import Variant
from fluxvae.validation.inspect import quantization_evidence

ARTIFACT_SUFFIXES = (".mlpackage", ".mlmodel", ".mlmodelc")


@dataclass(frozen=True)
class VariantSpec:
    """One variant as asked for: a recipe to make, or an artifact (``path``) that is there."""

    label: str
    recipe: Recipe | None
    path: Path | None


@dataclass(frozen=True, eq=False)  # the runner holds weights
class Candidate:
    """An artifact that can run. ``digest`` is sha256 over its program and weight files.

    ``encoded``: it gets the latents of the encoder's artifact, not of the float32 encoder.
    """

    label: str
    recipe: Recipe
    digest: str
    decode: Runner
    variant: Variant
    encoded: bool = False


@dataclass(frozen=True, eq=False)
class EncoderArtifact:
    """An encoder's artifact that can run: image (1, 3, H, W) in [0, 1] to the decoder's latent."""

    recipe: Recipe
    digest: str
    encode: Runner


def parse_variants(text: str, base: Recipe) -> tuple[VariantSpec, ...]:
    """``fp16,pal4,made.mlpackage`` in that order; recipes are like ``base``. Raises UsageError."""
    wanted = [_wanted(part.strip(), base) for part in text.split(",") if part.strip()]
    if not wanted:
        raise UsageError("--variants names none: give some, such as fp16,pal6,pal4 or a path")
    _refuse_same_labels(wanted)
    return tuple(wanted)


def _refuse_same_labels(wanted: Sequence[VariantSpec]) -> None:
    """macOS ignores case in file names, and labels name files."""
    labels = [one.label.casefold() for one in wanted]
    for one in wanted:
        if labels.count(one.label.casefold()) > 1:
            raise UsageError(f"variant {one.label!r} is given twice")


def add_artifact(
    wanted: tuple[VariantSpec, ...], path: Path, recipe: Recipe
) -> tuple[VariantSpec, ...]:
    """``wanted`` with the artifact of ``recipe`` at ``path``: instead of one of the same recipe,
    if that is among them, else as the last. Raises UsageError when another has its label."""
    added = [
        replace(one, recipe=None, path=path)
        if one.recipe == recipe or (one.path is not None and one.path.resolve() == path.resolve())
        else one
        for one in wanted
    ]
    if all(one.path != path for one in added):
        added.append(VariantSpec(path.stem, None, path))
    _refuse_same_labels(added)
    return tuple(added)


def _wanted(name: str, base: Recipe) -> VariantSpec:
    if name in PLAIN_NAMES:
        return VariantSpec("fp16", base, None)
    path = Path(name)
    if path.suffix in ARTIFACT_SUFFIXES or len(path.parts) > 1:
        return VariantSpec(path.stem, None, path)
    compression = parse_label(name)
    if compression.method == "trained":
        raise UsageError(
            f"{name} needs a checkpoint: make it with `fluxvae convert --qat CHECKPOINT` and give "
            "the artifact's path here"
        )
    return VariantSpec(compression.label(), replace(base, compression=compression), None)


def make_recipes(recipes: Iterable[Recipe], maker: Maker, *, workers: int, threads: int) -> None:
    """Make the artifacts of recipes that an earlier run did not.

    Up to ``workers`` are made at once, in processes of ``threads`` threads. A single one, or those
    of one solution, are made here with all threads. Raises OutputError when a path is taken by
    another, ToolError when a process is killed, and as making does.
    """
    missing: dict[object, list[Recipe]] = {}  # those that share a solution stay together
    for recipe in dict.fromkeys(recipes):
        if maker.is_there(recipe):
            maker.log(f"{maker.path(recipe).name}: already there")
        else:
            solution = (recipe.compression, recipe.granularity, recipe.precision)
            missing.setdefault(solution, []).append(recipe)
    if workers < 2 or len(missing) < 2:
        for group in missing.values():
            _make_group(maker, group)
        return
    sent = replace(maker, check=ignore)  # a worker is interrupted by the process that started it
    with worker_processes(min(workers, len(missing)), threads) as pool:
        begun = [pool.submit(_make_group, sent, group) for group in missing.values()]
        for one in as_completed(begun):
            one.result()
            maker.check()


def _make_group(maker: Maker, recipes: Sequence[Recipe]) -> None:
    for recipe in recipes:
        maker.log(f"{maker.path(recipe).name}: converting")
        replace(maker, log=partial(_named, maker.log, label_of(recipe))).save(recipe)


def _named(log: Callable[[str], None], label: str, text: str) -> None:
    """Several at once could not be distinguished."""
    log(f"{label}: {text}")


def open_candidate(label: str, path: Path, weights: Weights, size: Size) -> Candidate:
    """An artifact ready to run at ``size``, on its decoder's own latents.

    Raises ArtifactError or UsageError when it cannot.
    """
    opened = open_artifact(path)
    record = opened.record
    function = _function(opened, weights, size)
    paths = [program.path for program in opened.programs]
    bytes_ = sum(map(weight_bytes, paths))
    variant = Variant(
        label=label,
        words=describe(record.recipe),
        artifact=path.name,
        recipe=record.recipe.to_dict(),
        bytes=bytes_,
        fraction=bytes_ / (2 * sum(t.numel() for t in weights.tensors.values())),
        evidence=_evidence(opened, function),
    )
    run, to_artifact = (
        opened.runner(function, "reference"),
        latent_transform(record.recipe, weights),
    )

    def decode(latent: np.ndarray) -> np.ndarray:
        return run(to_artifact.from_decoder(latent))

    return Candidate(label, record.recipe, _digest(paths), decode, variant)


def open_encoder(path: Path, encoder: Weights, size: Size) -> EncoderArtifact:
    """An artifact of ``encoder`` ready to run at ``size``.

    Raises ArtifactError, or UsageError for a decoder's, other weights or other sizes.
    """
    opened = open_artifact(path)
    record = opened.record
    require_command(path.name, record, "encode")
    run = opened.runner(_function(opened, encoder, size), "reference")
    transform = latent_transform(record.recipe, encoder)

    def encode(image: np.ndarray) -> np.ndarray:
        return transform.to_decoder(run(image))

    return EncoderArtifact(record.recipe, _digest([path]), encode)


def with_encoder(candidate: Candidate, encoder: EncoderArtifact, label: str) -> Candidate:
    """The candidate behind the encoder's artifact."""
    digest = data_sha256([candidate.digest, encoder.digest])
    return replace(candidate, label=label, digest=digest, encoded=True)


def _evidence(opened: Artifact, function: str) -> str:
    """What the first program does in integers: the others are compressed alike."""
    first = opened.programs[0]
    name = first.default_function if function == TILED else function
    return quantization_evidence(first, name).classification


def _function(opened: Artifact, weights: Weights, size: Size) -> str:
    """The function that decodes ``size``, of an artifact of these very weights."""
    record, name = opened.record, opened.path.name
    if record.weights_digest != weights.digest:
        option = "--encoder" if record.recipe.encodes else "--weights"
        raise UsageError(
            f"{name} was made from {record.source.name} (digest {record.weights_digest[:12]}), and "
            f"the reference is made with {weights.source.name} ({weights.digest[:12]}): pass the "
            f"artifact's own with {option}"
        )
    for function, found in opened.functions_and_sizes():
        if found == size or opened.any_size:
            return function
    sizes = ", ".join(map(str, record.recipe.sizes))
    does = "encodes" if record.recipe.encodes else "decodes"
    raise UsageError(f"{name} {does} {sizes}, not {size}: pass --size, or another artifact")


def _digest(paths: Sequence[Path]) -> str:
    """sha256 over what decides an artifact's output: programs and weights, no manifests."""
    digest = hashlib.sha256()
    for file in (file for path in paths for file in _payload(path)):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _payload(path: Path) -> list[Path]:
    return [f for f in files_of(path) if f.name != "Manifest.json"]


def describe(recipe: Recipe) -> str:
    """One line about an artifact's arithmetic and stored weights."""
    precision = {"float16": "fp16", "float32": "fp32"}[recipe.precision]
    words = [f"computes in {precision}"]
    compression = recipe.compression
    if compression is None:
        words.append("weights as they are")
    else:
        kind = {
            "palette": f"{compression.bits}-bit palettes",
            "int8": "int8 weights",
            "int4": "int4 weights",
            "mixed": f"palettes of mixed bits within {compression.budget}",
            "w8a8": "int8 weights and activations",
        }[compression.kind]
        words.append(f"{kind} by {recipe.granularity}, {compression.method}")
    if recipe.nhwc_model:
        words.append("NHWC inside")
    elif recipe.layout == "nhwc":
        words.append("NHWC input and output")
    if recipe.output == "image":
        words.append("8-bit image output")
    return ", ".join(words)


def with_fractions(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """Fractions of the fp16 variant's bytes where it is among them, else of two bytes a weight."""
    plain = next((v.bytes for v in variants if v.label == "fp16"), None)
    if plain is None:
        return tuple(variants)
    return tuple(replace(v, fraction=(v.bytes or 0) / plain) for v in variants)
