"""``model.mil`` to a ``Document``, in either dialect."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from fluxvae.errors import ArtifactError
from fluxvae.mil.program import BITS, FLOATS, Ref, TensorType
from fluxvae.mil.text.document import (
    Argument,
    Blob,
    DictType,
    Document,
    ListType,
    TextFunction,
    TextOp,
    TupleType,
    Type,
    TypedName,
    Value,
)
from fluxvae.mil.text.tokens import END, INTEGER, Cursor, UnexpectedError, line_of

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
T = TypeVar("T")


def parse_text(text: str, what: str = "model.mil") -> Document:
    """The document of a text in either dialect.

    Raises ArtifactError with ``what`` and the line where the text departs from the grammar.
    """
    parser = _Parser(text)
    try:
        return parser.document()
    except (UnexpectedError, ValueError, OverflowError) as error:
        line = line_of(text, parser.at)
        raise ArtifactError(f"{what} is damaged at line {line}: {error}") from error


class _Parser(Cursor):
    """Recursive descent."""

    def document(self) -> Document:
        self.expect("program")
        self.expect("(")
        dialect = self.take()
        if not re.fullmatch(r"[0-9]+\.[0-9]+", dialect):
            self.fail("a version such as 1.0", dialect)
        self.expect(")")
        attributes = self._attributes()
        self.expect("{")
        functions = []
        while self.tokens[self.at] != "}":
            functions.append(self._function())
        self.at += 1
        if self.tokens[self.at] != END:
            self.fail("the end of the text", self.tokens[self.at])
        names = [f.name for f in functions]
        if len(set(names)) != len(names):
            raise UnexpectedError("two functions have the same name")
        return Document(dialect, attributes, tuple(functions))

    def _function(self) -> TextFunction:
        self.expect("func")
        name = self.name()
        self.expect("<")
        opset = self.name()
        self.expect(">")
        parameters = self.parenthesised(self._typed_name)
        attributes = self._attributes()
        self.expect("{")
        ops = []
        while self.tokens[self.at] != "}":
            ops.append(self._op())
        self.at += 1
        self.expect("->")
        outputs = self.parenthesised(self.name)
        self.expect(";")
        return TextFunction(name, opset, parameters, attributes, tuple(ops), outputs)

    def _op(self) -> TextOp:
        outputs = self.items(self._typed_name, "=")
        kind = self.name()
        self.expect("(")
        arguments: dict[str, Argument] = {}
        if not self.skip(")"):
            self.items(lambda: self._entry(arguments, self._argument), ")")
        attributes = self._attributes()
        self.expect(";")
        return TextOp(outputs, kind, arguments, attributes)

    def _attributes(self) -> dict[str, Value]:
        found: dict[str, Value] = {}
        if self.skip("["):
            self.items(lambda: self._entry(found, self._value), "]")
        return found

    def _entry(self, entries: dict[str, T], read: Callable[[], T]) -> None:
        key = self.name()
        if key in entries:
            raise UnexpectedError(f"{key!r} is given twice")
        self.expect("=")
        entries[key] = read()

    def _argument(self) -> Argument:
        token = self.tokens[self.at]
        if token == "(":
            return self.parenthesised(self._binding)
        return self._binding()

    def _binding(self) -> Ref | Value:
        # A name may be spelled like a type, but only a type is followed by a bracket.
        if self.tokens[self.at + 1 : self.at + 2] and self.tokens[self.at + 1] in ("(", "<"):
            return self._value()
        return Ref(self.name())

    def _typed_name(self) -> TypedName:
        return TypedName(self.type(), self.name())

    def _value(self) -> Value:
        kind = self.type()
        self.expect("(")
        if self.tokens[self.at] == "BLOBFILE":
            body: Any = self._blob()
        else:
            body = self._body(kind)
        self.expect(")")
        return Value(kind, body)

    def _blob(self) -> Blob:
        self.at += 1
        self.expect("(")
        entries: dict[str, Value] = {}
        for key in ("path", "offset"):
            if key == "offset":
                self.expect(",")
            self._entry(entries, self._scalar_value)
        self.expect(")")
        path, offset = entries.get("path"), entries.get("offset")
        if path is None or offset is None:
            raise UnexpectedError("expected path and offset of a weight file")
        if path.type.dtype != "string" or offset.type.dtype != "uint64":  # type: ignore[union-attr]
            raise UnexpectedError("expected a string and a uint64 for a weight file")
        return Blob(path.body[0], offset.body[0])

    def _scalar_value(self) -> Value:
        kind = self.type()
        if not isinstance(kind, TensorType) or kind.shape:
            raise UnexpectedError("expected a scalar")
        self.expect("(")
        body = self._body(kind)
        self.expect(")")
        return Value(kind, body)

    def _body(self, kind: Type) -> Any:
        if isinstance(kind, TensorType):
            values: list[Any] = []
            self._elements(kind, 0, values)
            return tuple(values)
        if isinstance(kind, ListType):
            items = self._items(kind.item)
            if kind.length is not None and len(items) != kind.length:
                raise UnexpectedError(f"a list of {kind.length} has {len(items)} items")
            return items
        if isinstance(kind, DictType):
            return self._dictionary(kind)
        if isinstance(kind, TupleType):
            return self._tuple(kind)
        raise UnexpectedError("a state has no literal")

    def _items(self, kind: Type) -> tuple[Any, ...]:
        if isinstance(kind, TensorType) and not kind.shape and kind.dtype != "string":
            return tuple((number,) for number in self._row(kind.dtype))  # one token
        return self._list(lambda: self._body(kind))

    def _dictionary(self, kind: DictType) -> tuple[tuple[Any, Any], ...]:
        self.expect("{")
        pairs: list[tuple[Any, Any]] = []
        while not self.skip("}"):
            if pairs:
                self.expect(",")
            self.expect("{")
            key = self._body(kind.key)
            self.expect(",")
            pairs.append((key, self._body(kind.value)))
            self.expect("}")
        return tuple(pairs)

    def _tuple(self, kind: TupleType) -> tuple[Any, ...]:
        # Apple wraps the outermost tuple in a second pair of parentheses: T((a, b)).
        self.expect("(")
        items = []
        for number, item in enumerate(kind.items):
            if number:
                self.expect(",")
            items.append(self._body(item))
        self.expect(")")
        return tuple(items)

    def _list(self, read: Callable[[], T]) -> tuple[T, ...]:
        if self.skip("[]"):
            return ()
        self.expect("[")
        return self.items(read, "]")

    def _elements(self, kind: TensorType, axis: int, values: list[Any]) -> None:
        """Append the elements of a tensor from ``axis`` on, checked against its shape."""
        left = len(kind.shape) - axis
        if left == 0:
            values.append(self._scalar(kind.dtype, self.take()))
            return
        start, count = self.at, 0
        if left == 1 and kind.dtype != "string":
            row = self._row(kind.dtype)
            values.extend(row)
            count = len(row)
        elif not self.skip("[]"):
            self.expect("[")
            count = len(self.items(lambda: self._elements(kind, axis + 1, values), "]"))
        size = kind.shape[axis]
        if size is not None and count != size and not (count == 0 and 0 in kind.shape):
            self.at = start
            raise UnexpectedError(f"{count} values along axis {axis} of {kind}")

    def _row(self, dtype: str) -> list[Any]:
        token = self.take()
        if token[:1] != "[" or token[-1:] != "]":
            self.fail("a list of numbers", token)
        if not token[1:-1].strip():
            return []
        return [self._scalar(dtype, item.strip()) for item in token[1:-1].split(",")]

    def _scalar(self, dtype: str, token: str) -> Any:
        if dtype == "string":
            return _unquoted(token) if token[:1] == '"' else self.fail("a string", token)
        if dtype == "bool":
            if token not in ("true", "false"):
                self.fail("true or false", token)
            return token == "true"
        if dtype in FLOATS:
            return self._float(token)
        if not INTEGER.fullmatch(token):
            self.fail("an integer", token)
        return _in_range(int(token), dtype)

    def _float(self, token: str) -> float:
        if len(token) > 64 or "_" in token:  # Python's own spelling of large numbers
            self.fail("a number", token)
        # "10" is sixteen to fromhex: only what is marked as hexadecimal may go there
        return float.fromhex(token) if "0x" in token else float(token)


def _in_range(value: int, dtype: str) -> int:
    bits = BITS[dtype]
    low, high = (0, 1 << bits) if dtype[0] == "u" else (-1 << bits - 1, 1 << bits - 1)
    if not low <= value < high:
        raise UnexpectedError(f"{value} is not of the type {dtype}")
    return value


def _unquoted(token: str) -> str:
    inner = token[1:-1]
    if "\\" not in inner:
        return inner
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), inner)
