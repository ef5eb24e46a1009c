"""An ML Program's protobuf messages as the text they would be: what every reader begins with.

Whatever a program may hold is taken, also what the executor cannot run (states, dictionaries,
nested blocks) or Apple's compiler has not been seen to print; ``bundle`` and ``writer`` refuse it.
"""

import math
from typing import Any

import numpy as np

from fluxvae.errors import ArtifactError
from fluxvae.mil.blobs import unpack_bits
from fluxvae.mil.program import BITS, Ref, TensorType
from fluxvae.mil.text import document
from fluxvae.mil.text.document import Argument, TextFunction, TextOp, Type, TypedName, Value

# MILSpec.DataType of MIL.proto
MIL_DTYPES = {
    1: "bool", 2: "string", 10: "fp16", 11: "fp32", 12: "fp64", 13: "bf16",
    21: "int8", 22: "int16", 23: "int32", 24: "int64", 25: "int4",
    31: "uint8", 32: "uint16", 33: "uint32", 34: "uint64",
    35: "uint4", 36: "uint2", 37: "uint1", 38: "uint6", 39: "uint3",
}  # fmt: skip


def text_functions(program: Any) -> tuple[TextFunction, ...]:
    """The functions of an ML Program message, sorted by name.

    Raises ArtifactError for unknown opsets and element types, and values that do not fit theirs.
    """
    return tuple(_function(name, f) for name, f in sorted(program.functions.items()))


def _function(name: str, function: Any) -> TextFunction:
    if function.opset not in document.OPSET_NAMES:
        raise ArtifactError(
            f"function {name!r} is written for opset {function.opset!r}; "
            f"known: {', '.join(document.OPSET_NAMES)}"
        )
    if function.opset not in function.block_specializations:
        raise ArtifactError(f"function {name!r} has no block for its opset {function.opset}")
    block = function.block_specializations[function.opset]
    return TextFunction(
        name=name,
        opset=document.OPSET_NAMES[function.opset],
        parameters=tuple(_typed_name(i) for i in function.inputs),
        attributes={k: text_value(v) for k, v in function.attributes.items()},
        ops=tuple(_op(o) for o in block.operations),
        outputs=tuple(block.outputs),
    )


def _op(operation: Any) -> TextOp:
    return TextOp(
        outputs=tuple(_typed_name(o) for o in operation.outputs),
        kind=operation.type,
        arguments={k: _argument(a) for k, a in operation.inputs.items()},
        attributes={k: text_value(v) for k, v in operation.attributes.items()},
        blocks=tuple(tuple(_op(o) for o in block.operations) for block in operation.blocks),
    )


def _argument(argument: Any) -> Argument:
    bindings = tuple(
        Ref(b.name) if b.WhichOneof("binding") == "name" else text_value(b.value)
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
        return document.ListType(
            value_type(message.listType.type), dimension(message.listType.length)
        )
    if kind == "dictionaryType":
        pair = message.dictionaryType
        return document.DictType(value_type(pair.keyType), value_type(pair.valueType))
    if kind == "tupleType":
        return document.TupleType(tuple(value_type(t) for t in message.tupleType.types))
    if kind == "stateType":
        return document.StateType(value_type(message.stateType.wrappedType))
    raise ArtifactError("a value has no type; the model is damaged")


def text_value(value: Any) -> Value:
    """A Value message as a literal; a blob stays where it is."""
    kind = value_type(value.type)
    if value.WhichOneof("value") == "blobFileValue":
        return Value(kind, document.Blob(value.blobFileValue.fileName, value.blobFileValue.offset))
    return Value(kind, _body(kind, value.immediateValue))


def _body(kind: Type, immediate: Any) -> Any:
    found = immediate.WhichOneof("value")
    if isinstance(kind, TensorType) and found in ("tensor", None):
        return _elements(kind, immediate.tensor)
    if isinstance(kind, document.ListType) and found == "list":
        return tuple(_body(kind.item, v.immediateValue) for v in immediate.list.values)
    if isinstance(kind, document.DictType) and found == "dictionary":
        return tuple(
            (_body(kind.key, p.key.immediateValue), _body(kind.value, p.value.immediateValue))
            for p in immediate.dictionary.values
        )
    if isinstance(kind, document.TupleType) and found == "tuple":
        values = immediate.tuple.values
        if len(values) == len(kind.items):
            pairs = zip(kind.items, values, strict=True)
            return tuple(_body(item, v.immediateValue) for item, v in pairs)
    raise ArtifactError("a value does not match its declared type; the model is damaged")


def _elements(kind: TensorType, tensor: Any) -> tuple[Any, ...]:
    """The elements in C order, as Python values."""
    field = tensor.WhichOneof("value")
    if field is not None and (kind.dtype == "string") != (field == "strings"):
        raise ArtifactError(f"a constant of type {kind} holds {field}; the model is damaged")
    values: Any = [] if field is None else getattr(tensor, field).values
    if field == "bytes":
        bits = BITS[kind.dtype]
        if len(values) * 8 % max(8, bits):
            raise ArtifactError(f"a constant of type {kind} holds {len(values)} bytes")
        raw = np.frombuffer(values, np.uint8)
        values = unpack_bits(raw, kind.dtype, len(raw) * 8 // bits).tolist()
    if None not in kind.shape:
        size = math.prod(d for d in kind.shape if d is not None)
        if BITS.get(kind.dtype, 8) < 8:
            values = values[:size]  # the last byte may be filled up
        if len(values) != size:
            raise ArtifactError(
                f"a constant of type {kind} holds {len(values)} values; the model is damaged"
            )
    return tuple(values)


def tensor_type(message: Any) -> TensorType:
    """A TensorType message as frozen data. Raises ArtifactError for an unknown element type."""
    if message.dataType not in MIL_DTYPES:
        raise ArtifactError(f"a tensor has the unknown element type {message.dataType}")
    return TensorType(MIL_DTYPES[message.dataType], tuple(map(dimension, message.dimensions)))


def dimension(message: Any) -> int | None:
    """The size in a Dimension message, None when it is known at run time only."""
    return message.constant.size if message.WhichOneof("dimension") == "constant" else None
