"""The narrowest and shortest KL decoders, and one channel of theirs that float16 cannot hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from torch import Tensor, nn

from fluxvae.networks.build import build_decoder
from fluxvae.networks.catalog import KLForm, find_decoder
from fluxvae.networks.kl import KLDecoder, KLEncoder
from fluxvae.networks.kl_keys import RESNETS
from fluxvae.networks.random import random_tensors
from fluxvae.networks.weights import Weights, load_entry, tensor_digest
from tests.kl import narrow_entry

CHANNELS = {"flux1": 16, "flux2": 32}
WIDTHS = (32, 32, 64, 64)


@contextmanager
def short_stages() -> Iterator[None]:
    """One residual block in each stage, not three: a conversion's time goes by its operations."""
    with patch.dict(RESNETS, decoder=1):
        yield


def short_decoder(variant: str, widths: tuple[int, ...]) -> KLDecoder:
    """The plan with short stages, and as many as there are widths; random weights."""
    form = KLForm(widths, widths, quant_convs=variant == "flux2")
    entry = replace(find_decoder(variant, "full"), kl=form)
    with short_stages():
        decoder = KLDecoder(CHANNELS[variant], form)
        decoder.load_state_dict(random_tensors(entry, "decoder", 0))
    return decoder.eval().requires_grad_(False)


def small_weights(variant: str = "flux1", part: str = "decoder", kind: str = "full") -> Weights:
    """Random weights of the fewest channels that the plan allows."""
    entry = narrow_entry(variant, kind)
    assert entry.kl is not None
    form = replace(entry.kl, widths=WIDTHS, encoder_widths=WIDTHS)
    return load_entry(replace(entry, kl=form), "random:0", part=part)


def kl_decoder(variant: str = "flux1") -> KLDecoder:
    """A narrow decoder in float64."""
    decoder = build_decoder(small_weights(variant))
    assert isinstance(decoder, KLDecoder)
    return decoder.double()


def heat(network: KLDecoder | KLEncoder, given: Tensor, hot: float, channel: int = 5) -> None:
    """Make one channel of the residual stream reach ``hot`` on ``given``, through every stage.

    ``conv_in`` makes it, each resampler and shortcut hands it on, and no other channel hears of it
    but through the norms.
    """
    first = network.signed if isinstance(network, KLEncoder) else network.post_quant_conv
    before = given if first is None else first(given)
    factor = hot / network.conv_in(before)[:, channel].abs().max()
    network.conv_in.weight[channel] *= factor
    network.conv_in.bias[channel] *= factor
    for name, module in network.named_modules():
        if name.endswith(("samplers.0.conv", "conv_shortcut")):
            assert isinstance(module, nn.Conv2d)
            middle = module.kernel_size[0] // 2
            module.weight[:, channel] = 0
            module.weight[channel] = 0
            module.weight[channel, channel, middle, middle] = 1


def hot_weights(variant: str, latent: Tensor, hot: float) -> Weights:
    """``small_weights`` with a hot channel, as weights that can be converted and recorded."""
    plain = small_weights(variant)
    decoder = build_decoder(plain)
    assert isinstance(decoder, KLDecoder)
    heat(decoder, latent, hot)
    tensors = {name: decoder.state_dict()[name] for name in plain.tensors}
    return replace(plain, tensors=tensors, digest=tensor_digest(tensors))
