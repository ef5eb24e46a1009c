"""The server of the Swift bridge: the protocol, bad requests, and its end."""

import io
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxvae.mil import serve as module
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Metadata, Program
from tests.mil.hand import operation, program, tensor

Reply = tuple[dict[str, Any], bytes]


def frame(header: Any, payload: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<IQ", len(text), len(payload)) + text + payload


def replies(stream: bytes) -> list[Reply]:
    found, at = [], 0
    while at < len(stream):
        header, payload = struct.unpack_from("<IQ", stream, at)
        at += 12
        found.append((json.loads(stream[at : at + header]), stream[at + header :][:payload]))
        at += header + payload
    return found


def talk(*frames: bytes) -> list[Reply]:
    """What a server answers to the frames, in this process."""
    sink = io.BytesIO()
    module.serve(io.BytesIO(b"".join(frames)), sink)
    return replies(sink.getvalue())


def load(path: Path, **more: Any) -> bytes:
    return frame({"id": 1, "op": "load", "path": str(path), **more})


def predict(latent: np.ndarray, model: int = 1, name: str = "latent") -> bytes:
    described = [{"name": name, "dtype": str(latent.dtype), "shape": list(latent.shape)}]
    header = {"id": 2, "op": "predict", "model": model, "inputs": described}
    return frame(header, latent.tobytes())


@pytest.fixture(scope="module")
def latent() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 32, 8, 8)).astype(np.float16)


def test_a_prediction_has_the_bits_of_the_executor_itself(
    demo_package: Path, latent: np.ndarray
) -> None:
    loaded, predicted = talk(load(demo_package), predict(latent))
    (expected,) = Session(read_package(demo_package)).run({"latent": latent}).values()
    header, payload = predicted
    assert header == {
        "id": 2,
        "ok": True,
        "outputs": [{"name": "image", "dtype": str(expected.dtype), "shape": list(expected.shape)}],
    }
    assert payload == expected.tobytes()
    assert loaded[0]["model"] == 1
    assert loaded[0]["functions"] == ["main"]


def test_the_description_is_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = ((1, 4), (1, 8))
    x = tensor("x", (1, 4), "fp16", shapes=shapes)
    y = tensor("y", (), "fp16", ranges=((1, 1), (4, -1)))
    metadata = Metadata("me", "MIT", "1.2", "Text.", {"key": "värde"})
    made = program([x], [operation("relu", "y", (1, None), "fp16", x="x")], [y])
    monkeypatch.setattr(module, "read_package", lambda path: replace(made, metadata=metadata))
    ((header, _),) = talk(load(Path("any")))
    assert header["description"] == {
        "inputs": [
            {
                "name": "x",
                "kind": "tensor",
                "dtype": "fp16",
                "shape": [1, 4],
                "shapes": [[1, 4], [1, 8]],
                "ranges": [],
                "color": None,
            }
        ],
        "outputs": [
            {
                "name": "y",
                "kind": "tensor",
                "dtype": "fp16",
                "shape": [],
                "shapes": [],
                "ranges": [[1, 1], [4, -1]],
                "color": None,
            }
        ],
        "metadata": {
            "author": "me",
            "license": "MIT",
            "version": "1.2",
            "description": "Text.",
            "user": {"key": "värde"},
        },
    }


def test_a_function_is_chosen_by_name_and_functions_are_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one(size: int) -> Program:
        relu = operation("relu", "y", (size,), x="x")
        return program([tensor("x", (size,))], [relu], [tensor("y", (size,))])

    small, wide = one(4), one(8)
    both = replace(
        small,
        functions={**small.functions, "wide": replace(wide.functions["main"], name="wide")},
        signatures={**small.signatures, "wide": wide.signatures["main"]},
    )
    monkeypatch.setattr(module, "read_package", lambda path: both)
    listed, described, lacking, usual, chosen, unknown = talk(
        frame({"id": 5, "op": "functions", "path": "any"}),
        frame({"id": 6, "op": "describe", "path": "any", "function": "wide"}),
        frame({"id": 7, "op": "describe", "path": "any", "function": "no such"}),
        load(Path("any")),
        load(Path("any"), function="wide"),
        load(Path("any"), function="no such"),
    )
    assert listed[0] == {"id": 5, "ok": True, "functions": ["main", "wide"], "default": "main"}
    assert usual[0]["description"]["inputs"][0]["shape"] == [4]
    assert described[0]["description"] == chosen[0]["description"]
    assert "model" not in described[0]  # nothing was loaded
    assert (usual[0]["model"], chosen[0]["model"]) == (1, 2)
    assert lacking[0]["error"] == unknown[0]["error"]
    assert chosen[0]["description"]["inputs"][0]["shape"] == [8]
    assert unknown[0]["error"]["kind"] == "io"
    assert "no such" in unknown[0]["error"]["message"]


def test_an_unloaded_model_is_gone_and_others_stay(demo_package: Path, latent: np.ndarray) -> None:
    answers = talk(
        load(demo_package),
        load(demo_package),
        frame({"id": 3, "op": "unload", "model": 1}),
        predict(latent, model=1),
        predict(latent, model=2),
    )
    assert [header["ok"] for header, _ in answers] == [True, True, True, False, True]


BAD = [
    ({"op": "dance"}, "request", "'dance' is unknown"),
    ({"op": "load", "path": 7}, "request", "expected text"),
    ({"op": "load", "path": "a\0b"}, "request", "expected text"),
    ({"op": "load", "path": "x" * 5000}, "io", "cannot be looked at"),
    ({"op": "load", "path": "/nowhere/x.mlpackage"}, "io", "does not exist"),
    ({"op": "load", "path": "/", "function": 3}, "request", "expected a name"),
    ({"op": "predict", "model": 99}, "request", "handle 99"),
    ({"op": "predict", "model": [1]}, "request", "handle [1]"),
    ({"op": "predict", "model": 1}, "request", "described as None"),
    ({"op": "predict", "model": 1, "inputs": [{"name": "latent"}]}, "request", "expected a name"),
    (
        {"op": "predict", "model": 1, "inputs": [{"name": "x", "dtype": "O", "shape": []}]},
        "request",
        "expected a name, a dtype",
    ),
    (
        {"op": "predict", "model": 1, "inputs": [{"name": "x", "dtype": "int32", "shape": [-1]}]},
        "request",
        "and a shape",
    ),
    (
        {
            "op": "predict",
            "model": 1,
            "inputs": [{"name": "x", "dtype": "float64", "shape": [1 << 62, 1 << 62]}],
        },
        "request",
        "bytes, but 4 are left",
    ),
    (
        {"op": "predict", "model": 1, "inputs": [{"name": "x", "dtype": "float32", "shape": []}]},
        "input",
        "wants the inputs ['latent'], got ['x']",
    ),
    ({"op": "predict", "model": 1, "inputs": []}, "request", "4 bytes follow"),
    (b"{not json", "request", "not JSON"),
    (b"[" * 100000, "request", "not JSON"),
    (b"[1]", "request", "not a JSON object"),
]


@pytest.mark.parametrize(("header", "kind", "words"), BAD)
def test_a_bad_request_is_answered_and_the_next_one_served(
    demo_package: Path, latent: np.ndarray, header: Any, kind: str, words: str
) -> None:
    _, (refusal, _), (good, _) = talk(load(demo_package), frame(header, b"1234"), predict(latent))
    assert refusal["ok"] is False
    assert refusal["error"]["kind"] == kind
    assert words in refusal["error"]["message"]
    assert good["ok"] is True


def test_a_wrong_shape_is_the_inputs_fault(demo_package: Path, latent: np.ndarray) -> None:
    _, (refusal, _) = talk(load(demo_package), predict(latent[:, :, 1:]))
    assert refusal["error"]["kind"] == "input"
    assert "wants the shape [1, 32, 8, 8], got [1, 32, 7, 8]" in refusal["error"]["message"]


def test_lost_frame_boundaries_end_the_service_with_a_reply(demo_package: Path) -> None:
    (refusal,) = talk(b"GET / HTTP/1.1\r\n\r\n" * 4, load(demo_package))
    assert "this is not a request" in refusal[0]["error"]["message"]


@pytest.mark.parametrize("kept", [3, 11, 12, 20, -1])
def test_a_stream_cut_in_mid_frame_ends_quietly(demo_package: Path, kept: int) -> None:
    assert talk(load(demo_package)[:kept]) == []


# --- as a process ---


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "fluxvae.mil.serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    yield child
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        assert stream is not None
        stream.close()


def ask(child: subprocess.Popen[bytes], request: bytes) -> Reply:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(request)
    child.stdin.flush()
    header, payload = struct.unpack("<IQ", child.stdout.read(12))
    return json.loads(child.stdout.read(header)), child.stdout.read(payload)


def test_the_process_ends_when_stdin_closes_and_not_before(
    process: subprocess.Popen[bytes], demo_package: Path, latent: np.ndarray
) -> None:
    assert ask(process, load(demo_package))[0]["ok"]
    process.send_signal(signal.SIGINT)  # a terminal's Ctrl-C reaches it too
    assert ask(process, predict(latent))[0]["ok"]
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 0


def test_a_client_that_goes_away_leaves_no_process_behind(
    process: subprocess.Popen[bytes], demo_package: Path
) -> None:
    assert ask(process, load(demo_package))[0]["ok"]
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    large = np.zeros((1, 32, 8, 8), np.float16)
    process.stdin.write(predict(large))
    process.stdin.close()
    assert process.wait(30) == 0


def test_what_libraries_print_does_not_reach_the_replies(
    demo_package: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import os\n"
        "from fluxvae.mil import serve\n"
        "answer = serve.Server.answer\n"
        "def noisy(self, request):\n"
        "    print('noise', flush=True); os.write(1, b'noise')\n"
        "    return answer(self, request)\n"
        "serve.Server.answer = noisy\n"
        "serve.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=load(demo_package), capture_output=True, timeout=120
    )
    ((header, _),) = replies(done.stdout)
    assert header["ok"]
    assert done.stderr.count(b"noise") == 2


def test_requests_sent_ahead_are_answered_in_order(demo_package: Path, latent: np.ndarray) -> None:
    read, write = os.pipe()
    requests = load(demo_package) + b"".join(
        frame({"id": n, "op": "unload", "model": 99}) for n in range(100, 120)
    )

    def trickle() -> None:
        for start in range(0, len(requests), 7):  # frames arrive in pieces
            os.write(write, requests[start : start + 7])
        os.close(write)

    feeder = threading.Thread(target=trickle)
    feeder.start()
    sink = io.BytesIO()
    with os.fdopen(read, "rb") as source:
        module.serve(source, sink)
    feeder.join()
    assert [h["id"] for h, _ in replies(sink.getvalue())] == [1, *range(100, 120)]


def test_pipes_of_the_client_are_not_held_open() -> None:
    """Or who reads one to its end would wait for as long as the engine runs."""
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "fluxvae.mil.serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(writing,),
        cwd=Path(__file__).parents[2],
    )
    os.close(writing)
    try:
        ended, _, _ = select.select([reading], [], [], 60)
        assert ended
        assert os.read(reading, 1) == b""
        assert child.poll() is None
    finally:
        os.close(reading)
        child.communicate()
