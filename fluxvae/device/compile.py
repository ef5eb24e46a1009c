"""Compile a saved model to ``.mlmodelc``: with Apple's compiler, or without it on any OS.

Takes an ``.mlpackage`` or ``.mlmodel`` and leaves one ``.mlmodelc`` folder at a path known
beforehand. Apple's compiler comes with full Xcode; ours (``mil.compiler``) takes ML Programs
only, and its output has not been shown to load on a real Mac. Validating and decoding need
neither: the reference executor runs packages as they are.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fluxvae.device.programs import Runner, run_captured
from fluxvae.errors import ArtifactError, ToolError
from fluxvae.files import commit, refuse_existing, staging

COMPILERS = ("auto", "xcode", "portable")
SUFFIX = ".mlmodelc"
XCODE_FOLDER = Path("/Applications")
_XCODE_TOOLS = "Xcode*.app/Contents/Developer/usr/bin"
_FIND_SECONDS = 60  # the first xcrun after an Xcode update rebuilds its cache

WHAT_IS_NEEDED = (
    "compiling needs a Mac with full Xcode (the Command Line Tools alone have no Core ML "
    "compiler): install Xcode from the App Store, then run "
    "`sudo xcode-select -s /Applications/Xcode.app/Contents/Developer`. The package itself is "
    "complete: validate, decode and inspect work without compiling, and Xcode compiles it "
    "when it is added to an app. `--compiler portable` compiles an ML Program on any OS"
)
NOT_SHOWN = (
    "compiled without Xcode (portable); such output has not been shown to load on a real Mac"
)


@dataclass(frozen=True)
class Compiler:
    """A compiler found on this machine; ``<command> SOURCE FOLDER`` compiles into FOLDER."""

    command: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people: ``xcrun coremlcompiler`` or the path of the program."""
        return " ".join(self.command[:-1])


def find_compilers(
    runner: Runner = subprocess.run,
    which: Callable[[str], str | None] = shutil.which,
    xcode_folder: Path = XCODE_FOLDER,
) -> list[Compiler]:
    """Every compiler of this machine, best first: xcrun's, ``coremlc`` on PATH, any Xcode's.

    Starts ``xcrun --find`` only; on a machine without xcrun it starts nothing.
    """
    found = []
    xcrun = which("xcrun")
    for tool in ("coremlcompiler", "coremlc"):
        if xcrun and _finds(xcrun, tool, runner):
            found.append(Compiler(("xcrun", tool, "compile")))
        on_path = which(tool)
        if on_path:
            found.append(Compiler((on_path, "compile")))
    if not found:  # an Xcode that xcode-select does not point at
        tools = (
            path
            for name in ("coremlcompiler", "coremlc")
            for path in sorted(xcode_folder.glob(f"{_XCODE_TOOLS}/{name}"))
        )
        found = [Compiler((str(path), "compile")) for path in tools]
    return found


def _finds(xcrun: str, tool: str, runner: Runner) -> bool:
    try:
        command = [xcrun, "--find", tool]
        result = run_captured(command, runner=runner, timeout=_FIND_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0


def require_compilers(found: Sequence[Compiler]) -> Sequence[Compiler]:
    """``found`` itself, or ToolError with what is needed when it is empty."""
    if not found:
        raise ToolError(f"no Core ML compiler found: {WHAT_IS_NEEDED}")
    return found


def choose_compiler(
    compiler: str, path: Path, found: Sequence[Compiler]
) -> Sequence[Compiler] | None:
    """Apple's compilers to try, or None for the portable one.

    ``auto`` takes Apple's where there is one. Raises ToolError when Apple's is needed and missing:
    asked for, or ``path`` is an ``.mlmodel`` file, which as a rule is not an ML Program.
    """
    if compiler == "portable":
        return None
    if compiler == "auto" and not found and path.suffix == ".mlpackage":
        return None
    return require_compilers(found)


def compiled_path(path: Path, out: Path | None = None) -> Path:
    """Where the compiled model of ``path`` goes.

    Beside it by default (``X.mlpackage`` to ``X.mlmodelc``); ``out`` is that path itself when
    it ends in ``.mlmodelc``, and otherwise a folder for ``X.mlmodelc``.
    """
    name = path.with_suffix(SUFFIX).name
    if out is None:
        return path.with_name(name)
    return out if out.suffix == SUFFIX else out / name


def compile_model(
    path: Path,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    compiler: str = "auto",
    report: Callable[[str], object] = lambda line: None,
    runner: Runner = subprocess.run,
    compilers: Sequence[Compiler] | None = None,
) -> Path:
    """Compile ``path`` (``.mlpackage`` or ``.mlmodel``) and return the ``.mlmodelc`` folder.

    ``compiler`` is one of ``COMPILERS``; ``auto`` prefers Apple's. ``report`` gets a line when the
    portable one was used, and one for each guess it made. Works in a hidden folder beside the
    target, which is removed on any failure or interruption. ``compilers`` defaults to Apple's of
    this machine and are tried in order. Raises ArtifactError, before anything is written, when
    ``path`` is not such a model or is damaged, and when every compiler refuses it, OutputError when
    the target exists (without ``overwrite``) or cannot be written, ToolError when there is no
    compiler.
    """
    _check_source(path)
    target = compiled_path(path, out)
    refuse_existing(target, overwrite)
    if compilers is None:
        compilers = [] if compiler == "portable" else find_compilers(runner)
    chosen = choose_compiler(compiler, path, compilers)
    with staging(target, overwrite=overwrite) as folder:
        if chosen is None:
            made = _portable(path, folder, report)
        else:
            made = _first_success(path, folder, chosen, runner)
        made.rename(folder / target.name)
        commit(folder, target, overwrite=overwrite)
    return target


def _portable(path: Path, folder: Path, report: Callable[[str], object]) -> Path:
    from fluxvae.mil.compiler import compile_program  # numpy: too heavy for the doctor

    target = folder / "made"
    target.mkdir()
    compiled = compile_program(path, target)
    report(NOT_SHOWN)
    for warning in compiled.warnings:
        report(f"note: {warning}")
    return compiled.path


def _check_source(path: Path) -> None:
    if not path.exists():
        raise ArtifactError(f"{path} does not exist; give a saved .mlpackage or .mlmodel")
    if path.suffix == SUFFIX:
        raise ArtifactError(f"{path} is compiled already; give the .mlpackage it was made from")
    if (path.suffix, path.is_dir()) not in ((".mlpackage", True), (".mlmodel", False)):
        raise ArtifactError(f"{path} is neither an .mlpackage folder nor an .mlmodel file")
    from fluxvae.mil.package import check_model  # numpy: too heavy for the doctor

    check_model(path)


def _first_success(path: Path, folder: Path, compilers: Iterable[Compiler], runner: Runner) -> Path:
    """The compiled folder of the first compiler that makes one."""
    failures = []
    for number, compiler in enumerate(compilers):
        target = folder / str(number)
        target.mkdir()
        try:
            command = [*compiler.command, str(path.absolute()), str(target.absolute())]
            result = run_captured(command, runner=runner)
        except OSError as error:
            failures.append(f"{compiler.name} cannot be started: {error.strerror}")
            continue
        made = _compiled_in(target)
        if result.returncode == 0 and made is not None:
            return made
        failures.append(f"{compiler.name} {_complaint(result)}")
    raise ArtifactError(f"{path} was not compiled: {'; '.join(failures)}")


def _compiled_in(target: Path) -> Path | None:
    """The one complete ``.mlmodelc`` in ``target``: every kind has a coremldata.bin."""
    made = [found for found in target.glob(f"*{SUFFIX}") if (found / "coremldata.bin").is_file()]
    return made[0] if len(made) == 1 else None


def _complaint(result: "subprocess.CompletedProcess[str]") -> str:
    """Exit code and the most telling line: the first with 'error' in it, else the first."""
    lines = [line.strip() for line in (result.stderr + "\n" + result.stdout).splitlines()]
    lines = [line for line in lines if line]
    telling = next((line for line in lines if "error" in line.lower()), "")
    line = telling or next(iter(lines), "no message")
    if result.returncode < 0:
        return f"was ended by signal {-result.returncode}: {line[:300]}"
    if result.returncode == 0:
        return f"reported success and left no complete {SUFFIX} folder: {line[:300]}"
    return f"failed with exit code {result.returncode}: {line[:300]}"
