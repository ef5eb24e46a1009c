"""Compiling an ML Program to ``.mlmodelc`` without Xcode, on any OS.

Writes what Apple's compiler was seen to write: ``model.mil``, ``coremldata.bin``,
``analytics/coremldata.bin``, ``metadata.json`` and the weight files, unchanged. Held against
Apple's own output byte for byte where there is some. **Not shown to load on a real Mac.**
"""

import base64
import filecmp
import hashlib
import json
import shutil
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxvae.errors import ArtifactError
from fluxvae.mil.blobs import weight_path
from fluxvae.mil.bundle import CompiledData, pack_data, pack_string
from fluxvae.mil.compiler.metadata import bundle_metadata
from fluxvae.mil.compiler.program import document_blobs, program_document
from fluxvae.mil.package import check_weights, model_file, parse_model
from fluxvae.mil.text.document import Blob, Document
from fluxvae.mil.text.reader import parse_text
from fluxvae.mil.text.writer import print_text

# Major version of the compiler in coremldata.bin, by specification version.
_COMPILERS = {6: 5, 7: 5, 8: 8, 9: 9}
_DESCRIPTION_FIELD = 2  # of Model
_EMPTY_METADATA = b"\xa2\x06\x00"  # field 100 of ModelDescription, without content


@dataclass(frozen=True)
class Compiled:
    """A bundle, and what in it is a guess."""

    path: Path
    warnings: tuple[str, ...]


def compile_program(path: Path, folder: Path) -> Compiled:
    """Compile ``path`` (``.mlpackage`` or ``.mlmodel``) into ``folder`` as ``<stem>.mlmodelc``.

    Operations that the executor does not know are no obstacle. Raises ArtifactError, before it
    writes anything, when ``path`` is not an ML Program, is damaged, lacks weights or holds what
    Apple's compiler has not been seen to write.
    """
    source = model_file(path)
    model = parse_model(source)
    if model.WhichOneof("Type") != "mlProgram":
        raise ArtifactError(
            f"{path.name} holds a {model.WhichOneof('Type')}; the portable compiler takes ML "
            "Programs only: use --compiler xcode on a Mac"
        )
    check_weights(model, source.parent)  # before anything is written
    content = source.read_bytes()
    document, warnings = program_document(model)
    text = _checked_text(document)
    metadata, guesses = bundle_metadata(model, document, path.stem)
    if model.specificationVersion not in _COMPILERS:
        guesses.append(f"compiler version for specification {model.specificationVersion}: a guess")
    bundle = folder / f"{path.stem}.mlmodelc"
    files = {
        "model.mil": text.encode(),
        "metadata.json": print_json(metadata).encode(),
        "coremldata.bin": pack_data(_data(model, content)),
        "analytics/coremldata.bin": _analytics(content, source.stem),
    }
    weights = _weight_files(document, source.parent, files)
    (bundle / "analytics").mkdir(parents=True)
    for name, data in files.items():
        (bundle / name).write_bytes(data)
    for name, file in weights.items():
        target = weight_path(bundle, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)  # follows links
    return Compiled(bundle, tuple(dict.fromkeys((*warnings, *guesses))))


def _checked_text(document: Document) -> str:
    """The text, read again: what our own reader cannot take, nobody gets."""
    text = print_text(document)
    if print_text(parse_text(text)) != text:
        raise ArtifactError("the compiled text does not read back as it was written")
    return text


def _weight_files(document: Document, folder: Path, reserved: Iterable[str]) -> dict[str, Path]:
    """Weight files by the name the program has for them; none may be that of another file."""
    taken = {name.partition("/")[0] for name in reserved}
    names = {v.body.path for _, _, v in document_blobs(document) if isinstance(v.body, Blob)}
    files = {name: weight_path(folder, name) for name in sorted(names)}
    for name, file in files.items():
        if file.relative_to(folder).parts[0] in taken:
            raise ArtifactError(f"a weight file has the reserved name {name!r}")
    return files


def _data(model: Any, content: bytes) -> CompiledData:
    """``coremldata.bin``. The description stays as its author's tool wrote it, so that entries of
    the user's metadata keep their order; protobuf libraries shuffle them."""
    description = b"".join(_fields(content, _DESCRIPTION_FIELD))
    if not model.description.HasField("metadata"):
        description += _EMPTY_METADATA
    specification = model.specificationVersion
    compiler = _COMPILERS.get(specification, specification)
    functions = max(1, len(model.description.functions))
    return CompiledData(compiler, specification, description, functions)


def _fields(content: bytes, wanted: int) -> list[bytes]:
    """Every occurrence of a length-delimited field in a serialised message that parsed."""
    found, at = [], 0
    while at < len(content):
        tag, at = _varint(content, at)
        field, wire = tag >> 3, tag & 7
        if wire == 2:
            size, at = _varint(content, at)
            if field == wanted:
                found.append(content[at : at + size])
            at += size
        elif wire == 0:
            _, at = _varint(content, at)
        else:
            at += {1: 8, 5: 4}[wire]
    return found


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _analytics(content: bytes, name: str) -> bytes:
    """``analytics/coremldata.bin``: named sections of keys and values, all strings."""
    sections = {
        "NeuralNetworkModelDetails": {"containsCustomLayer": "0", "modelDimension": "0"},
        "SpecificationDetails": {"modelHash": _model_hash(content), "modelName": name},
    }
    parts = []
    for title, entries in sections.items():
        parts += [pack_string(title.encode()), struct.pack("<Q", len(entries))]
        for key, value in entries.items():
            parts += [pack_string(key.encode()), pack_string(value.encode())]
    return b"".join(parts)


def _model_hash(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def is_compiled_from(bundle: Path, source: Path) -> bool:
    """Whether ``bundle``, Apple's or ours, was compiled from ``source`` as that is now.

    By the SHA-256 of the program in ``analytics/coremldata.bin`` and the bytes of the weight
    files. Raises ArtifactError when ``source`` is not a package or ``.mlmodel`` file.
    """
    model = model_file(source)
    analytics = bundle / "analytics" / "coremldata.bin"
    if not analytics.is_file():
        return False
    if _model_hash(model.read_bytes()).encode() not in analytics.read_bytes():
        return False
    weights = [f for f in (model.parent / "weights").rglob("[!.]*") if f.is_file()]
    copies = [bundle / file.relative_to(model.parent) for file in weights]
    return all(
        copy.is_file() and filecmp.cmp(file, copy, shallow=False)
        for file, copy in zip(weights, copies, strict=True)
    )


def print_json(metadata: dict[str, Any]) -> str:
    """``metadata.json`` in Apple's layout: ``" : "``, a blank line in what is empty."""
    text = json.dumps([metadata], ensure_ascii=False, indent=2, separators=(",", " : "))
    lines = []
    for line in text.splitlines():
        bare = line.rstrip(",")
        if bare.endswith(("[]", "{}")) and '"' not in bare[-3:]:
            indent = " " * (len(line) - len(line.lstrip()))
            lines += [bare[:-1], "", f"{indent}{bare[-1]}{line[len(bare) :]}"]
        else:
            lines.append(line)
    return "\n".join(lines)
