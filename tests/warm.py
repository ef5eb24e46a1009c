"""Python commands in processes of their own that do not begin with seconds of imports.

``start(*command)`` is like ``subprocess.Popen([sys.executable, *command])``, but the process is
forked from one that has imported torch and coremltools already, once for each process of pytest.
``program`` is the same as a file that other programs may start in place of Python.

Environment, folder, limit and streams are the command's own, and nothing of fluxvae or
huggingface_hub is imported before it begins. What is read of the environment before that (locale,
PYTHON* variables, OMP_NUM_THREADS, which is 1) has no effect here: such a test takes
``subprocess``, as does one about the imports themselves.
"""

import gc
import json
import os
import resource
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tests.cli.run import Ran

ROOT = Path(__file__).resolve().parents[1]


class Process:
    """As much of ``subprocess.Popen`` as the tests need; streams are text."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        pipes = [os.pipe() for _ in range(2)]
        given = [os.open(os.devnull, os.O_RDONLY), *(write for _, write in pipes)]
        self._server = _ask(_server()[0], given, request)
        for descriptor in given:
            os.close(descriptor)
        self.stdout, self.stderr = (os.fdopen(read) for read, _ in pipes)
        self._lines = self._server.makefile()
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        for stream in (self.stdout, self.stderr, self._lines, self._server):
            stream.close()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._server], [], [], 0)[0]:
            self.returncode = int(self._lines.readline())
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """The exit code; a process that runs on after ``timeout`` seconds is killed and raised."""
        if self.returncode is None and not select.select([self._server], [], [], timeout)[0]:
            self.kill()
            raise subprocess.TimeoutExpired("a process of tests.warm", timeout)
        code = self.poll()
        assert code is not None
        return code

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What is left on stdout and stderr, read to the end."""
        with ThreadPoolExecutor(2) as readers:
            texts = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            self.wait(timeout)
            return texts[0].result(), texts[1].result()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    *command: str,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> Process:
    """Python with ``command``: ``-m MODULE ...`` or ``-c TEXT ...``; stdin is empty.

    ``env`` replaces this process's environment. ``limit``: writing beyond so many bytes of any file
    fails, as on a full disk (EFBIG; Python ignores the signal that comes with it).
    """
    return Process(_request(command, cwd, os.environ if env is None else env, limit))


def run(*command: str, **options: Any) -> "Ran":
    """``start`` to its end."""
    from tests.cli.run import Ran  # imports fluxvae, which the process that forks must not

    with start(*command, **options) as process:
        out, err = process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, out, err)


def program(folder: Path) -> Path:
    """A file in ``folder`` that does as Python does, for ``-m`` and ``-c``."""
    path = folder / "python"
    client = shlex.join([sys.executable, "-SEP", str(Path(__file__)), "client", _server()[0]])
    path.write_text(f'#!/bin/sh\nexec {client} "$@"\n')
    path.chmod(0o755)
    return path


def _request(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], limit: int | None
) -> dict[str, Any]:
    kind, what, *more = command
    assert kind in ("-m", "-c")
    return {
        "kind": kind, "what": what, "more": more,
        "cwd": str(cwd), "env": dict(env), "limit": limit,
    }  # fmt: skip


def _ask(address: str, streams: Sequence[int], request: Mapping[str, Any]) -> socket.socket:
    """Have a command started. The answer: a line with its number, and one with its exit code."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    socket.send_fds(connection, [b"+"], streams)
    connection.sendall(json.dumps(request).encode() + b"\n")
    return connection


@cache
def _server() -> tuple[str, subprocess.Popen]:
    """The process that forks, and its address. It ends when its stdin does: with this process."""
    folder = tempfile.mkdtemp(prefix="warm-")  # not pytest's: an address has 100 characters
    address = f"{folder}/socket"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    with listener:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", "server", str(listener.fileno()), folder],
            cwd=ROOT, pass_fds=[listener.fileno()], stdin=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # read once, as torch is imported
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    return address, process


def _client(address: str, *command: str) -> None:
    """Be a command for whoever started this process."""
    request = _request(command, Path.cwd(), os.environ, None)
    with _ask(address, (0, 1, 2), request) as connection, connection.makefile() as lines:
        for stream in (0, 1):
            os.close(stream)
        lines.readline()
        code = int(lines.readline())
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _serve(listener: socket.socket, parent: int) -> Callable[[], None] | None:
    """Fork for every request; in the new process: what it has to do."""
    # A terminal sends it to all; and it is ignored where pytest runs in the background.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
    while listener in select.select([listener, parent], [], [])[0]:
        connection, _ = listener.accept()
        with connection:
            if os.fork():
                continue
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _, streams, _, _ = socket.recv_fds(connection, 1, 3)
            with connection.makefile() as lines:
                request = json.loads(lines.readline())
            command = os.fork()
            if command:
                _watch(command, streams, connection)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return lambda: _obey(request)
    return None


def _watch(process: int, streams: Sequence[int], connection: socket.socket) -> None:
    """Say a process's number, and how it ended; kill it when nobody is left to hear that."""
    for stream in (0, *streams):
        os.close(stream)
    connection.sendall(b"%d\n" % process)
    while (ended := os.waitpid(process, os.WNOHANG)) == (0, 0):
        if select.select([connection], [], [], 0.02)[0]:
            os.kill(process, signal.SIGKILL)
            os._exit(0)
    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(ended[1]))
    os._exit(0)


def _obey(request: Mapping[str, Any]) -> None:
    """Be the command. Returns or raises as it does, so that Python ends as it would."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None
    if request["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], request["limit"]))
    sys.argv = [request["kind"], *request["more"]]
    if request["kind"] == "-m":
        runpy.run_module(request["what"], run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(request["what"], main.__dict__)


def _main(descriptor: int, folder: Path) -> None:
    # Imports alone: threads of torch would not survive a fork. The second comes with the first
    # conversion.
    import coremltools  # noqa: F401
    import torch._dynamo  # noqa: F401

    assert not any(name in sys.modules for name in ("fluxvae", "huggingface_hub"))
    gc.collect()
    gc.freeze()  # or the end of each process walks through all of it: 0.8 CPU seconds
    with socket.socket(fileno=descriptor) as listener:
        command = _serve(listener, 0)
    if command:
        command()
    else:
        (folder / "socket").unlink()
        folder.rmdir()


if __name__ == "__main__":
    if sys.argv[1] == "client":
        _client(*sys.argv[2:])
    else:
        _main(int(sys.argv[2]), Path(sys.argv[3]))
