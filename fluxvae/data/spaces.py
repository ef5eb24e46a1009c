"""From one latent space to another, step by step as FLUX's own pipelines do it, in float64.

This is what artifacts are compared with; the folds of ``fluxvae.convert.rewrite.latents`` share
none of it. Beside it, which space and order of numbers a latent looks like that does not say so.
Formulas: https://github.com/black-forest-labs/flux, https://github.com/black-forest-labs/flux2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fluxvae.errors import WeightsError
from fluxvae.networks.kl_keys import NO_STATISTICS, STATISTICS_EPS
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe
from fluxvae.recipes.axes import FIRST, LatentInput
from fluxvae.recipes.fields import native_form
from fluxvae.recipes.latents import FLUX1_SCALE, FLUX1_SHIFT, PATCH

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
class LatentTransform:
    """Between an artifact's latent and that of its network, both (1, C, h, w) maps.

    FLUX.1's tokens are here the map (1, 64, H/16, W/16) whose pixels they are. ``part``: a decoder
    takes the latent, an encoder gives it; images are the same on both sides.
    """

    variant: str
    form: str  # the artifact's
    native: str  # the decoder's
    tensors: Mapping[str, Tensor]  # the network's weights: they hold FLUX.2's statistics
    part: str = "decoder"

    @property
    def known(self) -> bool:
        """Whether the weights have what it takes to leave the VAE's own space."""
        return self.variant != "flux2" or self.native != "vae" or _MEAN in self.tensors

    def into_network(self, given: np.ndarray, dtype: str = "float32") -> np.ndarray:
        """What the network takes, of what the artifact takes."""
        if self.part == "encoder":
            return given.astype(dtype, copy=False)
        return self.to_decoder(given, dtype)

    def into_artifact(self, given: np.ndarray, dtype: str = "float32") -> np.ndarray:
        """The inverse of ``into_network``."""
        if self.part == "encoder":
            return given.astype(dtype, copy=False)
        return self.from_decoder(given, dtype)

    def out_of_network(self, given: np.ndarray, dtype: str = "float32") -> np.ndarray:
        """What the artifact gives, of what the network gives."""
        if self.part == "encoder":
            return self.from_decoder(given, dtype)
        return given.astype(dtype, copy=False)

    def to_decoder(self, latent: np.ndarray, dtype: str = "float32") -> np.ndarray:
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

    def from_decoder(self, latent: np.ndarray, dtype: str = "float32") -> np.ndarray:
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


def latent_transform(recipe: Recipe, weights: Weights) -> LatentTransform:
    """The transform of an artifact made by ``recipe`` from its network's ``weights``."""
    native = native_form(recipe.decoder)
    form, tensors = recipe.latent_form, weights.tensors
    return LatentTransform(recipe.variant, form, native, tensors, weights.part)


# Measured by scripts/measure_latents.py with the real encoders of TAEF1 and TAEF2 on the photos and
# graphics of scikit-image and scikit-learn, in crops and reductions of 64 to 512 px, and on made
# pictures (flat, noisy, periodic). None is noted in its own space and order.
#
# FLUX.1, geometric mean of the channels' RMS: 0.37 to 1.66 as the sampler leaves it (photos 0.42 to
# 1.19), and 1 / 0.3611 times that, 1.02 to 4.6, in the VAE's own space.
FLUX1_SAMPLER_MOST = 1.7
FLUX1_VAE_LEAST = 1.0
# FLUX.2, standard deviation: 0.45 to 0.99 as the sampler leaves it. The inverse batch norm widens
# it about 1.8 times, to 0.81 to 1.8; its real statistics could not be had here.
FLUX2_SAMPLER_MOST = 1.05
FLUX2_VAE_LEAST = 0.78
PICTURES_MOST = 20.0  # standard deviation; they reach 4.6 in the VAE's own space
# Neighbours that correlate less than this are noise, which belongs to no space (pictures: 0.09 on).
NOISE = 0.07
# How much nearer (in units of variance) neighbours must be in another order of the same numbers:
# photos in their own order stay below 1.25; of those read in a wrong one 36 to 100 % are above.
NEARER = 1.3
# Periodic pictures, such as chessboards, have near values of opposite sign, and flat ones hardly
# differ; for both a map of patches is as smooth as the map itself.
OPPOSITE = -0.25
FLAT = 0.7


def unlike(latent: np.ndarray, wanted: LatentInput, order: str) -> str | None:
    """What a latent (1, C, h, w) looks like, if not like those that ``wanted`` asks for.

    ``order``: the order of axes it was stored in. The rest of a sentence about it, with what was
    measured and the option of ``fluxvae convert`` that takes it; None for what looks right, for
    noise, and for decoders with a latent space of their own (demo and random weights, and networks
    whose latents were not measured).
    """
    latent = latent.astype(np.float64)  # the square of 1e30 is beyond float32
    measured = wanted.variant in ("flux1", "flux2")
    if not (measured and wanted.contract.space.startswith(f"{wanted.variant}-") and latent.std()):
        return None
    packed = wanted.form == "packed"
    unpacked = unpack(latent) if packed else latent
    stored = (packed, order != FIRST)
    return _other_order(unpacked, stored, wanted) or _other_space(unpacked, wanted)


def _other_space(latent: np.ndarray, wanted: LatentInput) -> str | None:
    if nearness(latent) < NOISE:
        return None
    deviation = float(latent.std())
    level = float(np.exp(np.log(np.sqrt((latent**2).mean((0, 2, 3))) + 1e-12).mean()))
    first = wanted.variant == "flux1"
    measured = level if first else deviation
    most, least = (
        (FLUX1_SAMPLER_MOST, FLUX1_VAE_LEAST) if first else (FLUX2_SAMPLER_MOST, FLUX2_VAE_LEAST)
    )
    figures = f"(standard deviation {deviation:.3g}"
    figures += f", mean magnitude of a channel {level:.3g}" if first else ""
    if wanted.form == "vae" and measured < least:
        return (
            f"{figures}; pictures in the VAE's own space have {least:g} or more) look like the "
            "sampler's latents: convert with --latents sampler to decode them"
        )
    if deviation > PICTURES_MOST:
        return f"{figures}) are far beyond the latents of any picture: check what wrote them"
    if wanted.form != "vae" and measured > most:
        return (
            f"{figures}; pictures in the sampler's space have {most:g} or less) look like latents "
            "in the VAE's own space" + _take_vae(wanted)
        )
    return None


def _take_vae(wanted: LatentInput) -> str:
    if wanted.variant == "flux1":
        return ": convert with --latents vae to decode them"
    return (
        ", after the inverse batch norm: leave that step out (diffusers does it before it gives a "
        "latent back), or convert with --decoder full --latents vae to decode them"
    )


def _other_order(latent: np.ndarray, stored: tuple[bool, bool], wanted: LatentInput) -> str | None:
    """Whether neighbours come much nearer if the same numbers are in another order.

    ``stored`` and the others: (in 2 x 2 patches, channels last). Tokens are patches, channels last.
    """
    own = nearness(latent)
    orders = [(packed, last) for packed in (False, True) for last in (False, True)]
    if any(side % PATCH for side in latent.shape[2:]):
        orders = [order for order in orders if not order[0]]
    numbers = store(latent, *stored)
    others = [order for order in orders if order != stored]
    near = {order: nearness(load(numbers, latent.shape, *order)) for order in others}
    best = max(near, key=lambda order: near[order])
    if 1 - own < NEARER * (1 - near[best]):
        return None
    if (True, False) in (stored, best) and (own > FLAT or _opposite(latent)):
        return None
    words, options = {
        (False, False): ("channels first", "--layout nchw"),
        (False, True): ("channels last", "--layout nhwc"),
        (True, False): ("a map of 2 x 2 patches", "--latents packed"),
        (True, True): ("tokens (2 x 2 patches, channels last)", "--latents packed"),
    }[best]
    if stored[0] != best[0] and not best[0]:
        options = f"--latents sampler {options}"
    if best == (True, True) and wanted.variant == "flux2":
        options += " --layout nhwc"
    return (
        f"(correlation of neighbours {own:.2f}; {near[best]:.2f} if the same numbers are "
        f"{words}) look like {'packed ' if best[0] else ''}latents stored as {words}: convert "
        f"with {options} to decode them, or save them in this model's own order"
    )


def store(latent: np.ndarray, packed: bool, last: bool) -> np.ndarray:
    """The numbers of a map in the order of a file."""
    parts = pack(latent) if packed else latent
    return (parts.transpose(0, 2, 3, 1) if last else parts).ravel()


def load(numbers: np.ndarray, shape: tuple[int, ...], packed: bool, last: bool) -> np.ndarray:
    """The inverse of ``store``."""
    batch, channels, height, width = shape
    if packed:
        channels, height, width = channels * PATCH**2, height // PATCH, width // PATCH
    if last:
        parts = numbers.reshape(batch, height, width, channels).transpose(0, 3, 1, 2)
    else:
        parts = numbers.reshape(batch, channels, height, width)
    return unpack(parts) if packed else parts


def nearness(latent: np.ndarray) -> float:
    """Correlation of neighbours along rows and along columns, the smaller of the two by magnitude.

    1 - E[(a - b)^2] / (2 var), with the variance over all channels: their different means count,
    which makes a flat picture's channels differ and its neighbours agree.
    """
    values = latent.astype(np.float64)
    twice = 2 * float(values.var()) or 1.0
    near = (1 - float((np.diff(values, axis=axis) ** 2).mean()) / twice for axis in (2, 3))
    return min(abs(value) for value in near)


def _opposite(latent: np.ndarray) -> bool:
    """Whether values 1, 2 or 4 positions apart have opposite signs about their channel's mean."""
    values = latent.astype(np.float64)
    values -= values.mean((2, 3), keepdims=True)
    variance = float((values**2).mean()) or 1.0
    return any(
        float((values[:, :, step:] * values[:, :, :-step]).mean()) < OPPOSITE * variance
        or float((values[..., step:] * values[..., :-step]).mean()) < OPPOSITE * variance
        for step in (1, 2, 4)
    )
