"""Compensated weights against plain ones of the same size, and what their forms must hold."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fluxvae.compress.forms import Palettized, Scheme, dense
from fluxvae.compress.gptq import compensated
from fluxvae.compress.layerwise import Problem
from fluxvae.compress.nearest import plain_form
from fluxvae.compress.plain import compress_weights
from fluxvae.data.calibration import Calibration
from fluxvae.errors import CompressionError
from fluxvae.networks.structure import Site, conv_sites
from fluxvae.recipes.compression import Compression
from fluxvae.validation.metrics import compare
from tests.compress.packages import LATENT, small_decoder
from tests.compress.simple import added_error, stored_bytes

# What plain rounding must lose against at least, on inputs as correlated as a photo's.
SCHEMES = [
    Scheme("palette", 1, "tensor"),
    Scheme("palette", 2, "channel-scale"),
    Scheme("palette", 3, "grouped:4"),
    Scheme("palette", 4, "tensor"),
    Scheme("palette", 4, "channel-scale"),
    Scheme("palette", 6, "channel-scale"),
    Scheme("palette", 8, "tensor"),
    Scheme("int8", 8, "tensor"),
    Scheme("int8", 8, "channel"),
    Scheme("int4", 4, "channel"),
    Scheme("int4", 4, "block:4"),
]


def problem(*, dead: bool = False) -> Problem:
    """A 3x3 convolution of 8 channels to 12 whose inputs go together."""
    generator = torch.Generator().manual_seed(4)
    mixing = torch.randn(72, 72, generator=generator, dtype=torch.float64) * 0.3 + 1
    inputs = torch.randn(800, 72, generator=generator, dtype=torch.float64) @ mixing
    if dead:
        inputs[:, :9] = 0
    mean = inputs.mean(0)
    gram = (inputs - mean).T @ (inputs - mean) / len(inputs)
    weight = torch.randn(12, 8, 3, 3, generator=generator)
    weight *= torch.linspace(0.2, 2, 12)[:, None, None, None]
    site = Site("1", "in", 1, 12 * 72, (12, 8, 3, 3))
    target = weight.flatten(1).double() @ mean + 1
    return Problem(site, weight, weight, True, gram, mean, target)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_less_output_error_than_plain_rounding_in_as_many_bytes(
    scheme: Scheme, precision: str
) -> None:
    asked = problem()
    found = compensated(asked, scheme, precision)
    assert found.form is not None
    plain = plain_form(asked.weight.numpy(), scheme)
    assert stored_bytes(found.form, precision) == stored_bytes(plain, precision)
    assert scheme.describes(found.form)
    assert np.array_equal(found.weight.numpy(), dense(found.form, precision))
    rounded = torch.from_numpy(dense(plain, precision))
    assert added_error(asked, found.weight) < 0.6 * added_error(asked, rounded)


def test_tables_rise_so_that_indices_are_in_order() -> None:
    found = compensated(problem(), Scheme("palette", 4, "grouped:4"), "float16")
    assert isinstance(found.form, Palettized)
    assert (np.diff(found.form.lut) >= 0).all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_channels_of_zeros_and_inputs_that_are_always_zero(scheme: Scheme) -> None:
    asked = problem(dead=True)
    asked.weight[3] = 0
    found = compensated(asked, scheme, "float16")
    assert torch.isfinite(found.weight).all()
    bias = asked.bias_for(found.weight)
    assert bias is not None
    assert torch.isfinite(bias).all()


def calibration(count: int = 3, side: int = 6) -> Calibration:
    generator = np.random.Generator(np.random.PCG64(2))
    latents = generator.standard_normal((count, 1, LATENT, side, side), np.float32)
    return Calibration("noise", "0" * 64, tuple(latents))


KINDS = [
    (Compression("palette", bits=4), "channel-scale"),
    (Compression("palette", bits=4), "grouped:8"),
    (Compression("int8"), "channel"),
    (Compression("int4"), "block:8"),
]


def rounded_plainly(decoder: nn.Sequential, scheme: Scheme) -> nn.Sequential:
    """Every convolution as coremltools rounds it, also those of few weights."""
    made = copy.deepcopy(decoder)
    for site in conv_sites(made):
        weight = made.get_submodule(site.name).weight
        weight.copy_(torch.from_numpy(dense(plain_form(weight.numpy(), scheme), "float16")))
    return made


@pytest.mark.parametrize(("compression", "granularity"), KINDS)
def test_the_picture_is_better_than_with_plain_weights(
    compression: Compression, granularity: str
) -> None:
    decoder = small_decoder()
    generator = np.random.Generator(np.random.PCG64(77))
    unseen = torch.from_numpy(generator.standard_normal((1, LATENT, 7, 5), np.float32))
    wanted = decoder(unseen).numpy()
    ours = compress_weights(decoder, compression, granularity, "float16", calibration())
    bits = compression.bits or {"int8": 8, "int4": 4}[compression.kind]
    plain = rounded_plainly(decoder, Scheme(compression.kind, bits, granularity))
    quality = [compare(d(unseen).numpy(), wanted).psnr_db for d in (ours.decoder, plain)]
    assert quality[0] > quality[1] + 1
    assert list(ours.weights) == [site.name for site in conv_sites(decoder)]
    for name, form in ours.weights.items():
        held = ours.decoder.get_submodule(name).weight
        assert np.array_equal(held.numpy(), dense(form, "float16"))
    assert ours.notes["calibration"] == {"name": "noise", "digest": "0" * 64}


def test_the_same_call_gives_the_same_forms() -> None:
    runs = [
        compress_weights(small_decoder(), *KINDS[0], "float16", calibration()) for _ in range(2)
    ]
    for name, form in runs[0].weights.items():
        other = runs[1].weights[name]
        assert isinstance(form, Palettized)
        assert isinstance(other, Palettized)
        assert np.array_equal(form.indices, other.indices)
        assert np.array_equal(form.lut, other.lut)


def test_weights_too_few_for_coremltools_stay_float_in_the_plain_recipe() -> None:
    """coremltools' default threshold is 2048 elements; 16 x 16 x 3 x 3 has 2304."""
    made = compress_weights(
        small_decoder(), Compression("int8", method="plain"), "channel", "float16", None
    )
    few = {site.name for site in conv_sites(made.decoder) if np.prod(site.shape) < 2048}
    assert few
    assert set(made.weights).isdisjoint(few)
    for name in few:
        kept, original = (d.get_submodule(name).weight for d in (made.decoder, small_decoder()))
        assert torch.equal(kept, original)


def test_what_is_missing_or_another_kind_is_refused() -> None:
    with pytest.raises(CompressionError, match="calibration latents"):
        compress_weights(small_decoder(), *KINDS[0], "float16", None)
    mixed = Compression("mixed", budget="1MB")
    with pytest.raises(CompressionError, match="palettes, int8 or int4"):
        compress_weights(small_decoder(), mixed, "tensor", "float16", calibration())
