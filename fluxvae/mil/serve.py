"""Runs models for another program: requests on stdin, replies on stdout.

``python -m fluxvae.mil.serve`` is the engine of the Swift module ``CoreML`` on Linux. A frame, in
both directions, is

    uint32  length of the header in bytes, little-endian
    uint64  length of the payload in bytes, little-endian
    header  one JSON object, UTF-8
    payload arrays one after another: little-endian, C order, no gaps

Every request has an integer ``id``, which its reply repeats, and an ``op``:

    load       path, function (or null)    -> model (a handle), functions, description
    predict    model, inputs + payload     -> outputs + payload
    unload     model
    functions  path                        -> functions, default
    describe   path, function (or null)    -> functions, default, description; loads nothing

``inputs`` and ``outputs`` list ``{"name", "dtype", "shape"}`` in the payload's order; dtypes are
NumPy's names. A reply has ``"ok": true``, or ``"ok": false`` and ``error: {kind, message}`` where
``kind`` is ``io`` (the model), ``input`` (what was fed to it), ``request`` (the protocol) or
``internal``. Requests are answered in their order. The server ends when stdin closes.
"""

import contextlib
import json
import os
import signal
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fluxvae.errors import ArtifactError, FluxVAEError, LatentError
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Feature, Program

_PREFIX = struct.Struct("<IQ")
_LONGEST_HEADER = 1 << 20
_LARGEST_PAYLOAD = 1 << 34
_DTYPES = ("float16", "float32", "float64", "int32")


class RequestError(FluxVAEError):
    """A request that does not follow the protocol."""


class _StreamError(Exception):
    """Frame boundaries are lost: nothing that follows can be understood."""


@dataclass(frozen=True)
class Frame:
    """A header and the raw bytes behind it."""

    header: Mapping[str, Any]
    payload: bytes | bytearray = b""


class Server:
    """Loaded models by handle, one Session each."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._next_handle = 1

    def answer(self, request: Frame) -> tuple[dict[str, Any], list[np.ndarray]]:
        """The reply's header, and the arrays of its payload. Never raises for a bad request."""
        header = request.header
        try:
            fields, arrays = self._dispatch(header, request.payload)
        except FluxVAEError as error:
            return _refusal(header, _kind(error), str(error)), []
        except Exception as error:  # whatever it was, the next request may be a good one
            return _refusal(header, "internal", f"{type(error).__name__}: {error}"), []
        return {"id": header.get("id"), "ok": True, **fields}, arrays

    def _dispatch(
        self, header: Mapping[str, Any], payload: bytes | bytearray
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        match header.get("op"):
            case "load":
                return self._load(_path(header), _function_name(header)), []
            case "predict":
                return self._predict(self._session(header), header.get("inputs"), payload)
            case "unload":
                self._session(header)
                del self._sessions[header["model"]]
                return {}, []
            case "functions":
                program = read_package(_path(header))
                return _functions(program), []
            case "describe":
                program = read_package(_path(header))
                function = program.function(_function_name(header)).name
                return _described_function(program, function), []
            case other:
                raise RequestError(
                    f"the request {other!r} is unknown; "
                    "expected load, predict, unload, functions or describe"
                )

    def _load(self, path: Path, function: str | None) -> dict[str, Any]:
        program = read_package(path)
        session = Session(program, function)
        handle = self._next_handle
        self._next_handle += 1
        self._sessions[handle] = session
        return {"model": handle, **_described_function(program, session.function.name)}

    def _predict(
        self, session: Session, described: Any, payload: bytes | bytearray
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        outputs = session.run(_arrays(described, payload))
        arrays = [np.ascontiguousarray(a) for a in outputs.values()]
        listed = [
            {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
            for name, array in zip(outputs, arrays, strict=True)
        ]
        return {"outputs": listed}, arrays

    def _session(self, header: Mapping[str, Any]) -> Session:
        handle = header.get("model")
        if not isinstance(handle, int) or handle not in self._sessions:
            raise RequestError(f"no model with the handle {handle!r} is loaded")
        return self._sessions[handle]


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests from ``source`` until it ends or the frames cannot be separated."""
    server = Server()
    while True:
        try:
            request = _read(source)
        except RequestError as error:
            _write(sink, _refusal({}, "request", str(error)), [])
            continue
        except _StreamError as error:
            _write(sink, _refusal({}, "request", str(error)), [])
            return
        if request is None:
            return
        _write(sink, *server.answer(request))


def _read(source: BinaryIO) -> Frame | None:
    """The next frame; None when the stream has ended, in mid-frame too."""
    prefix = source.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        return None
    header_length, payload_length = _PREFIX.unpack(prefix)
    if header_length > _LONGEST_HEADER or payload_length > _LARGEST_PAYLOAD:
        raise _StreamError(
            f"a frame announces {header_length} + {payload_length} bytes; this is not a request"
        )
    text = source.read(header_length)
    payload = bytearray(payload_length)
    if len(text) < header_length or not _fill(source, payload):
        return None
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise RequestError("the header is not a JSON object")
    return Frame(header, payload)


def _fill(source: BinaryIO, buffer: bytearray) -> bool:
    view = memoryview(buffer)
    while view:
        count = source.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return False
        view = view[count:]
    return True


def _write(sink: BinaryIO, header: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> None:
    text = json.dumps(header).encode()
    sink.write(_PREFIX.pack(len(text), sum(a.nbytes for a in arrays)))
    sink.write(text)
    for array in arrays:
        sink.write(array.reshape(-1).view(np.uint8).data)
    sink.flush()


def _refusal(header: Mapping[str, Any], kind: str, message: str) -> dict[str, Any]:
    return {"id": header.get("id"), "ok": False, "error": {"kind": kind, "message": message}}


def _kind(error: FluxVAEError) -> str:
    if isinstance(error, RequestError):
        return "request"
    return "input" if isinstance(error, LatentError) else "io"


def _function_name(header: Mapping[str, Any]) -> str | None:
    function = header.get("function")
    if function is not None and not isinstance(function, str):
        raise RequestError(f"the function is {function!r}; expected a name or null")
    return function


def _path(header: Mapping[str, Any]) -> Path:
    path = header.get("path")
    if not isinstance(path, str) or "\0" in path:
        raise RequestError(f"the path is {path!r}; expected text")
    try:
        Path(path).exists()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be looked at ({error.strerror})") from error
    return Path(path)


def _arrays(described: Any, payload: bytes | bytearray) -> dict[str, np.ndarray]:
    """The payload as arrays. Raises RequestError when the bytes are not those described."""
    arrays: dict[str, np.ndarray] = {}
    offset = 0
    for entry in described if isinstance(described, list) else [None]:
        name, dtype, shape = _described(entry)
        count = int(np.prod(shape, dtype=object))
        size = count * dtype.itemsize
        if offset + size > len(payload):
            raise RequestError(
                f"input {name!r} takes {size} bytes, but {len(payload) - offset} are left"
            )
        if name in arrays:
            raise RequestError(f"input {name!r} comes twice")
        arrays[name] = np.frombuffer(payload, dtype, count, offset).reshape(shape)
        offset += size
    if offset != len(payload):
        raise RequestError(f"{len(payload) - offset} bytes follow the last input")
    return arrays


def _described(entry: Any) -> tuple[str, np.dtype, tuple[int, ...]]:
    fields = entry if isinstance(entry, dict) else {}
    name, dtype, shape = (fields.get(key) for key in ("name", "dtype", "shape"))
    sizes = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not isinstance(name, str) or dtype not in _DTYPES or not sizes:
        raise RequestError(
            f"an input is described as {entry!r}; expected a name, a dtype of "
            f"{', '.join(_DTYPES)}, and a shape"
        )
    return name, np.dtype(dtype).newbyteorder("<"), tuple(shape or ())


def _functions(program: Program) -> dict[str, Any]:
    return {"functions": sorted(program.functions), "default": program.default_function}


def _described_function(program: Program, function: str) -> dict[str, Any]:
    signature = program.signatures[function]
    description = {
        "inputs": [_feature(f) for f in signature.inputs],
        "outputs": [_feature(f) for f in signature.outputs],
        "metadata": asdict(program.metadata),
    }
    return {**_functions(program), "description": description}


def _feature(feature: Feature) -> dict[str, Any]:
    if feature.kind not in ("tensor", "image"):
        raise ArtifactError(
            f"feature {feature.name!r} is of kind {feature.kind}; expected arrays and images"
        )
    fields = asdict(feature)
    return {k: v for k, v in fields.items() if k not in ("description", "labels")}


def _close_inherited() -> None:
    """All but the three streams; by what is open, as the limit may be a thousand million."""
    for number in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        if number > 2:
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(number)


def main() -> None:
    """Serve stdin and stdout. Whatever libraries print goes to stderr, not between frames."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the client, whose end is ours
    # What the client had open when it started us, among it perhaps the writing end of a pipe that
    # somebody reads to its end: Foundation's Pipe is not closed on exec.
    _close_inherited()
    replies = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(0, "rb") as source, os.fdopen(replies, "wb") as sink:
        try:
            serve(source, sink)
        except ConnectionError:  # the client has gone, and with it the wish for a reply
            os.dup2(os.open(os.devnull, os.O_WRONLY), replies)
            sys.exit(0)


if __name__ == "__main__":
    main()
