"""Evaluation photos, listed and digested.

They come with scikit-image, so they are there without a network. The demo weights were not
trained on them.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from fluxvae.errors import ToolError


@dataclass(frozen=True)
class Photo:
    """A photo of ``skimage.data``; ``sha256`` is of its 8-bit RGB pixels, row by row."""

    name: str
    sha256: str


EVALUATION_PHOTOS = (
    Photo("chelsea", "416b729128bfb2c3d1eb69bf9b1734a796293abc17939267b2dc94f8a5784031"),
    Photo("coffee", "0ce2b51640b9c95f19617f03eabf40c3f0368589cc1ee1190b70966165ac184f"),
)


def load_photo(photo: Photo) -> np.ndarray:
    """The photo as uint8 (height, width, 3) RGB. Raises ToolError when it is not as listed."""
    try:
        import skimage.data

        pixels: np.ndarray = getattr(skimage.data, photo.name)()
    except (ImportError, OSError) as error:
        raise ToolError(
            f"scikit-image's photo {photo.name!r} cannot be read ({error}); reinstall it with "
            "pip install 'scikit-image>=0.25,<0.27', or pass your own --latents FILE"
        ) from error
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
    if digest != photo.sha256:
        raise ToolError(
            f"scikit-image's photo {photo.name!r} has other pixels than those measured with "
            f"(sha256 {digest[:12]}, expected {photo.sha256[:12]})"
        )
    return pixels


def photo_image(photo: Photo, height: int, width: int) -> np.ndarray:
    """The photo at its own scale as float32 (1, 3, height, width) in [0, 1].

    Cut from the top left, and mirrored at the edges where it is too small: resampling would
    change the statistics of its detail.
    """
    pixels = load_photo(photo)
    need = (max(0, height - pixels.shape[0]), max(0, width - pixels.shape[1]))
    tiled = np.pad(pixels, ((0, need[0]), (0, need[1]), (0, 0)), mode="symmetric")
    crop = tiled[:height, :width].astype(np.float32) / 255
    return np.ascontiguousarray(crop.transpose(2, 0, 1))[None]
