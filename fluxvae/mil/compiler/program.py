"""An ML Program's protobuf to a ``Document``, as Apple's compiler would write it down.

Straight from the messages, not through ``Program``: what the executor cannot run (states, unknown
operations, dictionaries) is written all the same. Every guess is collected as a warning.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fluxvae.errors import ArtifactError
from fluxvae.mil.blobs import unpack_bits
from fluxvae.mil.compiler.shapes import flexible_shapes
from fluxvae.mil.package import dimension, tensor_type
from fluxvae.mil.program import BITS, Ref, TensorType
from fluxvae.mil.text.document import (
    NEW_DIALECT,
    OLD_DIALECT,
    OPSET_NAMES,
    Argument,
    Blob,
    DictType,
    Document,
    ListType,
    StateType,
    TextFunction,
    TextOp,
    TupleType,
    Type,
    TypedName,
    Value,
)

_STRING = TensorType("string", ())
_BUILD_INFO = DictType(_STRING, _STRING)
FIRST_NEW_SPECIFICATION = 9  # writes the newer dialect; so does Apple's, whatever the opset
# Versions that Apple's own output of either dialect carries; others were reported to load too.
_COMPILERS = {OLD_DIALECT: ("3500.14.1", "3500.32.1"), NEW_DIALECT: ("3600.16.1", "3600.25.1")}


def program_document(model: Any) -> tuple[Document, tuple[str, ...]]:
    """The text of a Model message that holds an ML Program, and what in it was guessed.

    Raises ArtifactError for what Apple's compiler has not been seen to write: nested blocks,
    results without a value, unknown opsets and element types.
    """
    new = model.specificationVersion >= FIRST_NEW_SPECIFICATION
    dialect = NEW_DIALECT if new else OLD_DIALECT
    features = {f.name: f for f in model.description.functions}
    functions, warnings = [], []
    for name, function in sorted(model.mlProgram.functions.items()):
        shapes, guesses = flexible_shapes(features.get(name, model.description), function)
        functions.append(_function(name, function, shapes))
        warnings += guesses
        if function.opset == "CoreML9":
            warnings.append("the spelling ios26 of opset CoreML9 is a guess")
        if any(len(b.attributes) for b in function.block_specializations.values()):
            warnings.append(f"attributes of the block of function {name!r} were left out")
    attributes = _program_attributes(model.mlProgram, dialect)
    return Document(dialect, attributes, tuple(functions)), tuple(dict.fromkeys(warnings))


def document_blobs(document: Document) -> Iterator[tuple[TextOp, str, Value]]:
    """Every value that lies in a weight file, with its operation and its key there."""
    for function in document.functions:
        for op in function.ops:
            for key, argument in (*op.arguments.items(), *op.attributes.items()):
                for item in argument if isinstance(argument, tuple) else (argument,):
                    if isinstance(item, Value) and isinstance(item.body, Blob):
                        yield op, key, item


def _program_attributes(program: Any, dialect: str) -> dict[str, Value]:
    attributes = {k: _value(v) for k, v in program.attributes.items()}
    entries = {}
    if "buildInfo" in attributes:
        found = attributes["buildInfo"]
        if found.type != _BUILD_INFO or isinstance(found.body, Blob):
            raise ArtifactError("the program's buildInfo is not a dictionary of strings")
        entries = {key: value for (key,), (value,) in found.body}
    mil, compiler = _COMPILERS[dialect]
    entries |= {"coremlc-component-MIL": mil, "coremlc-version": compiler}
    body = tuple(((k,), (entries[k],)) for k in sorted(entries))
    return {**attributes, "buildInfo": Value(_BUILD_INFO, body)}


def _function(name: str, function: Any, shapes: Value | None) -> TextFunction:
    if function.opset not in OPSET_NAMES or function.opset not in function.block_specializations:
        known = ", ".join(OPSET_NAMES)
        raise ArtifactError(
            f"function {name!r} is written for opset {function.opset!r}; known: {known}"
        )
    block = function.block_specializations[function.opset]
    attributes = {k: _value(v) for k, v in function.attributes.items()}
    if shapes is not None:
        attributes["FlexibleShapeInformation"] = shapes
    return TextFunction(
        name=name,
        opset=OPSET_NAMES[function.opset],
        parameters=tuple(_typed_name(i) for i in function.inputs),
        attributes=attributes,
        ops=tuple(_op(o) for o in block.operations),
        outputs=tuple(block.outputs),
    )


def _op(operation: Any) -> TextOp:
    if len(operation.blocks):
        raise ArtifactError(
            f"operation {operation.type!r} has nested blocks (control flow); how Apple's compiler "
            "writes those is not known: use --compiler xcode on a Mac"
        )
    if not len(operation.outputs):
        raise ArtifactError(
            f"operation {operation.type!r} has no result; how Apple's compiler writes that is not "
            "known: use --compiler xcode on a Mac"
        )
    return TextOp(
        outputs=tuple(_typed_name(o) for o in operation.outputs),
        kind=operation.type,
        arguments={k: _argument(a) for k, a in operation.inputs.items()},
        attributes={k: _value(v) for k, v in operation.attributes.items()},
    )


def _argument(argument: Any) -> Argument:
    bindings = tuple(
        Ref(b.name) if b.WhichOneof("binding") == "name" else _value(b.value)
        for b in argument.arguments
    )
    return bindings[0] if len(bindings) == 1 else bindings


def _typed_name(item: Any) -> TypedName:
    return TypedName(value_type(item.type), item.name)


def value_type(message: Any) -> Type:
    """A ValueType message as frozen data."""
    kind = message.WhichOneof("type")
    if kind == "tensorType":
        return tensor_type(message.tensorType)
    if kind == "listType":
        return ListType(value_type(message.listType.type), dimension(message.listType.length))
    if kind == "dictionaryType":
        pair = message.dictionaryType
        return DictType(value_type(pair.keyType), value_type(pair.valueType))
    if kind == "tupleType":
        return TupleType(tuple(value_type(t) for t in message.tupleType.types))
    if kind == "stateType":
        return StateType(value_type(message.stateType.wrappedType))
    raise ArtifactError("a value has no type; the model is damaged")


def _value(value: Any) -> Value:
    kind = value_type(value.type)
    if value.WhichOneof("value") == "blobFileValue":
        return Value(kind, Blob(value.blobFileValue.fileName, value.blobFileValue.offset))
    return Value(kind, _body(kind, value.immediateValue))


def _body(kind: Type, immediate: Any) -> Any:
    found = immediate.WhichOneof("value")
    if isinstance(kind, TensorType) and found in ("tensor", None):
        return _elements(kind, immediate.tensor)
    if isinstance(kind, ListType) and found == "list":
        return tuple(_body(kind.item, v.immediateValue) for v in immediate.list.values)
    if isinstance(kind, DictType) and found == "dictionary":
        return tuple(
            (_body(kind.key, p.key.immediateValue), _body(kind.value, p.value.immediateValue))
            for p in immediate.dictionary.values
        )
    if isinstance(kind, TupleType) and found == "tuple":
        values = immediate.tuple.values
        if len(values) == len(kind.items):
            pairs = zip(kind.items, values, strict=True)
            return tuple(_body(item, v.immediateValue) for item, v in pairs)
    raise ArtifactError("a value does not match its declared type; the model is damaged")


def _elements(kind: TensorType, tensor: Any) -> tuple[Any, ...]:
    """The elements in C order, as Python values."""
    field = tensor.WhichOneof("value")
    if field is None:
        values: list[Any] = []
    elif field == "bytes":
        if kind.dtype not in BITS:
            raise ArtifactError(f"a constant of type {kind} holds bytes; the model is damaged")
        raw = np.frombuffer(tensor.bytes.values, np.uint8)
        values = unpack_bits(raw, kind.dtype, len(raw) * 8 // BITS[kind.dtype]).tolist()
    else:
        values = list(getattr(tensor, field).values)
    size = 1
    for d in kind.shape:
        size *= len(values) if d is None else d
    if None not in kind.shape:
        values = values[:size] if kind.dtype in BITS and BITS[kind.dtype] < 8 else values
        if len(values) != size:
            raise ArtifactError(f"a constant of type {kind} holds {len(values)} values")
    if (kind.dtype == "string") != (field == "strings") and values:
        raise ArtifactError(f"a constant of type {kind} holds {field}; the model is damaged")
    return tuple(values)
