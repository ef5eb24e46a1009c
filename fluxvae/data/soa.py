"""A fixed few images of madebyollin/soa-aesthetic (Smithsonian Open Access, CC0), listed.

``fluxvae data fetch soa`` streams the dataset with the ``datasets`` package, takes the first rows
that give an image that can be read, and stores them with a listing of their sha256 in the user's
cache. The listing names the dataset's commit, so that the same rows can be had again.

Not run against the real dataset yet: it could not be reached where this was written. Its rows may
hold an image, or the address of one; both are understood.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fluxvae.data.images import LEAST_SIDE, open_image
from fluxvae.errors import DownloadError, ImageError, ReportError, ToolError
from fluxvae.files import write_file
from fluxvae.schema import Header, Record, load, save

DATASET = "madebyollin/soa-aesthetic"
LISTING = "manifest.json"
WAY_OUT = "run `fluxvae data fetch soa` once online, or use --images photos or a folder"

_ADDRESSES = ("url", "image_url", "img_url", "image")
_TRIES = 10  # rows looked at for each image wanted: some addresses are gone
_TIMEOUT = 30  # seconds for one address
_LARGEST_FILE = 100_000_000  # bytes

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One stored image: its file's name, its row in the dataset, the sha256 of its bytes."""

    name: str
    row: int
    sha256: str
    address: str | None


@dataclass(frozen=True)
class Listing(Record):
    """What is stored, in the dataset's order. ``revision`` is its commit, where that is known."""

    header: ClassVar = Header(ReportError, "the list of soa images", f"delete it and {WAY_OUT}")
    dataset: str
    revision: str | None
    entries: tuple[Entry, ...]

    def files(self, cache: Path) -> Iterator[tuple[Entry, Path]]:
        """Every entry with its file. Raises ReportError when one is not as listed."""
        for entry in self.entries:
            path = folder(cache) / entry.name
            if not path.is_file() or _digest(path.read_bytes()) != entry.sha256:
                raise ReportError(f"{path} is not as listed: delete {path.parent} and {WAY_OUT}")
            yield entry, path


@dataclass(frozen=True)
class Stream:
    """The dataset's rows in order, and its commit."""

    rows: Iterable[Row]
    revision: str | None


def folder(cache: Path) -> Path:
    """Where the images lie below fluxvae's cache."""
    return cache / "soa"


def read_listing(cache: Path) -> Listing:
    """The listing of what was fetched. Raises ReportError when there is none."""
    path = folder(cache) / LISTING
    if not path.exists():
        raise ReportError(f"the soa images are not on this machine: {WAY_OUT}")
    return load(Listing, path)


def fetch_soa(
    cache: Path,
    count: int,
    *,
    stream: Callable[[], Stream],
    download: Callable[[str], bytes],
    progress: Callable[[str], None] = lambda _: None,
) -> Listing:
    """Store the first ``count`` usable images of ``stream`` below ``cache``, with their listing.

    An image is usable when it can be read and is at least ``LEAST_SIDE`` pixels a side. Raises
    DownloadError when the stream breaks or holds too few, OutputError when nothing can be written.
    """
    opened = stream()
    entries: list[Entry] = []
    for index, row in enumerate(_rows(opened.rows, _TRIES * count)):
        entry = _store(folder(cache), index, row, download, progress)
        if entry is not None:
            entries.append(entry)
            progress(f"{len(entries)}/{count} {entry.name}")
        if len(entries) == count:
            break
    if len(entries) < count:
        raise DownloadError(
            f"{DATASET} gave {len(entries)} usable images of {count}: try again, or ask for fewer "
            "with --count"
        )
    listing = Listing(DATASET, opened.revision, tuple(entries))
    save(listing, folder(cache) / LISTING)
    return listing


def _rows(rows: Iterable[Row], most: int) -> Iterator[Row]:
    """The first rows; whatever goes wrong in ``datasets`` becomes one line."""
    try:
        for index, row in enumerate(rows):
            if index == most:
                return
            yield row
    except Exception as error:  # the library's, httpx's, pyarrow's: no common base
        raise DownloadError(_broken(error)) from error


def _store(
    target: Path,
    index: int,
    row: Row,
    download: Callable[[str], bytes],
    progress: Callable[[str], None],
) -> Entry | None:
    """The row's image as a file; None when it has none that can be used."""
    address, data = _image_of(row)
    if data is None and address is not None:
        try:
            data = download(address)
        except (OSError, ValueError) as error:
            progress(f"row {index} passed over: {address} cannot be fetched ({error})")
    if data is None:
        return None
    path = target / f"soa_{index:05}{_suffix(data)}"
    content = data
    write_file(path, lambda draft: draft.write_bytes(content), overwrite=True)
    try:
        if min(open_image(path).pixels.shape[:2]) >= LEAST_SIDE:
            return Entry(path.name, index, _digest(data), address)
        reason = f"smaller than {LEAST_SIDE} pixels"
    except ImageError as error:
        reason = str(error)
    path.unlink()
    progress(f"row {index} passed over: {reason}")
    return None


def _image_of(row: Row) -> tuple[str | None, bytes | None]:
    """Address and bytes of a row's image, as far as it has them."""
    image = row.get("image")
    if isinstance(image, Mapping) and isinstance(image.get("bytes"), bytes):
        return None, image["bytes"]  # an Image column, not decoded
    if isinstance(image, bytes):
        return None, image
    address = next((row[k] for k in _ADDRESSES if isinstance(row.get(k), str)), None)
    return address, None


def _suffix(data: bytes) -> str:
    """The file's kind by its first bytes: what is read here chooses by suffix."""
    for start, suffix in ((b"\x89PNG", ".png"), (b"RIFF", ".webp"), (b"II*", ".tif"),
                          (b"MM\x00*", ".tif"), (b"BM", ".bmp")):  # fmt: skip
        if data.startswith(start):
            return suffix
    return ".jpg"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _broken(error: Exception) -> str:
    words = " ".join((str(error) or type(error).__name__).split())[:200]
    return (
        f"{DATASET} cannot be streamed ({words}): try again with a network, or use --images "
        "photos or a folder"
    )


def open_stream() -> Stream:
    """The real dataset. Raises ToolError without ``datasets``, DownloadError when not reached."""
    try:
        import datasets
    except ImportError as error:
        raise ToolError(
            "fetching soa images needs the `datasets` package: pip install 'fluxvae[soa]', or use "
            "--images photos or a folder"
        ) from error
    from huggingface_hub import HfApi

    try:
        revision = HfApi().dataset_info(DATASET, timeout=_TIMEOUT).sha
        found = datasets.load_dataset(DATASET, split="train", streaming=True, revision=revision)
        if found.features is not None and isinstance(found.features.get("image"), datasets.Image):
            found = found.cast_column("image", datasets.Image(decode=False))
    except Exception as error:  # as in _rows
        raise DownloadError(_broken(error)) from error
    return Stream(found, revision)


def download(address: str) -> bytes:
    """The bytes at an address of a row. Raises OSError or ValueError."""
    from urllib.request import Request, urlopen

    if not address.startswith("https://"):
        raise ValueError("not an https address")
    request = Request(address, headers={"User-Agent": "fluxvae"})
    with urlopen(request, timeout=_TIMEOUT) as answer:
        data: bytes = answer.read(_LARGEST_FILE + 1)
    if len(data) > _LARGEST_FILE:
        raise ValueError(f"more than {_LARGEST_FILE:,} bytes")
    return data
