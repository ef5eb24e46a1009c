"""``fluxvae doctor`` as a user meets it, on the machine the tests run on."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.run import run

ROOT = Path(__file__).resolve().parents[2]
STATUS_COLUMN, NAME_COLUMN = 9, 32


def test_findings_line_up_within_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "doctor")
    assert (ran.code, ran.err) == (0, "")
    assert ran.widest <= 100
    findings, abilities = ran.out.split("\nThis machine can:\n")
    for line in findings.splitlines():
        assert line[:STATUS_COLUMN].strip() in ("ok", "info", "warn", "missing", "")
        assert line[NAME_COLUMN - 1] == " "
        assert line[NAME_COLUMN] != " "
    assert f"torch                  {version('torch')}" in findings
    assert "yes      validate, decode and inspect them" in abilities


def test_json_has_findings_and_abilities(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "doctor", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["can"]["execute"] is True
    assert ran.json["can"]["convert"] is True
    numpy = next(f for f in ran.json["findings"] if f["name"] == "numpy")
    assert numpy["what"].startswith(version("numpy"))
    assert set(numpy) == {"name", "status", "what", "advice", "blocks"}


@pytest.mark.parametrize(
    "module", ["fluxvae.device.doctor", "fluxvae.cli.weights", "fluxvae.device.compile"]
)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    """The doctor must run where torch does not even import."""
    heavy = "torch", "coremltools", "numpy", "huggingface_hub"
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"
