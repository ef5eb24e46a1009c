"""The Swift toolchain, and fluxvae-harness built from the sources that come with this package.

Built once for each set of sources and toolchain, into a stable folder of the user's cache: Core
ML keys its own cache of compiled models to the program that asks, so a harness that moved about
would pay for every model again.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from fluxvae.device.host import Answer, ask
from fluxvae.device.programs import run_captured
from fluxvae.errors import OutputError, ToolError
from fluxvae.files import commit, disk_trouble, staging
from fluxvae.schema import json_text

PRODUCT = "fluxvae-harness"
_SOURCES = ("Package.swift", "Sources", "Tests")  # the manifest names test folders too
_FAILED_LINES = 5

WHAT_IS_NEEDED = (
    "this needs Swift 6 or newer: on a Mac install Xcode or run `xcode-select --install`; on "
    "Linux take a toolchain from swift.org and put its usr/bin on PATH. `fluxvae validate` and "
    "`fluxvae decode` work without Swift"
)


@dataclass(frozen=True)
class Toolchain:
    """A Swift compiler: its program, and what ``swift --version`` says (all lines)."""

    program: str
    version: str


def find_toolchain(
    which: Callable[[str], str | None] = shutil.which,
    run: Callable[[list[str]], Answer | None] = ask,
) -> Toolchain:
    """The ``swift`` on PATH. Raises ToolError, saying how to get one, when there is none."""
    program = which("swift")
    if program is None:
        raise ToolError(f"no Swift toolchain found (looked for `swift` on PATH): {WHAT_IS_NEEDED}")
    answer = run([program, "--version"])
    if answer is None or answer.code != 0 or not answer.out:
        reason = f": {answer.err.splitlines()[0]}" if answer is not None and answer.err else ""
        raise ToolError(f"{program} --version does not answer{reason}; {WHAT_IS_NEEDED}")
    return Toolchain(program, answer.out)


def packaged_sources() -> Path:
    """The Swift package: ``swift/`` of a checkout, or the copy inside an installed wheel.

    Raises ToolError when this installation has neither.
    """
    here = Path(__file__).resolve().parents[1]
    for folder in (here.parent / "swift", here / "swift_sources"):
        if (folder / "Package.swift").is_file():
            return folder
    raise ToolError("this installation lacks the Swift sources: install fluxvae again")


def source_files(sources: Path) -> Iterator[Path]:
    """Every file that a build reads, sorted by path, relative to ``sources``."""
    for name in _SOURCES:
        path = sources / name
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        yield from (p.relative_to(sources) for p in files if p.name != ".DS_Store")


def build_key(sources: Path, toolchain: Toolchain) -> str:
    """First 16 hexadecimal digits of a sha256 over the toolchain's version, names and contents."""
    digest = hashlib.sha256(toolchain.version.encode())
    for relative in source_files(sources):
        content = (sources / relative).read_bytes()
        digest.update(f"\n{relative.as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def harness_place(cache: Path, sources: Path, toolchain: Toolchain) -> Path:
    """Where the program is, or will be: ``CACHE/harness/KEY/fluxvae-harness``."""
    return cache / "harness" / build_key(sources, toolchain) / PRODUCT


def build_harness(
    cache: Path,
    environment: Mapping[str, str],
    *,
    toolchain: Toolchain | None = None,
    sources: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """The built program; builds it when it is not in ``cache`` yet.

    Two builders at once: the second waits, and finds what the first has made. A build that fails
    or is interrupted leaves nothing. Raises ToolError when there is no toolchain or the build
    fails, OutputError when the cache cannot be written.
    """
    swift = toolchain or find_toolchain()
    folder = sources or packaged_sources()
    target = harness_place(cache, folder, swift)
    if target.is_file():
        return target
    try:
        target.parent.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent.parent / f"{target.parent.name}.lock"):
            if not target.is_file():
                say(f"building {PRODUCT} (once; some minutes): {target.parent}")
                _build(swift, folder, target, environment)
    except OSError as error:
        raise OutputError(disk_trouble(error, target)) from error
    return target


def _build(
    toolchain: Toolchain, sources: Path, target: Path, environment: Mapping[str, str]
) -> None:
    """Build a copy in a hidden folder beside ``target``, and give its folder the final name.

    A copy, since an installed package's folder may be read-only, and since SwiftPM writes beside
    the manifest.
    """
    with staging(
        target.parent, overwrite=True
    ) as work:  # True: somebody took the program out of it
        package, draft = work / "swift", work / target.parent.name
        for relative in source_files(sources):
            (package / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sources / relative, package / relative)
        command = [
            *(toolchain.program, "build", "--package-path", str(package)),
            *("--scratch-path", str(work / "scratch")),
            *("--configuration", "release", "--product", PRODUCT),
        ]
        _swift(command, environment)
        binaries = _swift([*command, "--show-bin-path"], environment).strip().splitlines()
        draft.mkdir()
        shutil.copy2(Path(binaries[-1]) / PRODUCT, draft / PRODUCT)
        about = {"key": target.parent.name, "toolchain": toolchain.version}
        (draft / "build.json").write_text(json_text(about, indent=2), encoding="utf-8")
        commit(work, target.parent, overwrite=True)


def _swift(command: list[str], environment: Mapping[str, str]) -> str:
    """stdout of one ``swift`` call. Raises ToolError with the compiler's first complaints."""
    ran = run_captured(command, environment=environment)
    if ran.returncode != 0:
        lines = [line.strip() for line in (ran.stderr + ran.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "error:" in line] or lines or ["no message"]
        raise ToolError(
            f"{PRODUCT} was not built (swift build ended with code {ran.returncode}): "
            + "; ".join(errors[:_FAILED_LINES])
        )
    return ran.stdout
