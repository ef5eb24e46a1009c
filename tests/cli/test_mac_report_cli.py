"""``fluxvae mac-report`` as a user meets it."""

import signal
import sys
from pathlib import Path

import pytest

from fluxvae.records.mac import MacRecord
from fluxvae.schema import load
from tests import warm
from tests.cli.run import run

Capture = pytest.CaptureFixture[str]
QUICK = (
    *("mac-report", "--rehearse", "--weights", "demo", "--variant", "flux1", "--size", "64"),
    *("--iterations", "2", "--runs", "1", "--cooldown", "0", "--repeats", "2"),
)


@pytest.mark.skipif(sys.platform == "darwin", reason="asks what happens where there is no Mac")
def test_off_a_mac_it_says_what_to_do(tmp_path: Path, capsys: Capture) -> None:
    ran = run(capsys, "mac-report", "--out", str(tmp_path / "report"))
    assert ran.code == 1
    assert "--rehearse" in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert not (tmp_path / "report").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="a rehearsal stands in for a Mac")
def test_rehearsal_killed_half_way_goes_on_and_ends_with_the_table(
    tmp_path: Path, capsys: Capture, harness_program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    arguments = [*QUICK, "--harness", str(harness_program), "--out", str(out)]
    # On Linux the harness starts a Python for each of its calls: 26 times.
    monkeypatch.setattr(sys, "executable", str(warm.program(tmp_path)))
    with warm.start("-m", "fluxvae", *arguments) as process:
        for line in process.stderr:
            if "bench-64-cpuOnly" in line:  # begun, and not done
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    kept = {p.name for p in out.glob("cells/*/*.json")}
    assert {"convert.json", "validate-64-cpuOnly.json"} <= kept
    assert "bench-64-cpuOnly.json" not in kept
    assert not (out / "record.json").exists()

    ran = run(capsys, *arguments)
    assert ran.code == 0, ran.err
    assert ran.err.count("done before") == len(kept)
    rows = [line for line in ran.out.splitlines() if line.startswith("| flux1")]
    assert len(rows) == 8
    for row in rows:
        assert row.count("not run") == 13  # qualities, latencies, plan, same bits, three drifts
    record = load(MacRecord, out / "record.json")
    assert record.rehearsal
    statuses = {c.status for c in record.cells if c.task.units == "cpuOnly"}
    assert statuses == {"rehearsed", "not run"}  # not run: the compute plan
    assert (out / "report.md").read_text() in ran.out
