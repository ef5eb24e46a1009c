"""Reading ``.mlmodelc`` folders: compiled ML Programs.

A bundle is ``model.mil`` (the program as text), ``coremldata.bin`` (specification version and
description) and the same weight files as the package it came from. ``metadata.json`` and
``analytics`` are for people and tools; they are not read.

``coremldata.bin`` is a header, the description and one record per function, little endian: u32
kind; three i64 of the compiler's version; a string (the variant, ``generic``); three i64 of the
specification's version; a string (another variant, empty); the serialised ModelDescription as a
string; 16 bytes for each function. A string is a u64 length and its bytes. The format has no
published definition; it is known from Apple's compiler's output.
"""

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.blobs import NUMPY, PACKED_BITS, BlobRef, WeightFiles
from fluxvae.mil.classifier import labels_constant
from fluxvae.mil.features import ml_program
from fluxvae.mil.files import read_file
from fluxvae.mil.program import FLOATS, Constant, Function, Op, Program, Ref, TensorType, Variable
from fluxvae.mil.protobuf import message_module
from fluxvae.mil.text.document import (
    OPSET_OF,
    Blob,
    ListType,
    TextFunction,
    TextOp,
    Type,
    TypedName,
    Value,
)
from fluxvae.mil.text.reader import parse_text

NEURAL_NETWORK, ML_PROGRAM, PIPELINE = 500, 502, 202  # field numbers of Model.proto
VARIANT = b"generic"
_KINDS = {NEURAL_NETWORK: "a neural network", PIPELINE: "a pipeline"}
_HEADER = 4 + 3 * 8


def read_bundle(path: Path) -> Program:
    """The program of an ``.mlmodelc`` folder.

    Raises ArtifactError when it is incomplete, damaged, or of a kind other than ML Program.
    """
    if (path / "model.espresso.net").exists():
        raise UnsupportedOpError(
            f"{path.name} is a compiled neural network, and the executor reads compiled ML "
            "Programs only: give the .mlmodel that it was compiled from"
        )
    data = parse_data(_bytes(path, "coremldata.bin"), path.name)
    description = _description(data.description, path.name)
    try:
        text = _bytes(path, "model.mil").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArtifactError(
            f"{path.name}: model.mil is damaged: expected text in UTF-8, byte {error.start} is not"
        ) from error
    document = parse_text(text, f"{path.name}/model.mil")
    functions = executable(document.functions, WeightFiles(path))
    return ml_program(description, data.specification, functions, path)


def executable(functions: Iterable[TextFunction], weights: WeightFiles) -> dict[str, Function]:
    """Functions of a text as the executor takes them, by name, sorted.

    Raises ArtifactError for what cannot be run.
    """
    ordered = sorted(functions, key=lambda f: f.name)
    return {f.name: _function(f, weights) for f in ordered}


def constant(value: Value, weights: WeightFiles) -> Constant:
    """A literal, or a blob of ``weights``, as a constant. Raises ArtifactError."""
    declared = _tensor(value.type)
    if isinstance(value.type, ListType):
        return _list(value.type, value.body)
    if not isinstance(value.type, TensorType):
        raise ArtifactError(f"a constant is of kind {declared.dtype}; expected a tensor")
    if isinstance(value.body, Blob):
        return Constant(declared, blob=BlobRef(weights[value.body.path], value.body.offset))
    return _immediate(declared, value.body)


def _bytes(path: Path, name: str) -> bytes:
    file = path / name
    if not os.path.lexists(file):
        raise ArtifactError(f"{path.name} is not a compiled ML Program: it has no {name}")
    return read_file(file, "a part of a compiled model")


def _description(content: bytes, what: str) -> Any:
    description = message_module("Model_pb2").ModelDescription()
    try:
        description.ParseFromString(content)
    except Exception as error:  # DecodeError lives in an optional module of protobuf
        raise ArtifactError(f"{what}: the description is damaged ({error})") from error
    return description


def _function(function: TextFunction, weights: WeightFiles) -> Function:
    if function.opset not in OPSET_OF:
        raise ArtifactError(
            f"function {function.name!r} is written for opset {function.opset!r}; "
            f"known: {', '.join(OPSET_OF)}"
        )
    inputs = tuple(_variable(p) for p in function.parameters)
    ops = tuple(_op(op, weights) for op in function.ops)
    return Function(function.name, OPSET_OF[function.opset], inputs, ops, function.outputs)


def _op(op: TextOp, weights: WeightFiles) -> Op:
    attributes = {k: constant(v, weights) for k, v in op.attributes.items()}
    label = attributes.pop("name", None)
    outputs = tuple(_variable(o) for o in op.outputs)
    name = str(label.value()) if label else outputs[0].name if outputs else op.kind
    inputs = {}
    for key, argument in op.arguments.items():
        bindings = argument if isinstance(argument, tuple) else (argument,)
        inputs[key] = tuple(b if isinstance(b, Ref) else constant(b, weights) for b in bindings)
    blocks = tuple(tuple(_op(inner, weights) for inner in block) for block in op.blocks)
    return Op(op.kind, name, inputs, outputs, attributes, blocks)


def _list(kind: ListType, body: Any) -> Constant:
    """A list of single strings or numbers."""
    plain = isinstance(kind.item, TensorType) and not isinstance(body, Blob)
    if not plain or any(len(item) != 1 or not isinstance(item[0], str | int) for item in body):
        raise ArtifactError("a list holds more than single strings and integers")
    return labels_constant(tuple(single for (single,) in body))


def _immediate(declared: TensorType, body: tuple[Any, ...]) -> Constant:
    if declared.dtype == "string":
        if len(body) != 1:
            raise ArtifactError("a string constant does not hold exactly one string")
        return Constant(declared, body[0])
    try:
        with np.errstate(over="ignore"):  # distinguished below
            values = np.array(body, _storage(declared.dtype))
    except (OverflowError, ValueError) as error:
        raise ArtifactError(
            f"a constant of type {declared} holds what it cannot: {error}"
        ) from error
    if declared.dtype in FLOATS and not np.array_equal(
        np.isfinite(values), np.isfinite(np.array(body, np.float64))
    ):
        raise ArtifactError(f"a constant of type {declared} holds a number too large for it")
    return Constant(declared, Constant(declared).shaped(values))


def _storage(dtype: str) -> str:
    """The array type of a constant: sub-byte elements one to a byte, bf16 as float32."""
    if dtype == "bf16":
        return "<f4"
    if dtype in PACKED_BITS:
        return "i1" if dtype.startswith("int") else "u1"
    return NUMPY[dtype]


def _variable(item: TypedName) -> Variable:
    return Variable(item.name, _tensor(item.type))


def _tensor(kind: Type) -> TensorType:
    if not isinstance(kind, TensorType):  # of an operation that the executor does not know
        return TensorType(type(kind).__name__.removesuffix("Type").lower(), ())
    return kind


@dataclass(frozen=True)
class CompiledData:
    """``compiler`` is the major version; ``description`` a serialised ModelDescription."""

    compiler: int
    specification: int
    description: bytes
    functions: int = 1


def pack_data(data: CompiledData) -> bytes:
    """The bytes of a ``coremldata.bin`` of an ML Program."""
    record = struct.pack("<IIQ", ML_PROGRAM, 0, 0)
    return b"".join(
        (
            struct.pack("<I3q", ML_PROGRAM, data.compiler, 0, 0),
            pack_string(VARIANT),
            struct.pack("<3q", data.specification, 0, 0),
            pack_string(b""),
            pack_string(data.description),
            record * data.functions,
        )
    )


def parse_data(content: bytes, what: str) -> CompiledData:
    """What a ``coremldata.bin`` says. Raises ArtifactError, naming ``what``."""
    if len(content) < _HEADER:
        raise ArtifactError(f"{what}: coremldata.bin is truncated ({len(content)} bytes)")
    kind, compiler, _, _ = struct.unpack_from("<I3q", content)
    if kind in _KINDS:
        raise ArtifactError(f"{what} holds {_KINDS[kind]}; only compiled ML Programs can be read")
    if kind != ML_PROGRAM:
        raise ArtifactError(f"{what}: coremldata.bin is not a Core ML file")
    try:
        _, at = _string(content, _HEADER)
        (specification,) = struct.unpack_from("<q", content, at)
        _, at = _string(content, at + 24)
        description, at = _string(content, at)
    except (struct.error, IndexError) as error:
        raise ArtifactError(f"{what}: coremldata.bin is truncated or damaged") from error
    return CompiledData(compiler, specification, description, (len(content) - at) // 16)


def pack_string(text: bytes) -> bytes:
    """Length and bytes."""
    return struct.pack("<Q", len(text)) + text


def _string(content: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("<Q", content, at)
    end = at + 8 + length
    if end > len(content):
        raise IndexError
    return content[at + 8 : end], end
