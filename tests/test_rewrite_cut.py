"""Decoders cut into parts: the parts are the decoder, and a tile depends on its halo alone."""

import pytest
import torch
from torch import Tensor, nn

from fluxvae.convert.rewrite.latents import with_latents
from fluxvae.convert.rewrite.rescale import rescaled, streams
from fluxvae.convert.rewrite.split import (
    Frozen,
    Measuring,
    count_norms,
    front_and_up,
    halves,
)
from fluxvae.errors import ConvertError
from fluxvae.networks.build import build_decoder
from fluxvae.networks.catalog import KL_CATALOG, find_decoder
from fluxvae.networks.kl import KLDecoder
from fluxvae.networks.structure import receptive_field
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import HALO
from tests.artifacts import VARIANTS
from tests.kl import latent
from tests.kl_hot import CHANNELS, kl_decoder

# Real numbers: float64, and no other order of sums than the decoder's own but for one product.
EXACT = 1e-12


def tiny(variant: str) -> nn.Module:
    return build_decoder(load_weights(variant, "demo"))


def narrow(variant: str) -> tuple[KLDecoder, Tensor]:
    return kl_decoder(variant), latent(CHANNELS[variant], 10, 14).double()


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_halves_are_the_decoder(variant: str) -> None:
    decoder, z = narrow(variant)
    first, second = halves(decoder)
    assert torch.equal(second(first(z)), decoder(z))
    small = latent(CHANNELS[variant])
    first, second = halves(tiny(variant))
    assert torch.equal(second(first(small)), tiny(variant)(small))


@pytest.mark.parametrize(("variant", "kind"), sorted(KL_CATALOG))
def test_weights_of_a_kl_decoder_are_split_within_five_percent(variant: str, kind: str) -> None:
    entry = find_decoder(variant, kind)
    assert entry.kl is not None
    with torch.device("meta"):
        decoder = KLDecoder(entry.contract.channels, entry.kl)
        sizes = [sum(p.numel() for p in half.parameters()) for half in halves(decoder)]
        latents = torch.empty(1, entry.contract.channels, 16, 24)
        handed = halves(decoder)[0](latents)
    assert sum(sizes) == sum(p.numel() for p in decoder.parameters())
    assert max(sizes) <= 1.05 * min(sizes)
    assert handed.shape == (1, entry.kl.widths[-1], 16, 24)  # at latent resolution: the smallest


@pytest.mark.parametrize("variant", VARIANTS)
def test_packed_latents_stay_in_front_of_the_first_half(variant: str) -> None:
    decoder = with_latents(kl_decoder(variant), variant, "packed", patches=(3, 5))
    given = torch.randn(1, 15, 64) if variant == "flux1" else torch.randn(1, 128, 3, 5)
    first, second = halves(decoder)
    assert torch.equal(second(first(given.double())), decoder(given.double()))


def test_what_is_no_row_of_modules_is_refused() -> None:
    with pytest.raises(ConvertError, match=r"Conv2d cannot be cut into parts"):
        halves(nn.Conv2d(1, 1, 1))


@pytest.mark.parametrize("kind", ["tiny", "full"])
def test_halo_of_the_recipes_is_the_graphs_reach(kind: str) -> None:
    decoder = tiny("flux2") if kind == "tiny" else kl_decoder("flux1")
    assert receptive_field(front_and_up(decoder)[1]) == HALO[kind]


@pytest.mark.parametrize("kind", ["tiny", "full"])
def test_no_value_further_away_than_the_halo_reaches_a_pixel(kind: str) -> None:
    """NaN spreads to all that it can reach, and to nothing else."""
    decoder = tiny("flux1") if kind == "tiny" else kl_decoder("flux1").float()
    up = front_and_up(decoder)[1]
    side, halo = 2 * HALO[kind] + 5, HALO[kind]
    width = 64
    features = torch.zeros(1, width, side, side)
    features[:, :, 1, 2] = torch.nan
    if kind == "tiny":
        image = up(features)
    else:
        statistics = torch.ones(1, *count_norms(up), 2)
        image = Frozen(up)(features, statistics)
    touched = image.isnan().any(1)[0].reshape(side, 8, side, 8).any(3).any(1)
    rows, columns = touched.any(1).nonzero().max(), touched.any(0).nonzero().max()
    assert int(rows) == 1 + halo
    assert int(columns) == 2 + halo


@pytest.mark.parametrize("variant", VARIANTS)
def test_norms_frozen_at_the_wholes_statistics_change_nothing(variant: str) -> None:
    decoder, z = narrow(variant)
    front, up = front_and_up(decoder)
    features = front(z)
    statistics = Measuring(up)(features)
    assert statistics.shape == (1, *count_norms(up), 2)
    difference = Frozen(up)(features, statistics) - decoder(z)
    assert difference.abs().max() <= EXACT


def test_rescaled_norms_are_frozen_with_their_own_epsilons() -> None:
    decoder, z = narrow("flux1")
    groups = decoder.conv_norm_out.num_groups
    exponents = {s.name: tuple(i % 4 for i in range(groups)) for s in streams(decoder)}
    other = rescaled(decoder, exponents)
    front, up = front_and_up(other)
    assert count_norms(up) == count_norms(front_and_up(decoder)[1])
    features = front(z)
    image = Frozen(up)(features, Measuring(up)(features))
    assert (image - decoder(z)).abs().max() <= EXACT


def test_statistics_are_those_of_torchs_own_norm() -> None:
    norm = nn.GroupNorm(4, 8, eps=1e-6).double()
    x = torch.randn(1, 8, 5, 7).double()
    (found,) = Measuring(nn.Sequential(norm))(x)[0]
    parts = x.reshape(4, -1)
    assert torch.allclose(found[:, 0], parts.mean(1), rtol=0, atol=1e-15)
    deviation = (parts.var(1, correction=0) + 1e-6).sqrt()
    assert torch.allclose(found[:, 1], deviation, rtol=0, atol=1e-15)
