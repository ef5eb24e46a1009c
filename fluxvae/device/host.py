"""Facts about this machine, each asked for cheaply: no package of weight is imported."""

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fluxvae.device.compile import Compiler, find_compilers
from fluxvae.device.programs import run_captured
from fluxvae.files import read_text

_SECONDS = 60  # xcrun and swift are slow the first time after an update
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of cgroup v2, as containers have
_CPU_INFO = Path("/proc/cpuinfo")
_OWN_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Answer:
    """What a program answered: exit code, stdout and stderr without surrounding blanks."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Host:
    """A machine as the examination sees it; tests substitute another.

    ``system`` is ``Darwin``, ``Linux``, ...; ``release`` the version people know; ``arch`` is
    Python's (under Rosetta ``x86_64``). ``memory`` is in bytes, None when unknown. ``run`` gives
    None when the program is not there or does not answer. ``version`` and ``files`` ask about an
    installed distribution: None and an empty list when there is none.
    """

    system: str
    release: str
    arch: str
    python: tuple[int, ...]
    memory: int | None
    run: Callable[[Sequence[str]], Answer | None]
    version: Callable[[str], str | None]
    files: Callable[[str], list[str]]
    free: Callable[[Path], int]
    compilers: Callable[[], list[Compiler]]


def this_host() -> Host:
    """The machine we run on."""
    system = platform.system()
    return Host(
        system=system,
        release=platform.mac_ver()[0] if system == "Darwin" else platform.release(),
        arch=platform.machine(),
        python=sys.version_info[:3],
        memory=_memory(),
        run=ask,
        version=_version,
        files=_files,
        free=free_bytes,
        compilers=find_compilers,
    )


def ask(command: Sequence[str]) -> Answer | None:
    """Run a short program with no input. None when it is missing or silent for a minute."""
    try:
        result = run_captured(command, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Answer(result.returncode, result.stdout.strip(), result.stderr.strip())


def chip(host: Host) -> str | None:
    """What the maker calls the processor, such as ``Apple M4``; None when the system hides it."""
    if host.system == "Darwin":
        return sysctl(host, "machdep.cpu.brand_string")
    with contextlib.suppress(OSError):
        for line in read_text(_CPU_INFO).splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip() or None
    return None


def os_build(host: Host) -> str | None:
    """The build of a Mac's system, such as ``24F74``; elsewhere the kernel's release."""
    return sysctl(host, "kern.osversion") if host.system == "Darwin" else host.release


def sysctl(host: Host, name: str) -> str | None:
    """One value of a Mac's kernel; None when it has none of that name."""
    answer = host.run(["sysctl", "-n", name])
    return answer.out or None if answer is not None and answer.code == 0 else None


def free_bytes(folder: Path) -> int:
    """Free bytes where ``folder`` is, or would be made."""
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free


def peak_memory() -> int:
    """Bytes: the most that this process held in memory so far.

    Linux carries getrusage's figure over from the process that started this one, which may have
    been larger: the kernel's own mark of this address space does not have that.
    """
    with contextlib.suppress(OSError):
        for line in read_text(_OWN_STATUS).splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # which Windows lacks

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage: bytes on a Mac, else KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def keep_freed_memory() -> None:
    """Let glibc keep what was freed, up to 512 MB and of arrays up to 128 MB, for the next array.

    By itself it gives the pages of each large array back and asks for new ones, which the kernel
    fills with zeros: 49 of a round trip's 370 CPU seconds (six photos, six variants, 512 px), 5
    with this. Other systems' allocators are left alone.
    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    mallopt = None if os.name == "nt" else getattr(ctypes.CDLL(None), "mallopt", None)
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    # an older glibc refuses the first, and the second alone would make it worse
    if mallopt is not None and mallopt(mmap_threshold, 1 << 27):
        mallopt(trim_threshold, 1 << 29)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _files(distribution: str) -> list[str]:
    try:
        return [str(file) for file in importlib.metadata.files(distribution) or ()]
    except importlib.metadata.PackageNotFoundError:
        return []


def _memory() -> int | None:
    """Physical memory, or the container's limit where that is less."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    try:
        return min(physical, int(read_text(_CGROUP_LIMIT)))
    except (OSError, ValueError):  # no container, or "max"
        return physical
