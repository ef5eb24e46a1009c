"""The demo pairs against the published ones, on photos that neither card nor training chose."""

import importlib.util
from pathlib import Path

import pytest
import torch

from fluxvae.networks.weights import load_weights

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "evaluate_demo_weights.py"


@pytest.fixture(scope="module")
def evaluation():
    spec = importlib.util.spec_from_file_location("evaluate_demo_weights", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def photos(evaluation):
    return evaluation.held_out_photos()


@pytest.mark.slow
@pytest.mark.parametrize("variant", [pytest.param("flux1", marks=pytest.mark.full), "flux2"])
def test_demo_pair_is_at_most_one_and_a_half_db_below_the_published_pair(
    variant, evaluation, photos, shared
):
    demo = evaluation.round_trip_psnr(variant, "demo", photos)
    published = evaluation.round_trip_psnr(variant, str(shared / "weights"), photos)
    assert len(photos) >= 4
    gap = sum(published[name] - demo[name] for name in photos) / len(photos)
    assert gap <= 1.5  # dB, asked for by the demo weights' specification


@pytest.mark.parametrize("variant", ["flux1", "flux2"])
def test_demo_latents_have_about_unit_variance(variant, photos):
    from fluxvae.networks.build import build_encoder

    encoder = build_encoder(load_weights(variant, "demo", part="encoder"))
    with torch.no_grad():
        latent = encoder(photos["coffee"])
    # so that seeded normal latents are a fair test input; one photo varies about the mean of many
    assert 0.25 < float(latent.var()) < 4


@pytest.mark.parametrize("variant", ["flux1", "flux2"])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_demo_weights_say_that_they_are_not_flux_s(variant, part):
    contract = load_weights(variant, "demo", part=part).contract
    assert contract.space == f"fluxvae-demo-{variant}"
    assert "NOT FLUX" in contract.wants
