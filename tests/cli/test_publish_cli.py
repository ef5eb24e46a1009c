"""``fluxvae publish`` as a user meets it."""

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from tests.cli.run import run
from tests.hub_repo import TOKEN, HubRepo, serving_repo
from tests.matrix_folders import CELL, Made, result, write_run

REPO = "me/flux2-tiny"


@pytest.fixture(autouse=True)
def hub_as_a_fresh_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def folder(demo_package: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", [Made(demo_package, result(demo_package))])


def test_dry_run_shows_the_folder_and_sends_nothing(capsys, folder: Path) -> None:
    with serving_repo(HubRepo(REPO)) as hub:
        ran = run(capsys, "publish", str(folder), "--repo", REPO, "--dry-run",
                  "--endpoint", hub.endpoint)  # fmt: skip
    assert ran.code == 0
    assert hub.requests == []
    assert ran.out.rstrip().endswith("Nothing was uploaded (--dry-run).")
    count = sum(path.is_file() for path in (folder / "hub").rglob("*"))
    assert f"in {count} files: {folder / 'hub'}" in ran.out
    for file in ("README.md", "config.json", "manifest.json"):
        assert f"  {file}\n" in ran.out
        assert (folder / "hub" / file).is_file()


def test_upload_takes_the_token_of_the_environment(capsys, folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving_repo(HubRepo(REPO)) as hub:
        ran = run(capsys, "publish", str(folder), "--repo", REPO, "--json",
                  "--endpoint", hub.endpoint)  # fmt: skip
    assert ran.code == 0
    assert ran.json["url"] == f"{hub.endpoint}/{REPO}"
    assert ran.json["cells"] == [CELL.label()]
    assert {file["path"] for file in ran.json["files"]} == set(hub.files)
    assert TOKEN not in ran.out + ran.err


def test_missing_token_is_said_before_anything_is_made(capsys, folder: Path) -> None:
    ran = run(capsys, "publish", str(folder), "--repo", REPO)
    assert ran.code == 1
    assert "set HF_TOKEN, or run `hf auth login`" in ran.err
    assert not (folder / "hub").exists()


def test_failing_cell_is_exit_code_1(capsys, demo_package: Path, tmp_path: Path) -> None:
    bad = Made(demo_package, result(demo_package, verdict="fail"))
    folder = write_run(tmp_path / "run", [bad])
    ran = run(capsys, "publish", str(folder), "--repo", REPO, "--dry-run")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert f"{CELL.label()} is outside its limits" in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--repo", "me"], "expected USER/NAME"),
        (["--repo", REPO, "--only", "nothing-*"], f"it has {CELL.label()}"),
    ],
)
def test_bad_options_are_exit_code_2(capsys, folder: Path, arguments, words: str) -> None:
    ran = run(capsys, "publish", str(folder), "--dry-run", *arguments)
    assert ran.code == 2
    assert words in ran.err


def test_damaged_result_is_one_line(capsys, folder: Path) -> None:
    (place,) = (folder / "cells").iterdir()
    data = json.loads((place / "result.json").read_text())
    del data["verdict"]
    (place / "result.json").write_text(json.dumps(data))
    ran = run(capsys, "publish", str(folder), "--repo", REPO, "--dry-run")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert "verdict" in ran.err
