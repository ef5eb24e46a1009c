"""Checkpoints: what is stored comes back, and nothing else is taken for one."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fluxvae.compress.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from fluxvae.compress.forms import CompressedDecoder, Palettized, dense
from fluxvae.errors import CompressionError, OutputError
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes.compression import Compression
from tests.cli.run import run
from tests.compress.qat_starts import W8A8, demo_start, minmax, noise_latents, tables


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_weights("flux2", "random:3")


def equal(one: CompressedDecoder, two: CompressedDecoder) -> bool:
    states = one.decoder.state_dict(), two.decoder.state_dict()
    free = [n for n in states[0] if n.removesuffix(".weight") not in one.weights]
    return (
        one.activations == two.activations
        and list(states[0]) == list(states[1])
        and all(torch.equal(states[0][n], states[1][n]) for n in free)
        and one.weights.keys() == two.weights.keys()
        and all(
            np.array_equal(dense(a, "float16"), dense(two.weights[n], "float16"))
            and type(a) is type(two.weights[n])
            for n, a in one.weights.items()
        )
    )


def test_int8_comes_back_and_the_bytes_are_the_same_each_time(
    weights: Weights, tmp_path: Path
) -> None:
    start = minmax(build_decoder(weights), noise_latents(32, 8))
    one, two = (
        save_checkpoint(tmp_path / name, start, weights, W8A8, {"curve": [], "steps": 0})
        for name in ("one.safetensors", "two.safetensors")
    )
    assert one.read_bytes() == two.read_bytes()
    loaded = load_checkpoint(one, weights, W8A8)
    assert equal(start, loaded)
    assert loaded.notes == {"start": "min-max", "qat": {"curve": [], "steps": 0}}
    for name, form in loaded.weights.items():  # the modules hold what the forms expand to
        stored = loaded.decoder.get_submodule(name).weight
        assert np.array_equal(stored.numpy(), dense(form, "float32"))
    assert read_checkpoint(one).compression == W8A8


@pytest.mark.parametrize(("groups", "scaled"), [(1, True), (4, False)])
def test_tables_come_back(weights: Weights, tmp_path: Path, groups: int, scaled: bool) -> None:
    start = tables(build_decoder(weights), 4, groups=groups, scaled=scaled)
    asked = Compression("palette", bits=4)
    path = save_checkpoint(tmp_path / "t.safetensors", start, weights, asked, {})
    loaded = load_checkpoint(path, weights, asked)
    assert equal(start, loaded)
    form = loaded.weights["3.conv.0"]
    assert isinstance(form, Palettized)
    assert form.lut.shape == (groups, 16)
    assert (form.scale is not None) == scaled


def test_refuses_another_decoder_and_says_which(weights: Weights, tmp_path: Path) -> None:
    path = demo_start(tmp_path)
    with pytest.raises(CompressionError, match=r"holds a decoder of flux2, expected flux1: pass"):
        load_checkpoint(path, load_weights("flux1", "random:3"))
    with pytest.raises(CompressionError, match=r"trained from demo .* these weights \(random:3"):
        load_checkpoint(path, weights)
    with pytest.raises(CompressionError, match="trained as w8a8-plain, expected pal4"):
        load_checkpoint(path, load_weights("flux2", "demo"), Compression("palette", bits=4))


def test_never_overwrites_unasked(tmp_path: Path) -> None:
    demo_start(tmp_path)
    with pytest.raises(OutputError, match="exists already"):
        demo_start(tmp_path)


def test_damage_anywhere_is_noticed(tmp_path: Path) -> None:
    """One flipped bit in any of many places of the file, and every cut."""
    path = demo_start(tmp_path)
    weights = load_weights("flux2", "demo")
    good = path.read_bytes()
    header = struct.unpack("<Q", good[:8])[0]
    random = np.random.Generator(np.random.PCG64(1))
    places = [*random.integers(8, 8 + header, 12), *random.integers(8 + header, len(good), 12)]
    padding = range(8 + len(good[8 : 8 + header].rstrip(b" ")), 8 + header)
    for place in (int(p) for p in places if p not in padding):
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bad)
        with pytest.raises(CompressionError, match=r"start\.safetensors: "):
            load_checkpoint(path, weights)
    for length in (0, 7, header // 2, header + 100, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(CompressionError, match="cannot be read"):
            load_checkpoint(path, weights)


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    weights = load_weights("flux2", "demo")
    with pytest.raises(CompressionError, match="no such file"):
        load_checkpoint(tmp_path / "none.safetensors", weights)
    plain = tmp_path / "plain.safetensors"
    save_file({"1.weight": np.zeros(3, np.float32)}, plain)
    with pytest.raises(CompressionError, match="expected a fluxvae-qat file"):
        load_checkpoint(plain, weights)
    later = {"kind": "fluxvae-qat", "version": 2, "seal": "", "data": {}}
    save_file({"1.weight": np.zeros(3, np.float32)}, plain, {"fluxvae": json.dumps(later)})
    with pytest.raises(CompressionError, match="version 2 of the format, expected 1"):
        load_checkpoint(plain, weights)


def test_name_of_what_was_trained_says_how_it_is_compressed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_weights("flux2", "demo")
    own = Compression("w8a8", method="plain", activations="symmetric", int8_share=0.85)
    start = minmax(build_decoder(weights), noise_latents(32, 8))
    path = save_checkpoint(tmp_path / "x.safetensors", start, weights, own, {})
    given = ("--variant", "flux2", "--weights", "demo", "--w8a8", "--qat", str(path))
    ran = run(capsys, "convert", *given, "--dry-run", "--json")
    assert ran.json["recipe"]["compression"]["method"] == "trained"
    assert "_w8a8-trained-symmetric-85_" in ran.json["path"]
    with pytest.raises(CompressionError, match="expected w8a8-trained: convert it as w8a8-"):
        load_checkpoint(path, weights, Compression("w8a8", method="trained"))
