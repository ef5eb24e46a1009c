"""What a network says of itself is what it does: its steps, run in order, are its ``forward``."""

import pytest
import torch
from torch import Tensor, nn

from fluxvae.convert.rewrite.split import halves
from fluxvae.errors import CompressionError
from fluxvae.networks.build import build_decoder
from fluxvae.networks.catalog import KLForm
from fluxvae.networks.kl import KLDecoder
from fluxvae.networks.structure import (
    Residual,
    Step,
    Stream,
    conv_sites,
    stages,
    steps,
    streams,
    upsamplers,
)
from fluxvae.networks.weights import load_weights
from tests.artifacts import VARIANTS
from tests.kl_hot import CHANNELS, kl_decoder

NETWORKS = [(variant, kind) for variant in VARIANTS for kind in ("tiny", "full")]


def network(variant: str, kind: str) -> nn.Module:
    if kind == "tiny":
        return build_decoder(load_weights(variant, "demo"))
    return kl_decoder(variant).float()


def latent(variant: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, CHANNELS[variant], 6, 8, generator=generator)


def run(row: tuple[Step, ...], x: Tensor) -> Tensor:
    for step in row:
        if isinstance(step, Residual):
            x = run(step.branch, x) + run(step.shortcut, x)
        else:
            x = step.run(x)
    return x


@pytest.mark.parametrize(("variant", "kind"), NETWORKS)
def test_the_steps_and_the_stages_are_the_network(variant: str, kind: str) -> None:
    decoder, z = network(variant, kind), latent(variant)
    image = decoder(z)
    assert torch.equal(run(steps(decoder), z), image)
    assert torch.equal(nn.Sequential(*stages(decoder))(z), image)
    assert len(upsamplers(stages(decoder))) == 3


@pytest.mark.parametrize(("variant", "kind"), NETWORKS)
def test_every_layer_is_a_site_with_its_share_of_the_arithmetic(variant: str, kind: str) -> None:
    """The oracle: how often each layer multiplies, seen from outside."""
    decoder, z = network(variant, kind), latent(variant)
    seen: dict[str, int] = {}

    def count(name: str) -> object:
        def hook(layer: nn.Module, _: object, output: Tensor) -> None:
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            outputs = output.numel() // output.shape[1 if isinstance(layer, nn.Conv2d) else 2]
            seen[name] = layer.weight.numel() * outputs // (6 * 8)

        return hook

    for name, layer in decoder.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count(name))  # type: ignore[arg-type]
    decoder(z)
    sites = conv_sites(decoder)
    assert {site.name: site.macs for site in sites} == seen
    assert (sites[0].role, sites[-1].role) == ("in", "out")
    if kind == "tiny":  # (a KL block runs its shortcut after its branch or before: both are right)
        assert [site.name for site in sites] == list(seen)


def scale_(network: nn.Module, stream: Stream, factors: Tensor) -> None:
    for name in stream.writers:
        layer = network.get_submodule(name)
        layer.weight /= factors.reshape(-1, *[1] * (layer.weight.dim() - 1))
        if layer.bias is not None:
            layer.bias /= factors
    for name in stream.readers:
        layer = network.get_submodule(name)
        layer.weight *= factors.reshape(1, -1, *[1] * (layer.weight.dim() - 2))


@pytest.mark.parametrize(("variant", "kind"), NETWORKS)
def test_scaling_a_stream_changes_nothing(variant: str, kind: str) -> None:
    """Those that no norm reads; the others have their tests in test_rewrite_rescale.py."""
    found = [s for s in streams(network(variant, kind)) if s.readers and not s.norms]
    assert found
    z = latent(variant).double()
    expected = network(variant, kind).double()(z)
    decoder = network(variant, kind).double()
    for stream in found:
        width = decoder.get_submodule(stream.writers[0]).weight.shape[0]
        scale_(decoder, stream, torch.linspace(0.5, 2, width).double())
    assert (decoder(z) - expected).abs().max() <= 1e-10  # measured: 1e-12


def test_a_kl_decoder_is_cut_before_an_upsampler_whatever_its_widths() -> None:
    for widths in ((128, 256, 512, 512), (96, 192, 384, 384), (32, 64, 64, 64)):
        with torch.device("meta"):
            decoder = KLDecoder(16, KLForm(widths, widths, quant_convs=False))
        assert len(halves(decoder)[0]) in upsamplers(stages(decoder))


def test_a_module_that_does_not_describe_itself_is_refused_by_name() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)

    with pytest.raises(CompressionError, match="layer 1: no rule for a Twice"):
        steps(nn.Sequential(nn.ReLU(), Twice()))
