"""From one latent space to another, step by step as FLUX's own pipelines do it, in float64.

This is what artifacts are held to; the folds of ``fluxvae.rewrite.latents`` share none of it.
Formulas: https://github.com/black-forest-labs/flux, https://github.com/black-forest-labs/flux2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fluxvae.errors import WeightsError
from fluxvae.models.kl import NO_STATISTICS, STATISTICS_EPS
from fluxvae.recipes import Recipe
from fluxvae.recipes.latents import FLUX1_SCALE, FLUX1_SHIFT, PATCH, native_form
from fluxvae.weights import Weights

_MEAN, _VARIANCE = "bn.running_mean", "bn.running_var"


def pack(latent: np.ndarray) -> np.ndarray:
    """(B, C, h, w) to (B, 4 C, h / 2, w / 2), channels in the order (channel, row, column)."""
    batch, channels, height, width = latent.shape
    parts = latent.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    turned = parts.transpose(0, 1, 3, 5, 2, 4)
    return turned.reshape(batch, channels * PATCH**2, height // PATCH, width // PATCH)


def unpack(patches: np.ndarray) -> np.ndarray:
    """The inverse of ``pack``."""
    batch, channels, height, width = patches.shape
    parts = patches.reshape(batch, channels // PATCH**2, PATCH, PATCH, height, width)
    turned = parts.transpose(0, 1, 4, 2, 5, 3)
    return turned.reshape(batch, channels // PATCH**2, height * PATCH, width * PATCH)


@dataclass(frozen=True)
class Passage:
    """Between what an artifact takes and what its decoder takes, both (1, C, h, w) maps.

    FLUX.1's tokens are here the map (1, 64, H/16, W/16) that they are the places of.
    """

    variant: str
    form: str  # the artifact's
    native: str  # the decoder's
    tensors: Mapping[str, Tensor]  # the decoder's weights: they hold FLUX.2's statistics

    @property
    def known(self) -> bool:
        """Whether the weights have what it takes to leave the VAE's own space."""
        return self.variant != "flux2" or self.native != "vae" or _MEAN in self.tensors

    def inwards(self, latent: np.ndarray, dtype: str = "float32") -> np.ndarray:
        """What the decoder takes, in ``dtype``, of what the artifact takes."""
        if self.form == self.native:
            return latent.astype(dtype, copy=False)
        values = latent.astype(np.float64)
        if self.form == "packed":
            values = unpack(values)
        if self.native == "vae":
            values = self._to_vae(values)
        elif self.form == "vae":
            values = self._to_sampler(values)
        return np.ascontiguousarray(values, dtype)

    def outwards(self, latent: np.ndarray, dtype: str = "float32") -> np.ndarray:
        """What the artifact takes, in ``dtype``, of what the decoder takes."""
        if self.form == self.native:
            return latent.astype(dtype, copy=False)
        values = latent.astype(np.float64)
        if self.native == "vae":
            values = self._to_sampler(values)
        elif self.form == "vae":
            values = self._to_vae(values)
        if self.form == "packed":
            values = pack(values)
        return np.ascontiguousarray(values, dtype)

    def _to_vae(self, sampled: np.ndarray) -> np.ndarray:
        if self.variant == "flux1":
            return sampled / FLUX1_SCALE + FLUX1_SHIFT
        mean, deviation = self._statistics()
        return unpack(pack(sampled) * deviation + mean)

    def _to_sampler(self, encoded: np.ndarray) -> np.ndarray:
        if self.variant == "flux1":
            return (encoded - FLUX1_SHIFT) * FLUX1_SCALE
        mean, deviation = self._statistics()
        return unpack((pack(encoded) - mean) / deviation)

    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        if _MEAN not in self.tensors:
            raise WeightsError(NO_STATISTICS)
        mean, variance = (
            self.tensors[name].double().numpy()[None, :, None, None] for name in (_MEAN, _VARIANCE)
        )
        return mean, np.sqrt(variance + STATISTICS_EPS)


def passage(recipe: Recipe, weights: Weights) -> Passage:
    """The way of an artifact made by ``recipe`` from the decoder's ``weights``."""
    native = native_form(recipe.decoder)
    return Passage(recipe.variant, recipe.latent_form, native, weights.tensors)
