"""What training looks at: random crops of photos, and fixed pieces to judge by.

Photos are used at their own scale (resampling would change the statistics of their detail). A crop
depends on nothing but the seed, the step and its index in the batch, so a resumed run, and a run
split over several processes, sees the same crops as an unbroken one.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluxvae.data.calibration import MOST, SIDE, read_folder
from fluxvae.data.photos import (
    CALIBRATION_PHOTOS,
    EVALUATION_PHOTOS,
    crop_image,
    load_photo,
    photo_image,
)
from fluxvae.errors import CompressionError

LEAST = 32  # side of an image in pixels
_KEPT = 0.25  # of each picture's rows, to choose the best step by


@dataclass(frozen=True)
class Picture:
    """One photo: uint8 (height, width, 3) RGB."""

    name: str
    pixels: np.ndarray


@dataclass(frozen=True)
class Pictures:
    """Parts of photos to train on, other parts to choose the best step by, and all's digest."""

    name: str
    digest: str
    training: tuple[Picture, ...]
    validation: tuple[Picture, ...]


def calibration_pictures() -> Pictures:
    """The shipped calibration photos (``data.CALIBRATION_PHOTOS``)."""
    return split("photos", [Picture(p.name, load_photo(p)) for p in CALIBRATION_PHOTOS])


def folder_pictures(folder: Path, say: Callable[[str], None] = lambda _: None) -> Pictures:
    """All images of a folder, by name; ``say`` is called with notes about them.

    Raises CompressionError when they cannot be used.
    """
    otherwise = "leave --images out to train on the shipped photos"
    pictures = [Picture(name, pixels) for name, pixels in read_folder(folder, otherwise, say)]
    return split(folder.resolve().name, pictures)


def split(name: str, pictures: Sequence[Picture]) -> Pictures:
    """The lowest quarter of each picture is kept to choose by; what is above is trained on.

    A part of each, because whole photos are too different: among few, those kept would be easier
    or harder than the rest. Raises CompressionError for an image that is held out for evaluation,
    or smaller than 32 pixels.
    """
    held_out = {photo.sha256: photo.name for photo in EVALUATION_PHOTOS}
    digest = hashlib.sha256()
    training, validation = [], []
    for picture in pictures:
        pixels = picture.pixels
        own = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
        if own in held_out:
            raise CompressionError(
                f"{picture.name} is the evaluation photo {held_out[own]}, which must never be "
                "trained on: take it out of the folder"
            )
        if min(pixels.shape[:2]) < LEAST:
            raise CompressionError(
                f"{picture.name} has {pixels.shape[1]} x {pixels.shape[0]} pixels: expected "
                f"{LEAST} or more on each side; take it out of the folder"
            )
        digest.update(f"{pixels.shape} {own}\n".encode())
        border = pixels.shape[0] - round(pixels.shape[0] * _KEPT)
        training.append(Picture(picture.name, pixels[:border]))
        validation.append(Picture(picture.name, pixels[border:]))
    return Pictures(name, digest.hexdigest(), tuple(training), tuple(validation))


def crops(
    pictures: Sequence[Picture],
    side: int,
    seed: int,
    step: int,
    indices: Iterable[int],
    *,
    recolour: float = 0.5,
) -> np.ndarray:
    """Float32 (B, 3, side, side) in [0, 1]: one random crop, turned and mirrored, for each index.

    Every picture is as likely as any other. Small ones are mirrored at their edges. ``recolour``
    is the chance of other colours: few photos, most of them grey, would teach ranges that other
    photos overrun.
    """
    made = []
    for index in indices:
        random = np.random.Generator(np.random.PCG64([seed, step, index]))
        pixels = pictures[int(random.integers(len(pictures)))].pixels
        top, left = (int(random.integers(max(1, n - side + 1))) for n in pixels.shape[:2])
        piece = np.rot90(crop_image(pixels, top, left, side, side), int(random.integers(4)), (2, 3))
        piece = piece[..., ::-1] if random.integers(2) else piece
        made.append(_recoloured(piece, random) if random.random() < recolour else piece)
    return np.concatenate(made)


def _recoloured(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Channels in another order, each with a contrast and a brightness of its own."""
    shuffled = image[:, random.permutation(3)]
    gains = np.exp(random.uniform(-0.5, 0.5) + random.uniform(-0.4, 0.4, (3, 1, 1)))
    shifts = random.uniform(-0.2, 0.2) + random.uniform(-0.1, 0.1, (3, 1, 1))
    return np.clip((shuffled - 0.5) * gains + 0.5 + shifts, 0, 1).astype(np.float32)


def pieces(pictures: Sequence[Picture], side: int) -> tuple[np.ndarray, ...]:
    """The middle of each picture, float32 (1, 3, h, w): multiples of 8, at most ``side``."""
    made = []
    for picture in pictures:
        height, width = (max(8, min(side, n // 8 * 8)) for n in picture.pixels.shape[:2])
        top, left = (
            (have - want) // 2
            for have, want in zip(picture.pixels.shape[:2], (height, width), strict=True)
        )
        made.append(crop_image(picture.pixels, top, left, height, width))
    return tuple(made)


def calibration_images(pictures: Pictures) -> tuple[np.ndarray, ...]:
    """``MOST`` squares or more of what is trained on, float32 (1, 3, s, s), for a start to look at.

    Not of what is kept to choose by: a start that had seen it would look too good there, and no
    step of the training would ever be chosen. ``s`` is ``SIDE`` or, in small pictures, less.
    """
    count = min(len(pictures.training), MOST)
    several = math.ceil(MOST / count)  # along the diagonal
    made = []
    for index in range(count):
        pixels = pictures.training[index * len(pictures.training) // count].pixels
        side = max(8, min(SIDE, *(n // 8 * 8 for n in pixels.shape[:2])))
        for index in range(several):
            part = (index + 0.5) / several
            top, left = (round(part * max(0, n - side)) for n in pixels.shape[:2])
            made.append(crop_image(pixels, top, left, side, side))
    return tuple(made)


def held_out_pieces(side: int) -> tuple[np.ndarray, ...]:
    """The evaluation photos, float32 (1, 3, side, side)."""
    return tuple(photo_image(photo, side, side) for photo in EVALUATION_PHOTOS)
