"""Powers of two through the residual stream: equal in real numbers, and small for float16."""

import pytest
import torch
from torch import Tensor, nn

from fluxvae.convert.rewrite.attention import with_attention
from fluxvae.convert.rewrite.rescale import (
    LARGEST,
    ScaledGroupNorm,
    choose_exponents,
    group_peaks,
    peak_magnitudes,
    rescaled,
    streams,
)
from fluxvae.networks.kl import KLDecoder
from tests.kl_hot import CHANNELS, heat, kl_decoder

TOLERANCE = 1e-12  # measured: 2e-14 and less (see the tests)


def latent(variant: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, CHANNELS[variant], 6, 8, generator=generator).double()


def hot_decoder(variant: str, hot: float) -> tuple[KLDecoder, Tensor]:
    decoder, x = kl_decoder(variant), latent(variant)
    heat(decoder, x, hot)
    return decoder, x


@pytest.mark.parametrize("variant", CHANNELS)
@pytest.mark.parametrize("hot", [4.0, 1e5])
def test_rescaled_decoder_equals_the_plain_one(variant: str, hot: float) -> None:
    decoder, x = hot_decoder(variant, hot)
    exponents = choose_exponents(decoder, [x])
    if hot < LARGEST:  # nothing has to be done: do it all the same
        exponents = {s.name: (3, 0) * 16 for s in streams(decoder)}
    got = with_attention(rescaled(decoder, exponents), "channels-first")(x)
    assert (got - decoder(x)).abs().max() <= TOLERANCE


def test_every_stream_can_be_rescaled_by_itself() -> None:
    """So that no layer is on the wrong side of one: each is multiplied by 2 to 256."""
    decoder, x = kl_decoder("flux2"), latent("flux2")
    expected = decoder(x)
    powers = tuple(range(1, 9)) * 4
    for stream in streams(decoder):
        got = rescaled(decoder, {stream.name: powers})(x)
        assert (got - expected).abs().max() <= TOLERANCE, stream.name


def test_every_norm_and_every_layer_of_the_stream_is_in_a_stream() -> None:
    decoder = kl_decoder("flux1")
    named = dict(decoder.named_modules())
    found = streams(decoder)
    norms = [name for s in found for name in s.norms]
    writers = [name for s in found for name in s.writers]
    assert sorted(norms) == sorted(n for n, m in named.items() if isinstance(m, nn.GroupNorm))
    layers = {n for n, m in named.items() if isinstance(m, nn.Conv2d | nn.Linear)}
    other = {"conv_out", *(f"mid_block.attentions.0.to_{p}" for p in "qkv")}
    assert sorted(writers) == sorted(layers - other)


def test_epsilon_left_as_it_is_shows() -> None:
    """The test above is sharp: with the norm's own epsilon the images differ."""
    decoder, x = kl_decoder("flux1"), latent("flux1")
    twin = rescaled(decoder, {"conv_in": (6,) * 32})
    for module in twin.modules():
        if isinstance(module, ScaledGroupNorm):
            module.eps = torch.full_like(module.eps, 1e-6)
    assert (twin(x) - decoder(x)).abs().max() > 1e-4


def test_rescaled_streams_are_small_and_only_hot_groups_are_touched() -> None:
    decoder, x = hot_decoder("flux1", 1e4)
    exponents = choose_exponents(decoder, [x])
    peaks = group_peaks(decoder, [x])
    for name, powers in exponents.items():
        for power, peak in zip(powers, peaks[name].tolist(), strict=True):
            assert (power == 0) == (peak <= LARGEST)
            assert peak / 2**power <= LARGEST
    assert all(max(peak) <= LARGEST for name, peak in peaks.items() if name not in exponents)
    twin = rescaled(decoder, exponents)
    with torch.no_grad():
        stream = twin.mid_block.resnets[0](twin.conv_in(x))
    assert stream.abs().max() <= LARGEST


def test_a_decoder_that_fits_is_left_alone() -> None:
    decoder, x = kl_decoder("flux1"), latent("flux1")
    assert choose_exponents(decoder, [x]) == {}
    assert repr(rescaled(decoder, {})) == repr(decoder)


def test_the_original_stays_as_it_was() -> None:
    decoder, x = hot_decoder("flux1", 1e3)
    before, text = decoder(x), repr(decoder)
    rescaled(decoder, choose_exponents(decoder, [x]))
    assert repr(decoder) == text
    assert torch.equal(decoder(x), before)


def test_the_reach_of_squares_is_found_by_name() -> None:
    decoder, x = hot_decoder("flux1", 1e3)
    first = peak_magnitudes(decoder, [x])[0]
    assert first.kind == "square"
    norm = decoder.get_submodule(first.layer)
    assert isinstance(norm, nn.GroupNorm)
    places = dict.fromkeys(
        row.layer for row in peak_magnitudes(decoder, [x]) if row.largest > 65504
    )
    assert "mid_block.resnets.0.norm1" in places
    assert "conv_norm_out" in places
    by_hand = decoder.conv_in(x).reshape(1, 32, -1)
    by_hand = (by_hand - by_hand.mean(2, keepdim=True)).square().max()
    (row,) = (r for r in peak_magnitudes(decoder, [x]) if r.layer == "mid_block.resnets.0.norm1"
              and r.kind == "square")  # fmt: skip
    assert row.largest == pytest.approx(float(by_hand))
