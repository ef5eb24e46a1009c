"""What happens to an error that nobody foresaw."""

import subprocess
import sys

DEFECT = """
import sys
import click
from fluxvae.cli import main as entry

@click.command("broken")
def broken():
    raise KeyError("nobody foresaw this")

sys.modules["fluxvae.cli.main"].LazyGroup.get_command = lambda *_: broken
entry(["broken"])
"""


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-c", DEFECT], capture_output=True, text=True, check=False
    )


def test_a_defect_is_one_line_that_says_how_to_report_it():
    ran = run()
    assert (ran.returncode, ran.stdout) == (1, "")
    (line,) = ran.stderr.splitlines()
    assert "nobody foresaw this" in line
    assert "python -X dev -m fluxvae" in line


def test_development_mode_shows_the_traceback():
    assert "Traceback (most recent call last)" in run("-X", "dev").stderr
