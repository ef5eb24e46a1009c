"""Running `swift` from the tests: where it is, its environment, and what its output may hold."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEAST = (6, 0)


def _trouble() -> str | None:
    swift = shutil.which("swift")
    if swift is None:
        return "no Swift toolchain: `swift` is not on the PATH"
    text = subprocess.run([swift, "--version"], capture_output=True, text=True).stdout
    match = re.search(r"Swift version (\d+)\.(\d+)", text)
    if match is None:
        return f"`swift --version` says no version: {text.strip()[:80]!r}"
    if (int(match[1]), int(match[2])) < LEAST:
        return f"Swift {match[1]}.{match[2]} is too old: the package needs {LEAST[0]}.{LEAST[1]}"
    return None


_TROUBLE = _trouble()
needs_swift = pytest.mark.skipif(_TROUBLE is not None, reason=str(_TROUBLE))


def run_swift(*arguments: str | Path, cwd: Path = ROOT) -> str:
    """Standard output and error of ``swift ARGUMENTS``, which must succeed without a warning.

    The Python of the tests, with this checkout's fluxvae, is the engine of Core ML on Linux.
    """
    output = run([shutil.which("swift") or "swift", *map(str, arguments)], cwd)
    assert "warning:" not in output, output
    return output


def run(command: Sequence[str], cwd: Path) -> str:
    """Output of a command that must succeed."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "FLUXVAE_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(paths),
    }
    result = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}"
    return result.stdout
