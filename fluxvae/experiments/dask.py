"""Jobs of a matrix on a Dask cluster: processes of this machine, or workers of a scheduler.

What comes back is the job's files in one archive with its sha256, which is checked before anything
of it gets a path. A worker that dies loses the job it was at, and Dask gives that to another.
"""

import asyncio
import hashlib
import io
import logging
import shutil
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fluxvae.errors import MatrixError, OutputError, UsageError
from fluxvae.experiments.job import OUT, Job
from fluxvae.experiments.plan import MAC_UNITS
from fluxvae.experiments.process import give_up, perform
from fluxvae.files import scratch as hidden_folder
from fluxvae.schema import parse, record_text

TIMEOUT_S = 5.0  # for a scheduler to answer
RETRIES = 3  # workers that may die on one job


@dataclass(frozen=True)
class Delivery:
    """A job's ``out`` folder as a tar archive; or, ``error`` given, why the worker cannot go on."""

    archive: bytes
    sha256: str
    error: str | None = None


def work(text: str, blobs: Mapping[str, bytes], scratch: str | None = None) -> Delivery:
    """On a worker: do one job. ``blobs``: files by role, where the worker has no paths to them."""
    job = parse(Job, text)
    with hidden_folder(Path(scratch or _scratch())) as folder:
        for role, data in blobs.items():
            if role == "made":
                _unpack(data, folder / "job" / OUT)
            else:
                file = folder / role.replace(":", "-")
                file.write_bytes(data)
                job.files[role] = str(file)
        try:
            return pack(perform(job, folder / "job"))
        except OutputError as error:
            return Delivery(b"", "", str(error))


def pack(folder: Path) -> Delivery:
    """A folder's files, as bytes that say what they must be."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(folder, ".")
    data = stream.getvalue()
    return Delivery(data, hashlib.sha256(data).hexdigest())


def unpack(delivery: Delivery, folder: Path) -> None:
    """The inverse of ``pack``. Raises MatrixError when the bytes are not those that were sent."""
    if delivery.error is not None:
        raise OutputError(delivery.error)
    if hashlib.sha256(delivery.archive).hexdigest() != delivery.sha256:
        raise MatrixError("a worker's files arrived damaged: run the matrix again")
    _unpack(delivery.archive, folder)


def _unpack(data: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(folder, filter="data")


def _scratch() -> str:
    from distributed import get_worker

    return str(get_worker().local_directory)


def _same(data: bytes) -> bytes:
    """A task that gives its argument: data that survives the worker which held it."""
    return data


@dataclass
class DaskPool:
    """Jobs as tasks. ``shares_files``: the workers read this machine's paths."""

    client: Any
    work_folder: Path
    shares_files: bool
    splits: bool
    running: dict[Any, Job] = field(default_factory=dict)
    sent: dict[str, Any] = field(default_factory=dict)
    done: Any = None

    def submit(self, job: Job) -> None:
        from distributed import as_completed

        blobs: dict[str, Any] = {}
        files = dict(job.files)
        if not self.shares_files:
            blobs = {role: self._blob(role, path) for role, path in files.items()
                     if role not in ("harness", "store")}  # fmt: skip
            files = {role: path for role, path in files.items() if role == "harness"}
        future = self.client.submit(
            work,
            record_text(replace(job, files=files)),
            blobs,
            str(self.work_folder) if self.shares_files else None,
            key=f"{job.name}-{job.kind}-{uuid.uuid4()}",  # other runs may use this scheduler
            priority=10 if job.kind in ("solve", "stage") else 0,
            resources=dict.fromkeys(self._needs(job), 1) if self.splits else None,
            retries=0,
            pure=False,
        )
        self.running[future.key] = job
        if self.done is None:
            self.done = as_completed([future], loop=self.client.loop)
        else:
            self.done.add(future)

    def next(self) -> tuple[Job, Path]:
        from distributed.scheduler import KilledWorker

        future = next(self.done)
        job = self.running.pop(future.key)
        try:
            delivery = future.result()
        except KilledWorker:
            reason = f"{RETRIES + 1} workers died while they were at it, of memory or by hand"
            return job, give_up(job, self.work_folder / f"{job.name}-{job.kind}", reason)
        except Exception as error:
            if future.status in ("lost", "cancelled") or self.client.status != "running":
                raise MatrixError(
                    "the scheduler is gone: what is done is kept; start it again and run the same "
                    "command"
                ) from error
            raise
        path = self.work_folder / f"{job.name}-{job.kind}"
        shutil.rmtree(path, ignore_errors=True)
        unpack(delivery, path / OUT)
        future.release()
        return job, path / OUT

    def _needs(self, job: Job) -> list[str]:
        needs = [] if job.kind == "measure" else list(job.settings.make_needs)
        if job.kind == "measure" or (job.kind == "cell" and job.measured):
            needs += job.settings.measure_needs
            needs += ["MAC"] if job.cell.compute_unit in MAC_UNITS else []
        return list(dict.fromkeys(needs))

    def _blob(self, role: str, path: str) -> Any:
        """A file's bytes on the cluster, sent once."""
        if path not in self.sent:
            file = Path(path)
            data = pack(file).archive if role == "made" else file.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            self.sent[path] = self.client.submit(_same, data, key=f"blob-{digest}", pure=True)
        return self.sent[path]


@contextmanager
def local_cluster(workers: int, work_folder: Path) -> Iterator[DaskPool]:
    """``workers`` processes of this machine under a scheduler that only it can reach."""
    import dask
    from distributed import Client, LocalCluster

    _quiet()
    with (
        dask.config.set(_SETTINGS),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # a page of its health, and no dashboard
            worker_dashboard_address=None,
            scheduler_kwargs={"dashboard": False},
            local_directory=str(work_folder / "dask"),
            memory_limit=0,  # the jobs' own processes have one
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, timeout=60, set_as_default=False) as client,
    ):
        yield DaskPool(client, work_folder, shares_files=True, splits=False)


@contextmanager
def remote_cluster(address: str, needs: frozenset[str], work_folder: Path) -> Iterator[DaskPool]:
    """The workers of a scheduler at ``tcp://host:port``.

    Raises MatrixError when none answers, when it has no workers, or none with what is needed.
    """
    import dask
    import distributed  # first, since its defaults would go away again with our settings

    del distributed
    _quiet()
    with dask.config.set(_SETTINGS), connect(address) as client:
        offered = resources(client)
        lacking = sorted(needs - offered)
        if lacking:
            raise MatrixError(
                f"no worker of {address} offers {', '.join(lacking)}: start one with `dask worker "
                f"{address} --resources {lacking[0]}=1`"
            )
        yield DaskPool(client, work_folder, shares_files=False, splits=True)


_SETTINGS = {
    "distributed.scheduler.allowed-failures": RETRIES,
    "distributed.comm.timeouts.connect": f"{TIMEOUT_S}s",
    "distributed.worker.daemon": True,
}


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """A client of the scheduler at ``address``. Raises UsageError or MatrixError."""
    from distributed import Client

    # Tried first: a Client whose connection failed is closed by the garbage collector, and when
    # that runs while the next Client holds the lock of all event loops, Client.__del__ waits for
    # that lock for ever (distributed 2026.8; we found no report of it).
    try:
        with ThreadPoolExecutor(1) as thread:  # which has no event loop, whoever calls us
            thread.submit(asyncio.run, _probe_scheduler(address)).result()
        client = Client(address, timeout=TIMEOUT_S, set_as_default=False)
    except ValueError as error:
        raise UsageError(f"--scheduler {address}: expected tcp://host:port, such as "
                         "tcp://10.0.0.5:8786") from error  # fmt: skip
    except OSError as error:  # TimeoutError is one too
        raise MatrixError(
            f"no scheduler answers at {address} within {TIMEOUT_S:g} s: start one with `dask "
            "scheduler`, or use --workers N on this machine"
        ) from error
    try:
        if not client.scheduler_info()["workers"]:
            raise MatrixError(
                f"the scheduler at {address} has no workers: start some with `dask worker "
                f"{address} --nthreads 1`"
            )
        yield client
    finally:
        client.close(timeout=TIMEOUT_S)


async def _probe_scheduler(address: str) -> None:
    """Raises ValueError for what is not an address, OSError where no Dask answers."""
    from distributed import Security
    from distributed.comm.core import connect as open_comm

    security = Security().get_connection_args("client")
    # Its own timeout is for the connection alone: what listens and says nothing would keep us.
    comm = await asyncio.wait_for(open_comm(address, **security), TIMEOUT_S)
    await comm.close()


def resources(client: Any) -> frozenset[str]:
    """What the workers of a cluster offer."""
    workers = client.scheduler_info()["workers"].values()
    return frozenset(name for worker in workers for name in worker["resources"])


def _quiet() -> None:
    """Dask's own messages say nothing to our users; what matters becomes an error of ours."""
    for name in ("distributed", "distributed.nanny", "distributed.worker", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
