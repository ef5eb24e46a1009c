"""Predicted gains against errors that were really put in (float64)."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fluxvae.compress.noise import SiteNoise, measure_noise
from fluxvae.networks.structure import conv_sites
from tests.compress.packages import small_decoder


@pytest.fixture(scope="module")
def decoder() -> nn.Sequential:
    return small_decoder().double()


@pytest.fixture(scope="module")
def latents() -> list[np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(1))
    return [generator.normal(size=(1, 4, 5, 3)) for _ in range(2)]


@pytest.fixture(scope="module")
def noise(decoder: nn.Sequential, latents: list[np.ndarray]) -> dict[str, SiteNoise]:
    return measure_noise(decoder, latents * 8, positions=16 * 2000)


def picture_error(decoder: nn.Sequential, latents: list[np.ndarray], changed: nn.Module) -> float:
    tensors = [torch.from_numpy(z) for z in latents]
    return float(torch.stack([(changed(z) - decoder(z)).square().mean() for z in tensors]).mean())


@pytest.mark.parametrize("name", ["1", "3.pool.0", "3.conv.0", "7", "10.conv.2", "11"])
def test_input_gains_predict_the_error_of_white_noise(
    decoder: nn.Sequential, latents: list[np.ndarray], noise: dict[str, SiteNoise], name: str
) -> None:
    """Noise at this convolution's input alone, not on the skip path beside it."""
    generator = torch.Generator().manual_seed(2)
    size = 1e-5

    def disturb(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shape = args[0].shape
        return (args[0] + size * torch.randn(shape, generator=generator, dtype=torch.float64),)

    changed = copy.deepcopy(decoder)
    changed.get_submodule(name).register_forward_pre_hook(disturb)
    with torch.no_grad():
        measured = np.mean([picture_error(decoder, latents, changed) for _ in range(8)])
    predicted = float(noise[name].gains.mean(0).sum()) * size**2
    assert predicted == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize("name", ["1", "3.pool.3", "7", "10.conv.4"])
def test_weight_gains_predict_the_error_of_changed_weights(
    decoder: nn.Sequential, latents: list[np.ndarray], noise: dict[str, SiteNoise], name: str
) -> None:
    generator = torch.Generator().manual_seed(3)
    size = 1e-6
    changed = copy.deepcopy(decoder)
    errors = []
    for _ in range(24):
        changed.load_state_dict(decoder.state_dict())
        weight = changed.get_submodule(name).weight
        weight += size * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        errors.append(picture_error(decoder, latents, changed))
    predicted = float(noise[name].weight_gains.sum()) * size**2
    assert predicted == pytest.approx(np.mean(errors), rel=0.35)


def test_values_and_extremes_are_the_inputs(
    decoder: nn.Sequential, latents: list[np.ndarray], noise: dict[str, SiteNoise]
) -> None:
    seen: list[Tensor] = []
    handle = decoder.get_submodule("10.conv.0").register_forward_pre_hook(
        lambda _, args: seen.append(args[0][0].flatten(1).T)
    )
    for latent in latents:
        decoder(torch.from_numpy(latent))
    handle.remove()
    inputs = torch.cat(seen)
    one = noise["10.conv.0"]
    assert torch.equal(one.low, inputs.amin(0))
    assert torch.equal(one.high, inputs.amax(0))
    assert {tuple(row) for row in one.values.tolist()} <= {tuple(r) for r in inputs.tolist()}


def test_same_call_same_numbers_and_nothing_left_behind(
    decoder: nn.Sequential, latents: list[np.ndarray]
) -> None:
    first, again = (measure_noise(decoder, latents, positions=64) for _ in range(2))
    for name, one in first.items():
        for field in ("values", "gains", "weight_gains", "low", "high"):
            assert torch.equal(getattr(one, field), getattr(again[name], field))
    assert not any(parameter.requires_grad for parameter in decoder.parameters())
    for site in conv_sites(decoder):
        assert not decoder.get_submodule(site.name)._forward_pre_hooks
