"""Modules from checked weights: strict loading, float32, evaluation mode."""

from dataclasses import replace

import torch
from torch import nn

from fluxvae.errors import WeightsError
from fluxvae.networks.catalog import KLForm, find_decoder
from fluxvae.networks.kl import KLDecoder, KLEncoder
from fluxvae.networks.kl_keys import STATISTICS
from fluxvae.networks.source import Weights
from fluxvae.networks.tiny import tiny_decoder, tiny_encoder


def build_decoder(weights: Weights) -> nn.Module:
    """Latent (B, C, h, w) to image (B, 3, 8h, 8w), float32, in about the contract's range.

    A KL decoder's parameters are the weights' own tensors: whoever changes one in place copies it
    before.

    Raises WeightsError when given an encoder's weights.
    """
    _expect_part(weights, "decoder")
    entry = find_decoder(weights.variant, weights.kind)
    channels = entry.contract.channels
    if entry.kl is not None:
        with torch.device("meta"):
            statistics = any(name in weights.tensors for name in STATISTICS)
            module = KLDecoder(channels, _form(entry.kl, weights), statistics=statistics)
        return _filled(module, weights, assign=True)
    return _filled(tiny_decoder(channels, pool=entry.pool), weights)


def build_encoder(weights: Weights) -> nn.Module:
    """Image (B, 3, 8h, 8w) in [0, 1] to latent (B, C, h, w), float32.

    A KL encoder gives the mean, in the VAE's own space. Raises WeightsError when given a
    decoder's weights.
    """
    _expect_part(weights, "encoder")
    entry = find_decoder(weights.variant, weights.kind)
    channels = entry.contract.channels
    if entry.kl is not None:
        with torch.device("meta"):
            module = KLEncoder(channels, _form(entry.kl, weights))
        return _filled(module, weights, assign=True)
    return _filled(tiny_encoder(channels, pool=entry.pool), weights)


def _form(form: KLForm, weights: Weights) -> KLForm:
    """The form with the weights' own widths: a narrow decoder of the same plan can be built too."""
    stages = "up_blocks" if weights.part == "decoder" else "down_blocks"
    widths = tuple(
        weights.tensors[f"{stages}.{i}.resnets.0.conv1.weight"].shape[0]
        for i in range(len(form.widths))
    )
    if weights.part == "decoder":
        return replace(form, widths=widths[::-1])
    return replace(form, encoder_widths=widths)


def _expect_part(weights: Weights, part: str) -> None:
    if weights.part != part:
        raise WeightsError(
            f"{weights.source.name}: these are {weights.part} weights; expected the {part}'s"
        )


def _filled(module: nn.Module, weights: Weights, *, assign: bool = False) -> nn.Module:
    """``assign``: the weights' own tensors, not copies (200 MB for a KL decoder)."""
    module.load_state_dict(dict(weights.tensors), strict=True, assign=assign)
    return module.eval().requires_grad_(False)
