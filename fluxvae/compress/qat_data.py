"""What training looks at: random crops of photos, and fixed pieces to judge by.

Photos are used at their own scale (resampling would change the statistics of their detail). A crop
depends on nothing but the seed, the step and its place in the batch, so a resumed run, and a run
split over several processes, sees the same crops as an unbroken one.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fluxvae.data import CALIBRATION_PHOTOS, EVALUATION_PHOTOS, load_photo, photo_image
from fluxvae.errors import CompressionError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_ONE_IN = 5  # photos kept to choose the best step by


@dataclass(frozen=True)
class Picture:
    """One photo: uint8 (height, width, 3) RGB."""

    name: str
    pixels: np.ndarray


@dataclass(frozen=True)
class Pictures:
    """Photos to train on, photos to choose the best step by, and the digest of all."""

    name: str
    digest: str
    training: tuple[Picture, ...]
    validation: tuple[Picture, ...]


def calibration_pictures() -> Pictures:
    """The shipped calibration photos (``data.CALIBRATION_PHOTOS``)."""
    return split("photos", [Picture(p.name, load_photo(p)) for p in CALIBRATION_PHOTOS])


def folder_pictures(folder: Path) -> Pictures:
    """All images of a folder, by name. Raises CompressionError when they cannot be used."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES) if (
        folder.is_dir()
    ) else []
    if not paths:
        raise CompressionError(
            f"{folder}: expected a folder with images ({', '.join(SUFFIXES)}), found none; "
            "leave --images out to train on the shipped photos"
        )
    return split(folder.name, [Picture(path.name, _read(path)) for path in paths])


def split(name: str, pictures: Sequence[Picture]) -> Pictures:
    """Every fifth picture, and at least one, is kept to choose by; the others are trained on.

    Raises CompressionError for fewer than two, and for one that is held out for evaluation.
    """
    if len(pictures) < 2:
        raise CompressionError(
            f"{name}: training needs at least two images, found {len(pictures)}: "
            "one is kept to choose the best step by"
        )
    held_out = {photo.sha256: photo.name for photo in EVALUATION_PHOTOS}
    digest = hashlib.sha256()
    for picture in pictures:
        own = hashlib.sha256(np.ascontiguousarray(picture.pixels).tobytes()).hexdigest()
        if own in held_out:
            raise CompressionError(
                f"{picture.name} is the evaluation photo {held_out[own]}, which must never be "
                "trained on: take it out of the folder"
            )
        digest.update(f"{picture.pixels.shape} {own}\n".encode())
    chosen = set(range(1, len(pictures), _ONE_IN))
    return Pictures(
        name=name,
        digest=digest.hexdigest(),
        training=tuple(p for i, p in enumerate(pictures) if i not in chosen),
        validation=tuple(p for i, p in enumerate(pictures) if i in chosen),
    )


def crops(
    pictures: Sequence[Picture], side: int, seed: int, step: int, places: Iterable[int]
) -> np.ndarray:
    """Float32 (B, 3, side, side) in [0, 1]: one random crop, turned and mirrored, for each place.

    A picture is drawn with a chance in proportion to the area its crops come from.
    """
    rooms = np.array([_room(p.pixels, side) for p in pictures], np.float64)
    chances = rooms.prod(axis=1) / rooms.prod(axis=1).sum()
    made = []
    for place in places:
        random = np.random.Generator(np.random.PCG64([seed, step, place]))
        chosen = int(random.choice(len(pictures), p=chances))
        top, left = (int(random.integers(0, int(room))) for room in rooms[chosen])
        piece = _mirrored(pictures[chosen].pixels, side, side)[top : top + side, left : left + side]
        piece = np.rot90(piece, int(random.integers(0, 4)))
        made.append(piece[:, ::-1] if random.integers(0, 2) else piece)
    return _planes(np.stack(made))


def pieces(pictures: Sequence[Picture], side: int) -> tuple[np.ndarray, ...]:
    """The middle of each picture: float32 (1, 3, side, side), or smaller by multiples of 8."""
    made = []
    for picture in pictures:
        pixels = _mirrored(picture.pixels, 8, 8)
        height, width = (min(side, size // 8 * 8) for size in pixels.shape[:2])
        top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        made.append(_planes(pixels[None, top : top + height, left : left + width]))
    return tuple(made)


def held_out_pieces(side: int) -> tuple[np.ndarray, ...]:
    """The evaluation photos, float32 (1, 3, side, side)."""
    return tuple(photo_image(photo, side, side) for photo in EVALUATION_PHOTOS)


def _room(pixels: np.ndarray, side: int) -> tuple[int, int]:
    """How many places a crop can start at, in each direction."""
    return max(1, pixels.shape[0] - side + 1), max(1, pixels.shape[1] - side + 1)


def _mirrored(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    need = (max(0, height - pixels.shape[0]), max(0, width - pixels.shape[1]))
    return np.pad(pixels, ((0, need[0]), (0, need[1]), (0, 0)), "symmetric") if any(need) else pixels


def _planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise CompressionError(f"{path}: the image cannot be read ({error})") from error
