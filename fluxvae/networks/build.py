"""Modules from checked weights: strict loading, float32, evaluation mode."""

from dataclasses import replace

from torch import nn

from fluxvae.errors import WeightsError
from fluxvae.networks.catalog import KLForm, find_decoder
from fluxvae.networks.kl_keys import STATISTICS
from fluxvae.networks.shapes import empty_network
from fluxvae.networks.weights import Weights


def build_network(weights: Weights) -> nn.Module:
    """``build_decoder`` or ``build_encoder``, as the weights are."""
    return _build(weights, weights.part)


def build_decoder(weights: Weights) -> nn.Module:
    """Latent (B, C, h, w) to image (B, 3, 8h, 8w), float32, in about the contract's range.

    A KL decoder's parameters are the weights' own tensors: whoever changes one in place copies it
    before.

    Raises WeightsError when given an encoder's weights.
    """
    return _build(weights, "decoder")


def build_encoder(weights: Weights) -> nn.Module:
    """Image (B, 3, 8h, 8w) in [0, 1] to latent (B, C, h, w), float32.

    A KL encoder gives the mean, in the VAE's own space. Raises WeightsError when given a
    decoder's weights.
    """
    return _build(weights, "encoder")


def _build(weights: Weights, part: str) -> nn.Module:
    if weights.part != part:
        raise WeightsError(
            f"{weights.source.name}: these are {weights.part} weights; expected the {part}'s"
        )
    entry, tensors = find_decoder(weights.variant, weights.kind), dict(weights.tensors)
    if entry.kl is None:
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    else:
        entry = replace(entry, kl=_form(entry.kl, weights))
    module = empty_network(entry, part, statistics=any(name in tensors for name in STATISTICS))
    module.load_state_dict(tensors, strict=True, assign=True)
    return module.eval().requires_grad_(False)


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
