"""Forms for Core ML equal the plain decoder, in float64."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fluxvae.convert.rewrite.layouts import (
    ChannelsLast,
    NHWCInterface,
    PixelOutput,
    PlanarOutput,
    nhwc_inside,
)
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import load_weights
from tests.artifacts import VARIANTS

# Measured: 0, for permutations move numbers and compute none. The room is for convolutions that
# torch may sum in another order on another processor, in float64.
TOLERANCE = 1e-12


def decoder(variant: str) -> nn.Module:
    return build_decoder(load_weights(variant, "random:0")).double()


def latent(variant: str) -> Tensor:
    """Not square and two in a batch, so that a swapped axis shows."""
    generator = torch.Generator().manual_seed(0)
    channels = {"flux1": 16, "flux2": 32}[variant]
    return torch.randn(2, channels, 4, 6, generator=generator, dtype=torch.float64)


def to_nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def to_nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


FORMS: dict[str, tuple[Callable[[nn.Module], nn.Module], Callable[[Tensor], Tensor]]] = {
    "nhwc-inside": (nhwc_inside, to_nchw),
    "nhwc-interface": (NHWCInterface, to_nchw),
    "nhwc-latent": (partial(NHWCInterface, planar=True), lambda x: x),
    "nhwc-inside-planar": (lambda plain: PlanarOutput(nhwc_inside(plain)), lambda x: x),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_form_equals_the_plain_decoder(variant: str, form: str) -> None:
    wrap, back = FORMS[form]
    plain, x = decoder(variant), latent(variant)
    with torch.no_grad():
        expected, got = plain(x), back(wrap(plain)(to_nhwc(x)))
    assert got.shape == expected.shape == (2, 3, 32, 48)
    assert (got - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
def test_pixel_output_is_the_plain_image_times_255_and_clamped(variant: str) -> None:
    plain, x = decoder(variant), latent(variant) * 3  # strong enough to leave [0, 1]
    with torch.no_grad():
        image, got = plain(x), PixelOutput(plain)(x)
    assert image.min() < 0
    assert image.max() > 1
    assert (got - image.clamp(0, 1) * 255).abs().max() <= TOLERANCE * 255
    assert got.min() == 0
    assert got.max() == 255


@pytest.mark.parametrize("variant", VARIANTS)
def test_nhwc_inside_leaves_the_original_untouched(variant: str) -> None:
    plain, x = decoder(variant), latent(variant)
    modules, state = dict(plain.named_modules()), plain.state_dict()
    text = repr(plain)
    with torch.no_grad():
        before = plain(x)
        nhwc_inside(plain)
        after = plain(x)
    assert repr(plain) == text
    assert all(plain.get_submodule(name) is module for name, module in modules.items())
    assert {k: v.data_ptr() for k, v in plain.state_dict().items()} == {
        k: v.data_ptr() for k, v in state.items()
    }
    assert torch.equal(before, after)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nhwc_inside_shares_the_parameters(variant: str) -> None:
    plain = decoder(variant)
    twin = nhwc_inside(plain)
    ours = {p.data_ptr() for p in plain.parameters()}
    assert {p.data_ptr() for p in twin.parameters()} == ours


@pytest.mark.parametrize("variant", VARIANTS)
def test_nhwc_inside_wraps_what_wants_channels_second_and_nothing_else(variant: str) -> None:
    twin = nhwc_inside(decoder(variant))
    wrapped = [m.inner for m in twin.modules() if isinstance(m, ChannelsLast)]
    wants = (nn.Conv2d, nn.Upsample, nn.GroupNorm)
    assert all(isinstance(m, wants) for m in wrapped)
    assert len(wrapped) == sum(isinstance(m, wants) for m in twin.modules())
    assert len(wrapped) == {"flux1": 35 + 3, "flux2": 41 + 3 + 3}[variant]
