"""Mutations of bytes, protobuf messages, JSON and texts. All chance comes from the given source."""

import json
import re
import struct
from collections.abc import Callable
from random import Random
from typing import Any

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 575\n"
INTEGERS = (0, 1, 2, 3, 7, 63, 64, 255, 1000, 2**16, 2**20, 2**31 - 1, 2**31, 2**32, 2**40, 2**62,
            2**63 - 1, 2**63, 2**64 - 1, -1, -2, -(2**31), -(2**63))  # fmt: skip
FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.0,
    1e-30,
    65504.0,
    1e5,
    1e30,
    3e38,
    float("inf"),
    float("nan"),
)
TEXTS = (
    "", "a", "x", "main", "latent", "image", "fp16", "fp32", "int32", "valid", "../x", "/etc/x",
    "a\0b", "a\\b", "\ud7ff", "a" * 5000, "@model_path/weights/weight.bin", "é", "ios17", '"',
)  # fmt: skip
WIDTHS = {"B": 0xFF, "<H": 0xFFFF, "<I": 2**32 - 1, "<Q": 2**64 - 1}


def mutate_bytes(content: bytes, random: Random) -> bytes:
    """One to four changes anywhere."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        random.choice(_CHANGES)(changed, random)
    return bytes(changed)


def _spot(content: bytearray, random: Random) -> int:
    """A position, near the beginning more often: headers are there."""
    size = max(1, len(content))
    return random.randrange(min(size, random.choice((16, 256, size, size))))


def _flip(content: bytearray, random: Random) -> None:
    if content:
        content[_spot(content, random)] ^= 1 << random.randrange(8)


def _byte(content: bytearray, random: Random) -> None:
    if content:
        content[_spot(content, random)] = random.randrange(256)


def _number(content: bytearray, random: Random) -> None:
    form = random.choice(list(WIDTHS))
    at = _spot(content, random)
    packed = struct.pack(form, random.choice(INTEGERS) & WIDTHS[form])
    content[at : at + len(packed)] = packed


def _truncate(content: bytearray, random: Random) -> None:
    del content[_spot(content, random) :]


def _cut(content: bytearray, random: Random) -> None:
    at = _spot(content, random)
    del content[at : at + random.choice((1, 4, 64, 1000))]


def _insert(content: bytearray, random: Random) -> None:
    at = _spot(content, random)
    content[at:at] = random.randbytes(random.choice((1, 4, 64, 1000)))


def _splice(content: bytearray, random: Random) -> None:
    start, at = _spot(content, random), _spot(content, random)
    piece = content[start : start + random.choice((4, 64, 1000, 100_000))]
    content[at : at + len(piece) * random.randrange(2)] = piece


def _zeros(content: bytearray, random: Random) -> None:
    at = _spot(content, random)
    end = min(len(content), at + random.choice((8, 64, 4096, len(content))))
    content[at:end] = bytes(max(0, end - at))


def _other_file(content: bytearray, random: Random) -> None:
    others = (b"", POINTER, b"<!doctype html><html>", b"\x89PNG\r\n", bytes(64), b"PK\x03\x04")
    content[:] = random.choice(others)


_CHANGES: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip, _flip, _byte, _byte, _number, _number, _number, _truncate, _cut, _insert, _splice,
    _zeros, _other_file,
)  # fmt: skip


def mutate_message(message: Any, random: Random) -> None:
    """Change one to four fields of a protobuf message, wherever in it they are."""
    for _ in range(random.choice((1, 1, 2, 4))):
        _mutate_once(message, random)


def _mutate_once(message: Any, random: Random) -> None:
    while True:
        fields = [field for field, _ in message.ListFields()]
        if not fields or random.random() < 0.03:
            fields = message.DESCRIPTOR.fields  # one that is not set, now and then
        if not fields:
            return
        field = random.choice(fields)
        inner = _inner(message, field, random)
        if inner is None:
            return
        if random.random() < 0.08:
            other = _inner(message, field, random)
            if other is None or other is inner:
                inner.Clear()
            else:
                inner.CopyFrom(other)
            return
        message = inner


def _inner(message: Any, field: Any, random: Random) -> Any:
    """A message to go on with; None when the field itself was changed."""
    value, is_message = getattr(message, field.name), field.message_type is not None
    if is_message and field.message_type.GetOptions().map_entry:
        return _map_entry(value, random)
    if not field.is_repeated:
        if is_message:
            return value
        setattr(message, field.name, scalar(field, random))
        return None
    if not value or random.random() < 0.15:
        _change_list(value, field, random)
        return None
    if is_message:
        return random.choice(value)
    value[random.randrange(len(value))] = scalar(field, random)
    return None


def _map_entry(value: Any, random: Random) -> Any:
    if not value:
        return None
    key = random.choice(sorted(value))
    if random.random() < 0.1:
        del value[key]
        return None
    found = value[key]
    if not hasattr(found, "ListFields"):
        value[key] = random.choice(TEXTS)
        return None
    return found


def _change_list(value: Any, field: Any, random: Random) -> None:
    index = random.randrange(len(value)) if value else 0
    kind = random.choice(("delete", "add", "double", "clear"))
    if kind == "delete" and value:
        del value[index]
    elif kind == "clear":
        del value[:]
    elif field.message_type is None:
        value.append(scalar(field, random))
    elif kind == "double" and value:
        value.add().CopyFrom(value[index])
    else:
        value.add()


def scalar(field: Any, random: Random) -> Any:
    """A value that a scalar field can hold."""
    kind = field.cpp_type
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return random.choice(FLOATS)
    if kind == field.CPPTYPE_BOOL:
        return random.random() < 0.5
    if kind == field.CPPTYPE_ENUM:
        return random.choice([v.number for v in field.enum_type.values])
    if kind == field.CPPTYPE_STRING:
        text = random.choice(TEXTS)
        return text.encode() if field.type == field.TYPE_BYTES else text
    low, high = {
        field.CPPTYPE_INT32: (-(2**31), 2**31), field.CPPTYPE_INT64: (-(2**63), 2**63),
        field.CPPTYPE_UINT32: (0, 2**32), field.CPPTYPE_UINT64: (0, 2**64),
    }[kind]  # fmt: skip
    return random.choice([n for n in INTEGERS if low <= n < high])


def mutate_json(content: bytes, random: Random) -> bytes:
    """A JSON document with one value replaced, removed or renamed."""
    document = json.loads(content)
    node: Any = {"": document}
    whole = node
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        if not keys:
            break
        key = random.choice(list(keys))
        if isinstance(node[key], dict | list) and node[key] and random.random() < 0.9:
            node = node[key]
            continue
        deep: Any = [[[[]]]]
        node[key] = random.choice((None, 0, -1, 1e308, 2**70, "", [], {}, True, deep, *TEXTS))
        break
    return json.dumps(whole[""]).encode(errors="surrogatepass")


_TOKEN = re.compile(r'"[^"\n]*"|[\w@.+-]+|\S')


def mutate_text(text: str, random: Random) -> str:
    """Replace, double or remove one to four tokens or lines."""
    for _ in range(random.choice((1, 1, 2, 4))):
        tokens = list(_TOKEN.finditer(text))
        if not tokens:
            return text
        token = random.choice(tokens)
        lines = text.split("\n")
        number = random.randrange(len(lines))
        kind = random.randrange(10)
        if kind == 0:
            del lines[number]
            text = "\n".join(lines)
        elif kind == 1:
            lines.insert(random.randrange(len(lines)), lines[number])
            text = "\n".join(lines)
        else:
            choices = (
                str(random.choice(INTEGERS)),
                str(random.choice(INTEGERS)),
                str(random.choice(FLOATS)),
                random.choice(TEXTS),
                random.choice(tokens)[0],
                random.choice(("?", "(", ")", "[", "]", "<", ">", ",", "", "((" * 300, "[" * 300)),
            )
            text = text[: token.start()] + random.choice(choices) + text[token.end() :]
    return text
