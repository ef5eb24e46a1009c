"""``fluxvae cache``: what is kept, how large it is, and how it goes away."""

import os
import time
from pathlib import Path

import pytest

from tests.cli.run import run


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fluxvae"


@pytest.fixture
def filled(cache: Path) -> Path:
    """One thing of each kind, and what processes at work leave there for moments."""
    for name, size in {
        "compressions/flux2_tiny_pal4_float16_0123.safetensors": 1_500_000,
        "compressions/.fluxvae-ab/flux2_tiny_pal6_float16_4567.safetensors": 10,
        "compressions/.fluxvae-ab.lock": 0,
        "harness/89ab/fluxvae-harness": 2_000_000,
        "harness/89ab/build.json": 100,
        "harness/89ab.lock": 0,
        "soa/manifest.json": 50,
        "soa/soa_00000.jpg": 700,
        "of-another-program": 5,
    }.items():
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(b"x" * size)
    then = time.time() - 3 * 86400
    os.utime(cache / "compressions/flux2_tiny_pal4_float16_0123.safetensors", (then, then))
    return cache


def test_cache_lists_every_kind_with_sizes_and_ages(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run(capsys, "cache")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == run(capsys, "cache", "show").out
    assert ran.widest <= 100
    lines = ran.out.splitlines()
    assert lines[0] == f"{filled}: 3.5 MB"
    assert "        1.5 MB       3 days  flux2_tiny_pal4_float16_0123.safetensors" in lines
    assert [line.split()[:3] for line in lines[1:] if ": " in line][:3] == [
        ["compressions", "1.5", "MB:"],
        ["harness", "2.0", "MB:"],
        ["soa", "750", "bytes:"],
    ]
    assert "pal6" not in ran.out
    assert "Hugging Face's cache, not cleared here" in lines[-1]


def test_cache_show_as_json(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "cache", "show", "--json").json
    assert shown["folder"] == str(filled)
    assert [(e["kind"], e["name"], e["bytes"]) for e in shown["entries"]] == [
        ("compressions", "flux2_tiny_pal4_float16_0123.safetensors", 1_500_000),
        ("harness", "89ab", 2_000_100),
        ("soa", "manifest.json", 50),
        ("soa", "soa_00000.jpg", 700),
    ]
    assert shown["bytes"] == 3_500_850
    assert shown["entries"][0]["age_s"] == pytest.approx(3 * 86400, abs=600)


def test_clear_takes_all_that_fluxvae_made_and_nothing_else(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "cache", "clear").out == f"removed 3.5 MB from {filled}\n"
    assert run(capsys, "cache", "show", "--json").json["entries"] == []
    assert (filled / "of-another-program").exists()
    assert (filled / "compressions/.fluxvae-ab.lock").exists()  # a process at work
    assert run(capsys, "cache", "clear").out == f"removed 0 bytes from {filled}\n"


def test_clear_takes_one_kind_when_asked(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cleared = run(capsys, "cache", "clear", "soa", "--json").json
    assert cleared == {"folder": str(filled), "kinds": ["soa"], "removed_bytes": 750}
    kinds = [e["kind"] for e in run(capsys, "cache", "show", "--json").json["entries"]]
    assert kinds == ["compressions", "harness"]
    refused = run(capsys, "cache", "clear", "weights")
    assert refused.code == 2
    assert "'compressions', 'harness', 'soa'" in refused.err


def test_clear_leaves_what_a_link_points_to(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    (cache / "harness").mkdir(parents=True)
    (cache / "harness" / "link").symlink_to(tmp_path / "mine")
    run(capsys, "cache", "clear")
    assert (tmp_path / "mine" / "file").exists()
    assert not (cache / "harness" / "link").is_symlink()


def test_an_empty_cache_is_shown_and_cleared(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "cache").out.startswith(f"{cache}: 0 bytes\n")
    assert run(capsys, "cache", "clear").code == 0
    assert not cache.exists()


def test_convert_at_another_size_and_layout_finds_the_compression_in_the_cache(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("convert", "--variant", "flux2", "--weights", "demo", "--out", str(tmp_path / "out"),
            "--quantize-weights", "int8", "--recipe", "plain")  # fmt: skip
    first = run(capsys, *base, "--size", "64")
    second = run(capsys, *base, "--size", "64x96", "--layout", "nhwc")
    assert (first.code, second.code) == (0, 0)
    assert "found in the cache" not in first.err
    assert "int8-plain: found in the cache" in second.err
    (entry,) = run(capsys, "cache", "show", "--json").json["entries"]
    assert entry["name"].startswith("flux2_tiny_decoder_int8-plain_float16_")
