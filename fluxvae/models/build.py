"""Modules from checked weights: strict loading, float32, evaluation mode."""

from torch import nn

from fluxvae.catalog import find_decoder
from fluxvae.errors import WeightsError
from fluxvae.models.tiny import tiny_decoder, tiny_encoder
from fluxvae.weights import Weights


def build_decoder(weights: Weights) -> nn.Sequential:
    """Latent (B, C, h, w) to image (B, 3, 8h, 8w) in about [0, 1], float32.

    Raises WeightsError when given an encoder's weights.
    """
    _expect_part(weights, "decoder")
    entry = find_decoder(weights.variant)
    return _filled(tiny_decoder(entry.contract.channels, pool=entry.pool), weights)


def build_encoder(weights: Weights) -> nn.Sequential:
    """Image (B, 3, 8h, 8w) in [0, 1] to latent (B, C, h, w), float32.

    Raises WeightsError when given a decoder's weights.
    """
    _expect_part(weights, "encoder")
    entry = find_decoder(weights.variant)
    return _filled(tiny_encoder(entry.contract.channels, pool=entry.pool), weights)


def _expect_part(weights: Weights, part: str) -> None:
    if weights.part != part:
        raise WeightsError(
            f"{weights.source.name}: these are {weights.part} weights; expected the {part}'s"
        )


def _filled(module: nn.Sequential, weights: Weights) -> nn.Sequential:
    module.load_state_dict(dict(weights.tensors), strict=True)
    return module.eval().requires_grad_(False)
