"""``fluxvae matrix`` as a user meets it. The cells' own processes are stand-ins."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import warm
from tests.cli.run import Ran, run
from tests.fake_cell import calls, matrix_text

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[2]
TEXT = matrix_text("runs = 1", layout=["nchw", "nhwc"], precision=["float32"])


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(TEXT)
    return path


def apart(*arguments: str, limit: int | None = None) -> warm.Process:
    """``fluxvae matrix ...`` in a process of its own; ``limit``: bytes a file may have."""
    return warm.start("-m", "fluxvae", "matrix", *arguments, limit=limit)


def refused(ran: Ran, code: int, *words: str) -> None:
    assert ran.code == code
    assert ran.out == ""
    for word in words:
        assert word in ran.err
    assert len(ran.err.strip().splitlines()[-1:]) == 1
    assert "Traceback" not in ran.err


def test_a_matrix_from_its_first_line_to_its_verdict(
    capsys: Capture, tmp_path: Path, toml: Path, fake: Path
) -> None:
    out = str(tmp_path / "run")
    ran = run(capsys, "matrix", "run", str(toml), "--out", out)
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "2 done"
    assert "2/2 flux2-nhwc-float32-none-64: done (pass, worst" in ran.err
    again = run(capsys, "matrix", "run", str(toml), "--out", out, "--json")
    assert again.json["computed"] == 0
    assert again.json["counts"] == {"done": 2}
    assert again.json["verdict"] == "pass"
    assert len(calls(fake)) == 2
    status = run(capsys, "matrix", "status", out)
    assert status.out.splitlines()[0] == "run: 2 done"
    assert status.widest <= 100
    cells = run(capsys, "matrix", "status", out, "--json").json["cells"]
    assert [cell["status"] for cell in cells] == ["done", "done"]
    assert cells[0]["row"]["latency_ms"] > 0
    assert run(capsys, "matrix", "verify", out).out == "nothing wrong\n"
    path = min((tmp_path / "run").glob("cells/*/result.json"))
    path.write_text(path.read_text().replace("5.0", "4.0", 1))
    found = run(capsys, "matrix", "verify", out)
    assert found.code == 3
    assert "was changed after it was measured" in found.out
    assert run(capsys, "matrix", "verify", out, "--json").json["findings"] == (
        found.out.splitlines()
    )
    pages = run(capsys, "matrix", "report", out)
    assert str(tmp_path / "run" / "summary.json") in pages.out
    assert run(capsys, "report", out).out == pages.out


def test_a_failed_cell_is_exit_code_1(
    capsys: Capture, tmp_path: Path, toml: Path, fake: Path
) -> None:
    (fake / "fail").write_text("nhwc")
    ran = run(capsys, "matrix", "run", str(toml), "--out", str(tmp_path / "run"))
    assert ran.code == 1
    assert ran.out.splitlines()[0] == "1 done, 1 failed"
    assert "failed (it was told to fail" in ran.err
    status = run(capsys, "matrix", "status", str(tmp_path / "run"))
    assert "failed   it was told to fail" in status.out


def test_init_writes_a_matrix_once(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    assert run(capsys, "matrix", "init", str(path)).code == 0
    refused(run(capsys, "matrix", "init", str(path)), 1, "exists already", "--overwrite")
    assert "[axes]" in path.read_text()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("[axes]\nvarient = ['flux2']\n", 2, "unknown axis: 'varient' (did you mean 'variant'?)"),
        ("[axes]\nvariant = ['flux2']\nlayout = ['nwhc']\n", 2, "did you mean 'nhwc'?"),
        ("[matrix]\nname = 'x'\n", 2, "the matrix is empty"),
    ],
)
def test_a_wrong_file_is_told(
    capsys: Capture, tmp_path: Path, text: str, code: int, words: str
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    refused(run(capsys, "matrix", "run", str(path), "--out", str(tmp_path / "run")), code, words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["# größer\n", "\ufeff# größer\r\n"], ids=["plain", "marked"])
def test_a_file_of_another_system_is_read_whatever_the_locale(toml: Path, text: str) -> None:
    toml.write_bytes(text.encode() + toml.read_bytes())
    ran = subprocess.run(
        [sys.executable, "-m", "fluxvae", "matrix", "run", str(toml), "--only", "none"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": "0",
             "PYTHONCOERCECLOCALE": "0"}, capture_output=True, text=True,
    )  # fmt: skip
    assert "no cell fits --only none" in ran.stderr


def test_a_file_in_another_encoding_is_named(capsys: Capture, toml: Path) -> None:
    toml.write_text(toml.read_text(), "utf-16")
    ran = run(capsys, "matrix", "run", str(toml))
    refused(ran, 2, str(toml), "expected text in UTF-8, is UTF-16: save it as UTF-8")


def test_a_missing_file_is_named(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "no.toml"
    refused(run(capsys, "matrix", "run", str(path)), 1, "cannot be read", "matrix init")
    refused(run(capsys, "matrix", "status", str(tmp_path)), 1, "not a folder of `fluxvae matrix")
    refused(run(capsys, "matrix", "report", str(tmp_path)), 1, "of `fluxvae matrix run`")


def test_ten_thousand_cells_are_asked_for_first(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [f"{8 * a}x{8 * b}" for a in range(8, 58) for b in range(8, 58)]
    path = tmp_path / "large.toml"
    path.write_text(f"{TEXT}sizes = {sizes}\n".replace('sizes = ["64"]\n', "").replace(
        '"float32"]', '"float16", "float32"]'))  # fmt: skip
    out = tmp_path / "run"
    ran = run(capsys, "matrix", "run", str(path), "--out", str(out), "--workers", "2")
    refused(ran, 2, "10000 cells to do: roughly", "days with 2 workers", "GB of files", "--yes")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    ran = run(capsys, "matrix", "run", str(path), "--out", str(out))
    assert ran.code == 1
    assert not out.exists()


def test_workers_and_scheduler_are_one_or_the_other(capsys: Capture, toml: Path) -> None:
    both = ("--workers", "2", "--scheduler", "tcp://127.0.0.1:1")
    refused(run(capsys, "matrix", "run", str(toml), *both), 2, "choose one")


def test_several_workers_here_are_no_quiet_host(
    capsys: Capture, tmp_path: Path, toml: Path
) -> None:
    toml.write_text(TEXT.replace("runs = 1", 'measure_needs = ["QUIET"]'))
    ran = run(capsys, "matrix", "run", str(toml), "--workers", "2", "--out", str(tmp_path / "run"))
    refused(ran, 2, "disturb each other", "--workers 1")


def test_an_unreachable_scheduler_is_told(
    capsys: Capture, tmp_path: Path, toml: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluxvae.experiments.dask.TIMEOUT_S", 1.0)
    out = tmp_path / "run"
    ran = run(capsys, "matrix", "run", str(toml), "--out", str(out),
              "--scheduler", "tcp://127.0.0.1:1")  # fmt: skip
    refused(ran, 1, "no scheduler answers at tcp://127.0.0.1:1 within 1 s", "--workers N")
    assert calls(fake) == []


@pytest.mark.parametrize("limit", [100, 1_000_000], ids=["at the start", "at the weights"])
def test_a_full_disk_is_told(tmp_path: Path, toml: Path, fake: Path, limit: int) -> None:
    out, err = apart("run", str(toml), "--out", str(tmp_path / "run"), limit=limit).communicate()
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith(f"fluxvae: no space left while writing {tmp_path}/run")


def test_a_disk_that_is_full_in_a_cell_ends_the_run_and_loses_nothing(
    capsys: Capture, tmp_path: Path, toml: Path, fake: Path
) -> None:
    (fake / "fail").write_text("nhwc")
    (fake / "reason").write_text("no space left while writing /run/x: free some")
    ran = run(capsys, "matrix", "run", str(toml), "--out", str(tmp_path / "run"))
    refused(ran, 1, "fluxvae: no space left while writing /run/x: free some")
    (place,) = (tmp_path / "run" / "cells").iterdir()
    assert (place / "result.json").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_everything(tmp_path: Path, toml: Path, fake: Path, workers: str) -> None:
    (fake / "hang").write_text("cell")
    folder = tmp_path / "run"
    process = apart("run", str(toml), "--out", str(folder), "--workers", workers)
    end = time.monotonic() + 120
    while not calls(fake):
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "fluxvae: interrupted; nothing half-written was kept"
    assert "Traceback" not in err
    assert not (folder / ".work").exists()
    time.sleep(1)
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in _read(p)]
    assert left == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_status_of_half_a_matrix(
    capsys: Capture, tmp_path: Path, toml: Path, fake: Path
) -> None:
    out = str(tmp_path / "run")
    run(capsys, "matrix", "run", str(toml), "--out", out, "--only", "*-nchw-*")
    data = run(capsys, "matrix", "status", out, "--json").json
    assert data["counts"] == {"done": 1, "missing": 1}
    assert json.dumps(data)
    assert run(capsys, "matrix", "verify", out).out == (
        "flux2-nhwc-float32-none-64: missing; run the matrix again\n"
    )
