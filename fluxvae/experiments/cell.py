"""``python -m fluxvae.experiments.cell FOLDER``: one job of a matrix, in a process of its own.

FOLDER holds ``job.json``; what is made goes below ``FOLDER/out``, a cell's ``result.json`` last.
The process ends, with all that it started, when the one that started it goes away (its stdin is a
pipe from there) and when it takes more memory than it may.

The limit is of resident memory, watched: a limit on address space (RLIMIT_AS) would count the
gigabytes that torch and mapped weights reserve and never use, is not kept by macOS, and ends in
crashes inside of C++ and not in a sentence.
"""

import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxvae.experiments.job import Job

STOPPED = "stopped.txt"  # why the watch ended the process
_SECONDS = 0.2  # polling interval


def main(arguments: list[str]) -> int:
    """Do the job. 0 when ``out`` is complete, a failed cell's too; 1 with one line on stderr."""
    # light imports come first: the watch must be there before torch takes its seconds
    from fluxvae.device.host import keep_freed_memory
    from fluxvae.errors import FluxVAEError
    from fluxvae.experiments.job import OUT, Job
    from fluxvae.schema import load

    keep_freed_memory()
    folder = Path(arguments[0])
    try:
        job = load(Job, folder / "job.json")
        threading.Thread(
            target=_watch, args=(folder, job.settings.memory_limit), daemon=True
        ).start()
        _do(job, folder / OUT)
    except FluxVAEError as error:
        print(f"fluxvae: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _do(job: "Job", out: Path) -> None:
    import torch

    from fluxvae.experiments.job import write_cell
    from fluxvae.experiments.steps import check_tools, make, measure, solve, stage
    from fluxvae.records.experiment import RESULT, Result
    from fluxvae.schema import load

    torch.set_num_threads(job.settings.threads)
    check_tools(job)
    out.mkdir(exist_ok=True)
    if job.kind == "solve":
        solve(job, out)
    elif job.kind == "stage":
        stage(job, out)
    else:
        result = load(Result, out / RESULT) if job.kind == "measure" else make(job, out)
        if job.measured:
            result = measure(job, out, result, dict(os.environ))
        write_cell(out, result)


def _watch(folder: Path, limit: int) -> None:
    """End this process group when nobody waits for it, or when it holds too much memory."""
    from fluxvae.device.host import peak_memory

    while True:
        readable, _, _ = select.select([sys.stdin], [], [], _SECONDS)
        if readable and not os.read(sys.stdin.fileno(), 1):
            break
        if limit and peak_memory() > limit:
            text = f"it took more memory than the limit of {limit / 1e9:g} GB"
            (folder / STOPPED).write_text(text, encoding="utf-8")
            break
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
