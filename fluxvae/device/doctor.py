"""Say what this machine can and cannot do, and what to do about it.

Takes a ``Host`` and gives findings; prints nothing, installs nothing, and touches the network
only when asked. It must work where the rest does not, so it imports neither torch nor
coremltools: whether the executor runs is tried in a process of its own.
"""

import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxvae.device.host import Host, sysctl, this_host
from fluxvae.networks.catalog import CATALOG
from fluxvae.networks.hub import CacheEntry, cache_folder, look_up
from fluxvae.recipes.known_trouble import find_trouble, form_troubles

OK, INFO, WARN, MISSING = "ok", "info", "warn", "missing"

# What people come for. A finding names those that it stands in the way of.
TASKS = {
    "convert": "make Core ML models",
    "execute": "validate, decode and inspect them with the reference executor",
    "coreml": "run them on Core ML itself",
    "compile": "compile them to .mlmodelc with Apple's compiler",
    "swift": "build the Swift harness: validate-swift, bench, drift",
}

_GIB = 1 << 30
_ENOUGH_DISK = 1 * _GIB  # a tiny decoder needs 20 MB; coremltools keeps copies while it works
_ENOUGH_MEMORY = 4 * _GIB  # 1024 px by the executor beside coremltools and torch
_HUB_SECONDS = 5.0
_APPLE_TASKS = ("compile", "swift")
_LEAST_SWIFT = 6  # the language mode of swift/Package.swift
_XCODE = (
    "install Xcode from the App Store, open it once, then run "
    "`sudo xcode-select -s /Applications/Xcode.app/Contents/Developer`"
)

_TOOLCHAIN = (
    f"for the Swift harness install Swift {_LEAST_SWIFT} or newer: Xcode's on a Mac, the one of "
    "swift.org on Linux"
)


@dataclass(frozen=True)
class Finding:
    """One fact about the machine.

    ``status`` is ``ok``, ``info`` (nothing to do), ``warn`` or ``missing``; ``what`` the fact and
    what it means; ``advice`` what to do, empty when nothing. ``blocks`` are keys of ``TASKS``.
    """

    name: str
    status: str
    what: str
    advice: str = ""
    blocks: tuple[str, ...] = ()


# distribution -> the tasks that cannot do without it
PACKAGES: dict[str, tuple[str, ...]] = {
    "coremltools": ("convert", "execute", "coreml"),
    "torch": ("convert", "execute"),
    "numpy": ("convert", "execute"),
    "protobuf": ("convert", "execute"),
    "safetensors": ("convert", "execute"),
    "huggingface_hub": ("convert",),
    "pillow": ("execute",),
    "scikit-image": (),  # validation falls back on the user's own latents
    "scikit-learn": (),
}


def examine(
    *, check_hub: bool = False, out: Path = Path("coreml_out"), host: Host | None = None
) -> list[Finding]:
    """All findings about ``host`` (this machine), in the order to read them.

    ``out`` is the folder that artifacts will go to. ``check_hub`` allows one short request to the
    Hugging Face Hub for each pinned file. Raises nothing for what is merely missing.
    """
    host = host or this_host()
    return [
        _system(host),
        _python(host),
        _memory(host),
        *_apple_tools(host),
        *_packages(host),
        *_compiled_parts(host),
        _executor(host),
        *_cache(),
        *(_hub() if check_hub else ()),
        _disk("disk, output", out, host),
        _disk("disk, temporary", Path(tempfile.gettempdir()), host),
        *(Finding(str(t.condition), INFO, t.sentence, t.advice) for t in form_troubles()),
    ]


def abilities(findings: list[Finding]) -> dict[str, bool]:
    """For each of ``TASKS``: is it possible here?"""
    blocked = {task for finding in findings for task in finding.blocks}
    return {task: task not in blocked for task in TASKS}


def _system(host: Host) -> Finding:
    if host.system == "Darwin":
        if sysctl(host, "sysctl.proc_translated") == "1":
            return Finding(
                "system",
                WARN,
                f"macOS {host.release} on Apple silicon, but this Python runs under Rosetta: "
                "slow, and timings mean nothing",
                "make the environment again with an arm64 Python",
            )
        return Finding("system", OK, f"macOS {host.release}, {host.arch}")
    return Finding(
        "system",
        INFO,
        f"{host.system} {host.release}, {host.arch}: no Core ML here; saved models run on the "
        "reference executor",
        blocks=("coreml",),
    )


def _python(host: Host) -> Finding:
    version = ".".join(map(str, host.python))
    if host.python < (3, 11):
        return Finding("Python", MISSING, f"{version} is too old", "use Python 3.11", tuple(TASKS))
    return _judge("Python", "python", version, host)


def _memory(host: Host) -> Finding:
    if host.memory is None:
        return Finding("memory", INFO, "size unknown")
    size = f"{host.memory / _GIB:.1f} GiB"
    if host.memory < _ENOUGH_MEMORY:
        return Finding("memory", WARN, f"{size}: little for 1024 px", "validate with --size 256")
    return Finding("memory", OK, size)


def _apple_tools(host: Host) -> Iterator[Finding]:
    """Xcode, compiler and Swift. Nothing that needs developer tools is called without them:
    on a Mac the bare commands would open an installer's window."""
    if host.system != "Darwin":
        yield Finding(
            "compiler",
            INFO,
            "Core ML's compiler exists for macOS only; the .mlpackage is complete without it",
            "compile on a Mac or in an app, or with `fluxvae compile --compiler portable`",
            ("compile",),
        )
        yield _swift(host)
        return
    tools = host.run(["xcode-select", "-p"])
    if tools is None or tools.code != 0:
        yield Finding("Xcode", MISSING, "no developer tools are installed", _XCODE, _APPLE_TASKS)
        return
    full = "CommandLineTools" not in tools.out
    if full:
        yield Finding("Xcode", OK, tools.out)
    else:
        yield Finding("Xcode", WARN, f"only the Command Line Tools are active: {tools.out}", _XCODE)
    compilers = host.compilers()
    if compilers:
        yield Finding("compiler", OK, compilers[0].name)
    else:
        yield Finding("compiler", MISSING, "no coremlcompiler or coremlc", _XCODE, ("compile",))
    yield _swift(host)


def _swift(host: Host) -> Finding:
    answer = host.run(["swift", "--version"])
    if answer is None or answer.code != 0:
        return Finding("Swift", INFO, "no toolchain", _TOOLCHAIN, ("swift",))
    lines = [line for line in answer.out.splitlines() if "version" in line]
    what = lines[0].strip() if lines else answer.out[:80]
    number = re.search(r"version (\d+)", what)
    if number is not None and int(number[1]) < _LEAST_SWIFT:
        return Finding("Swift", INFO, f"{what}: too old", _TOOLCHAIN, ("swift",))
    return Finding("Swift", OK, what)


def _packages(host: Host) -> Iterator[Finding]:
    for name, needed_by in PACKAGES.items():
        version = host.version(name)
        if version is not None:
            yield _judge(name, name, version, host)
        elif name == "scikit-learn":
            yield Finding(name, INFO, "not installed; only the tests use it")
        else:
            yield Finding(
                name, MISSING, "not installed", "install fluxvae again with pip", needed_by
            )


def _judge(name: str, package: str, version: str, host: Host) -> Finding:
    """The finding for an installed version: the first known trouble that applies, else ok."""
    trouble = find_trouble(package, version, host.version)
    if trouble is None:
        return Finding(name, OK, version)
    what = f"{version}: {trouble.sentence}"
    return Finding(name, trouble.status, what, trouble.advice, trouble.blocks)


def _compiled_parts(host: Host) -> Iterator[Finding]:
    """coremltools installs without its compiled libraries where it has no wheel, and then fails
    late: https://github.com/apple/coremltools/issues/2350."""
    if host.version("coremltools") is None:
        return
    needed = {"libmilstoragepython": "convert", "libmodelpackage": "convert"}
    if host.system == "Darwin":
        needed["libcoremlpython"] = "coreml"
    present = {Path(file).stem.split(".")[0] for file in host.files("coremltools")}
    lost = [library for library in needed if library not in present]
    if not lost:
        yield Finding("coremltools, compiled", OK, ", ".join(needed))
        return
    blocks = tuple(sorted({needed[library] for library in lost}))
    yield Finding(
        "coremltools, compiled",
        MISSING,
        f"{', '.join(lost)} not installed: no wheel fits this Python or machine",
        "use Python 3.11 or 3.12 on x86-64 Linux or a Mac, and install again",
        blocks,
    )


def _executor(host: Host) -> Finding:
    """Import it in a process of its own: a wrong binary may end the process, not raise."""
    began = time.monotonic()
    answer = host.run([sys.executable, "-c", "import fluxvae.mil.executor"])
    if answer is not None and answer.code == 0:
        return Finding("executor", OK, f"imports in {time.monotonic() - began:.1f} s")
    lines = answer.err.splitlines() if answer else []
    reason = lines[-1] if lines else "no answer"
    return Finding(
        "executor",
        MISSING,
        f"cannot be imported: {reason[:200]}",
        "install fluxvae again in a fresh environment",
        ("execute",),
    )


def _cache() -> Iterator[Finding]:
    try:
        yield Finding("weights, cache", INFO, str(cache_folder()))
        for variant, entry in CATALOG.items():
            yield _cached(f"weights, {variant}", look_up(entry.hub), variant)
    except ImportError:
        yield Finding(
            "weights, cache", MISSING, "huggingface_hub cannot be imported", "see huggingface_hub"
        )


def _cached(name: str, entry: CacheEntry, variant: str) -> Finding:
    fetch, repo = f"fluxvae weights fetch --variant {variant}", entry.hub.repo
    if entry.path is None:
        advice = f"`{fetch}`, or use --weights demo"
        return Finding(name, INFO, f"{repo} is not cached yet", advice)
    problem = entry.problem()
    if problem is not None:
        return Finding(name, WARN, f"{repo}: {problem}", entry.way_out(fetch))
    return Finding(name, OK, f"{repo} is cached, its sha256 as pinned")


def _hub() -> Iterator[Finding]:
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
    except ImportError:
        return
    for variant, entry in CATALOG.items():
        url = hf_hub_url(entry.hub.repo, entry.hub.file, revision=entry.hub.revision)
        try:
            get_hf_file_metadata(url, timeout=_HUB_SECONDS)
        except Exception as error:  # huggingface_hub's, httpx's and the socket's share no class
            lines = str(error).strip().splitlines() or [type(error).__name__]
            yield Finding(
                f"Hub, {variant}",
                WARN,
                f"{entry.hub.repo} cannot be had: {lines[0][:200]}",
                "check the network and HF_ENDPOINT; --weights demo and --offline work without",
            )
        else:
            yield Finding(f"Hub, {variant}", OK, f"{entry.hub.repo} answers")


def _disk(name: str, folder: Path, host: Host) -> Finding:
    free = host.free(folder)
    text = f"{free / _GIB:.1f} GiB free in {folder}"
    if free < _ENOUGH_DISK:
        return Finding(name, WARN, text, "free some space before converting")
    return Finding(name, OK, text)
