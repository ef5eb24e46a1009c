"""Reading ``.mlpackage`` and ``.mlmodelc`` folders and ``.mlmodel`` files, every function.

A package is ``Manifest.json`` and ``Data/com.apple.CoreML/{model.mlmodel, weights/weight.bin}``.
Weights stay on disk, memory-mapped, until a constant is asked for.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fluxvae.errors import ArtifactError
from fluxvae.mil.blobs import NUMPY, PACKED_BITS, BlobRef, WeightFiles, unpack_bits
from fluxvae.mil.bundle import list_constant, read_bundle
from fluxvae.mil.features import ml_program, refuse_unsupported
from fluxvae.mil.files import path_inside, read_file
from fluxvae.mil.listing import listed_model
from fluxvae.mil.network import NETWORKS, network_program
from fluxvae.mil.program import (
    OPSET_TARGETS,
    Constant,
    Function,
    Op,
    Program,
    Ref,
    TensorType,
    Variable,
)
from fluxvae.mil.protobuf import message_module

# MILSpec.DataType of MIL.proto
MIL_DTYPES = {
    1: "bool", 2: "string", 10: "fp16", 11: "fp32", 12: "fp64", 13: "bf16",
    21: "int8", 22: "int16", 23: "int32", 24: "int64", 25: "int4",
    31: "uint8", 32: "uint16", 33: "uint32", 34: "uint64",
    35: "uint4", 36: "uint2", 37: "uint1", 38: "uint6", 39: "uint3",
}  # fmt: skip


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
        raise ArtifactError(f"{path} does not exist")
    if path.is_dir() and path.suffix == ".mlmodelc":
        return read_bundle(path)
    spec_file = model_file(path)
    model = parse_model(spec_file)
    kind = model.WhichOneof("Type")
    if kind == "mlProgram":
        return _ml_program(model, path, spec_file.parent)
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
    reader = _Reader(folder)
    for function in model.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for value in _stored(block):
                reader.constant(value).check()
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


def _ml_program(model: Any, path: Path, folder: Path) -> Program:
    reader = _Reader(folder)
    functions = {
        name: reader.function(name, function)
        for name, function in sorted(model.mlProgram.functions.items())
    }
    return ml_program(model.description, model.specificationVersion, functions, path)


class _Reader:
    """Protobuf messages to frozen data."""

    def __init__(self, folder: Path) -> None:
        self._weights = WeightFiles(folder)

    def function(self, name: str, function: Any) -> Function:
        if function.opset not in function.block_specializations:
            raise ArtifactError(f"function {name!r} has no block for its opset {function.opset}")
        if function.opset not in OPSET_TARGETS:
            raise ArtifactError(
                f"function {name!r} is written for opset {function.opset!r}; "
                f"known: {', '.join(OPSET_TARGETS)}"
            )
        block = function.block_specializations[function.opset]
        return Function(
            name=name,
            opset=function.opset,
            inputs=tuple(Variable(i.name, _tensor_type(i.type)) for i in function.inputs),
            ops=tuple(self._op(o) for o in block.operations),
            outputs=tuple(block.outputs),
        )

    def _op(self, operation: Any) -> Op:
        attributes = {k: self.constant(v) for k, v in operation.attributes.items()}
        label = attributes.pop("name", None)
        outputs = tuple(Variable(o.name, _tensor_type(o.type)) for o in operation.outputs)
        name = str(label.value()) if label else (outputs[0].name if outputs else operation.type)
        inputs = {}
        for key, argument in operation.inputs.items():
            inputs[key] = tuple(
                Ref(b.name) if b.WhichOneof("binding") == "name" else self.constant(b.value)
                for b in argument.arguments
            )
        blocks = tuple(tuple(self._op(o) for o in block.operations) for block in operation.blocks)
        return Op(operation.type, name, inputs, outputs, attributes, blocks)

    def constant(self, value: Any) -> Constant:
        declared = _tensor_type(value.type)
        if declared.dtype == "list":
            return list_constant(self.constant(v) for v in value.immediateValue.list.values)
        if declared.dtype not in MIL_DTYPES.values():
            raise ArtifactError(f"a constant is of kind {declared.dtype}; expected a tensor")
        if value.WhichOneof("value") == "blobFileValue":
            reference = value.blobFileValue
            return Constant(
                declared, blob=BlobRef(self._weights[reference.fileName], reference.offset)
            )
        tensor = value.immediateValue.tensor
        return _immediate(declared, tensor)


def _immediate(declared: TensorType, tensor: Any) -> Constant:
    field = tensor.WhichOneof("value")
    if declared.dtype == "string":
        if field != "strings" or len(tensor.strings.values) != 1:
            raise ArtifactError("a string constant does not hold exactly one string")
        return Constant(declared, tensor.strings.values[0])
    constant = Constant(declared)
    if field is None:
        values = np.zeros(0, np.float32)
    elif field == "bytes":
        raw = np.frombuffer(tensor.bytes.values, np.uint8)
        values = unpack_bits(raw, declared.dtype, constant.elements)
    else:
        if field == "strings":
            raise ArtifactError(f"a constant of type {declared} holds strings; it is damaged")
        values = np.asarray(getattr(tensor, field).values)
        if declared.dtype in NUMPY and declared.dtype != "bf16":
            values = values.astype(NUMPY[declared.dtype])
        elif declared.dtype in PACKED_BITS:
            values = values.astype(np.int8 if declared.dtype == "int4" else np.uint8)
    return Constant(declared, constant.shaped(values))


def _tensor_type(value_type: Any) -> TensorType:
    kind = value_type.WhichOneof("type")
    if kind != "tensorType":  # of an operation that the executor does not know
        return TensorType((kind or "unknown").removesuffix("Type"), ())
    return tensor_type(value_type.tensorType)


def tensor_type(message: Any) -> TensorType:
    """A TensorType message as frozen data. Raises ArtifactError for an unknown element type."""
    if message.dataType not in MIL_DTYPES:
        raise ArtifactError(f"a tensor has the unknown element type {message.dataType}")
    return TensorType(MIL_DTYPES[message.dataType], tuple(map(dimension, message.dimensions)))


def dimension(message: Any) -> int | None:
    """The size in a Dimension message, None when it is known at run time only."""
    return message.constant.size if message.WhichOneof("dimension") == "constant" else None
