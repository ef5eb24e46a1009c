"""Reading ``.mlpackage`` and ``.mlmodelc`` folders and ``.mlmodel`` files, every function.

A package is ``Manifest.json`` and ``Data/com.apple.CoreML/{model.mlmodel, weights/weight.bin}``.
Weights stay on disk, memory-mapped, until a constant is asked for.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fluxvae.errors import ArtifactError
from fluxvae.mil.blobs import WeightFiles
from fluxvae.mil.bundle import constant, executable, read_bundle
from fluxvae.mil.features import ml_program, refuse_unsupported
from fluxvae.mil.files import path_inside, read_file
from fluxvae.mil.listing import listed_model
from fluxvae.mil.network import NETWORKS, network_program
from fluxvae.mil.program import Program
from fluxvae.mil.protobuf import message_module
from fluxvae.mil.text.messages import text_functions, text_value


def read_package(path: Path, *, listing: bool = False) -> Program:
    """The program of an ``.mlpackage``, a single-file ``.mlmodel`` or an ``.mlmodelc``.

    ``listing``: also of a model that the executor cannot run, to see what is in it; what is
    missing is in its functions (``Registry.unsupported``) and signatures. Raises ArtifactError
    when it is missing, truncated or foreign; unless ``listing`` UnsupportedOpError when it is
    of a kind other than ML Program and neural network, or has layers, features or states that
    the executor does not know.
    """
    program = _read(Path(path))
    if not listing:
        refuse_unsupported(program)
    return program


def _read(path: Path) -> Program:
    if not path.exists():
        raise ArtifactError(
            f"{path} does not exist; expected an .mlpackage, .mlmodelc or .mlmodel: check the "
            "path, or make one with `fluxvae convert`"
        )
    if path.is_dir() and path.suffix == ".mlmodelc":
        return read_bundle(path)
    spec_file = model_file(path)
    model = parse_model(spec_file)
    kind = model.WhichOneof("Type")
    if kind == "mlProgram":
        functions = executable(text_functions(model.mlProgram), WeightFiles(spec_file.parent))
        return ml_program(model.description, model.specificationVersion, functions, path)
    return network_program(model, path) if kind in NETWORKS else listed_model(model, path)


def model_file(path: Path) -> Path:
    """The protobuf file of an ``.mlpackage``, or the ``.mlmodel`` itself.

    Raises ArtifactError when ``path`` is neither, or the package is damaged.
    """
    if path.is_dir():
        return _root_model(path)
    if path.suffix == ".mlmodel":
        return path
    raise ArtifactError(
        f"{path.name} is neither an .mlpackage or .mlmodelc folder nor an .mlmodel file"
    )


def parse_model(path: Path) -> Any:
    """The Model message of a protobuf file. Raises ArtifactError when it does not parse."""
    messages = message_module("Model_pb2")
    model, content = messages.Model(), read_file(path, "the model")
    try:
        model.ParseFromString(content)
    except Exception as error:  # DecodeError lives in an optional module of protobuf
        raise ArtifactError(
            f"{path} is not a Core ML model, or it is truncated or damaged: its {len(content)} "
            "bytes are not a whole protobuf message"
        ) from error
    if not model.specificationVersion or not model.WhichOneof("Type"):
        why = "truncated (no model in it)" if content else "truncated: it is empty"
        raise ArtifactError(f"{path} is not a Core ML model, or it is {why}")
    return model


def check_model(path: Path) -> None:
    """Read whatever a compiler needs of an ``.mlpackage`` or ``.mlmodel``, but no weight values.

    Raises ArtifactError, naming the file, as `parse_model` and `check_weights` do.
    """
    source = model_file(path)
    check_weights(parse_model(source), source.parent)


def check_weights(model: Any, folder: Path) -> None:
    """Check every blob that a Model message refers to, as a reader of its constants would.

    Operations need not be known, and may hold nested blocks. ``folder`` is the one of the model's
    file. Raises ArtifactError when a weight file is missing, damaged, truncated or a Git LFS
    pointer, or when a blob is not of the declared type and size.
    """
    weights = WeightFiles(folder)
    for function in model.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for value in _stored(block):
                constant(text_value(value), weights).check()
    for inner in model.pipeline.models:
        check_weights(inner, folder)


def _stored(block: Any) -> Iterator[Any]:
    """Every value of a block that lies in a weight file."""
    for operation in block.operations:
        bindings = (b for argument in operation.inputs.values() for b in argument.arguments)
        for value in (*(b.value for b in bindings), *operation.attributes.values()):
            if value.WhichOneof("value") == "blobFileValue":
                yield value
        for inner in operation.blocks:
            yield from _stored(inner)


def _root_model(package: Path) -> Path:
    """The model file a package's manifest points at."""
    manifest = package / "Manifest.json"
    if not os.path.lexists(manifest):
        raise ArtifactError(f"{package.name} is not an .mlpackage: it has no Manifest.json")
    content = read_file(manifest, "the manifest of a package")
    try:  # bytes: json finds out the encoding, with a byte order mark or without
        entries = json.loads(content)
        root = entries["itemInfoEntries"][entries["rootModelIdentifier"]]["path"]
        model = path_inside(package / "Data", root)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{package.name} has a damaged Manifest.json ({error!r})") from error
    if model is None:
        raise ArtifactError(f"{package.name} points outside itself: {root!r}")
    if not os.path.lexists(model):
        raise ArtifactError(f"{package.name} is incomplete: Data/{root} is missing")
    return model
