"""Between maps (1, C, h, w) and the arrays that a model takes and gives."""

import numpy as np

from fluxvae.errors import LatentError
from fluxvae.networks.catalog import LatentContract
from fluxvae.recipes import Recipe


def to_model(latent: np.ndarray, layout: str, *, tokens: bool = False) -> np.ndarray:
    """A map (1, C, h, w) as a model takes it: NCHW, NHWC or tokens (1, h w, C)."""
    if tokens:
        return latent.reshape(*latent.shape[:2], -1).transpose(0, 2, 1)
    return latent.transpose(0, 2, 3, 1) if layout == "nhwc" else latent


def taken_by(recipe: Recipe, contract: LatentContract, values: np.ndarray) -> np.ndarray:
    """A latent (1, C, h, w), or an image (1, 3, H, W) in [0, 1] for an encoder, as the artifact of
    ``recipe`` takes it. ``contract``: the artifact's.
    """
    if recipe.input == "image":
        return pixels(values)
    tokens = contract.tokens and not recipe.encodes
    return np.ascontiguousarray(to_model(values, recipe.layout, tokens=tokens), np.float32)


def pixels(image: np.ndarray, span: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """(1, 3, H, W) in about ``span`` to uint8 (H, W, 3): clamped, rounded to nearest."""
    low, high = span
    unit = (image[0] - low) / (high - low)
    finite = np.nan_to_num(unit, nan=0.0, posinf=1.0, neginf=0.0)
    scaled = np.rint(finite.clip(0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(scaled.transpose(1, 2, 0))


def from_model(
    output: np.ndarray, layout: str, contract: LatentContract, size: tuple[int, int]
) -> np.ndarray:
    """An encoder's output (NCHW, NHWC or tokens) as a float32 map (1, C, h, w).

    ``size``: height and width of its image in pixels.
    """
    if contract.tokens:
        rows, columns = (side // contract.scale for side in size)
        output = output.transpose(0, 2, 1).reshape(1, contract.channels, rows, columns)
        layout = "nchw"
    return to_planes(output, layout)


def to_planes(
    output: np.ndarray, layout: str, span: tuple[float, float] = (0.0, 1.0)
) -> np.ndarray:
    """A model's output (NCHW, NHWC, or uint8 HWC image) as float32 (1, 3, H, W) in ``span``."""
    if output.dtype == np.uint8:
        low, high = span
        return low + output.astype(np.float32).transpose(2, 0, 1)[None] / 255 * (high - low)
    values = output.astype(np.float32)
    if values.ndim != 4:
        raise LatentError(f"the model gave an array of shape {values.shape}; expected four axes")
    return values.transpose(0, 3, 1, 2) if layout == "nhwc" else values
