"""``fluxvae compile`` as a user meets it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import fluxvae.device.compile
from tests.cli.run import run
from tests.fake_xcode import COMPLETE, HANG, REFUSE, install, make_package
from tests.packages import copy_of, tree

ROOT = Path(__file__).resolve().parents[2]
STARTING_SECONDS = 60  # this machine may be busy; measured 1 s


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
    monkeypatch.setattr(fluxvae.device.compile, "find_compilers", lambda runner: [])
    ran = run(capsys, "compile", str(make_package(tmp_path / "out")), "--compiler", "xcode")
    assert (ran.code, ran.out) == (1, "")
    assert len(ran.err.splitlines()) == 1
    assert "full Xcode" in ran.err


@contextmanager
def hanging(package: Path) -> Iterator["subprocess.Popen[str]"]:
    """`fluxvae compile`, and a compiler that has written some of its output and goes on."""
    tools = package.parents[1] / "bin"
    install(tools, "coremlc", HANG)
    process = subprocess.Popen(
        [sys.executable, "-m", "fluxvae", "compile", str(package)],
        env={**os.environ, "PATH": str(tools), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # pytest may have been started in the background, where SIGINT is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + STARTING_SECONDS
        while not list(package.parent.glob(".fluxvae-*/*/*/model.mil")):
            assert time.monotonic() < deadline, "the compiler was never started"
            time.sleep(0.05)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_ctrl_c_during_compilation_leaves_nothing(tmp_path: Path) -> None:
    package = make_package(tmp_path / "out")
    with hanging(package) as process:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1
        # click puts an empty line first, which ends the terminal's "^C".
        assert err.strip() == "fluxvae: interrupted; nothing half-written was kept"
        assert [path.name for path in package.parent.iterdir()] == [package.name]


def test_what_a_killed_compilation_left_goes_with_the_next(
    tmp_path: Path, tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = make_package(tmp_path / "out")
    with hanging(package) as process:
        install(tools, "coremlc", COMPLETE)
        ran = run(capsys, "compile", str(package))
        assert (ran.code, "another process is making" in ran.err) == (1, True)
        process.kill()
        process.wait()
        assert list(package.parent.glob(".fluxvae-*"))
        assert run(capsys, "compile", str(package)).code == 0
        compiled = package.with_suffix(".mlmodelc")
        assert sorted(package.parent.iterdir()) == [compiled, package]


@pytest.fixture
def package(demo_package: Path, tmp_path: Path) -> Path:
    return copy_of(demo_package, tmp_path / "made")


def test_portable_output_is_taken_like_a_package(
    package: Path, demo_latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run(capsys, "compile", str(package), "--compiler", "portable")
    bundle = package.with_suffix(".mlmodelc")
    assert (ran.code, ran.out) == (0, f"{bundle}\n")
    first, *notes = ran.err.splitlines()
    assert first.endswith("has not been shown to load on a real Mac")
    assert notes
    assert all(n.startswith("note: ") for n in notes)

    reports = [run(capsys, "inspect", str(p), "--json").json for p in (package, bundle)]
    for report in reports:
        del report["path"], report["bytes_on_disk"]
    assert reports[0] == reports[1]

    images = []
    for model in (package, bundle):
        out = tmp_path / model.suffix[1:]
        decoded = ("decode", str(model), str(demo_latents), "--out", str(out))
        assert run(capsys, *decoded, "--backend", "reference").code == 0
        images.append({p.name: p.read_bytes() for p in out.iterdir()})
    assert images[0] == images[1]
    assert len(images[0]) == 2

    judged = ("validate", str(bundle), "--weights", "demo", "--backend", "reference", "--json")
    ran = run(capsys, *judged)
    assert ran.code == 0
    assert ran.json["verdict"] == "pass"


def test_truncated_compiled_model_is_refused_in_one_line(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "compile", str(package), "--compiler", "portable").code == 0
    bundle = package.with_suffix(".mlmodelc")
    text = (bundle / "model.mil").read_bytes()
    (bundle / "model.mil").write_bytes(text[: len(text) // 2])
    for command in (("inspect",), ("validate", "--weights", "demo")):
        ran = run(capsys, command[0], str(bundle), *command[1:])
        assert (ran.code, ran.out) == (1, "")
        assert len(ran.err.splitlines()) == 1
        assert "model.mil is damaged at line" in ran.err


@pytest.mark.parametrize("command", ["compile", "convert"])
def test_help_says_what_portable_output_was_not_shown_to_do(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    words = " ".join(run(capsys, command, "--help").out.split())
    assert "not been shown to load on a real Mac" in words


CONVERT = ("convert", "--variant", "flux1", "--weights", "demo", "--size", "64", "--compile")


def test_convert_compiles_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "here"
    ran = run(capsys, *CONVERT, "--compiler", "portable", "--out", str(out), "--json")
    assert ran.code == 0
    assert "not been shown to load on a real Mac" in ran.err
    path, bundle = Path(ran.json["path"]), Path(ran.json["compiled"])
    assert bundle == path.with_suffix(".mlmodelc")
    assert sorted(p.name for p in out.iterdir()) == [bundle.name, path.name]


def test_convert_refuses_a_compiled_model_in_the_way_before_converting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "flux1_tiny_decoder_nchw_float16_hw64_demo.mlmodelc"
    taken.mkdir()
    before = tree(tmp_path)
    ran = run(capsys, *CONVERT, "--compiler", "portable", "--out", str(tmp_path))
    assert (ran.code, ran.out) == (1, "")
    assert len(ran.err.splitlines()) == 1  # not even "loading demo weights"
    assert f"{taken} exists already: pass --overwrite" in ran.err
    assert tree(tmp_path) == before


def test_convert_asks_for_the_compiler_before_converting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fluxvae.device.compile, "find_compilers", lambda: [])
    ran = run(capsys, *CONVERT, "--compiler", "xcode", "--out", str(tmp_path))
    assert (ran.code, ran.out) == (1, "")
    assert "full Xcode" in ran.err
    assert "loading" not in ran.err
    network = ("--format", "neuralnetwork", "--compiler", "portable")
    ran = run(capsys, *CONVERT, *network, "--out", str(tmp_path))
    assert ran.code == 2
    assert "takes ML Programs only" in ran.err
    assert list(tmp_path.iterdir()) == []
