"""A matrix on several processes: the same results, and what happens when one of them is killed.

The cells' own processes are stand-ins (tests/fake_cell.py).
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fluxvae.errors import MatrixError, UsageError
from fluxvae.experiments.dask import connect, local_cluster, remote_cluster
from fluxvae.experiments.plan import Abilities
from fluxvae.experiments.run import run_matrix
from fluxvae.experiments.verify import verify
from fluxvae.records.experiment import Result, read_results
from tests import warm
from tests.fake_cell import calls
from tests.test_matrix_run import FEW, matrix_of

LINUX = Abilities(mac=False, harness=False)
ROOT = Path(__file__).resolve().parents[1]
# A scheduler of one worker that offers QUIET, as a process that can be killed.
CLUSTER = """
import sys, time
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
                      worker_dashboard_address=None, resources={"QUIET": 1}) as cluster:
        print(cluster.scheduler_address, flush=True)
        time.sleep(600)
"""


@pytest.fixture
def scheduler(tmp_path: Path, fake: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.terminate()
    process.wait(30)


def start(folder: Path, *options: str) -> warm.Process:
    """``fluxvae matrix run`` in a process of its own."""
    path = folder.parent / "few.toml"
    path.write_text(FEW)
    return warm.start("-m", "fluxvae", "matrix", "run", str(path), "--out", str(folder), *options)


def wait_for(what: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.1)


def processes(word: str) -> list[int]:
    """Processes with ``word`` in their command line, but for this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if word.encode() in line and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def figures(results: tuple[Result, ...]) -> list[object]:
    return [(r.key, r.cell, r.errors, r.budget, r.artifact_sha256, r.flags) for r in results]


def test_serial_and_distributed_give_the_same_keys_and_figures(tmp_path: Path, fake: Path) -> None:
    run = partial(run_matrix, matrix_of(FEW), abilities=LINUX)
    run(tmp_path / "one")
    run(tmp_path / "two", make_pool=partial(local_cluster, 2))
    serial, spread = read_results(tmp_path / "one"), read_results(tmp_path / "two")
    assert len(serial) == 4
    assert figures(serial) == figures(spread)
    assert verify(tmp_path / "two") == []
    assert len(calls(fake)) == 2 * len(set(calls(fake)))  # once each, in both
    again = run(tmp_path / "two", make_pool=partial(local_cluster, 2))
    assert again.computed == 0


def test_a_killed_worker_costs_its_cell_s_time_alone(tmp_path: Path, fake: Path) -> None:
    (fake / "delay").write_text("1")
    folder = tmp_path / "run"
    with start(folder, "--workers", "2") as process:
        wait_for(lambda: any(line.startswith("cell") for line in calls(fake)))
        jobs = processes(f"{folder}/.work")
        assert jobs
        status = Path(f"/proc/{jobs[0]}/stat").read_text()
        worker = int(status.rpartition(")")[2].split()[1])  # its parent
        assert worker != process.pid
        os.kill(worker, signal.SIGKILL)
        assert process.wait(240) == 0
    assert len(read_results(folder)) == 4
    assert all(r.status == "done" for r in read_results(folder))
    assert verify(folder) == []
    assert 0 < len(calls(fake)) - len(set(calls(fake))) <= 2


def test_after_a_killed_run_the_next_one_finishes(tmp_path: Path, fake: Path) -> None:
    (fake / "delay").write_text("1")
    folder = tmp_path / "run"
    with start(folder, "--workers", "2") as process:  # its scheduler lives in it
        wait_for(lambda: len(read_results(folder)) >= 1)
        process.kill()
    wait_for(lambda: not processes(f"{folder}/.work"), 30)
    done = {r.key for r in read_results(folder)}
    assert 0 < len(done) < 4
    for place in folder.glob("cells/*"):  # no half cell
        assert (place / "result.json").exists()
    (fake / "delay").unlink()
    before = len(calls(fake))
    with start(folder) as process:
        assert process.wait(120) == 0
    assert len(read_results(folder)) == 4
    assert sum(line.startswith("cell") for line in calls(fake)[before:]) == 4 - len(done)
    assert verify(folder) == []


def test_workers_of_a_scheduler_get_files_as_bytes_and_measure_where_it_is_quiet(
    tmp_path: Path, scheduler: tuple[subprocess.Popen, str], fake: Path
) -> None:
    process, address = scheduler
    matrix = matrix_of(FEW)
    matrix = replace(matrix, settings=replace(matrix.settings, measure_needs=("QUIET",)))
    folder, needs = tmp_path / "run", frozenset({"QUIET"})
    run = partial(
        run_matrix, matrix, folder, abilities=LINUX,
        make_pool=partial(remote_cluster, address, needs),
    )  # fmt: skip
    first = run(only=["*-none-*"])
    assert first.counts == {"done": 2}
    kinds = [line.split()[0] for line in calls(fake)]
    assert sorted(kinds) == ["cell", "cell", "measure", "measure"]
    assert all(len(r.runs) == 2 for r in first.results)
    # Killed in the midst of it: a clear word, and what is done stays.
    (fake / "delay").write_text("20")
    killer = threading.Timer(4, process.kill)
    killer.start()
    with pytest.raises(MatrixError, match="the scheduler is gone: what is done is kept"):
        run()
    killer.join()
    assert len(read_results(folder)) == 2


def test_what_no_worker_offers_is_said_at_once(
    scheduler: tuple[subprocess.Popen, str], tmp_path: Path
) -> None:
    with (
        pytest.raises(MatrixError, match=r"no worker of tcp://.* offers GPU: start one with"),
        remote_cluster(scheduler[1], frozenset({"GPU"}), tmp_path),
    ):
        pass


def test_an_unreachable_scheduler_is_said_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluxvae.experiments.dask.TIMEOUT_S", 1.0)
    began = time.monotonic()
    with (
        pytest.raises(MatrixError, match="no scheduler answers at tcp://127"),
        connect("tcp://127.0.0.1:1"),
    ):
        pass
    assert time.monotonic() - began < 15


def test_what_listens_but_is_no_scheduler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluxvae.experiments.dask.TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(MatrixError, match="no scheduler answers"), connect(address):
            pass


def test_an_address_is_tried_beside_a_running_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluxvae.experiments.dask.TIMEOUT_S", 0.5)

    async def caller() -> None:
        with pytest.raises(MatrixError, match="no scheduler"), connect("tcp://127.0.0.1:1"):
            pass

    with ThreadPoolExecutor(1) as thread:  # browser tests may have left a loop in this one
        thread.submit(lambda: asyncio.run(caller())).result()


@pytest.mark.parametrize("address", ["host", "ftp://x:1", "tcp://", "tcp://127.0.0.1:port"])
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises((UsageError, MatrixError)) as caught, connect(address):
        pass
    assert "\n" not in str(caught.value)
