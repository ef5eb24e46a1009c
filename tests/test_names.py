"""Models that share a VAE, models newer than the catalogue, and files that hold both parts."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fluxvae.errors import UsageError, WeightsError
from fluxvae.networks.catalog import find_decoder
from fluxvae.networks.weights import WeightSource, load_file, load_weights
from fluxvae.recipes import Recipe
from tests.cli.run import run
from tests.kl import bfl_names, diffusers_names, narrow_entry, narrow_weights

DRY = ("convert", "--size", "64", "--dry-run", "--json")


@pytest.mark.parametrize("name", ["z-image", "hidream", "Z-Image"])
def test_a_model_with_flux1_s_vae_is_flux1(capsys: pytest.CaptureFixture[str], name: str) -> None:
    ours, theirs = (run(capsys, *DRY, "--variant", variant) for variant in ("flux1", name))
    assert theirs.json == ours.json
    assert theirs.err == f"note: {name} uses the VAE of flux1\n"


@pytest.mark.parametrize("name", ["flux3", "FLUX.3-dev", "flux_3"])
def test_flux3_is_refused_by_name(capsys: pytest.CaptureFixture[str], name: str) -> None:
    done = run(capsys, *DRY, "--variant", name)
    assert done.code == 2
    assert "FLUX 3 is newer than this fluxvae" in done.err.splitlines()[-1]


def test_a_recipe_has_one_name_for_one_vae() -> None:
    with pytest.raises(UsageError, match="z-image uses the VAE of flux1"):
        Recipe("z-image")
    with pytest.raises(UsageError, match="newer"):
        find_decoder("flux3")


@pytest.mark.parametrize("where", ["name", "metadata", "config.json"])
def test_weights_that_say_flux3_are_refused(tmp_path: Path, where: str) -> None:
    tensors = dict(load_weights("flux2", "demo").tensors)
    path = tmp_path / ("flux-3_taef.safetensors" if where == "name" else "taef.safetensors")
    metadata = {"modelspec.architecture": "flux-3"} if where == "metadata" else None
    save_file(tensors, path, metadata)
    if where == "config.json":
        (tmp_path / where).write_text(json.dumps({"_class_name": "AutoencoderKLFlux3"}))
    for spec in (path, tmp_path):
        with pytest.raises(WeightsError, match=f"its {where}.* says FLUX 3, which is newer"):
            load_weights("flux2", str(spec))


def test_flux2_s_own_names_are_not_taken_for_flux3(tmp_path: Path) -> None:
    path = tmp_path / "flux2-30steps_flux.2-dev-32ch.safetensors"
    save_file(dict(load_weights("flux2", "demo").tensors), path)
    assert load_weights("flux2", str(path)).variant == "flux2"


@pytest.mark.parametrize("prefix", ["", "vae.", "first_stage_model."])
@pytest.mark.parametrize(
    ("variant", "kind", "bfl"),
    [
        ("flux1", "tiny", False),
        ("flux2", "tiny", False),
        ("flux1", "full", False),
        ("flux2", "full", True),
        ("flux2", "small", False),
    ],
)
def test_either_part_is_taken_from_one_file(
    tmp_path: Path, variant: str, kind: str, bfl: bool, prefix: str
) -> None:
    if kind == "tiny":
        entry = find_decoder(variant)
        parts = [load_weights(variant, "demo", part=part) for part in ("decoder", "encoder")]
        named = {f"{w.part}.{name}": t for w in parts for name, t in w.tensors.items()}
    else:
        entry = narrow_entry(variant, kind)
        parts = [narrow_weights(variant, kind, part=part) for part in ("decoder", "encoder")]
        named = diffusers_names(*parts)
        named = bfl_names(named) if bfl else named
    path = tmp_path / "all.safetensors"
    others = {"model.diffusion_model.x": torch.zeros(3), "text_encoders.y": torch.zeros(2)}
    save_file({f"{prefix}{name}": t.contiguous() for name, t in named.items()} | others, path)
    for weights in parts:
        found = load_file(entry, weights.part, path, WeightSource("file", path.name, None))
        assert found.digest == weights.digest
