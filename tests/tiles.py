"""Tiled artifacts for the tests, and the same decoders whole."""

from pathlib import Path

import numpy as np
import torch

from fluxvae.artifact.open import open_artifact
from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Recipe, Size
from fluxvae.recipes.latents import FLUX1_SCALE, FLUX1_SHIFT
from tests.artifacts import save, save_parts
from tests.kl_hot import small_weights

# A square tile of 160 px with its halo takes 232 x 232; at 256 x 240 two of 200 x 240 are less
# work, and have a function of their own.
TINY = Recipe("flux2", tile=160, sizes=(Size(256, 240),))
# At 192 x 224 the best tiles of a KL decoder are four of 152 x 168.
KL = Recipe(
    "flux1",
    precision="float32",
    decoder="full",
    layout="nhwc",
    tile=104,
    sizes=(Size(192, 224),),
)


def photo_latent(weights: Weights, size: Size, photo: str = "coffee") -> np.ndarray:
    """A photo's latent, by the tiny encoder of these weights' kind."""
    (chosen,) = (p for p in EVALUATION_PHOTOS if p.name == photo)
    encoder = build_encoder(load_weights(weights.variant, "demo", part="encoder"))
    with torch.no_grad():
        return encoder(torch.from_numpy(photo_image(chosen, size.height, size.width))).numpy()


def kl_photo_latent(size: Size, photo: str = "coffee") -> np.ndarray:
    """The demo encoder's latent where a VAE's would be; noise flatters tiles by 15 dB."""
    sampler = photo_latent(load_weights("flux1", "demo"), size, photo)
    return sampler / np.float32(FLUX1_SCALE) + np.float32(FLUX1_SHIFT)


def tiled(recipe: Recipe, folder: Path) -> tuple[Weights, Path]:
    """The artifact of ``TINY`` or ``KL`` (or another recipe), converted once a run."""
    weights = load_weights(recipe.variant, "demo")
    if recipe.decoder != "tiny":
        weights = small_weights(recipe.variant)
    (path,) = save_parts(weights, recipe, folder)
    return weights, path


def whole_image(weights: Weights, latent: np.ndarray, recipe: Recipe, folder: Path) -> np.ndarray:
    """What an ordinary artifact of one program makes of a latent, by the executor."""
    height, width = latent.shape[2:]
    made = Recipe(
        recipe.variant,
        precision=recipe.precision,
        decoder=recipe.decoder,
        sizes=(Size(8 * height, 8 * width),),
    )
    path = save(weights, made, folder)
    return open_artifact(path).runner(None, "reference")(latent)


def torch_image(weights: Weights, latent: np.ndarray) -> np.ndarray:
    """What the float32 torch decoder makes of it."""
    with torch.no_grad():
        return build_decoder(weights)(torch.from_numpy(latent)).numpy()
