"""``fluxvae compare-variants`` as a user meets it: one table, three ways to print it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fluxvae.artifact.record import read_record
from fluxvae.mil.package import read_package
from tests.cli.run import Ran, run

Capture = pytest.CaptureFixture[str]
LABELS = ["float16", "int8-plain", "pal4-tensor-plain"]
PROMISED = {"recipe", "bytes", "fraction", "psnr_db", "int8_macs", "path"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("variants")


@pytest.fixture
def compare(folder: Path, capsys: Capture) -> Callable[..., Ran]:
    """Runs the same comparison; only the first one of this file makes the artifacts."""

    def command(*options: str) -> Ran:
        return run(
            capsys, "compare-variants", "--variant", "flux2", "--weights", "demo", "--size", "64",
            "--recipes", "int8-plain,pal4-tensor-plain", "--out", str(folder), *options,
        )  # fmt: skip

    return command


def test_json_has_a_row_for_each_recipe(compare: Callable[..., Ran], folder: Path) -> None:
    ran = compare("--json")
    assert ran.code == 0
    rows = ran.json["rows"]
    assert [row["recipe"] for row in rows] == LABELS
    for row in rows:
        assert set(row) >= PROMISED
        assert row["int8_macs"] == 0
        assert Path(row["path"]).parent == folder
        record = read_record(read_package(Path(row["path"])))
        assert record is not None
        asked = record.recipe.compression
        assert (asked.label() if asked else "float16") == row["recipe"]
        assert row["psnr_db"] == pytest.approx(
            sum(photo["psnr_db"] for photo in row["photos"]) / len(row["photos"])
        )
        assert 0 < row["ssim"] <= 1
    plain, int8, palette = rows
    assert plain["fraction"] == 1
    assert 0.50 < int8["fraction"] < 0.51
    assert 0.25 < palette["fraction"] < 0.26
    assert plain["psnr_db"] > 60 > int8["psnr_db"] > palette["psnr_db"] > 15
    assert plain["evidence"].startswith("not compressed")
    assert palette["evidence"].startswith("weights only: stored as 4-bit palette")
    assert ran.json["images"] == ["chelsea", "coffee"]


def test_table_lines_up_and_says_what_it_means(compare: Callable[..., Ran]) -> None:
    ran = compare()
    assert ran.code == 0
    assert ran.widest <= 100
    head, *rows = ran.out.split("\n\n")[0].splitlines()
    assert head.split()[:3] == ["recipe", "granularity", "bytes"]
    assert [row.split()[0] for row in rows] == LABELS
    assert len({len(row) for row in (head, *rows)}) == 1
    for words in ("float32 PyTorch network", "float16 alone leaves", "not ours"):
        assert words in " ".join(ran.out.split())


def test_markdown_is_a_table_of_the_same_rows(compare: Callable[..., Ran]) -> None:
    lines = compare("--markdown").out.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in table[2:]] == LABELS
    assert len({row.count("|") for row in table}) == 1


def test_artifacts_that_are_there_are_not_made_again(compare: Callable[..., Ran]) -> None:
    again = compare("--json")
    assert [row["made"] for row in again.json["rows"]] == [False] * 3
    assert "int8-plain: already there" in again.err.splitlines()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--json", "--markdown"), "choose one"),
        (("--images", "x", "--calibration", "./x"), "both x"),
        (("--recipes", "pal4,fp15"), "'fp15' is not understood"),
        (("--recipes", "int8,int8"), "given twice"),
        (("--recipes", "pal3", "--target", "iOS17"), "needs iOS18 or newer"),
        (("--recipes", "w8a8-trained"), "pass --qat CHECKPOINT"),
        (("--recipes", "w8a8", "--qat", "x"), "one -trained recipe; got 0"),
        (("--size", "64,128"), "has one size"),
    ],
)
def test_contradictions_are_usage_errors_before_anything_is_made(
    capsys: Capture, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    out = tmp_path / "out"
    ran = run(
        capsys, "compare-variants", "--variant", "flux2", "--weights", "demo", "--out", str(out),
        *options,
    )  # fmt: skip
    assert (ran.code, ran.out) == (2, "")
    assert words in " ".join(ran.err.split())
    assert not out.exists()


def test_empty_folders_name_the_way_out(capsys: Capture, tmp_path: Path) -> None:
    common = ("compare-variants", "--variant", "flux2", "--weights", "demo", "--size", "64")
    ran = run(capsys, *common, "--recipes", "pal4", "--calibration", str(tmp_path))
    assert ran.code == 1
    assert "use --calibration photos" in ran.err
    ran = run(capsys, *common, "--images", str(tmp_path))
    assert ran.code == 1
    assert "use --images photos" in ran.err
