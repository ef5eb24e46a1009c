"""A job in a process of its own, with limits; however it ends, the caller gets an answer."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from fluxvae.errors import OutputError
from fluxvae.experiments.cell import STOPPED
from fluxvae.experiments.job import OUT, Job, result_of, write_cell
from fluxvae.experiments.workers import THREADS
from fluxvae.files import disk_trouble, read_text
from fluxvae.schema import save

LOG = "log.txt"
FAILED = "failed.txt"  # of a solution or stage: why there is none
DISK = "no space left"  # how every message of a full disk begins


def perform(job: Job, folder: Path) -> Path:
    """Do ``job`` in ``folder``; its ``out`` folder, complete.

    A cell's holds ``cell.toml``, ``log.txt`` and, written last, ``result.json``, which reports a
    failure too; a solution's or stage's holds its file or ``failed.txt``. Raises OutputError when
    the disk is full: then nothing that follows could be kept either.
    """
    out = folder / OUT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        out.mkdir(exist_ok=True)
        save(job, folder / "job.json")
        reason = _reason(job, folder, run_process(job, folder))
        _finish(job, folder, reason)
    except OSError as error:
        raise OutputError(disk_trouble(error, folder)) from error
    if reason is not None and reason.startswith(DISK):
        raise OutputError(reason)
    return out


def give_up(job: Job, folder: Path, reason: str) -> Path:
    """``perform`` for a job that nobody could do: its ``out`` folder says why."""
    (folder / OUT).mkdir(parents=True, exist_ok=True)
    (folder / LOG).write_text(f"{reason}\n", encoding="utf-8")
    _finish(job, folder, reason)
    return folder / OUT


def run_process(job: Job, folder: Path) -> int | None:
    """Exit code of the job's process; None when it took too long and was stopped.

    It dies with an interrupted caller.
    """
    threads = [f"{name}={job.settings.threads}" for name in THREADS]
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            # `env` sets what must be there before numpy is loaded, and inherits the rest
            ["env", *threads, sys.executable, "-m", "fluxvae.experiments.cell", str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that all it starts can be ended with it
        )
        try:
            return process.wait(job.settings.time_limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def _reason(job: Job, folder: Path, code: int | None) -> str | None:
    """Why it failed, in one line; None when it did not."""
    if code == 0:
        return None
    stopped = folder / STOPPED
    if stopped.exists():
        return read_text(stopped)
    if code is None:
        return f"it took longer than the limit of {job.settings.time_limit_s:g} s"
    if code < 0:
        return f"its process was ended by signal {-code}"
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "no message")
    if last.startswith("fluxvae: "):
        return last.removeprefix("fluxvae: ")
    if "Errno 28" in last or "Errno 27" in last:
        return f"{DISK} while working on {job.name}: free some, or use another --out"
    return f"{last} (log.txt has more)"


def _finish(job: Job, folder: Path, reason: str | None) -> None:
    """Make ``out`` complete."""
    out = folder / OUT
    if job.kind in ("solve", "stage"):
        if reason is not None:
            (out / FAILED).write_text(reason, encoding="utf-8")
        return
    (folder / LOG).replace(out / LOG)
    if reason is None:
        return
    for path in out.iterdir():  # remove partial output
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOG:
            path.unlink()
    write_cell(out, result_of(job, "failed", reason))
