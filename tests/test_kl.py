"""The KL modules against diffusers' own, with the same weights; their attention's forms."""

import math

import pytest
import torch
from torch import Tensor, nn

from fluxvae.convert.rewrite.attention import with_attention
from fluxvae.networks.attention import Attention
from fluxvae.networks.build import build_decoder, build_encoder
from tests.kl import KINDS, autoencoder, latent, narrow_entry, narrow_weights

# The project's bar; measured: 0, bit for bit.
MAX_ABS = 1e-5
# Measured: 1.2e-13 at values of standard deviation 3.
FORMS_MAX_ABS = 1e-12
FORMS = (
    "plain", "plain:100", "channels-first", "chunked:100", "chunked:1024",
    "split-einsum", "split-einsum:100", "sdpa",
)  # fmt: skip


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize(("variant", "kind"), KINDS)
def test_modules_equal_diffusers(variant: str, kind: str) -> None:
    entry = narrow_entry(variant, kind)
    decoder = narrow_weights(variant, kind, seed=1)
    encoder = narrow_weights(variant, kind, seed=1, part="encoder")
    z = latent(entry.contract.channels)
    photo = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    # diffusers' AutoencoderKL (FLUX.1) has one list of widths for both halves.
    parts = [decoder, encoder] if variant == "flux2" else [decoder]
    theirs = autoencoder(entry, *parts)
    image = build_decoder(decoder)(z)
    assert image.shape == (1, 3, 64, 96)
    assert image.std() > 0.2
    assert difference(image, theirs.decode(z).sample) <= MAX_ABS
    if variant == "flux2":
        mean = theirs.encode(photo * 2 - 1).latent_dist.mean
        assert difference(build_encoder(encoder)(photo), mean) <= MAX_ABS
        assert mean.std() > 0.5


def attention() -> nn.Sequential:
    """One attention in float64 whose logits have a standard deviation above 1."""
    generator = torch.Generator().manual_seed(0)
    made = Attention(64, 32).double().requires_grad_(False)
    for name, value in made.named_parameters():
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        affine = 1 if name == "group_norm.weight" else 0
        value.copy_(affine + 0.2 * noise if value.dim() == 1 else 1.5 * noise / math.sqrt(64))
    return nn.Sequential(made)


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_attention_are_equal_in_float64(form: str) -> None:
    plain = attention()
    x = torch.randn(2, 64, 20, 28, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert (plain(x) - x).std() > 1  # the branch does something
    assert difference(with_attention(plain, form)(x), plain(x)) <= FORMS_MAX_ABS


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_attention_leave_the_plain_decoder_alone(form: str) -> None:
    decoder = build_decoder(narrow_weights("flux1")).double()
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    z = latent(16).double()
    assert difference(with_attention(decoder, form)(z), decoder(z)) <= FORMS_MAX_ABS
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())
