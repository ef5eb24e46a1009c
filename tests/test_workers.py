"""Processes that end with the one that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fluxvae.errors import ToolError
from fluxvae.experiments.workers import worker_processes

PATIENCE = 60.0  # seconds; torch is imported by each worker before its first task


def _write_and_wait(place: Path) -> None:
    """A task that tells its process, waits to be interrupted, and puts something away then."""
    place.write_text(str(os.getpid()))
    try:
        time.sleep(10 * PATIENCE)
    finally:
        place.unlink()


def _end_at_once() -> None:
    os._exit(9)  # as a process ends that the system kills


def _wait_for(place: Path, there: bool) -> None:
    end = time.monotonic() + PATIENCE
    while place.exists() != there:
        assert time.monotonic() < end, f"{place.name} is {'not there' if there else 'still there'}"
        time.sleep(0.05)


def test_what_runs_is_interrupted_and_cleans_up_when_the_block_fails(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        _interrupted(mark)
    assert not mark.exists()
    assert time.monotonic() - begun < 2 * PATIENCE


def _interrupted(mark: Path) -> None:
    with worker_processes(1, 1) as pool:
        for _ in range(5):
            pool.submit(_write_and_wait, mark)
        _wait_for(mark, there=True)
        raise KeyboardInterrupt


def test_killed_worker_says_how_to_go_on() -> None:
    with pytest.raises(ToolError, match=r"killed.*--workers 1"), worker_processes(1, 1) as pool:
        pool.submit(_end_at_once).result()


def test_workers_of_a_killed_parent_end(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = tmp_path / "parent.py"
    script.write_text(
        "from pathlib import Path\n"
        "from fluxvae.experiments.workers import worker_processes\n"
        "from tests.test_workers import _write_and_wait\n"
        "if __name__ == '__main__':\n"
        "    with worker_processes(1, 1) as pool:\n"
        f"        pool.submit(_write_and_wait, Path({str(mark)!r})).result()\n"
    )
    root = Path(__file__).parents[1]
    parent = subprocess.Popen(
        [sys.executable, script], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    try:
        _wait_for(mark, there=True)
        parent.send_signal(signal.SIGKILL)
        _wait_for(mark, there=False)
    finally:
        parent.kill()
        parent.wait()
