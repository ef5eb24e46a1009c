"""Equalization is exact before rounding, and what it predicts is what happens."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fluxvae.compress.equalize import (
    MARGIN,
    apply_scales,
    channel_groups,
    choose_scales,
    predicted_error,
    scaled_noise,
)
from fluxvae.compress.fake import simulate
from fluxvae.compress.forms import CompressedDecoder, Scheme
from fluxvae.compress.noise import SiteNoise, measure_noise
from fluxvae.compress.plain import plain_form
from fluxvae.compress.w8a8 import least_error
from fluxvae.networks.build import build_decoder
from fluxvae.networks.structure import conv_sites
from fluxvae.networks.tiny import tiny_decoder
from fluxvae.networks.weights import load_weights
from tests.compress.packages import small_decoder

REAL = {"flux1": "taef1_decoder.safetensors", "flux2": "taef2_decoder.pth"}


def random_decoder(*, pool: bool) -> nn.Sequential:
    torch.manual_seed(0)
    return with_random_norms(tiny_decoder(4, pool=pool)).eval().requires_grad_(False)


def with_random_norms(decoder: nn.Sequential) -> nn.Sequential:
    """GroupNorm starts at 1 and 0: nothing would be seen of its scaling."""
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if ".pool.1." in name:
                parameter.add_(torch.randn_like(parameter) * 0.5)
    return decoder


def real_decoder(shared: Path, variant: str) -> nn.Sequential:
    return build_decoder(load_weights(variant, str(shared / "weights" / REAL[variant])))


def random_scales(decoder: nn.Sequential) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    scales = {}
    for group in channel_groups(decoder):
        rows = decoder.get_submodule(group.writers[0]).weight.shape[0]
        scales[group.name] = torch.randn(rows, generator=generator, dtype=torch.float64).exp()
    return scales


def largest_difference(decoder: nn.Sequential, scales: dict[str, torch.Tensor]) -> float:
    exact = decoder.double()
    channels = exact[1].weight.shape[1]
    latent = torch.randn(
        1, channels, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    picture = exact(latent)
    assert float(picture.std()) > 0.01  # otherwise a small difference would say nothing
    return float((picture - apply_scales(exact, scales)(latent)).abs().max())


@pytest.mark.parametrize("pool", [False, True])
def test_exact_on_random_weights(pool: bool) -> None:
    decoder = random_decoder(pool=pool)
    assert largest_difference(decoder, random_scales(decoder)) <= 1e-9  # measured: 2e-16


@pytest.mark.parametrize("variant", ["flux1", "flux2"])
def test_exact_on_real_weights(shared: Path, variant: str) -> None:
    decoder = real_decoder(shared, variant)
    assert largest_difference(decoder, random_scales(decoder)) <= 1e-9  # measured: 2e-15


@pytest.mark.parametrize("pool", [False, True])
def test_every_convolution_but_the_first_and_the_branchs_is_read_from_a_group(pool: bool) -> None:
    decoder = random_decoder(pool=pool)
    read = [name for group in channel_groups(decoder) for name in group.readers]
    assert sorted(read) == sorted(s.name for s in conv_sites(decoder) if s.role != "in")


def test_equalizing_moves_every_scaled_weight_and_leaves_the_original() -> None:
    decoder = random_decoder(pool=True)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    equal = apply_scales(decoder, random_scales(decoder)).state_dict()
    kept = {name for name, value in equal.items() if torch.equal(value, before[name])}
    assert kept == {"19.bias"}
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())


@pytest.fixture(scope="module")
def latents() -> list[np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(3))
    return [generator.normal(size=(1, 4, 4, 4)).astype(np.float32) for _ in range(4)]


@pytest.fixture(scope="module")
def unequal() -> nn.Sequential:
    """A decoder whose channels differ, as trained ones do: equal ones were scaled at random."""
    decoder = with_random_norms(small_decoder())
    return apply_scales(decoder, random_scales(decoder))


@pytest.fixture(scope="module")
def noise(unequal: nn.Sequential, latents: list[np.ndarray]) -> dict[str, SiteNoise]:
    return measure_noise(unequal, latents, positions=512)


def test_scaled_noise_is_the_noise_of_the_scaled_decoder(
    unequal: nn.Sequential, latents: list[np.ndarray], noise: dict[str, SiteNoise]
) -> None:
    scales = random_scales(unequal)
    measured = measure_noise(apply_scales(unequal, scales), latents, positions=512)
    for name, one in scaled_noise(unequal, noise, scales).items():
        for field in ("values", "gains", "weight_gains", "low", "high"):
            expected, got = getattr(measured[name], field), getattr(one, field)
            error = (got - expected).abs().max() / expected.abs().max().clamp(min=1e-20)
            assert error < 1e-4, (name, field)  # float32, through all layers; measured: 3e-6


@pytest.mark.parametrize("kind", ["symmetric", "zero-point"])
def test_chosen_scales_lower_the_picture_error(
    unequal: nn.Sequential, latents: list[np.ndarray], noise: dict[str, SiteNoise], kind: str
) -> None:
    """Against rounding the decoder as it is; each with its own best ranges."""
    names = [site.name for site in conv_sites(unequal)]
    scales = choose_scales(unequal, noise, quantized=names, kind=kind, steps=60)
    assert all(abs(float(s.log().mean())) < 1e-9 for s in scales.values())
    equal = apply_scales(unequal, scales)
    before = picture_error(unequal, noise, latents, kind)
    after = picture_error(equal, scaled_noise(unequal, noise, scales), latents, kind)
    assert after < before / 30  # measured: 97 and 104 times


def picture_error(
    decoder: nn.Sequential, noise: dict[str, SiteNoise], latents: list[np.ndarray], kind: str
) -> float:
    scheme = Scheme("int8", 8, "channel")
    activations = {name: least_error(one, kind) for name, one in noise.items()}
    weights = {n: plain_form(decoder.get_submodule(n).weight.numpy(), scheme) for n in noise}
    twin = simulate(CompressedDecoder(decoder, weights, activations), "float32")
    pictures = [(twin(z), decoder(z)) for z in map(torch.from_numpy, latents)]
    return sum(float((a - b).square().mean()) for a, b in pictures) / len(pictures)


@pytest.mark.parametrize("name", ["1", "3.pool.3", "3.conv.0", "9", "10.conv.4"])
def test_predicted_error_is_near_the_measured_one(
    unequal: nn.Sequential, latents: list[np.ndarray], noise: dict[str, SiteNoise], name: str
) -> None:
    activation = least_error(noise[name], "zero-point", margin=MARGIN)
    twin = simulate(CompressedDecoder(unequal, {}, {name: activation}), "float32")
    pictures = [(twin(z), unequal(z)) for z in map(torch.from_numpy, latents)]
    measured = sum(float((a - b).square().mean()) for a, b in pictures) / len(pictures)
    quiet = SiteNoise(
        noise[name].values,
        noise[name].gains,
        noise[name].weight_gains * 0,
        noise[name].low,
        noise[name].high,
    )
    predicted = predicted_error(unequal, name, quiet, "zero-point")
    assert measured / 1.7 < predicted < measured * 1.7  # measured: 0.85 to 1.34


def test_silent_channels_get_no_extreme_scale(
    unequal: nn.Sequential, noise: dict[str, SiteNoise]
) -> None:
    """A channel that calibration never saw may wake up on a photo."""
    one = noise["10.conv.2"]
    mask = torch.ones(16)
    mask[5] = 0
    quiet = SiteNoise(
        one.values * mask, one.gains, one.weight_gains, one.low * mask, one.high * mask
    )
    (scale,) = choose_scales(
        unequal, {"10.conv.2": quiet}, quantized=["10.conv.2"], kind="zero-point", steps=60
    ).values()
    peak = one.high / scale
    assert peak[5] < 50 * peak[torch.arange(16) != 5].max()
