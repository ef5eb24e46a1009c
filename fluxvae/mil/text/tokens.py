"""Tokens of ``model.mil``, and a cursor over them that knows names and types.

One regular expression cuts the text. A whole tensor type and a whole list of numbers are one token
each, and types are looked up by their text, since both recur thousands of times. Everything that
nests is limited in depth, so that no text can exhaust the stack.
"""

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from fluxvae.mil.program import BITS, TensorType
from fluxvae.mil.text.document import IDENTIFIER, DictType, ListType, StateType, TupleType, Type

MAX_DEPTH = 16  # of types and of tensors; the deepest seen is 5, MIL's highest rank is 5
MAX_DIGITS = 20  # of 2**64
MAX_DIMENSION = 2**63 - 1
TOKEN = re.compile(
    r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"'  # a string
    r"|tensor<\w+, *\[[0-9?, ]*\]>"
    r"|\[[-+.0-9A-Za-z, ]*\]"  # a list of numbers
    r"|->"
    r"|[-+]?[A-Za-z0-9_][\w@.+-]*"  # a word: name, keyword or number
    r"|\S",
    re.ASCII,
)
_TENSOR = re.compile(r"tensor<(\w+), *\[([0-9?, ]*)\]>")
_NAME = re.compile(IDENTIFIER)
INTEGER = re.compile(rf"-?[0-9]{{1,{MAX_DIGITS}}}", re.ASCII)
_DTYPES = frozenset(BITS) | {"string"}
END = ""  # the token after the last one
T = TypeVar("T")


class UnexpectedError(Exception):
    """Text that departs from the grammar."""


def line_of(text: str, index: int) -> int:
    """Line number of a token."""
    for number, match in enumerate(TOKEN.finditer(text)):
        if number == index:
            return text.count("\n", 0, match.start()) + 1
    return text.count("\n") + 1


class Cursor:
    """A position in a text; ``at`` is the index of the next token."""

    def __init__(self, text: str) -> None:
        self.tokens = TOKEN.findall(text)
        self.tokens.append(END)
        self.at = 0
        self._types: dict[str, TensorType] = {}

    def type(self, depth: int = 0) -> Type:
        """A type, of either dialect."""
        token = self.tokens[self.at]
        known = self._types.get(token)
        if known is None and token.startswith("tensor<"):
            known = self._types[token] = self._tensor(token)
        if known is not None:
            self.at += 1
            return known
        self.take()
        if token in _DTYPES:  # a scalar of the newer dialect
            known = self._types[token] = TensorType(token, ())
            return known
        if depth == MAX_DEPTH:
            raise UnexpectedError(f"types nest deeper than {MAX_DEPTH}")
        if token not in ("list", "dict", "tuple", "state"):
            self.fail("a type", token)
        self.expect("<")
        kind = self._compound(token, depth + 1)
        self.expect(">")
        return kind

    def _compound(self, token: str, depth: int) -> Type:
        if token == "state":
            return StateType(self.type(depth))
        first = self.type(depth)
        if token == "tuple":
            items = [first]
            while self.skip(","):
                items.append(self.type(depth))
            return TupleType(tuple(items))
        self.expect(",")
        if token == "dict":
            return DictType(first, self.type(depth))
        return ListType(first, _dimension(self.take()))

    def _tensor(self, token: str) -> TensorType:
        match = _TENSOR.fullmatch(token)
        if match is None or match[1] not in _DTYPES:
            self.fail("a tensor type", token)
        dims = tuple(_dimension(d.strip()) for d in match[2].split(",")) if match[2].strip() else ()
        if len(dims) > MAX_DEPTH:
            raise UnexpectedError(f"a tensor of rank {len(dims)}")
        return TensorType(match[1], dims)

    def parenthesised(self, read: Callable[[], T]) -> tuple[T, ...]:
        """``(a, b)``, each item taken by ``read``."""
        self.expect("(")
        return () if self.skip(")") else self.items(read, ")")

    def items(self, read: Callable[[], T], end: str) -> tuple[T, ...]:
        """One or more items with commas between them, each taken by ``read``, and ``end``."""
        items = [read()]
        while self.skip(","):
            items.append(read())
        self.expect(end)
        return tuple(items)

    def name(self) -> str:
        """An identifier."""
        token = self.take()
        if not _NAME.fullmatch(token):
            self.fail("a name", token)
        return token

    def take(self) -> str:
        """Any token but the end."""
        token = self.tokens[self.at]
        if token == END:
            self.fail("more", token)
        self.at += 1
        return token

    def skip(self, token: str) -> bool:
        """Pass over ``token`` if it comes next; whether it did."""
        if self.tokens[self.at] == token:
            self.at += 1
            return True
        return False

    def expect(self, token: str) -> None:
        """Pass over ``token``, or fail."""
        if self.tokens[self.at] != token:
            self.fail(repr(token), self.tokens[self.at])
        self.at += 1

    def fail(self, expected: str, found: str) -> NoReturn:
        """Say what was expected at the token ``found``, the last one taken or the next one."""
        if self.at and self.tokens[self.at] != found:
            self.at -= 1
        short = found if len(found) <= 40 else f"{found[:40]}…"
        raise UnexpectedError(f"expected {expected}, found {short or 'the end of the text'!r}")


def _dimension(token: str) -> int | None:
    if token == "?":
        return None
    if not INTEGER.fullmatch(token) or token.startswith("-"):
        raise UnexpectedError(f"expected a dimension, found {token[:40]!r}")
    size = int(token)
    if size > MAX_DIMENSION:
        raise UnexpectedError(f"a dimension of {size}")
    return size
