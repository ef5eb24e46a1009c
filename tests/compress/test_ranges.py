"""Ranges against coremltools' own arithmetic, and against brute force."""

import numpy as np
import pytest
import torch

from fluxvae.compress.fake import rounded
from fluxvae.compress.forms import Activation
from fluxvae.compress.noise import SiteNoise
from fluxvae.compress.w8a8 import input_extremes, least_error, minmax
from tests.compress.packages import small_decoder

PAIRS = [(0.0, 6.4), (-15.66, 9.22), (-1.0, 0.0), (-0.03, 4.0), (0.5, 3.0)]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(
    ("kind", "mode"), [("symmetric", "LINEAR_SYMMETRIC"), ("zero-point", "LINEAR")]
)
def test_minmax_is_coremltools_arithmetic(pair: tuple[float, float], kind: str, mode: str) -> None:
    from coremltools.converters.mil.mil import types
    from coremltools.optimize._utils import quantize_weight_by_dtype

    dtype = types.int8 if kind == "symmetric" else types.uint8
    ends = np.array(pair, np.float32)
    _, scale, zero = quantize_weight_by_dtype(ends, 0, dtype, mode)
    made = minmax(*pair, kind)
    assert made.scale == float(scale.astype(np.float16).squeeze())
    assert made.zero_point == (0 if zero is None else int(zero.squeeze()))


def test_minmax_of_nothing_but_zeros_can_be_used() -> None:
    assert minmax(0.0, 0.0, "symmetric").scale > 0
    assert minmax(0.0, 0.0, "zero-point").scale > 0


def test_extremes_are_those_of_all_latents() -> None:
    decoder = small_decoder()
    generator = np.random.Generator(np.random.PCG64(1))
    latents = [(k * generator.normal(size=(1, 4, 4, 4))).astype(np.float32) for k in (0.1, 2, 0.5)]
    alone = [input_extremes(decoder, [latent]) for latent in latents]
    for name, (low, high) in input_extremes(decoder, latents).items():
        assert low == min(one[name][0] for one in alone)
        assert high == max(one[name][1] for one in alone)


def sampled(values: torch.Tensor, gains: torch.Tensor) -> SiteNoise:
    return SiteNoise(
        values, gains.expand_as(values), torch.zeros(1), values.amin(0), values.amax(0)
    )


def shown(noise: SiteNoise, activation: Activation) -> float:
    error = rounded(noise.values, activation) - noise.values
    return float((error.square() * noise.gains).mean())


@pytest.mark.parametrize("kind", ["symmetric", "zero-point"])
@pytest.mark.parametrize("two_sided", [False, True])
def test_least_error_is_near_the_best_of_a_fine_search(kind: str, two_sided: bool) -> None:
    values = torch.randn(1000, 4, generator=torch.Generator().manual_seed(2))
    values = values if two_sided else values.abs()
    values[0, 0], values[1, 0] = 12.0, -9.0 if two_sided else 9.0
    noise = sampled(values, torch.linspace(0.001, 1, 4))
    steps = np.geomspace(0.005, 0.1, 150)
    if kind == "symmetric":
        tried = [Activation(float(np.float16(step))) for step in steps]
    else:
        zeros = range(0, 130, 3) if two_sided else [0]
        tried = [
            Activation(float(np.float16(step)), zero, "uint8") for step in steps for zero in zeros
        ]
    best = min(shown(noise, activation) for activation in tried)
    found = shown(noise, least_error(noise, kind))
    assert found < 1.05 * best  # measured: 1.03
    assert best < shown(noise, minmax(float(values.min()), float(values.max()), kind)) / 2


def test_least_error_listens_to_the_gains() -> None:
    """A loud channel that does not show in the picture does not widen the range."""
    values = torch.rand(500, 2, generator=torch.Generator().manual_seed(3)) * torch.tensor([1, 3.0])
    wide = least_error(sampled(values, torch.tensor([1.0, 1.0])), "zero-point")
    narrow = least_error(sampled(values, torch.tensor([1.0, 1e-6])), "zero-point")
    assert narrow.scale < wide.scale / 2


def test_margin_leaves_room() -> None:
    values = torch.rand(500, 2, generator=torch.Generator().manual_seed(4))
    noise = sampled(values, torch.ones(2))
    tight, roomy = least_error(noise, "zero-point"), least_error(noise, "zero-point", margin=1.2)
    assert roomy.scale * 255 >= 1.1 > tight.scale * 255


def test_after_relu_all_levels_are_used() -> None:
    found = least_error(sampled(torch.rand(500, 2), torch.ones(2)), "zero-point")
    assert (found.dtype, found.zero_point) == ("uint8", 0)
    assert least_error(sampled(torch.rand(500, 2), torch.ones(2)), "symmetric").dtype == "int8"
