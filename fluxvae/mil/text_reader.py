"""``model.mil`` to a ``Document``.

One regular expression cuts the text into tokens. A whole tensor type and a whole list of numbers
are one token each, and types are looked up by their text, since both recur thousands of times.
Everything that nests is limited in depth, so that no text can exhaust the stack.
"""

import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from fluxvae.errors import ArtifactError
from fluxvae.mil.program import BITS, FLOATS, Ref, TensorType
from fluxvae.mil.text import (
    IDENTIFIER,
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

MAX_DEPTH = 16  # of types and of tensors; the deepest seen is 5, MIL's highest rank is 5
MAX_DIGITS = 20  # of 2**64
_TOKEN = re.compile(
    r'"(?:[^"\\\n]|\\.)*"'  # a string
    r"|tensor<\w+, *\[[0-9?, ]*\]>"
    r"|\[[-+.0-9A-Za-z, ]*\]"  # a list of numbers
    r"|->"
    r"|[-+]?[A-Za-z0-9_][\w@.+-]*"  # a word: name, keyword or number
    r"|\S",
    re.ASCII,
)
_TENSOR = re.compile(r"tensor<(\w+), *\[([0-9?, ]*)\]>")
_NAME = re.compile(IDENTIFIER)
_INTEGER = re.compile(rf"-?[0-9]{{1,{MAX_DIGITS}}}", re.ASCII)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_DTYPES = frozenset(BITS) | {"string"}
_END = ""  # the token after the last one
T = TypeVar("T")


def parse_text(text: str, what: str = "model.mil") -> Document:
    """The document of a text in either dialect.

    Raises ArtifactError with ``what`` and the line where the text departs from the grammar.
    """
    parser = _Parser(_TOKEN.findall(text))
    try:
        return parser.document()
    except (_UnexpectedError, ValueError, OverflowError) as error:
        line = _line(text, parser.at)
        raise ArtifactError(f"{what} is damaged at line {line}: {error}") from error


class _UnexpectedError(Exception):
    """Text that departs from the grammar."""


def _line(text: str, index: int) -> int:
    """Line number of a token."""
    for number, match in enumerate(_TOKEN.finditer(text)):
        if number == index:
            return text.count("\n", 0, match.start()) + 1
    return text.count("\n") + 1


class _Parser:
    """Recursive descent over the tokens; ``at`` is the index of the next one."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.tokens.append(_END)
        self.at = 0
        self._types: dict[str, TensorType] = {}

    def document(self) -> Document:
        self._expect("program")
        self._expect("(")
        dialect = self._take()
        if not re.fullmatch(r"[0-9]+\.[0-9]+", dialect):
            self._fail("a version such as 1.0", dialect)
        self._expect(")")
        attributes = self._attributes()
        self._expect("{")
        functions = []
        while self.tokens[self.at] != "}":
            functions.append(self._function())
        self.at += 1
        if self.tokens[self.at] != _END:
            self._fail("the end of the text", self.tokens[self.at])
        names = [f.name for f in functions]
        if len(set(names)) != len(names):
            raise _UnexpectedError("two functions have the same name")
        return Document(dialect, attributes, tuple(functions))

    def _function(self) -> TextFunction:
        self._expect("func")
        name = self._name()
        self._expect("<")
        opset = self._name()
        self._expect(">")
        parameters = self._parenthesised(self._typed_name)
        attributes = self._attributes()
        self._expect("{")
        ops = []
        while self.tokens[self.at] != "}":
            ops.append(self._op())
        self.at += 1
        self._expect("->")
        outputs = self._parenthesised(self._name)
        self._expect(";")
        return TextFunction(name, opset, parameters, attributes, tuple(ops), outputs)

    def _op(self) -> TextOp:
        outputs = [self._typed_name()]
        while self._skip(","):
            outputs.append(self._typed_name())
        self._expect("=")
        kind = self._name()
        self._expect("(")
        arguments: dict[str, Argument] = {}
        if not self._skip(")"):
            self._entry(arguments, self._argument)
            while self._skip(","):
                self._entry(arguments, self._argument)
            self._expect(")")
        attributes = self._attributes()
        self._expect(";")
        return TextOp(tuple(outputs), kind, arguments, attributes)

    def _attributes(self) -> dict[str, Value]:
        found: dict[str, Value] = {}
        if self._skip("["):
            self._entry(found, self._value)
            while self._skip(","):
                self._entry(found, self._value)
            self._expect("]")
        return found

    def _entry(self, entries: dict[str, T], read: Callable[[], T]) -> None:
        key = self._name()
        if key in entries:
            raise _UnexpectedError(f"{key!r} is given twice")
        self._expect("=")
        entries[key] = read()

    def _argument(self) -> Argument:
        token = self.tokens[self.at]
        if token == "(":
            return self._parenthesised(self._binding)
        return self._binding()

    def _binding(self) -> Ref | Value:
        # A name may be spelled like a type, but only a type is followed by a bracket.
        if self.tokens[self.at + 1 : self.at + 2] and self.tokens[self.at + 1] in ("(", "<"):
            return self._value()
        return Ref(self._name())

    def _typed_name(self) -> TypedName:
        return TypedName(self._type(), self._name())

    def _value(self) -> Value:
        kind = self._type()
        self._expect("(")
        if self.tokens[self.at] == "BLOBFILE":
            body: Any = self._blob()
        else:
            body = self._body(kind)
        self._expect(")")
        return Value(kind, body)

    def _blob(self) -> Blob:
        self.at += 1
        self._expect("(")
        entries: dict[str, Value] = {}
        for key in ("path", "offset"):
            if key == "offset":
                self._expect(",")
            self._entry(entries, self._scalar_value)
        self._expect(")")
        path, offset = entries.get("path"), entries.get("offset")
        if path is None or offset is None:
            raise _UnexpectedError("expected path and offset of a weight file")
        if path.type.dtype != "string" or offset.type.dtype != "uint64":  # type: ignore[union-attr]
            raise _UnexpectedError("expected a string and a uint64 for a weight file")
        return Blob(path.body[0], offset.body[0])

    def _scalar_value(self) -> Value:
        kind = self._type()
        if not isinstance(kind, TensorType) or kind.shape:
            raise _UnexpectedError("expected a scalar")
        self._expect("(")
        body = self._body(kind)
        self._expect(")")
        return Value(kind, body)

    def _body(self, kind: Type) -> Any:
        if isinstance(kind, TensorType):
            values: list[Any] = []
            self._elements(kind, 0, values)
            return tuple(values)
        if isinstance(kind, ListType):
            items = self._list(lambda: self._body(kind.item))
            if kind.length is not None and len(items) != kind.length:
                raise _UnexpectedError(f"a list of {kind.length} has {len(items)} items")
            return items
        if isinstance(kind, DictType):
            return self._dictionary(kind)
        if isinstance(kind, TupleType):
            return self._tuple(kind)
        raise _UnexpectedError("a state has no literal")

    def _dictionary(self, kind: DictType) -> tuple[tuple[Any, Any], ...]:
        self._expect("{")
        pairs: list[tuple[Any, Any]] = []
        while not self._skip("}"):
            if pairs:
                self._expect(",")
            self._expect("{")
            key = self._body(kind.key)
            self._expect(",")
            pairs.append((key, self._body(kind.value)))
            self._expect("}")
        return tuple(pairs)

    def _tuple(self, kind: TupleType) -> tuple[Any, ...]:
        # Apple wraps the outermost tuple in a second pair of parentheses: T((a, b)).
        self._expect("(")
        items = []
        for number, item in enumerate(kind.items):
            if number:
                self._expect(",")
            items.append(self._body(item))
        self._expect(")")
        return tuple(items)

    def _list(self, read: Callable[[], T]) -> tuple[T, ...]:
        if self._skip("[]"):
            return ()
        self._expect("[")
        items = [read()]
        while self._skip(","):
            items.append(read())
        self._expect("]")
        return tuple(items)

    def _elements(self, kind: TensorType, axis: int, values: list[Any]) -> None:
        """Append the elements of a tensor from ``axis`` on, checked against its shape."""
        left = len(kind.shape) - axis
        if left == 0:
            values.append(self._scalar(kind.dtype, self._take()))
            return
        start, count = self.at, 0
        if left == 1 and kind.dtype != "string":
            row = self._row(kind.dtype)
            values.extend(row)
            count = len(row)
        elif not self._skip("[]"):
            self._expect("[")
            while True:
                self._elements(kind, axis + 1, values)
                count += 1
                if not self._skip(","):
                    break
            self._expect("]")
        size = kind.shape[axis]
        if size is not None and count != size and not (count == 0 and 0 in kind.shape):
            self.at = start
            raise _UnexpectedError(f"{count} values along axis {axis} of {kind}")

    def _row(self, dtype: str) -> list[Any]:
        token = self._take()
        if token[:1] != "[" or token[-1:] != "]":
            self._fail("a list of numbers", token)
        if not token[1:-1].strip():
            return []
        return [self._scalar(dtype, item.strip()) for item in token[1:-1].split(",")]

    def _scalar(self, dtype: str, token: str) -> Any:
        if dtype == "string":
            return _unquoted(token) if token[:1] == '"' else self._fail("a string", token)
        if dtype == "bool":
            if token not in ("true", "false"):
                self._fail("true or false", token)
            return token == "true"
        if dtype in FLOATS:
            return self._float(token)
        if not _INTEGER.fullmatch(token):
            self._fail("an integer", token)
        return _in_range(int(token), dtype)

    def _float(self, token: str) -> float:
        if len(token) > 64:
            self._fail("a number", token)
        # "10" is sixteen to fromhex: only what is marked as hexadecimal may go there
        return float.fromhex(token) if "0x" in token else float(token)

    def _type(self, depth: int = 0) -> Type:
        token = self.tokens[self.at]
        known = self._types.get(token)
        if known is None and token.startswith("tensor<"):
            known = self._types[token] = self._tensor(token)
        if known is not None:
            self.at += 1
            return known
        self.at += 1
        if token in _DTYPES:  # a scalar of the newer dialect
            known = self._types[token] = TensorType(token, ())
            return known
        if depth == MAX_DEPTH:
            raise _UnexpectedError(f"types nest deeper than {MAX_DEPTH}")
        if token not in ("list", "dict", "tuple", "state"):
            self._fail("a type", token)
        self._expect("<")
        kind = self._compound(token, depth + 1)
        self._expect(">")
        return kind

    def _compound(self, token: str, depth: int) -> Type:
        if token == "state":
            return StateType(self._type(depth))
        first = self._type(depth)
        if token == "tuple":
            items = [first]
            while self._skip(","):
                items.append(self._type(depth))
            return TupleType(tuple(items))
        self._expect(",")
        if token == "dict":
            return DictType(first, self._type(depth))
        return ListType(first, _dimension(self._take()))

    def _tensor(self, token: str) -> TensorType:
        match = _TENSOR.fullmatch(token)
        if match is None or match[1] not in _DTYPES:
            self._fail("a tensor type", token)
        dims = tuple(_dimension(d.strip()) for d in match[2].split(",")) if match[2].strip() else ()
        if len(dims) > MAX_DEPTH:
            raise _UnexpectedError(f"a tensor of rank {len(dims)}")
        return TensorType(match[1], dims)

    def _parenthesised(self, read: Callable[[], T]) -> tuple[T, ...]:
        self._expect("(")
        if self._skip(")"):
            return ()
        items = [read()]
        while self._skip(","):
            items.append(read())
        self._expect(")")
        return tuple(items)

    def _name(self) -> str:
        token = self._take()
        if not _NAME.fullmatch(token):
            self._fail("a name", token)
        return token

    def _take(self) -> str:
        token = self.tokens[self.at]
        if token == _END:
            self._fail("more", token)
        self.at += 1
        return token

    def _skip(self, token: str) -> bool:
        if self.tokens[self.at] == token:
            self.at += 1
            return True
        return False

    def _expect(self, token: str) -> None:
        if self.tokens[self.at] != token:
            self._fail(repr(token), self.tokens[self.at])
        self.at += 1

    def _fail(self, expected: str, found: str) -> NoReturn:
        short = found if len(found) <= 40 else f"{found[:40]}…"
        raise _UnexpectedError(f"expected {expected}, found {short or 'the end of the text'!r}")


def _dimension(token: str) -> int | None:
    if token == "?":
        return None
    if not _INTEGER.fullmatch(token) or token.startswith("-"):
        raise _UnexpectedError(f"expected a dimension, found {token[:40]!r}")
    return int(token)


def _in_range(value: int, dtype: str) -> int:
    bits = BITS[dtype]
    low, high = (0, 1 << bits) if dtype[0] == "u" else (-1 << bits - 1, 1 << bits - 1)
    if not low <= value < high:
        raise _UnexpectedError(f"{value} is no {dtype}")
    return value


def _unquoted(token: str) -> str:
    inner = token[1:-1]
    if "\\" not in inner:
        return inner
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), inner)
