"""Artifacts for the tests: weights, latents, torch's images, and the saved models' own."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fluxvae.artifact.backends import make_runner
from fluxvae.artifact.save import save_artifact
from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Recipe, Size, artifact_name, parse_sizes
from fluxvae.validation.metrics import Metrics, compare
from tests.conversion_cache import install, write_model

VARIANTS = ("flux1", "flux2")
# Sizes of tests whose point is another one: not square, and the fewest different conversions.
SMALL = "64x96"
TWO = "64x96,128"


def recipe(variant: str, sizes: str = "64", **fields: object) -> Recipe:
    """A recipe for sizes as the command line takes them."""
    return Recipe(variant, sizes=parse_sizes(sizes), **fields)  # type: ignore[arg-type]


def normal_latent(channels: int, size: Size, seed: int = 0) -> np.ndarray:
    """Standard normal numbers, NCHW float32."""
    shape = (1, channels, size.height // 8, size.width // 8)
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, np.float32)


def convert(weights: Weights, made: Recipe, folder: Path) -> Path:
    """A bare model of a recipe (no metadata) in ``folder``, by way of the conversion cache."""
    path = folder / artifact_name(made, weights.source.kind)
    write_model(build_decoder(weights), made, weights.contract.channels, path)
    return path


def save(weights: Weights, made: Recipe, folder: Path) -> Path:
    """The whole artifact of a recipe, as ``fluxvae convert`` leaves it."""
    (path,) = save_parts(weights, made, folder)
    return path


def save_parts(weights: Weights, made: Recipe, folder: Path) -> tuple[Path, ...]:
    """``save`` for recipes of several programs: every package."""
    install()
    return save_artifact(weights, made, folder / artifact_name(made, weights.source.kind))


@dataclass
class Reference:
    """Latents of one decoder and what torch makes of them in float32; each computed once."""

    weights: Weights
    encoder: nn.Module
    decoder: nn.Module
    _images: dict[tuple[str, Size], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @classmethod
    def load(cls, variant: str, source: str) -> "Reference":
        weights = load_weights(variant, source)
        encoder = build_encoder(load_weights(variant, source, part="encoder"))
        return cls(weights, encoder, build_decoder(weights))

    def pair(self, case: str, size: Size) -> tuple[np.ndarray, np.ndarray]:
        """Latent and image of a case: ``normal``, or the name of an evaluation photo."""
        if (case, size) not in self._images:
            with torch.no_grad():
                latent = torch.from_numpy(self._latent(case, size))
                self._images[case, size] = (latent.numpy(), self.decoder(latent).numpy())
        return self._images[case, size]

    def _latent(self, case: str, size: Size) -> np.ndarray:
        if case == "normal":
            return normal_latent(self.weights.contract.channels, size)
        (photo,) = (p for p in EVALUATION_PHOTOS if p.name == case)
        image = torch.from_numpy(photo_image(photo, size.height, size.width))
        return self.encoder(image).numpy()

    def measure(self, path: Path, made: Recipe, case: str, size: Size) -> Metrics:
        """A saved model of these weights, run by our executor, against torch's float32 image."""
        function = size.function if made.shapes == "multifunction" else None
        runner = make_runner(read_package(path), function, made.layout, "reference")
        latent, image = self.pair(case, size)
        return compare(runner(latent), image)
