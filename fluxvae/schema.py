"""Records: frozen dataclasses to JSON and back, strictly: every key known, every type as annotated.

A dataclass that is a file of its own derives from ``Record``; ``save`` writes it and ``load`` reads
it. Understood are dataclasses, ``X | None``, ``tuple[X, ...]``, ``tuple[X, X]``, ``dict[str, X]``,
``Literal``, and str, bool, int, float (a whole number will do for a float).
"""

import dataclasses
import json
import math
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from fluxvae.errors import FluxVAEError
from fluxvae.files import read_text, write_text


@dataclasses.dataclass(frozen=True)
class Header:
    """What a kind of record is called, in its file and in messages.

    ``what`` names it in "is not a ...", ``advice`` is what to do about a file that is not one,
    ``error`` is raised for it. ``format`` and ``version`` come first in the file; without a
    ``format`` neither does. ``indent`` and ``sort_keys`` are of the text.
    """

    error: type[FluxVAEError]
    what: str
    advice: str
    format: str | None = None
    version: int = 1
    indent: int = 1
    sort_keys: bool = False


class Record:
    """Base of the dataclasses that are files; each has a ``header``."""

    header: ClassVar[Header]


T = TypeVar("T")
R = TypeVar("R", bound=Record)


class StructureError(ValueError):
    """Data that does not have the structure; the message begins with the path to it."""


def load(kind: type[R], path: Path) -> R:
    """The record in a file. Raises its header's error, in one sentence."""
    header = kind.header
    try:
        return parse(kind, read_text(path))
    except OSError as error:
        raise header.error(
            f"{path} cannot be read: {error.strerror}; expected {header.what}"
        ) from error
    except ValueError as error:
        raise header.error(
            f"{path} is not {header.what}, or a damaged one ({error}): {header.advice}"
        ) from error


def load_kept(kind: type[R], path: Path, key: str, files: Iterable[Path] = ()) -> R | None:
    """The record in a file if its ``key`` is this one, and ``files`` are there as well.

    None when it is absent, damaged or another: so a stopped run finds what is still to be done.
    """
    try:
        record = load(kind, path)
    except kind.header.error:
        return None
    whole = vars(record)["key"] == key and all(file.exists() for file in files)
    return record if whole else None


def save(record: Record, path: Path, *, overwrite: bool = True) -> Path:
    """Write a record for ``load``, whole or not at all. Raises OutputError."""
    return write_text(path, record_text(record), overwrite=overwrite)


def parse(kind: type[R], text: str) -> R:
    """JSON text as a record, its header checked. Raises ValueError."""
    data, header = parse_json(text), kind.header
    if header.format is not None:
        found = (data.get("format"), data.get("version")) if isinstance(data, dict) else None
        if found != (header.format, header.version):
            expected = f"format {header.format!r}, version {header.version}"
            raise StructureError(f"expected {expected}, got {found}")
        data = {name: value for name, value in data.items() if name not in ("format", "version")}
    return build(kind, data)


def record_text(record: Record) -> str:
    """A record as the text of its file."""
    header = record.header
    return json_text(plain(record), indent=header.indent, sort_keys=header.sort_keys)


def plain(record: Record) -> dict[str, Any]:
    """A record as plain data for JSON, its header first."""
    header = record.header
    named = {} if header.format is None else {"format": header.format, "version": header.version}
    return {**named, **dataclasses.asdict(record)}  # type: ignore[call-overload]


def json_text(data: object, *, indent: int = 1, sort_keys: bool = False) -> str:
    """Plain data as the text of a JSON file. Raises ValueError for NaN and infinity."""
    return json.dumps(data, indent=indent, sort_keys=sort_keys, allow_nan=False) + "\n"


def finite(data: Any) -> Any:
    """Plain data with null for every NaN and infinity, which JSON does not have."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def parse_json(text: str) -> Any:
    """JSON as plain data. Raises ValueError, also for what is nested too deeply to read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise StructureError("it is nested too deeply") from error


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
        try:
            return float(data)
        except OverflowError:  # as 1e400 is read
            return math.inf if data > 0 else -math.inf
    if type(data) is not kind:  # a bool is an int to isinstance
        raise _wrong(where, {"str": "text", "int": "a whole number"}.get(kind.__name__, kind), data)
    return data


def _dataclass(kind: Any, data: Any, where: str) -> Any:
    """An instance; a StructureError of its own ``__post_init__`` gets the path before it."""
    if not isinstance(data, dict):
        raise _wrong(where, "an object", data)
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    missing = [name for name in names if name not in data]
    extra = [name for name in data if name not in names]
    if missing or extra:
        what = f"lacks {missing}" if missing else f"has the unknown keys {extra}"
        raise StructureError(f"{where or 'the object'} {what}")
    values = {n: _build(hints[n], data[n], f"{where}.{n}".lstrip(".")) for n in names}
    try:
        return kind(**values)
    except StructureError as error:
        raise StructureError(f"{where}.{error}".lstrip(".")) from error


def _wrong(where: str, wanted: Any, data: Any) -> StructureError:
    return StructureError(f"{where or 'the data'} should be {wanted}, got {str(data)[:80]!r}")
