"""Latents given to decode, validate, census and export-io: one reader, notes, --strict, keys."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from fluxvae.validation.metrics import compare
from tests.cli.run import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def vae_artifact(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """TAEF1's artifacts of 128 px that take this form of latents."""
    from fluxvae.artifact.save import save_artifact
    from fluxvae.networks.weights import load_weights
    from fluxvae.recipes import Recipe, parse_sizes

    folder = tmp_path_factory.mktemp("taef1")
    weights = load_weights("flux1", str(shared / "weights" / "taef1_decoder.safetensors"))

    def make(form: str) -> Path:
        path = folder / f"{form}.mlpackage"
        if not path.exists():
            save_artifact(weights, Recipe("flux1", latents=form, sizes=parse_sizes("128")), path)
        return path

    return make


@pytest.fixture
def vae_latents(shared: Path, tmp_path: Path) -> Path:
    """The golden astronaut in the VAE's own space, in a file that does not say so."""
    golden = load_file(shared / "golden" / "taef_golden.safetensors")
    values = torch.from_numpy(golden["flux1.astronaut.latent"]) / 0.3611 + 0.1159
    path = tmp_path / "x.safetensors"
    save_file({"sigmas": torch.ones(5), "samples": values}, path)
    return path


SAID = "(standard deviation 2.28, mean magnitude of a channel"


def test_commands_note_another_space_and_refuse_it_strictly(
    shared: Path, vae_artifact: Callable[[str], Path], vae_latents: Path, tmp_path: Path,
    capsys: Capture,
) -> None:  # fmt: skip
    artifact, weights = (
        str(vae_artifact("sampler")),
        shared / "weights" / "taef1_decoder.safetensors",
    )
    source = ("--variant", "flux1", "--weights", str(weights), "--size", "128")
    given = ("--latents", str(vae_latents))
    for number, command in enumerate((
        ("decode", artifact, str(vae_latents), "--out", str(tmp_path / "images")),
        ("validate", artifact, "--weights", str(weights), *given),
        ("census", *source, *given),
        ("export-io", *source, *given, "--out", str(tmp_path / "io")),
    )):  # fmt: skip
        ran = run(capsys, *command, "--strict")
        assert (ran.code, ran.out) == (1, ""), command
        assert SAID in ran.err
        if number < 2:  # the others do the same through the same reader
            ran = run(capsys, *command, "--json")
            assert ran.code == 0, ran.err
            assert f"note: x.safetensors: samples {SAID}" in ran.err
            notes = ran.json["notes"]
            assert "passed over 'sigmas' has the shape [5]" in notes[0]
            assert SAID in notes[1]


def test_comfyui_latents_decode_to_the_golden_picture(
    shared: Path, vae_artifact: Callable[[str], Path], vae_latents: Path, tmp_path: Path,
    capsys: Capture,
) -> None:  # fmt: skip
    values = torch.from_numpy(load_file(vae_latents)["samples"])
    save_file({"latent_tensor": values, "latent_format_version_0": torch.zeros(0)},
              tmp_path / "x.latent", {"prompt": json.dumps({})})  # fmt: skip
    file, out = str(tmp_path / "x.latent"), tmp_path / "raw.safetensors"
    ran = run(capsys, "decode", str(vae_artifact("vae")), file, "--out", str(out), "--json")
    assert ran.code == 0, ran.err
    assert ran.json["notes"] == []
    golden = load_file(shared / "golden" / "taef_golden.safetensors")
    picture = load_file(out)["latent_tensor"].astype(np.float32)
    assert compare(picture, golden["flux1.astronaut.decoded"]).psnr_db > 65
    ran = run(capsys, "decode", str(vae_artifact("sampler")), file, "--out", str(out))
    assert ran.code == 1
    assert "--latents vae" in ran.err


def test_every_command_reads_axes_and_keys_alike(
    demo_artifact: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    generator = torch.Generator().manual_seed(1)
    own = torch.randn(1, 8, 8, 16, generator=generator)
    save_file({"own": own, "flux2": torch.randn(1, 32, 16, 16)}, tmp_path / "x.safetensors")
    artifact = str(demo_artifact("flux1", "64", layout="nhwc"))
    source = ("--variant", "flux1", "--weights", "demo", "--size", "64")
    for key, code in (("own", 0), ("flux2", 1)):
        file = f"{tmp_path / 'x.safetensors'}:{key}"
        for command in (
            ("decode", artifact, file, "--out", str(tmp_path / f"{key}.safetensors")),
            ("validate", artifact, "--latents", file),
            ("census", *source, "--latents", file),
            ("export-io", *source, "--layout", "nhwc", "--latents", file, "--out",
             str(tmp_path / key)),
        ):  # fmt: skip
            ran = run(capsys, *command)
            assert ran.code == code, (command, ran.err)
            assert ("32 channels belong to another model, FLUX.2" in ran.err) == (code == 1)
    exported = np.fromfile(tmp_path / "own" / "input.bin", "<f4").reshape(1, 8, 8, 16)
    assert np.array_equal(exported, own.numpy())
