"""``fluxvae compile`` as a user meets it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fluxvae.compiler
from tests.cli.run import run
from tests.fake_xcode import COMPLETE, HANG, REFUSE, install, make_package

ROOT = Path(__file__).resolve().parents[2]
STARTING_SECONDS = 60  # this machine may be busy; measured 1 s


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_path_of_the_compiled_model_is_printed(
    tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tools, "xcrun", COMPLETE, finds="coremlcompiler")
    package = make_package(tmp_path / "out")
    target = package.with_suffix(".mlmodelc")
    ran = run(capsys, "compile", str(package))
    assert (ran.code, ran.out, ran.err) == (0, f"{target}\n", "")
    again = run(capsys, "compile", str(package))
    assert again.code == 1
    assert "exists already: pass --overwrite" in again.err
    ran = run(capsys, "compile", str(package), "--overwrite", "--json")
    assert ran.code == 0
    assert ran.json == {"path": str(target), "source": str(package)}


def test_refusal_is_one_line(
    tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tools, "coremlc", REFUSE)
    ran = run(capsys, "compile", str(make_package(tmp_path / "out")), "--json")
    assert (ran.code, ran.out) == (1, "")
    assert len(ran.err.splitlines()) == 1
    assert "validator error: no such layer" in ran.err


def test_machine_without_xcode_gets_one_line_that_says_what_to_do(
    tools: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fluxvae.compiler, "find_compilers", lambda runner: [])
    ran = run(capsys, "compile", str(make_package(tmp_path / "out")), "--compiler", "xcode")
    assert (ran.code, ran.out) == (1, "")
    assert len(ran.err.splitlines()) == 1
    assert "full Xcode" in ran.err


def test_ctrl_c_during_compilation_leaves_nothing(tmp_path: Path) -> None:
    install(tmp_path / "bin", "coremlc", HANG)
    package = make_package(tmp_path / "out")
    environment = {**os.environ, "PATH": str(tmp_path / "bin"), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "fluxvae", "compile", str(package)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + STARTING_SECONDS
        while not list(package.parent.glob(".fluxvae-*/*/*/model.mil")):
            assert time.monotonic() < deadline, "the compiler was never started"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 1
    # click puts an empty line first, which ends the terminal's "^C".
    assert err.strip() == "fluxvae: interrupted; nothing half-written was kept"
    assert [path.name for path in package.parent.iterdir()] == [package.name]
