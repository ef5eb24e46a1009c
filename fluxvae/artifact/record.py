"""What an artifact says of itself: the record inside a saved model.

Everything needed to judge an artifact travels inside it, as user-defined metadata under one
reverse-DNS prefix, written by ``stamp`` and read back by ``read_record``.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from fluxvae import __version__
from fluxvae.compress.forms import CompressedDecoder
from fluxvae.errors import ArtifactError, FluxVAEError
from fluxvae.files import data_sha256, file_sha256
from fluxvae.mil.package import parse_model
from fluxvae.mil.program import Program
from fluxvae.networks.catalog import Decoder, LatentContract, find_decoder
from fluxvae.networks.weights import Weights, WeightSource
from fluxvae.recipes import Recipe
from fluxvae.recipes.functions import INPUT_NAME, OUTPUT_NAME
from fluxvae.recipes.plan import Plan, plan_of
from fluxvae.schema import build, json_text, parse_json

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


def make_record(recipe: Recipe, weights: Weights) -> Record:
    """``planned_record`` of a recipe without compressed weights."""
    return planned_record(plan_of(recipe, weights.contract), weights)


def planned_record(
    plan: Plan, weights: Weights, compressed: CompressedDecoder | None = None
) -> Record:
    """The record of an artifact made here and now, from what is known before it is converted."""
    versions = {
        "fluxvae": __version__,
        "coremltools": version("coremltools"),
        "torch": version("torch"),
    }
    notes = {} if compressed is None else json.loads(json.dumps(dict(compressed.notes)))
    tiles = Tiles(dict(plan.tiles), plan.recipe.halo, plan.stride) if plan.tiles else None
    source, digest = weights.source, weights.digest
    return Record(plan.recipe, source, digest, plan.contract, versions, notes, tiles=tiles)


def record_of_each(record: Record, paths: Sequence[Path]) -> list[Record]:
    """The records of an artifact's packages: of halves, each says which of them it is."""
    if len(paths) == 1:
        return [record]
    whole = record.whole()
    return [
        replace(record, part=Part(number, len(paths), whole, other.name))
        for number, other in enumerate(reversed(paths), 1)
    ]


def stamp(path: Path, record: Record) -> None:
    """Write metadata, descriptions and a package's identifiers into a saved model, in place."""
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
    if path.is_dir():
        _identify(path)


def _identify(package: Path) -> None:
    """Identifiers of a package's items from their content, so that equal packages have equal bytes.

    coremltools 9.0 makes up random ones.
    """
    file = package / "Manifest.json"
    manifest = json.loads(file.read_bytes())
    names = {}
    for old, item in manifest["itemInfoEntries"].items():
        item_path = package / "Data" / item["path"]
        files = sorted(f for f in item_path.rglob("*") if f.is_file()) or [item_path]
        content = [(str(f.relative_to(package)), file_sha256(f)) for f in files]
        names[old] = str(uuid5(NAMESPACE_URL, f"sha256:{data_sha256(content)}")).upper()
    manifest["itemInfoEntries"] = {
        names[old]: item for old, item in manifest["itemInfoEntries"].items()
    }
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    file.write_text(json_text(manifest, indent=4, sort_keys=True), encoding="utf-8")


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
    title = decoder.title_of(record.recipe.part)
    return f"{title}{half}, converted by fluxvae.{note}"


def _sentence(name: str, record: Record) -> str:
    if name == INPUT_NAME:
        return record.contract.sentence(record.recipe.part)
    if record.recipe.encodes:
        return _input_sentence(record)
    if name != OUTPUT_NAME:
        return f"What one part of the decoder hands to the next ({name})."
    return _output_sentence(record)


def _input_sentence(record: Record) -> str:
    if record.recipe.input == "image":
        return "The image to encode, 8-bit RGB."
    axes = "(1, H, W, 3)" if record.recipe.layout == "nhwc" else "(1, 3, H, W)"
    return f"The image to encode {axes}, RGB in [0, 1]."


def _output_sentence(record: Record) -> str:
    if record.recipe.output == "image":
        return "The decoded image, 8-bit RGB."
    axes = "(1, H, W, 3)" if record.recipe.layout == "nhwc" else "(1, 3, H, W)"
    low, high = record.contract.low, record.contract.high
    return f"The decoded image {axes}, RGB in [{low:g}, {high:g}], slightly exceeded."


def _user_metadata(record: Record) -> dict[str, str]:
    entries: dict[str, object] = {
        "recipe": record.recipe.to_dict(),
        "weights": asdict(record.source),
        "latent_contract": record.contract.to_dict(),
        "versions": record.versions,
    }
    optional: dict[str, object] = {
        "compression": record.compression,
        "fp16_safety": record.safety,
        "part": record.part and asdict(record.part),
        "tiles": record.tiles and asdict(record.tiles),
    }
    entries |= {key: value for key, value in optional.items() if value}
    texts = {key: json.dumps(value, sort_keys=True) for key, value in entries.items()}
    texts |= {"format": RECORD_FORMAT, "weights_digest": record.weights_digest}
    return {f"{PREFIX}{key}": text for key, text in texts.items()}


def read_record(program: Program) -> Record | None:
    """The record inside a saved model; None when fluxvae did not make it.

    Raises ArtifactError when the record is there but damaged or of a newer fluxvae.
    """
    texts = {
        key.removeprefix(PREFIX): text
        for key, text in program.metadata.user.items()
        if key.startswith(PREFIX)
    }
    if "format" not in texts:
        return None
    if texts["format"] != RECORD_FORMAT:
        raise ArtifactError(
            f"{program.path.name} was made by another version of fluxvae "
            f"(record format {texts['format']}, this one reads {RECORD_FORMAT})"
        )

    def entry(key: str) -> Any:
        return parse_json(texts[key])

    try:
        return Record(
            recipe=Recipe.from_dict(entry("recipe")),
            source=build(WeightSource, entry("weights")),
            weights_digest=texts["weights_digest"],
            contract=LatentContract(**entry("latent_contract")),
            versions=entry("versions"),
            compression=entry("compression") if "compression" in texts else {},
            safety=entry("fp16_safety") if "fp16_safety" in texts else {},
            part=build(Part, entry("part")) if "part" in texts else None,
            tiles=build(Tiles, entry("tiles")) if "tiles" in texts else None,
        )
    except (KeyError, ValueError, TypeError, FluxVAEError) as error:
        raise ArtifactError(f"{program.path.name} has a damaged fluxvae record: {error}") from error
