"""The names and shapes of a network's parameters, read from the network itself, without values."""

from dataclasses import replace
from functools import cache

import torch
from torch import nn

from fluxvae.networks.catalog import Decoder, KLForm, find_decoder
from fluxvae.networks.kl import KLDecoder, KLEncoder
from fluxvae.networks.kl_keys import RESNETS, Shape
from fluxvae.networks.tiny import tiny_decoder, tiny_encoder


def empty_network(entry: Decoder, part: str, *, statistics: bool = True) -> nn.Module:
    """A catalogue entry's ``decoder`` or ``encoder`` on torch's meta device: it has no values.

    ``statistics``: with FLUX.2's batch-norm statistics, where the entry has them.
    """
    channels, decodes = entry.contract.channels, part == "decoder"
    with torch.device("meta"):
        if entry.kl is None:
            return (tiny_decoder if decodes else tiny_encoder)(channels, pool=entry.pool)
        if decodes:
            return KLDecoder(channels, entry.kl, statistics=statistics)
        return KLEncoder(channels, entry.kl, statistics=statistics)


def entry_shapes(entry: Decoder, part: str) -> dict[str, Shape]:
    """Every parameter name and shape of one part of a catalogue entry."""
    return _shapes(entry, part, RESNETS[part])


@cache
def _shapes(entry: Decoder, part: str, _resnets: int) -> dict[str, Shape]:
    state = empty_network(entry, part).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def known_names(part: str, *, kl: bool) -> set[str]:
    """Every name that some tiny network, or some KL network of this form, can have."""
    if not kl:
        return set(entry_shapes(replace(find_decoder("flux2"), pool=True), part))
    widths = (1, 2, 3, 4)
    form = KLForm(widths, widths, quant_convs=True, groups=1)
    names = set(entry_shapes(replace(find_decoder("flux2", "full"), kl=form), part))
    widening = {name.replace(".conv1.", ".conv_shortcut.") for name in names}
    return names | {name for name in widening if ".conv_shortcut." in name}
