"""Where a round trip's images come from: scikit-image's photos, a folder, the soa listing.

Images are read one at a time, when their turn comes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fluxvae.data.images import IMAGE_SUFFIXES, Pixels, fit, image_files, open_image
from fluxvae.data.photos import CALIBRATION_PHOTOS, ROUNDTRIP_PHOTOS, Photo, load_photo
from fluxvae.data.soa import read_listing
from fluxvae.errors import ImageError, ReportError
from fluxvae.recipes import Size
from fluxvae.records.roundtrip import Skipped

Read = Callable[[Size], Pixels]


@dataclass(frozen=True)
class Input:
    """One image: ``read`` gives it in a size, or raises ImageError. ``source`` in words."""

    name: str
    source: str
    read: Read


@dataclass(frozen=True)
class Source:
    """All inputs of a run, and what was there and is none."""

    name: str
    inputs: tuple[Input, ...]
    skipped: tuple[Skipped, ...] = ()


def open_source(images: str, cache: Path) -> Source:
    """``photos``, ``soa``, or a folder (``./photos`` for one of that name).

    ``cache`` is fluxvae's folder in the user's cache. Raises ReportError when there are no images.
    """
    if images == "photos":
        return photo_source()
    if images == "soa":
        return soa_source(cache)
    return folder_source(Path(images))


def photo_source(photos: tuple[Photo, ...] = ROUNDTRIP_PHOTOS) -> Source:
    """scikit-image's photos, those that calibration never sees first."""
    seen = {photo.name for photo in CALIBRATION_PHOTOS}
    words = {True: "scikit-image; calibration has seen it", False: "scikit-image; held out"}
    return Source(
        "photos",
        tuple(Input(p.name, words[p.name in seen], partial(_photo, p)) for p in photos),
    )


def folder_source(folder: Path) -> Source:
    """A folder's images in the order of their names. Raises ReportError when there are none."""
    try:
        images, others = image_files(folder)
    except ImageError as error:
        raise ReportError(f"{error}: --images takes photos, soa, or a folder of images") from error
    known = ", ".join(IMAGE_SUFFIXES)
    if not images:
        found = f"only {', '.join(f.name for f in others[:3])}" if others else "nothing"
        raise ReportError(
            f"no images in {folder} (found {found}): put some there ({known}), or use "
            "--images photos"
        )
    return Source(
        folder.resolve().name,
        tuple(Input(f.name, "file", partial(_file, f)) for f in images),
        tuple(Skipped(f.name, f"no image by its name (these are read: {known})") for f in others),
    )


def soa_source(cache: Path) -> Source:
    """What ``fluxvae data fetch soa`` stored. Raises ReportError when that is not there."""
    listing = read_listing(cache)
    return Source(
        "soa",
        tuple(
            Input(e.name, f"{listing.dataset}, row {e.row}", partial(_file, path))
            for e, path in listing.files(cache)
        ),
    )


def _photo(photo: Photo, size: Size) -> Pixels:
    return fit(Pixels(load_photo(photo), ()), size.height, size.width)


def _file(path: Path, size: Size) -> Pixels:
    return fit(open_image(path, (size.height, size.width)), size.height, size.width)
