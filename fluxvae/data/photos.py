"""Evaluation and calibration photos, listed and digested.

They come inside scikit-image's wheel, so they are there without a network. The demo weights were
not trained on the evaluation photos, and compression never looks at them: they are held out. The
calibration photos are among those the demo weights were trained on.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from fluxvae.errors import ToolError


@dataclass(frozen=True)
class Photo:
    """A photo of ``skimage.data``; ``sha256`` is of its 8-bit RGB pixels, row by row.

    Grey photos are repeated to RGB; of a stereo pair it is the left view. ``crops`` are how many
    latents it gives when calibrating: large and varied photos give more.
    """

    name: str
    sha256: str
    crops: int = 1


EVALUATION_PHOTOS = (
    Photo("chelsea", "416b729128bfb2c3d1eb69bf9b1734a796293abc17939267b2dc94f8a5784031"),
    Photo("coffee", "0ce2b51640b9c95f19617f03eabf40c3f0368589cc1ee1190b70966165ac184f"),
)

# Photographs only: page, text, clock, colorwheel and cell have statistics of their own.
CALIBRATION_PHOTOS = (
    Photo("astronaut", "a8c429c18afa7b0fd5673e598d73a21225d94c864a71bbb3885126fdecb41071", crops=2),
    Photo("rocket", "3d4435cc745752b7f9724df88c6e18817de3ce7e3d2d71c55f85f7831e68f197", crops=2),
    Photo(
        "stereo_motorcycle",
        "ca829467c1d4f427da9c4862ba43829da6ac90afe1f75735e95dba9e3fd9620b",
        crops=3,
    ),
    Photo("hubble_deep_field", "9a3ea9548188f81e63435188456e74de45a981ebeb791e265abe79a26d3b528b"),
    Photo(
        "immunohistochemistry", "c5b3ef509a92f16d4c29be8cf0300fe75d53e13a3ce650159db932caea8dcc1b"
    ),
    Photo("retina", "3670e389d0dae9f755cc1bb7e4da4c3d2cdf10eba2dc3060836d8d4b8024d860"),
    Photo("camera", "13e2b4aa92cb1649b4aac5a4d48b38a8ea3a18b86e8abdf5a4871abf24c9d038"),
    Photo("coins", "aaecc2ad43bd43e204f7ad01dc60494586ff80d42236c2db358c59b9be1f5427"),
    Photo("brick", "3501e216fb0968c378803347d3a13e3cc04021eaecc44b64c6528088c7ea0f64"),
    Photo("grass", "c7ca5c984d6b5a2787506e70a42bcac22b164b00e8e1cf9e06cf76b8110c5734"),
    Photo("gravel", "e73bd88250cbfd7f96f232357ecad0d2302252483457337f5cf79d2c5b82227a"),
    Photo("moon", "a641c47851a3252efa5514c25bb953056fae7de469736ede1363e861c70bfb10"),
)

# For looking at: varied, in colour, the held-out ones first.
ROUNDTRIP_PHOTOS = (
    *EVALUATION_PHOTOS,
    *(
        photo
        for photo in CALIBRATION_PHOTOS
        if photo.name in ("astronaut", "rocket", "stereo_motorcycle", "hubble_deep_field")
    ),
)


def load_photo(photo: Photo) -> np.ndarray:
    """The photo as uint8 (height, width, 3) RGB. Raises ToolError when it is not as listed."""
    try:
        import skimage.data

        pixels = _as_rgb(getattr(skimage.data, photo.name)())
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


def _as_rgb(loaded: np.ndarray | tuple[np.ndarray, ...]) -> np.ndarray:
    pixels = loaded[0] if isinstance(loaded, tuple) else loaded
    return np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels


def photo_image(photo: Photo, height: int, width: int) -> np.ndarray:
    """The photo at its own scale as float32 (1, 3, height, width) in [0, 1].

    Cut from the top left, and mirrored at the edges where it is too small: resampling would
    change the statistics of its detail.
    """
    return crop_image(load_photo(photo), 0, 0, height, width)


def photo_crops(photo: Photo, side: int) -> list[np.ndarray]:
    """``photo.crops`` squares of the photo, each float32 (1, 3, side, side) in [0, 1].

    They lie evenly along the photo's longer side, and alternate between the ends of the shorter
    one; a single crop is the middle.
    """
    pixels = load_photo(photo)
    room = [max(0, length - side) for length in pixels.shape[:2]]
    along = [(i + 0.5) / photo.crops if photo.crops == 1 else i / (photo.crops - 1)
             for i in range(photo.crops)]  # fmt: skip
    across = [0.5 if photo.crops == 1 else float(i % 2) for i in range(photo.crops)]
    tall = pixels.shape[0] > pixels.shape[1]
    corners = zip(along, across, strict=True) if tall else zip(across, along, strict=True)
    return [crop_image(pixels, round(y * room[0]), round(x * room[1]), side, side)
            for y, x in corners]  # fmt: skip


def crop_image(pixels: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A part of uint8 (H, W, 3) as float32 (1, 3, height, width) in [0, 1], mirrored if small."""
    return as_planes(crop_pixels(pixels, top, left, height, width))


def crop_pixels(pixels: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A part of uint8 (H, W, 3) as uint8 (height, width, 3), mirrored at the edges if small."""
    part = pixels[top : top + height, left : left + width]
    need = (max(0, height - part.shape[0]), max(0, width - part.shape[1]))
    return np.pad(part, ((0, need[0]), (0, need[1]), (0, 0)), mode="symmetric")


def as_planes(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) as float32 (1, 3, H, W) in [0, 1]."""
    return np.ascontiguousarray((pixels.astype(np.float32) / 255).transpose(2, 0, 1))[None]
