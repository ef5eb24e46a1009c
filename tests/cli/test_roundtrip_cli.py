"""``fluxvae roundtrip`` and ``fluxvae data`` as a user meets them."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from fluxvae.records.roundtrip import Roundtrip
from fluxvae.schema import load
from tests.cli.run import Ran, run

Capture = pytest.CaptureFixture[str]
SCHEMA = Path(__file__).parents[2] / "docs" / "roundtrip.schema.json"
PAGES = {"index.html", "sheet.png", "plot.svg", "summary.md"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good picture, of two frames, and a text file that calls itself one."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.add.outer(np.arange(64) * 2, np.arange(64))[..., None] + [0, 20, 40]
    first, second = (Image.fromarray(p.astype(np.uint8)) for p in (pixels, pixels[::-1]))
    first.save(folder / "slope.png", save_all=True, append_images=[second])
    (folder / "bad.jpg").write_text("hello")
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "out"


def _roundtrip(capsys: Capture, *options: str) -> Ran:
    return run(
        capsys, "roundtrip", "--variant", "flux2", "--weights", "demo", "--size", "64",
        "--variants", "fp16", *options,
    )  # fmt: skip


@contextmanager
def _threads(count: int, threads: int) -> Iterator[Executor]:
    """In place of ``worker_processes``, which tests/test_roundtrip.py shows: no imports."""
    assert (count, threads) == (2, 1)
    with ThreadPoolExecutor(count) as pool:
        yield pool


def test_a_run_leaves_record_and_pages_and_goes_on(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, images: Path, out: Path
) -> None:
    monkeypatch.setattr("fluxvae.experiments.workers.worker_processes", _threads)
    common = ("--images", str(images), "--out", str(out), "--workers", "2")
    ran = _roundtrip(capsys, *common)
    assert ran.code == 0
    assert ran.widest <= 100
    assert "slope.png: float32 decode (first of 2 frames)\n" in ran.err
    text = " ".join(ran.out.split())
    for words in ("what the viewer gets", "worst of fp16: slope.png", "skipped: bad.jpg: cannot"):
        assert words in text
    assert {p.name for p in out.iterdir()} >= {"record.json", "images", "artifacts", *PAGES}
    first = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    again = _roundtrip(capsys, *common, "--json")
    assert again.code == 0
    assert "already there" in again.err
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(again.json["roundtrip"], schema)
    assert {Path(p).name for p in again.json["pages"]} == PAGES
    assert load(Roundtrip, Path(again.json["record"])).pictures[0].name == "slope.png"
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == first
    other = run(
        capsys, "roundtrip", "--variant", "flux2", "--weights", "demo", "--size", "72",
        "--variants", "fp16", *common,
    )  # fmt: skip
    assert (other.code, other.out) == (1, "")
    assert "holds a round trip of demo at 64: pass --overwrite" in other.err


def test_another_folders_files_are_left_alone(
    capsys: Capture, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    ran = _roundtrip(capsys, "--images", str(images), "--out", str(tmp_path))
    assert (ran.code, ran.out) == (1, "")
    assert "holds other files and no round trip" in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--variants", "fp16,float16"), 2, "given twice"),
        (("--variants", "pal5"), 2, "palettes have"),
        (("--size", "64,128"), 2, "has one size"),
        (("--images", "EMPTY"), 1, "use --images photos"),
        (("--images", "none"), 1, "photos, soa, or a folder"),
        (("--images", "soa"), 1, "run `fluxvae data fetch soa` once online"),
        (("--variants", "no/such.mlpackage"), 1, "such.mlpackage"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "empty").mkdir()
    given = [str(tmp_path / "empty") if o == "EMPTY" else o for o in options]
    ran = _roundtrip(capsys, "--out", str(tmp_path / "out"), *given)
    assert (ran.code, ran.out) == (code, "")
    assert words in " ".join(ran.err.split())
    assert not (tmp_path / "out").exists()


def test_data_fetch_without_datasets_names_the_way_out(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if not installed
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ran = run(capsys, "data", "fetch", "soa", "--count", "2")
    assert (ran.code, ran.out) == (1, "")
    assert "pip install 'fluxvae[soa]', or use --images photos" in ran.err
    assert len(ran.err.splitlines()) == 1
