"""The Hub path, against a stand-in server on this machine: nothing here uses the network."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
from safetensors.torch import save

from fluxvae.errors import DownloadError, FluxVAEError, WeightsError
from fluxvae.networks.catalog import CATALOG, Decoder
from fluxvae.networks.hub import fetch_file
from fluxvae.networks.weights import Weights, load_entry, load_weights
from tests import warm
from tests.checkpoint_files import in_style
from tests.cli.run import Ran
from tests.hub_server import HubServer, serving

# A cut or refused connection must end within this many seconds. huggingface_hub waits 1 s before
# each of its five resumes; measured 5.1 s.
PATIENCE = 10


@pytest.fixture(scope="module")
def content() -> bytes:
    """Both networks in one file under diffusers' names, as the Hub's files are."""
    parts = [load_weights("flux1", "random:5", part=part) for part in ("decoder", "encoder")]
    return save(in_style("diffusers", *parts), {"format": "pt"})


@pytest.fixture(scope="module")
def entry(content: bytes) -> Decoder:
    """TAEF1's catalogue entry with the stand-in's file pinned."""
    real = CATALOG["flux1"]
    return replace(real, hub=replace(real.hub, sha256=sha256(content).hexdigest()))


@pytest.fixture(autouse=True)
def hub_as_a_fresh_user(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's own proxies, token and offline switch must not decide these tests."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub resumes at once: one test waits as it does."""
    import huggingface_hub.file_download

    quick = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
    monkeypatch.setattr(huggingface_hub.file_download, "time", quick)


@pytest.fixture
def server(entry: Decoder, content: bytes) -> Iterator[HubServer]:
    with serving(entry.hub, content) as running:
        yield running


def load(entry: Decoder, server: HubServer, cache: Path, **options: object) -> Weights:
    return load_entry(entry, cache_dir=cache, endpoint=server.endpoint, **options)


def refusal(action: Callable[[], object], kind: type[FluxVAEError]) -> str:
    """The message of the error, which must be one line and must come in time."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        action()
    assert time.monotonic() - began < PATIENCE
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_pinned_file_is_fetched_once_and_holds_both_parts(
    entry: Decoder, server: HubServer, tmp_path: Path
) -> None:
    decoder = load(entry, server, tmp_path)
    encoder = load(entry, server, tmp_path, part="encoder")
    assert server.count("GET") == 1
    assert decoder.digest == load_weights("flux1", "random:5").digest
    assert encoder.digest == load_weights("flux1", "random:5", part="encoder").digest
    assert decoder.source.kind == "hub"
    assert decoder.source.name == (
        "madebyollin/taef1@b1b2d00e9e440cfbf3dedb34266864da86016ceb/"
        "diffusion_pytorch_model.safetensors"
    )
    assert decoder.source.file_sha256 == entry.hub.sha256
    assert decoder.contract == entry.contract


def test_cached_file_is_used_offline_without_a_request(
    entry: Decoder, server: HubServer, tmp_path: Path
) -> None:
    first = load(entry, server, tmp_path)
    asked = len(server.requests)
    server.mode = "broken"
    assert load(entry, server, tmp_path, offline=True).digest == first.digest
    assert load(entry, server, tmp_path).digest == first.digest
    assert len(server.requests) == asked


def test_offline_without_cache_says_so_and_asks_nobody(
    entry: Decoder, server: HubServer, tmp_path: Path
) -> None:
    message = refusal(lambda: load(entry, server, tmp_path, offline=True), DownloadError)
    assert "not in the cache" in message
    assert "--offline" in message
    assert entry.hub.page in message
    assert "--weights demo" in message
    assert server.requests == []


def test_wrong_bytes_from_the_server_are_not_loaded(
    entry: Decoder, server: HubServer, tmp_path: Path
) -> None:
    server.content = server.content[:-1] + bytes([server.content[-1] ^ 1])
    message = refusal(lambda: load(entry, server, tmp_path), WeightsError)
    assert "what the server sent is not the pinned file" in message
    assert entry.hub.sha256 in message
    assert sha256(server.content).hexdigest() in message


def test_damaged_cache_is_named_and_deleting_what_it_names_heals_it(
    entry: Decoder, server: HubServer, tmp_path: Path
) -> None:
    cached = fetch_file(entry.hub, cache_dir=tmp_path, endpoint=server.endpoint).resolve()
    cached.write_bytes(cached.read_bytes()[:1000])
    message = refusal(lambda: load(entry, server, tmp_path), WeightsError)
    assert "the cached copy is damaged" in message
    named = Path(message.split("delete ")[1].split(" and run again")[0])
    named.unlink()
    assert load(entry, server, tmp_path).source.file_sha256 == entry.hub.sha256


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("missing file", "has no file diffusion_pytorch_model.safetensors"),
        ("missing revision", "has no revision b1b2d00e"),
        ("missing repository", "has no repository madebyollin/taef1 (404)"),
        ("hidden repository", "refuses access to madebyollin/taef1 (401)"),
        ("forbidden", "refuses access to madebyollin/taef1 (403)"),
        ("gated", "is gated (403): accept its conditions at https://huggingface.co/madebyollin"),
        ("broken", "answered 503"),
    ],
)
def test_refusal_names_its_reason_and_the_way_out(
    entry: Decoder, server: HubServer, tmp_path: Path, mode: str, words: str
) -> None:
    server.mode = mode
    message = refusal(lambda: load(entry, server, tmp_path), DownloadError)
    assert words in message
    assert f"download {entry.hub.page} and give it with --weights PATH" in message
    assert "--weights demo" in message


@pytest.mark.parametrize("mode", ["cut", "cut, no ranges"])
def test_connection_cut_each_time_ends_soon_and_leaves_no_file(
    entry: Decoder, server: HubServer, tmp_path: Path, mode: str, request: pytest.FixtureRequest
) -> None:
    if mode != "cut":
        request.getfixturevalue("no_pauses")
    server.mode = mode
    message = refusal(lambda: load(entry, server, tmp_path), DownloadError)
    assert "the connection" in message
    assert "nothing was kept" in message
    assert entry.hub.page in message
    large = [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size > 1000]
    assert large == []


def test_connection_cut_once_is_resumed(entry: Decoder, server: HubServer, tmp_path: Path) -> None:
    server.mode = "cut once"
    assert load(entry, server, tmp_path).source.file_sha256 == entry.hub.sha256
    assert server.count("GET") == 2


def test_no_network_is_said_at_once(entry: Decoder, server: HubServer, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server.endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
    began = time.monotonic()
    message = refusal(lambda: load(entry, server, tmp_path), DownloadError)
    # huggingface_hub by itself repeats the refused connection for 23 s.
    assert time.monotonic() - began < 3
    assert message.startswith(f"cannot reach {server.endpoint.removeprefix('http://')}")
    assert entry.hub.page in message


@pytest.mark.slow
def test_server_that_never_answers_is_given_up(
    entry: Decoder, server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 2)  # by default 10 s
    server.mode = "hang"
    began = time.monotonic()
    with pytest.raises(DownloadError, match="cannot reach"):
        load(entry, server, tmp_path)
    assert time.monotonic() - began < 7


def test_cache_that_cannot_be_written_is_told_apart_from_the_network(
    entry: Decoder, server: HubServer, tmp_path: Path
) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the folder should be")
    message = refusal(lambda: load(entry, server, blocked), DownloadError)
    assert "cannot write madebyollin/taef1" in message
    assert "HF_HOME" in message


def test_progress_is_reported_up_to_the_whole_file(
    entry: Decoder, server: HubServer, tmp_path: Path
) -> None:
    calls: list[tuple[int, int | None]] = []
    load(entry, server, tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (len(server.content), len(server.content))


def test_fetching_prints_nothing_even_when_it_fails(
    entry: Decoder,
    server: HubServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    no_pauses: None,
) -> None:
    level = logging.getLogger("huggingface_hub").level
    load(entry, server, tmp_path / "a")
    server.mode = "cut, no ranges"
    with pytest.raises(DownloadError):
        load(entry, server, tmp_path / "b")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert logging.getLogger("huggingface_hub").level == level


SCRIPT = """
import sys
from dataclasses import replace
from fluxvae.networks.catalog import CATALOG
from fluxvae.errors import FluxVAEError
from fluxvae.networks.weights import load_entry
real = CATALOG["flux1"]
entry = replace(real, hub=replace(real.hub, sha256=sys.argv[1]))
try:
    print(load_entry(entry).digest)
except FluxVAEError as error:
    print(error)
"""


def run_with(environment: dict[str, str], digest: str) -> Ran:
    """Load in a process of its own: huggingface_hub reads its variables when imported."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HF_") and "proxy" not in name.lower()
    }
    ran = warm.run("-c", SCRIPT, digest, env={**kept, **environment})
    assert ran.code == 0, ran.err
    return ran


def test_environment_of_hugging_face_is_honoured(
    entry: Decoder, server: HubServer, tmp_path: Path
) -> None:
    user = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_stand_in"}
    loaded = run_with(user, entry.hub.sha256)
    assert loaded.out.strip() == load_weights("flux1", "random:5").digest
    assert loaded.err == ""
    assert server.tokens == {"Bearer hf_stand_in"}
    assert (tmp_path / "hub" / "models--madebyollin--taef1").is_dir()
    asked = len(server.requests)

    offline = run_with({**user, "HF_HUB_OFFLINE": "1"}, entry.hub.sha256)
    assert offline.out == loaded.out
    empty = run_with(
        {**user, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}, entry.hub.sha256
    )
    assert "not in the cache and HF_HUB_OFFLINE is set" in empty.out
    assert len(server.requests) == asked
