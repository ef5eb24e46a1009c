"""The latent contract inside the graph: folded forms against the steps of FLUX's own pipelines."""

import pytest
import torch
from torch import Tensor, nn

from fluxvae.convert.rewrite.latents import with_latents
from fluxvae.networks.kl import KLDecoder
from fluxvae.networks.tiny import tiny_decoder
from tests.kl_hot import CHANNELS, kl_decoder
from tests.pipelines import patchify_flux2, unpack_flux1, unpatchify_flux2

# Rows and columns of the latent differ, so that a swapped axis shows.
HEIGHT, WIDTH = 8, 12
# Measured: 4e-15 (KL) and 0 (tiny) in float64, for images of standard deviation 0.5.
TOLERANCE = 1e-12


def tiny(variant: str) -> nn.Module:
    torch.manual_seed(0)
    return tiny_decoder(CHANNELS[variant], pool=variant == "flux2").double().eval()


def sampled(variant: str) -> Tensor:
    """A sampler's latent, unpacked: (2, C, h, w). Two in a batch, to catch a mixed-up axis."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, CHANNELS[variant], HEIGHT, WIDTH, generator=generator).double()


def packed(variant: str) -> tuple[Tensor, Tensor]:
    """(what the transformer gives, the same as diffusers unpacks it)."""
    generator = torch.Generator().manual_seed(2)
    if variant == "flux1":
        tokens = torch.randn(2, HEIGHT * WIDTH // 4, 64, generator=generator).double()
        return tokens, unpack_flux1(tokens, HEIGHT * 8, WIDTH * 8)
    patches = torch.randn(2, 128, HEIGHT // 2, WIDTH // 2, generator=generator).double()
    return patches, unpatchify_flux2(patches)


def to_vae(variant: str, latent: Tensor, decoder: KLDecoder) -> Tensor:
    """As the pipelines' ``__call__`` does before ``vae.decode``."""
    if variant == "flux1":
        return latent / 0.3611 + 0.1159
    assert decoder.bn is not None
    patches = patchify_flux2(latent)
    mean = decoder.bn.running_mean.view(1, -1, 1, 1)
    deviation = torch.sqrt(decoder.bn.running_var.view(1, -1, 1, 1) + 1e-4)
    return unpatchify_flux2(patches * deviation + mean)


@pytest.mark.parametrize("variant", CHANNELS)
@pytest.mark.parametrize("form", ["sampler", "packed"])
def test_kl_fold_equals_contract_and_decoder_apart(variant: str, form: str) -> None:
    plain = kl_decoder(variant)
    given, unpacked = packed(variant) if form == "packed" else (sampled(variant),) * 2
    expected = plain(to_vae(variant, unpacked, plain))
    folded = with_latents(plain, variant, form, patches=(HEIGHT // 2, WIDTH // 2))
    got = folded(given)
    assert got.shape == expected.shape == (2, 3, HEIGHT * 8, WIDTH * 8)
    assert expected.std() > 0.1
    assert (got - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("variant", CHANNELS)
def test_tiny_decoder_takes_packed_latents(variant: str) -> None:
    plain = tiny(variant)
    given, unpacked = packed(variant)
    got = with_latents(plain, variant, "packed", patches=(HEIGHT // 2, WIDTH // 2))(given)
    assert (got - plain(unpacked)).abs().max() <= TOLERANCE


def test_tiny_flux1_takes_the_vaes_own_latents() -> None:
    plain, latent = tiny("flux1"), sampled("flux1")
    got = with_latents(plain, "flux1", "vae")(latent / 0.3611 + 0.1159)
    assert (got - plain(latent)).abs().max() <= TOLERANCE


@pytest.mark.parametrize("variant", CHANNELS)
def test_the_plain_decoder_is_left_as_it_was(variant: str) -> None:
    plain, latent = kl_decoder(variant), sampled(variant)
    before, text = plain(latent), repr(plain)
    with_latents(plain, variant, "sampler")
    assert repr(plain) == text
    assert torch.equal(plain(latent), before)


def test_the_border_needs_the_padding_that_stands_for_zero() -> None:
    """The oracle is sharp: with zeros as padding the folded form misses at the border alone."""
    plain, latent = kl_decoder("flux1"), sampled("flux1")
    expected = plain.conv_in(to_vae("flux1", latent, plain))
    folded = with_latents(plain, "flux1", "sampler").conv_in
    wrong = torch.nn.functional.conv2d(latent, folded[1].weight, folded[1].bias, padding=1)
    assert (folded(latent) - expected).abs().max() <= TOLERANCE
    assert (wrong - expected)[:, :, 1:-1, 1:-1].abs().max() <= TOLERANCE
    assert (wrong - expected).abs().max() > 1e-3
