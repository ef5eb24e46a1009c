"""A ``Document`` to text, byte for byte as Apple's compiler prints it (no final newline)."""

import math
import re
from collections.abc import Mapping
from typing import Any

from fluxvae.errors import ArtifactError
from fluxvae.mil.blobs import PACKED_BITS
from fluxvae.mil.program import FLOATS, Ref, TensorType
from fluxvae.mil.text.document import (
    IDENTIFIER,
    OLD_DIALECT,
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
_OFFSET = TensorType("uint64", ())
_NAME = re.compile(IDENTIFIER)


def print_text(document: Document) -> str:
    """The text of a document, in its own dialect.

    Parameters, arguments and attributes come out sorted by name. Raises ArtifactError for what
    Apple's compiler has never been seen to print: names outside MIL's alphabet, strings that need
    escapes, bf16, elements of less than a byte, literals of states.
    """
    return _Writer(document.dialect == OLD_DIALECT).document(document)


class _Writer:
    """Prints in one dialect; ``old`` spells scalar types as tensors of rank 0."""

    def __init__(self, old: bool) -> None:
        self._old = old
        self._types: dict[Type, str] = {}

    def document(self, document: Document) -> str:
        attributes = ""
        if document.attributes:
            attributes = f"{self._attributes(document.attributes)}\n"
        functions = "".join(self._function(f) for f in document.functions)
        return f"program({document.dialect})\n{attributes}{{\n{functions}}}"

    def _function(self, function: TextFunction) -> str:
        parameters = sorted(function.parameters, key=lambda p: p.name)
        taken = ", ".join(self._typed_name(p) for p in parameters)
        attributes = f" {self._attributes(function.attributes)}" if function.attributes else ""
        lines = [
            f"    func {_name(function.name)}<{function.opset}>({taken}){attributes} {{\n",
            *(f"            {self._op(op)};\n" for op in function.ops),
            f"        }} -> ({', '.join(_name(n) for n in function.outputs)});\n",
        ]
        return "".join(lines)

    def _op(self, op: TextOp) -> str:
        if op.blocks or not op.outputs:
            what = "nested blocks (control flow)" if op.blocks else "no result"
            raise ArtifactError(
                f"operation {op.kind!r} has {what}; how Apple's compiler writes that is not known: "
                "use --compiler xcode on a Mac"
            )
        outputs = ", ".join(self._typed_name(o) for o in op.outputs)
        arguments = ", ".join(
            f"{_name(key)} = {self._argument(op.arguments[key])}" for key in sorted(op.arguments)
        )
        attributes = self._attributes(op.attributes) if op.attributes else ""
        return f"{outputs} = {_name(op.kind)}({arguments}){attributes}"

    def _attributes(self, attributes: Mapping[str, Value]) -> str:
        entries = (f"{_name(k)} = {self._value(attributes[k])}" for k in sorted(attributes))
        return f"[{', '.join(entries)}]"

    def _argument(self, argument: Argument) -> str:
        if isinstance(argument, tuple):
            return f"({', '.join(self._argument(a) for a in argument)})"
        return _name(argument.name) if isinstance(argument, Ref) else self._value(argument)

    def _typed_name(self, item: TypedName) -> str:
        return f"{self._type(item.type)} {_name(item.name)}"

    def _value(self, value: Value) -> str:
        if isinstance(value.body, Blob):
            path = self._value(Value(_STRING, (value.body.path,)))
            offset = self._value(Value(_OFFSET, (value.body.offset,)))
            return f"{self._type(value.type)}(BLOBFILE(path = {path}, offset = {offset}))"
        return f"{self._type(value.type)}({self._body(value.type, value.body)})"

    def _body(self, kind: Type, body: Any) -> str:
        if isinstance(kind, TensorType):
            return _tensor(kind, body)
        if isinstance(kind, ListType):
            return f"[{', '.join(self._body(kind.item, b) for b in body)}]"
        if isinstance(kind, DictType):
            pairs = (f"{{{self._body(kind.key, k)}, {self._body(kind.value, v)}}}" for k, v in body)
            return f"{{{', '.join(pairs)}}}"
        if isinstance(kind, TupleType):
            items = (self._body(k, b) for k, b in zip(kind.items, body, strict=True))
            return f"({', '.join(items)})"
        raise ArtifactError("a state with a literal value; how Apple prints that is not known")

    def _type(self, kind: Type) -> str:
        if kind not in self._types:
            self._types[kind] = self._spelled(kind)
        return self._types[kind]

    def _spelled(self, kind: Type) -> str:
        if isinstance(kind, TensorType):
            if not kind.shape and not self._old:
                return kind.dtype
            return f"tensor<{kind.dtype}, [{', '.join(_dimension(d) for d in kind.shape)}]>"
        if isinstance(kind, ListType):
            return f"list<{self._type(kind.item)}, {_dimension(kind.length)}>"
        if isinstance(kind, DictType):
            return f"dict<{self._type(kind.key)}, {self._type(kind.value)}>"
        if isinstance(kind, StateType):
            return f"state<{self._type(kind.wrapped)}>"
        return f"tuple<{', '.join(self._type(i) for i in kind.items)}>"


def _dimension(size: int | None) -> str:
    return "?" if size is None else str(size)


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ArtifactError(
            f"the name {name!r} is not an identifier; how Apple's compiler prints such names is "
            "not known: rename it, or use --compiler xcode on a Mac"
        )
    return name


def _tensor(kind: TensorType, body: tuple[Any, ...]) -> str:
    if kind.dtype == "bf16" or kind.dtype in PACKED_BITS:
        raise ArtifactError(
            f"the program holds {kind.dtype} numbers outside its weight file; how Apple's compiler "
            "prints them is not known: use --compiler xcode on a Mac"
        )
    elements = [_scalar(kind.dtype, v) for v in body]
    for size in reversed(kind.shape[1:]):  # an open dimension: the first and only one
        if size == 0:
            return "[]"
        step = size or len(elements)
        rows = range(0, len(elements), step)
        elements = [f"[{', '.join(elements[i : i + step])}]" for i in rows]
    return f"[{', '.join(elements)}]" if kind.shape else elements[0]


def _scalar(dtype: str, value: Any) -> str:
    if dtype == "string":
        if not value.isprintable() or '"' in value or "\\" in value:
            raise ArtifactError(
                f"the program holds the string {value[:60]!r}; how Apple's compiler escapes such "
                "characters is not known: use --compiler xcode on a Mac"
            )
        return f'"{value}"'
    if dtype == "bool":
        return "true" if value else "false"
    return hex_float(value) if dtype in FLOATS else str(value)


def hex_float(value: float) -> str:
    """A float as C99's ``%a`` prints it with the shortest mantissa: ``0x1.8p-3``, ``0x0p+0``."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "-inf" if value < 0 else "inf"
    if 0 < abs(value) < 2.0**-1022:  # Python does not normalise subnormals
        shift = 2.0**100
        head, _, exponent = (value * shift).hex().partition("p")
        exponent = f"{int(exponent) - 100:+d}"
    else:
        head, _, exponent = value.hex().partition("p")
    return f"{head.rstrip('0').rstrip('.') if '.' in head else head}p{exponent}"
