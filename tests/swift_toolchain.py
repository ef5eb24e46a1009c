"""Running `swift` from the tests: the one build of swift/, and what its output may hold."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from fluxvae.device.swift import PRODUCT, build_key, find_toolchain, packaged_sources

ROOT = Path(__file__).resolve().parents[1]
LEAST = (6, 0)
# "debug" without debug information, which nobody looks at here. A cold build that optimises
# ("release" with -enable-testing) took twice the CPU time of "debug", 146 s to 76.
QUICK = ("-Xswiftc", "-gnone")
# A warning is an error: one that is only printed is seen in the first build and never again. The
# index stays on: SwiftPM 6.3 looks in it for the tests of XCTest, even where there are none.
_FLAGS = (*QUICK, "-Xswiftc", "-warnings-as-errors")
# What the Swift tests read besides swift/: schemas, numpy's numbers, who makes and runs models.
_READ = (
    *("docs/*.schema.json", "tests/vectors/*", "tests/make_swift_models.py"),
    "fluxvae/mil/**/*.py",
)


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


TROUBLE = _trouble()
needs_swift = pytest.mark.skipif(TROUBLE is not None, reason=str(TROUBLE))


@dataclass(frozen=True)
class SwiftBuild:
    """swift/ with its tests, built in ``scratch``. ``key``: a digest of what it was built from."""

    scratch: Path
    key: str

    @property
    def options(self) -> tuple[str, ...]:
        """For `swift build` and `swift test`: always the same, else SwiftPM builds anew."""
        place = ("--package-path", str(ROOT / "swift"), "--scratch-path", str(self.scratch))
        return (*place, *_FLAGS)

    @property
    def harness(self) -> Path:
        """The program fluxvae-harness."""
        return self.scratch / "debug" / PRODUCT

    @property
    def modules(self) -> Path:
        """The folder of the compiled modules, for ``swiftc -I``."""
        return self.scratch / "debug" / "Modules"


def build_package(folder: Path) -> SwiftBuild:
    """Build swift/ and its tests in ``folder``, unless they lie there, built from these sources.

    Processes that ask at once wait for the first. After a change SwiftPM compiles what changed.
    """
    sources = build_key(packaged_sources(), find_toolchain())
    key = hashlib.sha256(repr((sources, str(ROOT), _FLAGS)).encode()).hexdigest()[:16]
    build = SwiftBuild(folder / "scratch", key)
    done = folder / "key.txt"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (done.is_file() and done.read_text() == key and build.harness.is_file()):
            done.unlink(missing_ok=True)
            run_swift("build", "--build-tests", *build.options)
            done.write_text(key)
    return build


def result_key(build: SwiftBuild) -> str:
    """A digest of all that the result of the Swift tests is kept by: a change of other Python code
    does not run them again."""
    digest = hashlib.sha256(build.key.encode())
    for path in sorted(p for pattern in _READ for p in ROOT.glob(pattern)):
        digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


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
