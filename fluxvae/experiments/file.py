"""The TOML file of a matrix: settings, axes, single cells, exclusions; all of it checked.

Adding a cell is an edit of this file. A word that is not known is refused with the nearest one.
"""

import difflib
import itertools
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fluxvae.errors import MatrixError, UsageError
from fluxvae.files import read_text
from fluxvae.networks.catalog import CATALOG, DECODERS
from fluxvae.recipes import (
    ATTENTION,
    LAYOUTS,
    PRECISIONS,
    SHAPES,
    parse_attention,
    parse_label,
    parse_sizes,
)
from fluxvae.recipes.bounds import check_bound
from fluxvae.records.experiment import AXES, NONE, Cell, Thresholds
from fluxvae.records.harness import UNITS

DRIVERS = ("python", "swift")
RESOURCES = ("GPU", "MAC", "QUIET")
MOST_CELLS = 100_000
TEMPLATE = Path(__file__).with_name("template.toml")  # a commented matrix to begin with
# Words for what is parsed, to find the nearest one in.
_LABELS = (
    *(NONE, "int8", "int8-plain", "int4", "int4-block32", "w8a8", "w8a8-85", "w8a8-symmetric"),
    *(f"pal{bits}{rest}" for bits in (1, 2, 3, 4, 6, 8) for rest in ("", "-tensor", "-plain")),
    *("mixed-900KB", "mixed-40dB"),
)
_WORDS: dict[str, tuple[str, ...]] = {
    "variant": tuple(sorted(CATALOG)),
    "decoder": tuple(DECODERS),
    "layout": LAYOUTS,
    "precision": PRECISIONS,
    "io_precision": ("auto", *PRECISIONS),
    "shapes": SHAPES,
    "compute_unit": UNITS,
    "driver": DRIVERS,
}


@dataclass(frozen=True)
class Settings:
    """How every cell is done. Times in seconds, memory in bytes.

    ``threads`` of every computation, since sums in another order give other bits. ``time_limit_s``
    is of a cell as a whole, ``memory_limit`` (0: none) of the process that converts and judges;
    ``make_needs`` and ``measure_needs`` name resources of a Dask worker.
    """

    iterations: int = 10
    warmup: int = 1
    runs: int = 3
    cooldown_s: float = 0.0
    threads: int = 1
    time_limit_s: float = 3600.0
    memory_limit: int = 0
    make_needs: tuple[str, ...] = ()
    measure_needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matrix:
    """A whole file. ``weights`` and ``encoders``: by variant, or variant and kind, such as
    ``flux2-full``; a variant that is not there has the pinned file of the Hub. ``merged``: cells
    that were there twice. ``text``: the file itself.
    """

    name: str
    settings: Settings
    thresholds: Thresholds
    cells: tuple[Cell, ...]
    merged: int
    text: str
    weights: Mapping[str, str] = field(default_factory=dict)
    encoders: Mapping[str, str] = field(default_factory=dict)


def read_matrix(path: Path, name: str | None = None) -> Matrix:
    """The file at ``path``; ``name`` as for ``parse_matrix``, by default the file's.

    Raises MatrixError when it cannot be read, UsageError for what it says wrongly; both name it.
    """
    try:
        return parse_matrix(read_text(path), path.stem if name is None else name)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except ValueError as error:
        raise UsageError(f"{path}: not a matrix in TOML: {error}") from error
    except OSError as error:
        raise MatrixError(
            f"{path} cannot be read: {error.strerror}; `fluxvae matrix init {path}` makes one"
        ) from error


def parse_matrix(text: str, name: str = "matrix") -> Matrix:
    """TOML text as a matrix called ``name`` where it gives itself no name. Raises UsageError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the matrix is not TOML: {error}") from error
    _known(data, ("matrix", "axes", "cell", "exclude"), "table")
    head = _table(data, "matrix")
    numbers = [f.name for f in fields(Settings) if f.name != "memory_limit"]
    _known(
        head,
        ("name", *numbers, "memory_limit_gb", "thresholds", "weights", "encoders"),
        "key of [matrix]",
    )
    cells = list(_cells(data))
    if not cells:
        raise UsageError(
            "the matrix is empty: give [axes] with a variant, or a [[cell]], and leave some of "
            "them in [[exclude]]"
        )
    unique = tuple(dict.fromkeys(cells))
    return Matrix(
        name=_text(head.get("name", name), "name of [matrix]"),
        settings=_settings(head),
        thresholds=_thresholds(_table(head, "thresholds")),
        cells=unique,
        merged=len(cells) - len(unique),
        text=text,
        weights=_sources(head, "weights"),
        encoders=_sources(head, "encoders"),
    )


def _cells(data: Mapping[str, Any]) -> Iterator[Cell]:
    """Every combination of the axes, then the single cells, but for those excluded."""
    axes = {name: _values(name, given) for name, given in _axes(_table(data, "axes")).items()}
    excluded = [
        {name: _values(name, given) for name, given in _axes(entry).items()}
        for entry in _tables(data, "exclude")
    ]
    single = [
        {name: _values(name, [given])[0] for name, given in _axes(entry).items()}
        for entry in _tables(data, "cell")
    ]
    count = math.prod(len(values) for values in axes.values()) if axes else 0
    if count + len(single) > MOST_CELLS:
        raise UsageError(
            f"the axes make {count} cells, more than {MOST_CELLS}: leave some values out, or make "
            "several matrices"
        )
    combined = (
        dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
    )
    for choice in itertools.chain(combined if axes else (), single):
        if "variant" not in choice:
            raise UsageError(
                f"a cell has no variant: give one of {', '.join(_WORDS['variant'])} in [axes] or "
                "in its [[cell]]"
            )
        cell = Cell(**choice)
        if not any(_matches(cell, rule) for rule in excluded):
            yield cell


def _matches(cell: Cell, rule: Mapping[str, Sequence[str]]) -> bool:
    return bool(rule) and all(getattr(cell, name) in values for name, values in rule.items())


def _axes(table: Mapping[str, Any]) -> Mapping[str, Any]:
    _known(table, AXES, "axis")
    return table


def _values(name: str, given: Any) -> tuple[str, ...]:
    """An axis' values, checked and in their one spelling; a single value is a list of one."""
    values = given if isinstance(given, list) else [given]
    if not values:
        raise UsageError(f"axis {name} has no values: leave it out for its default")
    return tuple(dict.fromkeys(_value(name, value) for value in values))


def _value(name: str, value: Any) -> str:
    if name == "sizes" and type(value) is int:
        value = str(value)
    if not isinstance(value, str):
        raise UsageError(f"axis {name}: expected text, got {value!r}")
    if name in _WORDS:
        if value not in _WORDS[name]:
            raise UsageError(_unknown(value, _WORDS[name], f"value of {name}"))
        return value
    parse, words = _PARSED[name]
    try:
        return parse(value)
    except UsageError as error:
        raise UsageError(f"axis {name}: {error}{_nearest(value, words)}") from error


def _sizes(text: str) -> str:
    return ",".join(f"{s.height}x{s.width}" for s in parse_sizes(text))


def _compression(text: str) -> str:
    return text if text == NONE else parse_label(text).label()


def _attention(text: str) -> str:
    parse_attention(text)
    return text


_PARSED: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "sizes": (_sizes, ()),
    "compression": (_compression, _LABELS),
    "attention": (_attention, tuple(ATTENTION)),
}


def _settings(head: Mapping[str, Any]) -> Settings:
    plain = Settings()
    memory = _number(head, "memory_limit_gb", 0.0)
    return Settings(
        iterations=_whole(head, "iterations", plain.iterations, 1),
        warmup=_whole(head, "warmup", plain.warmup, 0),
        runs=_whole(head, "runs", plain.runs, 0),
        cooldown_s=_number(head, "cooldown_s", plain.cooldown_s),
        threads=_whole(head, "threads", plain.threads, 1),
        time_limit_s=_number(head, "time_limit_s", plain.time_limit_s, above=0),
        memory_limit=int(memory * 1e9),
        make_needs=_needs(head, "make_needs"),
        measure_needs=_needs(head, "measure_needs"),
    )


def _thresholds(table: Mapping[str, Any]) -> Thresholds:
    names = tuple(f.name for f in fields(Thresholds))
    _known(table, names, "threshold")
    return Thresholds(
        **{
            name: check_bound(name, _number(table, name, 0.0), f"threshold {name}")
            for name in names
            if name in table
        }
    )


def _needs(head: Mapping[str, Any], name: str) -> tuple[str, ...]:
    given = head.get(name, [])
    if not isinstance(given, list):
        raise UsageError(f"{name} of [matrix] should be a list, got {given!r}")
    for word in given:
        if word not in RESOURCES:
            raise UsageError(_unknown(str(word), RESOURCES, f"word of {name}"))
    return tuple(dict.fromkeys(given))


def _sources(head: Mapping[str, Any], name: str) -> dict[str, str]:
    table = _table(head, name)
    words = tuple(
        v if kind == "tiny" else f"{v}-{kind}" for v in sorted(CATALOG) for kind in DECODERS
    )
    _known(table, words, f"decoder in [matrix.{name}]")
    return {key: _text(value, f"{key} of [matrix.{name}]") for key, value in table.items()}


def _known(table: Mapping[str, Any], words: Sequence[str], what: str) -> None:
    for name in table:
        if name not in words:
            raise UsageError(_unknown(name, words, what))


def _unknown(value: str, words: Sequence[str], what: str) -> str:
    return f"unknown {what}: {value!r}{_nearest(value, words)}; known: {', '.join(words)}"


def _nearest(value: str, words: Sequence[str]) -> str:
    lower = {word.lower(): word for word in words}
    found = difflib.get_close_matches(value.lower(), lower, n=1, cutoff=0.4)
    return f" (did you mean {lower[found[0]]!r}?)" if found else ""


def _table(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, dict):
        raise UsageError(f"[{name}] should be a table, got {found!r}")
    return found


def _tables(data: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = data.get(name, [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise UsageError(f"[[{name}]] should be a list of tables: write it in double brackets")
    return found


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{what}: expected text, got {value!r}")
    return value


def _whole(table: Mapping[str, Any], name: str, default: int, least: int) -> int:
    value = table.get(name, default)
    if type(value) is not int or value < least:
        raise UsageError(f"{name} of [matrix]: expected a whole number from {least}, got {value!r}")
    return value


def _number(
    table: Mapping[str, Any], name: str, default: float, *, above: float | None = None
) -> float:
    value = table.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{name}: expected a number, got {value!r}")
    if value < 0 or (above is not None and value <= above):
        raise UsageError(f"{name}: expected more than that, got {value!r}")
    return float(value)
