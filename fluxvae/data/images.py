"""Image files of any kind as 8-bit RGB pixels, with what was changed in words.

Pillow refuses images of more than 179 million pixels, as a guard against files that unpack to more
than memory. Panoramas are larger than that, so the guard here is ``LARGEST_PIXELS``, and an image
is cut before it is turned or changed into RGB: one that passes takes a gigabyte or two for a
moment.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluxvae.data.photos import crop_pixels
from fluxvae.errors import ImageError, git_lfs_problem

IMAGE_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp"
)  # fmt: skip
# Images that Pillow reads with another package or not at all. They count as a folder's images, so
# that none is passed over without a word.
_UNREAD_SUFFIXES = (".heic", ".heif", ".jxl")
_LITTER = ("thumbs.db", "desktop.ini", "icon\r")  # of Windows and macOS; in folders of images
LARGEST_PIXELS = 400_000_000  # 20,000 x 20,000; 1.2 GB as 8-bit RGB
LEAST_SIDE = 64  # pixels; below this most of a picture would be its own mirror image

_TURNED = {  # EXIF's orientation: Pillow's transposition that undoes it, and its name for people
    2: ("FLIP_LEFT_RIGHT", "mirrored"),
    3: ("ROTATE_180", "turned by 180 degrees"),
    4: ("FLIP_TOP_BOTTOM", "mirrored top to bottom"),
    5: ("TRANSPOSE", "turned and mirrored"),
    6: ("ROTATE_270", "turned a quarter clockwise"),
    7: ("TRANSVERSE", "turned and mirrored"),
    8: ("ROTATE_90", "turned a quarter anticlockwise"),
}
_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 swap height and width


@dataclass(frozen=True, eq=False)  # arrays have no useful ==
class Pixels:
    """An image as uint8 (height, width, 3) RGB; ``changes`` say what was done to the file's."""

    pixels: np.ndarray
    changes: tuple[str, ...]


def image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """A folder's images by their names' ends, whatever their case, and its other files.

    Both in the order of names. Folders are left out, and what systems leave behind: hidden files
    (``.DS_Store``, macOS' ``._photo.png``), ``Thumbs.db``. Raises ImageError when it is not a
    folder or cannot be listed.
    """
    try:
        files = sorted(p for p in folder.iterdir() if p.name[0] != "." and p.is_file())
    except OSError as error:
        reason = error.strerror or error
        raise ImageError(f"{folder} is not a folder that can be read ({reason})") from error
    files = [f for f in files if f.name.lower() not in _LITTER]
    known = (*IMAGE_SUFFIXES, *_UNREAD_SUFFIXES)
    images = [f for f in files if f.suffix.lower() in known]
    return images, [f for f in files if f not in images]


def passed_over(files: Sequence[Path]) -> tuple[str, ...]:
    """A note of the files of a folder that are not taken; empty without any."""
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return (f"passed over {', '.join(f.name for f in files[:3])}{more}",) if files else ()


def open_image(path: Path, middle: tuple[int, int] | None = None) -> Pixels:
    """An image file of any mode as uint8 RGB, turned as its EXIF says, alpha laid on white.

    Of several frames or pages the first is taken. With ``middle`` (height, width) only the middle
    is kept where it is larger. Raises ImageError for what is not an image, damaged, of floats, of a
    format that Pillow does not read here, or larger than ``LARGEST_PIXELS``.
    """
    from PIL import Image

    try:
        with _no_limit(), Image.open(path) as opened:
            height, width = opened.height, opened.width
            if height * width > LARGEST_PIXELS:
                raise ImageError(
                    f"{path} has {height} x {width} pixels, more than can be unpacked safely "
                    f"({LARGEST_PIXELS:,}): cut it first"
                )
            frames = getattr(opened, "n_frames", 1)
            deep = _deep(opened)
            opened.load()
            image, changes = _upright(opened, middle)
    except (OSError, EOFError, ValueError, SyntaxError, MemoryError) as error:
        raise ImageError(f"{path} cannot be read as an image ({_reason(error, path)})") from error
    if image.mode == "F":  # floats of an unknown range
        raise ImageError(f"{path} holds floats: save it with 8 or 16 bits a channel")
    rgb, more = _as_rgb(image, deep)
    first = [f"first of {frames} frames"] if frames > 1 else []
    return Pixels(rgb, (*first, *changes, *more))


def fit(image: Pixels, height: int, width: int) -> Pixels:
    """The middle of an image as (height, width) pixels, mirrored at the edges where it is small.

    Raises ImageError below ``LEAST_SIDE``.
    """
    tall, wide = image.pixels.shape[:2]
    if min(tall, wide) < LEAST_SIDE:
        raise ImageError(
            f"it has {tall} x {wide} pixels; at least {LEAST_SIDE} x {LEAST_SIDE} are needed"
        )
    top, left = max(0, tall - height) // 2, max(0, wide - width) // 2
    pixels = crop_pixels(image.pixels, top, left, height, width)
    changes = [*image.changes]
    if tall > height or wide > width:
        changes.append(_cropped(tall, wide))
    if tall < height or wide < width:
        changes.append(f"mirrored at the edges from {tall} x {wide}")
    return Pixels(pixels, tuple(dict.fromkeys(changes)))


def _cropped(height: int, width: int) -> str:
    return f"cropped from {height} x {width}"


@contextmanager
def _no_limit() -> Iterator[None]:
    """Pillow's guard and its warning off for a moment: ours is in ``open_image``."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _reason(error: Exception, path: Path) -> str:
    """Pillow's words without the path, which the message names already."""
    if isinstance(error, MemoryError):
        return "out of memory"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if text.startswith("cannot identify image file"):
        return _unknown(path)
    return re.sub(r"\s*\n.*", "", text.replace(str(path), path.name))


def _unknown(path: Path) -> str:
    """What a file is that Pillow does not know, and what to do."""
    with path.open("rb") as file:
        start = file.read(512)
    if pointer := git_lfs_problem(start, "the image"):
        return f"it {pointer}"
    brand = start[8:12] if start[4:8] == b"ftyp" else b""  # ISO base media, ISO/IEC 14496-12
    if brand in (b"avif", b"avis"):
        return "AVIF, which this Pillow cannot read: use Pillow 11.3 or later, or save it as PNG"
    if brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "HEIC, which Pillow cannot read: save it as PNG or JPEG"
    if start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "JPEG XL, which Pillow cannot read: save it as PNG or JPEG"
    return "not a kind of image that is known here" if start else "the file is empty"


def _deep(image: Any) -> bool:
    """Whether a file of colours stores 16 bits a channel, of which Pillow keeps the upper 8."""
    return "16" in image.mode or any("16" in str(tile[3]) for tile in image.tile)


def _upright(image: Any, middle: tuple[int, int] | None) -> tuple[Any, list[str]]:
    """Cut first, then turned: turning copies, and a panorama is large."""
    from PIL import Image

    turn = image.getexif().get(_ORIENTATION, 1)
    swap = turn in (5, 6, 7, 8)
    tall, wide = (image.width, image.height) if swap else (image.height, image.width)
    changes = []
    if middle is not None and (tall > middle[0] or wide > middle[1]):
        height, width = reversed(middle) if swap else middle
        image = _middle(image, height, width)
        changes.append(_cropped(tall, wide))
    if turn in _TURNED:
        method, words = _TURNED[turn]
        image = image.transpose(Image.Transpose[method])
        changes.insert(0, f"{words} as its EXIF says")
    return image, changes


def _middle(image: Any, height: int, width: int) -> Any:
    top, left = max(0, image.height - height) // 2, max(0, image.width - width) // 2
    right, bottom = min(image.width, left + width), min(image.height, top + height)
    return image.crop((left, top, right, bottom))


def _as_rgb(image: Any, deep: bool) -> tuple[np.ndarray, list[str]]:
    """uint8 (H, W, 3), and what that changed."""
    from PIL import Image

    changes = ["reduced from 16 to 8 bits"] if deep or image.mode.startswith("I") else []
    if image.mode.startswith("I"):  # Pillow would clip at 255
        levels = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.clip(np.rint(levels / 257), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        if layer.getextrema()[3][0] < 255:
            changes.append("alpha laid on white")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    elif image.mode in ("1", "L"):
        changes.append("grey repeated to RGB")
    elif image.mode not in ("RGB", "P"):
        changes.append(f"{image.mode} changed to RGB")
    return np.asarray(image.convert("RGB")), changes


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """File names for these names: letters, digits, ``.-_`` alone, and no two alike.

    macOS ignores case in file names, so two that differ in case alone are distinguished too.
    """
    taken: set[str] = set()
    result = []
    for name in names:
        plain = re.sub(r"[^\w.-]", "_", name).lstrip(".") or "image"
        found, number = plain, 2
        while found.casefold() in taken:
            found, number = f"{plain}-{number}", number + 1
        taken.add(found.casefold())
        result.append(found)
    return tuple(result)
