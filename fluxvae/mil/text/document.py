"""MIL as text: what ``model.mil`` of a compiled model holds, as frozen data.

``reader`` parses it, ``writer`` prints it, ``messages`` makes it of a protobuf and ``bundle`` makes
a ``Program`` of it, whichever it came from. The format has no published definition; it is known
from the output of Apple's compiler. Two dialects differ in the spelling of rank-0 types alone:
``tensor<fp16, []>`` in program(1.0), ``fp16`` in program(1.3).

A body holds plain Python values, arranged by its type: a tensor's is the flat tuple of its
elements in C order, a list's and a tuple's a tuple of bodies, a dictionary's a tuple of pairs of
bodies. A ``Blob`` stands for any body that lies in a weight file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluxvae.mil.program import OPSET_TARGETS, OPSETS, Ref, TensorType

OPSET_NAMES = {opset: OPSET_TARGETS[opset].lower() for opset in OPSETS}  # CoreML7: ios17
OPSET_OF = {name: opset for opset, name in OPSET_NAMES.items()}
OLD_DIALECT, NEW_DIALECT = "1.0", "1.3"
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_@]*"  # MIL.proto: "identifier"


@dataclass(frozen=True)
class ListType:
    """``list<item, length>``; a length of ``None`` is unknown (``?``)."""

    item: "Type"
    length: int | None


@dataclass(frozen=True)
class DictType:
    """``dict<key, value>``."""

    key: "Type"
    value: "Type"


@dataclass(frozen=True)
class TupleType:
    """``tuple<item, ...>``."""

    items: "tuple[Type, ...]"


@dataclass(frozen=True)
class StateType:
    """``state<wrapped>``: a value that lives from one prediction to the next."""

    wrapped: "Type"


@dataclass(frozen=True)
class Blob:
    """A value in a weight file: ``BLOBFILE(path = .., offset = ..)``."""

    path: str
    offset: int


Type = TensorType | ListType | DictType | TupleType | StateType


@dataclass(frozen=True)
class Value:
    """A typed literal."""

    type: Type
    body: Any


Argument = Ref | Value | tuple[Ref | Value, ...]


@dataclass(frozen=True)
class TypedName:
    """A parameter of a function, or a result of an operation."""

    type: Type
    name: str


@dataclass(frozen=True)
class TextOp:
    """``type name, .. = kind(key = argument, ..)[key = value, ..];``

    ``blocks``: the operations of each nested block of control flow; how those are printed is not
    known.
    """

    outputs: tuple[TypedName, ...]
    kind: str
    arguments: Mapping[str, Argument]
    attributes: Mapping[str, Value]
    blocks: "tuple[tuple[TextOp, ...], ...]" = ()


@dataclass(frozen=True)
class TextFunction:
    """``func name<opset>(parameters) [attributes] { ops } -> (outputs);``"""

    name: str
    opset: str  # as printed: ios15, ios16, ...
    parameters: tuple[TypedName, ...]
    attributes: Mapping[str, Value]
    ops: tuple[TextOp, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """A whole ``model.mil``; ``dialect`` is the number in ``program(..)``."""

    dialect: str
    attributes: Mapping[str, Value]
    functions: tuple[TextFunction, ...]
