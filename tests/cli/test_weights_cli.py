"""``fluxvae weights`` as a user meets it. The Hub is a stand-in on this machine."""

import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import huggingface_hub.constants
import pytest
from safetensors.torch import save, save_file

from fluxvae.networks.catalog import CATALOG, all_decoders
from fluxvae.networks.weights import load_weights
from tests import warm
from tests.checkpoint_files import in_style
from tests.cli.run import Ran, run
from tests.hub_server import serving

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache in place of the user's; proxies and tokens of this machine set aside."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def in_fresh_process(cache: Path, endpoint: str, *arguments: str) -> Ran:
    """huggingface_hub reads its variables when imported: only a new process sees others."""
    keep = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment = {
        **keep,
        "HF_HUB_CACHE": str(cache),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0",
    }
    return warm.run("-m", "fluxvae", "weights", *arguments, env=environment)


def test_list_shows_the_catalogue_within_100_columns(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run(capsys, "weights", "list")
    assert (ran.code, ran.err) == (0, "")
    assert ran.widest <= 100
    for decoder in all_decoders():
        digest = decoder.hub.sha256 or "not known: the one seen is recorded"
        for fact in (decoder.title, digest, decoder.hub.revision, decoder.licence):
            assert fact in ran.out
        assert f"cached    no: fluxvae weights fetch --variant {decoder.variant}" in ran.out
    assert ran.out.count("--weights demo: shipped") == len(CATALOG)


def test_list_as_json_has_the_contract_and_the_page(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = run(capsys, "weights", "list", "--json").json["variants"]
    assert [(e["variant"], e["decoder"]) for e in entries] == [
        (d.variant, d.kind) for d in all_decoders()
    ]
    flux2 = entries[1]
    assert flux2["contract"]["channels"] == 32
    assert flux2["sentence"] == CATALOG["flux2"].contract.sentence()
    assert flux2["hub"]["page"].startswith("https://huggingface.co/madebyollin/taef2/resolve/")
    assert flux2["cached"] is None
    assert flux2["demo"]["space"] == "fluxvae-demo-flux2"


def test_list_names_the_file_that_is_cached(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = CATALOG["flux1"].hub
    file = cache / "models--madebyollin--taef1" / "snapshots" / hub.revision / hub.file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    entries = run(capsys, "weights", "list", "--json").json["variants"]
    assert [entry["cached"] for entry in entries if entry["decoder"] == "tiny"] == [str(file), None]


def test_file_in_the_cache_that_is_not_the_pinned_one_is_said(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty file: its digest is known. Of right content nothing is said."""
    real = CATALOG["flux1"]
    folder = cache / "models--madebyollin--taef1"
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / "content").touch()
    file = folder / "snapshots" / real.hub.revision / real.hub.file
    file.parent.mkdir(parents=True)
    file.symlink_to("../../blobs/content")
    problem = f"(sha256 {sha256().hexdigest()[:12]}..., expected {real.hub.sha256[:12]}...)"
    way_out = f"delete {folder / 'blobs' / 'content'}, then run `fluxvae weights fetch --variant"
    listed, doctor = run(capsys, "weights", "list"), run(capsys, "doctor")
    for ran in (listed, doctor):
        assert problem in " ".join(ran.out.split())
        assert f"{way_out} flux1`" in " ".join(ran.out.split())
    assert run(capsys, "weights", "list", "--json").json["variants"][0]["cached_problem"]
    right = replace(real.hub, sha256=sha256().hexdigest())
    monkeypatch.setitem(CATALOG, "flux1", replace(real, hub=right))
    assert run(capsys, "weights", "list", "--json").json["variants"][0]["cached_problem"] is None


def test_fetch_refuses_what_is_not_the_pinned_file_in_one_line(tmp_path: Path) -> None:
    with serving(CATALOG["flux1"].hub, b"something else") as server:
        ran = in_fresh_process(tmp_path, server.endpoint, "fetch", "--variant", "flux1")
    assert (ran.code, ran.out) == (1, "")
    assert len(ran.err.splitlines()) == 1
    assert CATALOG["flux1"].hub.sha256 in ran.err


def test_fetch_prints_where_the_verified_file_is(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [load_weights("flux1", "random:5", part=part) for part in ("decoder", "encoder")]
    content = save(in_style("diffusers", *parts), {"format": "pt"})
    real = CATALOG["flux1"]
    pinned = replace(real.hub, sha256=sha256(content).hexdigest())
    monkeypatch.setitem(CATALOG, "flux1", replace(real, hub=pinned))
    with serving(pinned, content) as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        )
        ran = run(capsys, "weights", "fetch", "--variant", "flux1", "--json")
        (file,) = ran.json["files"]
        assert Path(file["path"]).read_bytes() == content
        assert file["size"] == len(content)
        assert file["sha256"] == pinned.sha256
    ran = run(capsys, "weights", "fetch", "--variant", "flux1", "--offline")
    assert (ran.code, ran.err) == (0, "")
    assert "sha256 as pinned" in ran.out
    assert file["path"] in ran.out


def test_offline_fetch_of_what_is_not_cached_says_the_ways_out(tmp_path: Path) -> None:
    ran = in_fresh_process(tmp_path, "http://127.0.0.1:9", "fetch", "--offline")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert "--weights demo" in ran.err
    assert CATALOG["flux1"].hub.page in ran.err


def test_unknown_variant_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "weights", "fetch", "--variant", "flux3")
    assert ran.code == 2
    assert "flux1" in ran.err


def test_show_names_variant_part_and_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_weights("flux2", "random:3")
    path = tmp_path / "mine.safetensors"
    save_file(dict(weights.tensors), path)
    ran = run(capsys, "weights", "show", str(path))
    assert (ran.code, ran.err) == (0, "")
    assert "fits      flux2 decoder" in ran.out
    # From taesd.py's layers, counted by hand: README of madebyollin/taesd gives TAESD's.
    assert "1,338,499 parameters" in ran.out
    assert ran.widest <= max(100, len(str(path)))
    assert run(capsys, "weights", "show", str(path), "--json").json["fits"] == [
        {"variant": "flux2", "decoder": "tiny", "part": "decoder"}
    ]


def test_show_of_a_damaged_file_tells_the_problem_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_weights("flux1", "random:3")
    path = tmp_path / "cut.safetensors"
    path.write_bytes(save(dict(weights.tensors))[:-1000])
    ran = run(capsys, "weights", "show", str(path))
    assert ran.code == 1
    assert "fits      nothing" in ran.out
    assert "truncated or damaged" in " ".join(ran.out.split())
    as_json = run(capsys, "weights", "show", str(path), "--json")
    assert as_json.code == 1
    assert len(as_json.json["problems"]) == 1


def test_show_of_nothing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "weights", "show", str(tmp_path / "absent.pth"))
    assert (ran.code, ran.out) == (1, "")
    assert "does not exist" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_module_can_be_run_with_python_m() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "fluxvae", "--version"], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0
    assert ran.stdout.startswith("fluxvae, version ")
