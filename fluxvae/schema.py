"""JSON data to frozen dataclasses, strictly: every key known, every type as annotated.

``dataclasses.asdict`` is the way back. Understands dataclasses, ``X | None``, ``tuple[X, ...]``,
``tuple[X, X]``, ``dict[str, X]``, ``Literal``, and str, bool, int, float (a whole number will do).
Imports nothing of ours.
"""

import dataclasses
import json
import types
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


class StructureError(ValueError):
    """Data that does not have the structure; the message begins with the place."""


def parse_json(text: str) -> Any:
    """JSON as plain data. Raises ValueError, also for what is nested too deeply to read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise StructureError("it is nested too deeply") from error


def parse_record(kind: type[T], text: str, format_: str, version: int) -> T:
    """JSON of a file that names its format and version, as the dataclass ``kind``. ValueError."""
    data = parse_json(text)
    found = (data.get("format"), data.get("version")) if isinstance(data, dict) else None
    if found != (format_, version):
        raise StructureError(f"expected format {format_!r}, version {version}, got {found}")
    return build(kind, data)


def build(kind: type[T], data: Any, where: str = "") -> T:
    """``data`` as an instance of the dataclass ``kind``. Raises StructureError."""
    result: T = _build(kind, data, where)
    return result


def _build(kind: Any, data: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, data, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        return None if data is None else _build(arguments[0], data, where)
    if origin is Literal:
        if data not in arguments:
            raise _wrong(where, f"one of {list(arguments)}", data)
        return data
    if origin is tuple:
        if not isinstance(data, list):
            raise _wrong(where, "a list", data)
        if Ellipsis not in arguments and len(data) != len(arguments):
            raise _wrong(where, f"a list of {len(arguments)}", data)
        return tuple(_build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            raise _wrong(where, "an object", data)
        return {key: _build(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    return _scalar(kind, data, where)


def _scalar(kind: Any, data: Any, where: str) -> Any:
    if kind is Any:
        return data
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:  # a bool is an int to isinstance
        raise _wrong(where, {"str": "text", "int": "a whole number"}.get(kind.__name__, kind), data)
    return data


def _dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise _wrong(where, "an object", data)
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    missing = [name for name in names if name not in data]
    extra = [name for name in data if name not in names]
    if missing or extra:
        what = f"lacks {missing}" if missing else f"has the unknown keys {extra}"
        raise StructureError(f"{where or 'the object'} {what}")
    return kind(**{n: _build(hints[n], data[n], f"{where}.{n}".lstrip(".")) for n in names})


def _wrong(where: str, wanted: Any, data: Any) -> StructureError:
    return StructureError(f"{where or 'the data'} should be {wanted}, got {str(data)[:80]!r}")
