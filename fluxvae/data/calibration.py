"""What to calibrate compression with: photos, or a folder of the user's; as latents for decoders.

The photos are disjoint from those that every figure is measured on.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fluxvae.data.images import IMAGE_SUFFIXES, image_files, open_image, passed_over
from fluxvae.data.latents import KEYED, LatentFile, read_latents
from fluxvae.data.photos import CALIBRATION_PHOTOS, crop_image, photo_crops
from fluxvae.errors import CompressionError, ImageError, LatentError
from fluxvae.networks.build import build_encoder
from fluxvae.networks.catalog import LatentContract, find_decoder
from fluxvae.networks.weights import Weights
from fluxvae.recipes.axes import LatentInput
from fluxvae.recipes.fields import native_form

SIDE = 256  # of a crop, in pixels
MOST = 16  # crops taken from a folder's images: as many as the photos give
LARGEST_IMAGE = 1024  # shorter side; camera pictures are soft at their own scale, unlike ours
LARGEST_LATENT = 64  # sides of a latent file's middle that is used: a walk's memory grows with it

LATENT_SUFFIXES = (*KEYED, ".npy")  # a raw .bin does not say what it holds


@dataclass(frozen=True, eq=False)  # arrays have no useful ==; compare digests
class Calibration:
    """What compression may look at.

    ``name`` is ``photos`` or the folder's name; ``latents`` float32, each (1, C, h, w), of sizes
    that may differ, or for an encoder images (1, 3, H, W); ``digest`` sha256 over their shapes and
    bytes, in order. ``notes``: what is to be said of latents that came from files, in sentences.
    """

    name: str
    digest: str
    latents: tuple[np.ndarray, ...]
    notes: tuple[str, ...] = ()


def load_calibration(
    source: str,
    variant: str,
    encoder: Weights | None,
    *,
    contract: LatentContract | None = None,
    kind: str = "tiny",
    part: str = "decoder",
    layout: str = "nchw",
) -> Calibration:
    """What ``--calibration`` names: ``photos``, or a folder (``./photos`` for one of that name).

    For the decoder of a catalogue entry, or for its encoder (``part``), which takes the images
    themselves. Raises CompressionError when photos need an encoder and there is none, and as
    ``folder_calibration``.
    """
    if source != "photos":
        return folder_calibration(
            Path(source), variant, encoder, contract=contract, kind=kind, part=part, layout=layout
        )
    if encoder is None and part == "decoder":
        raise CompressionError(
            "calibration photos need an encoder, and none belongs to these weights: pass "
            "--encoder PATH, --calibration DIR with latent files "
            "(.safetensors, .latent or .npy), or --recipe plain"
        )
    return photo_calibration(encoder if part == "decoder" else None)


def photo_calibration(encoder: Weights | None, *, side: int = SIDE) -> Calibration:
    """16 latents (1, C, side / 8, side / 8) of ``CALIBRATION_PHOTOS``, by the given encoder, or
    the images (1, 3, side, side) without one.
    """
    crops = [crop for photo in CALIBRATION_PHOTOS for crop in photo_crops(photo, side)]
    return calibration_of("photos", encode(encoder, crops))


def folder_calibration(
    folder: Path,
    variant: str,
    encoder: Weights | None,
    *,
    contract: LatentContract | None = None,
    kind: str = "tiny",
    part: str = "decoder",
    layout: str = "nchw",
    side: int = SIDE,
) -> Calibration:
    """Latents of a folder's images (by ``encoder``) and latent files, in the order of their names.

    Images of any mode become RGB, turned as their EXIF says and reduced to ``LARGEST_IMAGE``; each
    gives squares of ``side`` pixels, ``MOST`` in all (of more images than that, ``MOST`` spread
    evenly). Latents must fit ``contract`` (default: the encoder's, or the
    catalogue's), of any size; ``layout`` decides where two orders of axes can fit. Subfolders
    and files of other kinds are passed over. Raises CompressionError when nothing is left, when
    images have no encoder, and for any file that cannot be used.
    """
    images, others = _files(folder)
    decodes = part == "decoder"
    stored = [f for f in others if decodes and f.suffix.lower() in LATENT_SUFFIXES]
    if not images and not stored:
        raise CompressionError(_nothing(folder, others))
    wanted = contract or (encoder.contract if encoder else find_decoder(variant).contract)
    form = LatentInput(wanted, variant, native_form(kind), layout)
    given = [_read_latents(file, form) for file in stored]
    latents = [middle for file in given for middle in _middles(file)]
    notes = [*passed_over([f for f in others if f not in stored])]
    notes += [note for file in given for note in file.notes]
    if images:
        if encoder is None and decodes:
            raise CompressionError(
                f"{folder} holds images, but no encoder belongs to these weights: pass --encoder "
                "PATH, or a folder of latent files (.safetensors, .latent or .npy)"
            )
        crops = _image_crops(images, side, notes.append)
        latents += encode(encoder if decodes else None, crops)
    return replace(calibration_of(folder.resolve().name, latents), notes=tuple(notes))


def encode(encoder: Weights | None, images: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Latents float32 (1, C, H/8, W/8) of images float32 (1, 3, H, W) in [0, 1], or those."""
    if encoder is None:
        return list(images)
    network = build_encoder(encoder)
    with torch.no_grad():
        return [network(torch.from_numpy(image)).numpy() for image in images]


def read_folder(
    folder: Path, otherwise: str, say: Callable[[str], None]
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels of each image of a folder, as ``read_image`` gives them.

    ``say`` is called with a note of what is passed over, and where only a first frame is taken.
    ``otherwise``: what to do without images, as in "use --images photos". Raises CompressionError.
    """
    try:
        images, others = image_files(folder)
    except ImageError as error:
        raise CompressionError(f"{error}: give a folder of images, or {otherwise}") from error
    if not images:
        known = ", ".join(IMAGE_SUFFIXES)
        raise CompressionError(f"no images in {folder}: put some there ({known}), or {otherwise}")
    for note in passed_over(others):
        say(f"note: {note}")
    for path in images:
        yield path.name, read_image(path, lambda note: say(f"note: {note}"))


def read_image(path: Path, note: Callable[[str], object] = lambda _: None) -> np.ndarray:
    """An image file of any mode as uint8 (H, W, 3) RGB, turned as its EXIF says.

    Its shorter side is reduced to ``LARGEST_IMAGE`` where it is longer. ``note`` is called where
    only the first of several frames is taken. Raises CompressionError.
    """
    try:
        opened = open_image(path)
    except ImageError as error:
        raise CompressionError(f"{error}: repair it or take it out of the folder") from error
    pixels = opened.pixels
    for change in opened.changes:
        if change.startswith("first of"):
            note(f"{path.name}: {change}")
    shrink = LARGEST_IMAGE / min(pixels.shape[:2])
    if shrink >= 1:
        return pixels
    from PIL import Image

    height, width = (max(1, round(length * shrink)) for length in pixels.shape[:2])
    reduced = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(reduced)


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    try:
        return image_files(folder)
    except ImageError as error:
        raise CompressionError(
            f"{error}: --calibration takes 'photos', or a folder of images or latent files"
        ) from error


def _nothing(folder: Path, files: list[Path]) -> str:
    found = f"only {', '.join(f.name for f in files[:3])}" if files else "nothing"
    known = ", ".join((*IMAGE_SUFFIXES, *LATENT_SUFFIXES))
    return (
        f"nothing to calibrate with in {folder} (found {found}): put images or latents there "
        f"({known}), or use --calibration photos"
    )


def _read_latents(file: Path, wanted: LatentInput) -> LatentFile:
    try:
        return read_latents(file, wanted)
    except LatentError as error:
        reason = str(error).rstrip(".")
        raise CompressionError(f"{reason}; --calibration needs this decoder's latents") from error


def _middles(file: LatentFile) -> Iterator[np.ndarray]:
    for latent in file.latents:
        top, left = (max(0, side - LARGEST_LATENT) // 2 for side in latent.values.shape[2:])
        middle = latent.values[:, :, top : top + LARGEST_LATENT, left : left + LARGEST_LATENT]
        yield np.ascontiguousarray(middle, np.float32)


def _image_crops(
    images: list[Path], side: int, note: Callable[[str], object]
) -> Iterator[np.ndarray]:
    """``MOST`` squares in all, the first images giving one more where it does not divide."""
    count = min(len(images), MOST)
    chosen = [images[i * len(images) // count] for i in range(count)]
    for index, path in enumerate(chosen):
        pixels = read_image(path, note)
        several = MOST // count + (index < MOST % count)
        for index in range(several):
            part = (index + 0.5) / several  # along the diagonal
            top, left = (round(part * max(0, length - side)) for length in pixels.shape[:2])
            yield crop_image(pixels, top, left, side, side)


def calibration_of(name: str, latents: Sequence[np.ndarray]) -> Calibration:
    """Latents float32 (1, C, h, w) under a name. Raises CompressionError for NaN and infinity."""
    digest = hashlib.sha256()
    for latent in latents:
        if not np.isfinite(latent).all():
            raise CompressionError(
                f"the encoder makes NaN or infinity of the {name}: its weights are not sound"
            )
        digest.update(f"{latent.shape}".encode())
        digest.update(np.ascontiguousarray(latent, "<f4").tobytes())
    return Calibration(name, digest.hexdigest(), tuple(latents))
