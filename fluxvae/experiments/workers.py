"""A few processes that end with the one that started them, however it ends."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import FrameType

from fluxvae.device.host import keep_freed_memory
from fluxvae.errors import ToolError

# What the libraries below numpy and torch read, once, when they are loaded. numpy's threads wait
# actively: left alone they double the CPU time of compressing in two processes.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_EVERY = 0.5  # seconds between two interruptions
_PATIENCE = 20  # interruptions, while a worker puts away what it was writing


@contextmanager
def worker_processes(count: int, threads: int) -> Iterator[Executor]:
    """``count`` fresh processes, numpy and torch with ``threads`` threads in each.

    Tasks and what they give are pickled. On an exception in the block what was not begun is
    dropped, what runs is interrupted and may clean up, and the exception goes on. Raises
    ToolError when a worker is killed; workers of a killed parent interrupt themselves.
    """
    context = get_context("spawn")  # torch's threads do not survive a fork
    # A pipe, as it also ends when this process is killed; and multiprocessing's Event would wait
    # for ever for a killed waiter: https://github.com/python/cpython/issues/75158
    watched, held = context.Pipe(duplex=False)
    with (
        held,
        watched,
        ProcessPoolExecutor(
            count, mp_context=context, initializer=_begin, initargs=(watched, threads)
        ) as pool,
    ):
        try:
            yield pool
        except BaseException as error:
            held.close()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise ToolError(
                    "a worker process was killed, perhaps for want of memory: the same command "
                    "goes on where it was; --workers 1 needs less"
                ) from error
            raise


def _begin(watched: Connection, threads: int) -> None:
    os.environ |= dict.fromkeys(THREADS, str(threads))
    import torch

    keep_freed_memory()
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, _leave)
    threading.Thread(target=_watch, args=(watched,), daemon=True).start()


def _leave(number: int, frame: FrameType | None) -> None:
    """Unlike KeyboardInterrupt this ends an idle worker without a traceback."""
    raise SystemExit(130)


def _watch(watched: Connection) -> None:
    main = threading.main_thread().ident
    assert main is not None
    watched.poll(None)  # nothing is ever sent: it ends with the other side
    for _ in range(_PATIENCE):  # some libraries swallow an interruption
        signal.pthread_kill(main, signal.SIGINT)  # wakes it from waiting too
        time.sleep(_EVERY)
    os._exit(130)
