"""Saving an artifact: conversion, metadata, a second reading, and only then its final name.

Everything needed to judge an artifact travels inside it, as user-defined metadata under one
reverse-DNS prefix, written by ``stamp`` and read back by ``read_record``.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from fluxvae import __version__
from fluxvae.compress.forms import CompressedDecoder, require_granularity
from fluxvae.compress.guard import check_weights
from fluxvae.compress.guard_full import check_layers
from fluxvae.compress.write import write_compressed
from fluxvae.convert.fp16_safety import Safety, make_safe, mixed_cost
from fluxvae.convert.program import INPUT_NAME, OUTPUT_NAME, interface, write_model
from fluxvae.errors import ArtifactError, CompressionError, ConvertError, FluxVAEError
from fluxvae.files import commit, data_sha256, staging
from fluxvae.mil.executor import Session
from fluxvae.mil.package import parse_model, read_package
from fluxvae.mil.program import Program
from fluxvae.networks.build import build_decoder
from fluxvae.networks.catalog import Decoder, LatentContract, find_decoder
from fluxvae.networks.source import Weights, WeightSource
from fluxvae.recipes import Recipe
from fluxvae.recipes.latents import artifact_contract

PREFIX = "com.github.fluxvae."
RECORD_FORMAT = "1"


@dataclass(frozen=True)
class Part:
    """Which part of a decoder a package is, where it was cut into several.

    ``whole`` is the same in all parts of one decoder and in no others: a SHA-256 over recipe,
    weights' digest, latent contract and versions. ``other`` is the other part's file name.
    """

    number: int  # from 1
    of: int
    whole: str
    other: str


@dataclass(frozen=True)
class Tiles:
    """How a tiled package makes a picture, for whoever runs it; lengths in latent pixels.

    ``shapes``: rows and columns that each function of tiles takes: ``tile``, of any image, and
    ``tile_h832w1216`` and such for images of one size, which they suit better. ``halo`` is how far
    a pixel reaches.
    ``stride``: function ``statistics`` takes every so many-th block of rows and columns of the
    features (``fluxvae.artifact.tiles.samples``); None for a decoder whose tiles need no
    statistics.
    """

    shapes: dict[str, tuple[int, int]]
    halo: int
    stride: int | None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Tiles":
        """From JSON, which knows no tuples."""
        shapes = {name: (int(h), int(w)) for name, (h, w) in data["shapes"].items()}
        return cls(**{**data, "shapes": shapes})


@dataclass(frozen=True)
class Record:
    """What an artifact says of itself. ``versions`` names fluxvae, coremltools and torch.

    ``compression`` is plain data: how the compressed weights were found; empty without any.
    ``safety``: the same of what keeps float16 finite (``fluxvae.convert.fp16_safety``). ``part`` is
    there in half a decoder, ``tiles`` in one that works in tiles.
    """

    recipe: Recipe
    source: WeightSource
    weights_digest: str
    contract: LatentContract
    versions: dict[str, str]
    compression: dict[str, object] = field(default_factory=dict)
    safety: dict[str, Any] = field(default_factory=dict)
    part: Part | None = None
    tiles: Tiles | None = None

    def whole(self) -> str:
        """What the parts of one decoder have in common; see ``Part``."""
        contract = self.contract.to_dict()
        recipe = self.recipe.to_dict()
        return data_sha256([recipe, self.weights_digest, contract, self.versions, self.safety])


def make_record(
    recipe: Recipe,
    weights: Weights,
    compressed: CompressedDecoder | None = None,
    safety: dict[str, Any] | None = None,
) -> Record:
    """The record of an artifact made here and now."""
    versions = {
        "fluxvae": __version__,
        "coremltools": version("coremltools"),
        "torch": version("torch"),
    }
    notes = {} if compressed is None else json.loads(json.dumps(dict(compressed.notes)))
    contract = artifact_contract(recipe, weights.contract)
    return Record(recipe, weights.source, weights.digest, contract, versions, notes, safety or {})


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
) -> Path:
    """Convert, stamp, read again, run ``check``, and give the artifact its final name ``path``.

    ``compressed`` is what the recipe's compression gave for these weights; None without any.
    ``encoder`` makes the photo latents that the recipe's ``fp16_safety`` measures on; ``report``
    gets what it found and what it cost, in sentences.

    Until the last step everything lives in a hidden folder beside ``path``, which is removed on
    any failure or interruption. Raises OutputError when ``path`` exists (without ``overwrite``),
    cannot be written or does not fit on the disk; ConvertError when conversion or the second
    reading fails; CompressionError when the saved weights are not those asked for; whatever
    ``check`` raises.
    """
    if (recipe.compression is None) != (compressed is None):
        raise CompressionError("a recipe with compression needs its result, and no other does")
    if compressed is not None and recipe.granularity is not None:
        require_granularity(compressed, recipe.granularity)
    recipe = recipe.resolved()
    with staging(path, overwrite=overwrite) as folder:
        draft = folder / path.name
        decoder = build_decoder(weights) if compressed is None else compressed.decoder
        safety = make_safe(decoder, recipe, weights, encoder)
        decoder = safety.decoder
        for warning in safety.warnings:
            report(f"warning: {warning}")
        channels = weights.contract.channels
        write_model(decoder, recipe, channels, draft, keep=safety.keep, verbose=verbose)
        if compressed is not None:
            write_compressed(draft, compressed, recipe.precision)
        notes = safety.notes | safety_cost(draft, safety, report)
        record = make_record(recipe, weights, compressed, notes)
        stamp(draft, record)
        _read_again(draft, record)
        _check_layers(draft, recipe, compressed or decoder, mixed=bool(safety.keep))
        if check is not None:
            check(draft)
        commit(folder, path, overwrite=overwrite)
    return path


def _check_layers(
    draft: Path, recipe: Recipe, asked: CompressedDecoder | nn.Module, *, mixed: bool
) -> None:
    """Hold the saved weights against those asked for. Some of a ``mixed`` model's are float32."""
    if isinstance(asked, CompressedDecoder):
        check_weights(draft, asked, recipe.precision)
    elif mixed or not isinstance(asked, nn.Sequential):
        check_layers(draft, interface(asked, recipe), recipe.precision)
    elif recipe.format == "mlprogram":
        check_weights(draft, asked, recipe.precision)


def safety_cost(draft: Path, safety: Safety, report: Callable[[str], None]) -> dict[str, Any]:
    """What was done for float16's sake and what it cost, reported and for the record."""
    mode = safety.notes.get("mode")
    if mode == "rescale":
        streams = safety.notes["exponents"]
        groups = sum(bool(power) for powers in streams.values() for power in powers)
        report(f"rescaled {groups} groups of channels in {len(streams)} streams, exactly")
    if mode != "mixed":
        return {}
    cost = mixed_cost(read_package(draft))
    report(
        f"{cost.ops} operations stay float32, with {cost.casts} casts; their weights take "
        f"{cost.bytes} bytes more than in float16 ({cost.bytes / 1e6:.2f} MB)"
    )
    return {"cost": asdict(cost)}


def stamp(path: Path, record: Record) -> None:
    """Write metadata and descriptions into a saved model, in place."""
    decoder = find_decoder(record.recipe.variant, record.recipe.decoder)
    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel" if path.is_dir() else path
    model = parse_model(file)
    metadata = model.description.metadata
    metadata.author = _author(decoder, record)
    metadata.license = _licence(decoder, record)
    metadata.versionString = __version__
    metadata.shortDescription = _title(decoder, record)
    for key, value in _user_metadata(record).items():
        metadata.userDefined[key] = value
    for described in list(model.description.functions) or [model.description]:
        for feature in (*described.input, *described.output):
            feature.shortDescription = _sentence(feature.name, record)
    file.write_bytes(model.SerializeToString(deterministic=True))


def _author(decoder: Decoder, record: Record) -> str:
    if record.source.kind in ("hub", "file"):
        return decoder.author
    return f"The fluxvae developers (architecture: {decoder.author})"


def _licence(decoder: Decoder, record: Record) -> str:
    if record.source.kind in ("hub", "file"):
        return f"{decoder.licence} (weights: {record.source.name})"
    return f"MIT (weights: {record.source.name})"


def _title(decoder: Decoder, record: Record) -> str:
    kind = record.source.kind
    note = "" if kind in ("hub", "file") else f" SHAPE ONLY: {kind} weights, not FLUX's."
    half = f", part {record.part.number} of {record.part.of}" if record.part else ""
    return f"{decoder.title}{half}, converted by fluxvae.{note}"


def _sentence(name: str, record: Record) -> str:
    if name == INPUT_NAME:
        return record.contract.sentence()
    if name != OUTPUT_NAME:
        return f"What one part of the decoder hands to the next ({name})."
    return _output_sentence(record)


def _output_sentence(record: Record) -> str:
    if record.recipe.output == "image":
        return "The decoded image, 8-bit RGB."
    axes = "(1, H, W, 3)" if record.recipe.layout == "nhwc" else "(1, 3, H, W)"
    low, high = record.contract.low, record.contract.high
    return f"The decoded image {axes}, RGB in [{low:g}, {high:g}], slightly exceeded."


def _user_metadata(record: Record) -> dict[str, str]:
    def plain(value: object) -> str:
        return json.dumps(value, sort_keys=True)

    return {
        f"{PREFIX}format": RECORD_FORMAT,
        f"{PREFIX}recipe": plain(record.recipe.to_dict()),
        f"{PREFIX}weights": plain(asdict(record.source)),
        f"{PREFIX}weights_digest": record.weights_digest,
        f"{PREFIX}latent_contract": plain(record.contract.to_dict()),
        f"{PREFIX}versions": plain(record.versions),
        **({f"{PREFIX}compression": plain(record.compression)} if record.compression else {}),
        **({f"{PREFIX}fp16_safety": plain(record.safety)} if record.safety else {}),
        **({f"{PREFIX}part": plain(asdict(record.part))} if record.part else {}),
        **({f"{PREFIX}tiles": plain(asdict(record.tiles))} if record.tiles else {}),
    }


def read_record(program: Program) -> Record | None:
    """The record inside a saved model; None when fluxvae did not make it.

    Raises ArtifactError when the record is there but damaged or of a newer fluxvae.
    """
    user = program.metadata.user
    if f"{PREFIX}format" not in user:
        return None
    if user[f"{PREFIX}format"] != RECORD_FORMAT:
        raise ArtifactError(
            f"{program.path.name} was made by another version of fluxvae "
            f"(record format {user[f'{PREFIX}format']}, this one reads {RECORD_FORMAT})"
        )
    try:

        def entry(key: str) -> Any:
            return json.loads(user[PREFIX + key])

        return Record(
            recipe=Recipe.from_dict(entry("recipe")),
            source=WeightSource(**entry("weights")),
            weights_digest=user[f"{PREFIX}weights_digest"],
            contract=LatentContract(**entry("latent_contract")),
            versions=entry("versions"),
            compression=entry("compression") if f"{PREFIX}compression" in user else {},
            safety=entry("fp16_safety") if f"{PREFIX}fp16_safety" in user else {},
            part=Part(**entry("part")) if f"{PREFIX}part" in user else None,
            tiles=Tiles.from_dict(entry("tiles")) if f"{PREFIX}tiles" in user else None,
        )
    except (KeyError, ValueError, TypeError, FluxVAEError) as error:
        raise ArtifactError(f"{program.path.name} has a damaged fluxvae record: {error}") from error


def _read_again(draft: Path, record: Record) -> None:
    """Read what was saved with the executor's own reader and hold it against the recipe."""
    program = read_package(draft)
    if read_record(program) != record:
        raise ConvertError("the saved model does not give back the metadata written into it")
    recipe = record.recipe
    shapes = {record.contract.shape(s.height, s.width, recipe.layout) for s in recipe.sizes}
    found = set()
    for name in program.functions:
        session = Session(program, name)  # every operation known, every constant readable
        (latent,) = session.signature.inputs
        (image,) = session.signature.outputs
        if (latent.name, image.name) != (INPUT_NAME, OUTPUT_NAME):
            raise ConvertError(f"the saved model has the features {latent.name!r}, {image.name!r}")
        found |= set(latent.shapes or (latent.shape,))
    if found != shapes:
        raise ConvertError(
            f"the saved model takes the shapes {sorted(found)}; expected {sorted(shapes)}"
        )
