"""Records as files: what is written is read back, and what is not such a record is named."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from fluxvae.errors import BenchError, OutputError
from fluxvae.schema import (
    Header,
    Record,
    StructureError,
    build,
    finite,
    json_text,
    load,
    load_kept,
    parse,
    plain,
    save,
)


@dataclass(frozen=True)
class Part:
    name: str
    share: float

    def __post_init__(self) -> None:
        if not self.name:
            raise StructureError("name should be text, got ''")


@dataclass(frozen=True)
class Whole(Record):
    header: ClassVar = Header(BenchError, "a whole", "make it again", "test-whole", 3)
    kind: Literal["a", "b"]
    parts: tuple[Part, ...]
    counts: dict[str, int]
    note: str | None


WHOLE = Whole("a", (Part("x", 0.5), Part("y", 2.0)), {"n": 1}, None)


def test_what_is_saved_is_loaded_and_begins_with_its_header(tmp_path: Path) -> None:
    path = save(WHOLE, tmp_path / "whole.json")
    assert load(Whole, path) == WHOLE
    data = json.loads(path.read_text("utf-8"))
    assert list(data) == ["format", "version", "kind", "parts", "counts", "note"]
    assert (data["format"], data["version"]) == ("test-whole", 3)
    assert data == plain(WHOLE) | {
        "parts": [{"name": "x", "share": 0.5}, {"name": "y", "share": 2}]
    }


def test_nothing_is_replaced_where_that_is_not_asked_for(tmp_path: Path) -> None:
    save(WHOLE, tmp_path / "whole.json")
    with pytest.raises(OutputError, match="exists already"):
        save(WHOLE, tmp_path / "whole.json", overwrite=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "expected format 'test-whole', version 3, got ('other', 3)"),
        ({"version": 4}, "got ('test-whole', 4)"),
        ({"kind": "c"}, "kind should be one of ['a', 'b'], got 'c'"),
        ({"kind": []}, "kind should be one of"),
        ({"parts": {}}, "parts should be a list"),
        ({"parts": [{"name": "x"}]}, "parts[0] lacks ['share']"),
        ({"parts": [{"name": "", "share": 1}]}, "parts[0].name should be text, got ''"),
        ({"counts": {"n": True}}, "counts.n should be a whole number, got 'True'"),
        ({"note": 3}, "note should be text, got '3'"),
        ({"more": 1}, "the object has the unknown keys ['more']"),
    ],
)
def test_a_file_that_is_not_such_a_record_is_named_with_what_is_wrong(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    path = tmp_path / "whole.json"
    path.write_text(json.dumps(plain(WHOLE) | change))
    with pytest.raises(BenchError) as caught:
        load(Whole, path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not a whole, or a damaged one (")
    assert words in message
    assert message.endswith("): make it again")


def test_a_file_that_is_not_there_is_named_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"cannot be read: No such file .*; expected a w"):
        load(Whole, tmp_path / "none.json")


@dataclass(frozen=True)
class Kept(Record):
    header: ClassVar = Header(BenchError, "a cell", "it is made again")
    key: str
    value: int


def test_only_a_whole_record_with_this_very_key_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    assert load_kept(Kept, path, "k") is None
    save(Kept("k", 3), path)
    assert list(json.loads(path.read_text("utf-8"))) == ["key", "value"]  # no format, no version
    assert load_kept(Kept, path, "k") == Kept("k", 3)
    assert load_kept(Kept, path, "other") is None
    assert load_kept(Kept, path, "k", [path, tmp_path / "gone"]) is None
    path.write_text(path.read_text()[:-4])
    assert load_kept(Kept, path, "k") is None


def test_what_is_nested_too_deeply_is_an_error_of_the_text(tmp_path: Path) -> None:
    with pytest.raises(StructureError, match="nested too deeply"):
        parse(Whole, "[" * 100_000)


def test_nan_and_infinity_are_refused_and_finite_makes_them_null() -> None:
    data = {"a": [math.nan, 1.5], "b": {"c": -math.inf, "d": (2, "x", None)}}
    with pytest.raises(ValueError, match="JSON compliant"):
        json_text(data)
    assert json.loads(json_text(finite(data))) == {
        "a": [None, 1.5],
        "b": {"c": None, "d": [2, "x", None]},
    }


def test_a_whole_number_beyond_float64_is_infinite_as_1e400_is() -> None:
    assert build(Part, {"name": "x", "share": 10**400}).share == math.inf
    assert build(Part, {"name": "x", "share": -(10**400)}).share == -math.inf
