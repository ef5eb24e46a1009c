"""The soa images: a deterministic choice with digests, and one clear line when they cannot be had.

The dataset itself cannot be reached from tests: rows made here STAND IN for it, in both forms that
its rows may have (an image's bytes, or its address).
"""

import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fluxvae.data.soa import LISTING, Stream, download, fetch_soa, folder, open_stream, read_listing
from fluxvae.errors import DownloadError, ReportError, ToolError
from fluxvae.experiments.roundtrip.sources import open_source
from fluxvae.recipes import Size


def _image(seed: int, kind: str = "JPEG", side: int = 72) -> bytes:
    pixels = np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


ROWS: list[dict[str, Any]] = [
    {"image": {"bytes": _image(0), "path": None}, "title": "a"},
    {"image": {"bytes": b"no image", "path": None}},
    {"image": {"bytes": _image(1, side=20), "path": None}},
    {"image": None},
    {"image_url": "https://example.org/gone.jpg"},
    {"image_url": "https://example.org/2.png"},
    {"image": _image(3, "WEBP")},
    {"image": _image(4)},
]
PICTURES = {"https://example.org/2.png": _image(2, "PNG")}


def _download(address: str) -> bytes:
    if address not in PICTURES:
        raise OSError("404 Not Found")
    return PICTURES[address]


def _fetch(cache: Path, count: int, tell: Callable[[str], None] = lambda _: None) -> None:
    fetch_soa(
        cache, count, stream=lambda: Stream(ROWS, "c0ffee"), download=_download, progress=tell
    )


def test_first_usable_rows_are_stored_and_listed(tmp_path: Path) -> None:
    said: list[str] = []
    _fetch(tmp_path, 3, said.append)
    listing = read_listing(tmp_path)
    assert listing.revision == "c0ffee"
    assert [(e.name, e.row) for e in listing.entries] == [
        ("soa_00000.jpg", 0), ("soa_00005.png", 5), ("soa_00006.webp", 6)
    ]  # fmt: skip
    assert listing.entries[1].address == "https://example.org/2.png"
    for entry, path in listing.files(tmp_path):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
    stored = {p.name for p in folder(tmp_path).iterdir()}
    assert stored == {LISTING, *(e.name for e in listing.entries)}
    passed = "\n".join(said)
    for words in ("row 1 passed over", "row 2 passed over: smaller", "gone.jpg cannot be fetched"):
        assert words in passed


def test_two_fetches_give_the_same_listing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _fetch(tmp_path / name, 4)
    first, second = ((folder(tmp_path / n) / LISTING).read_bytes() for n in ("a", "b"))
    assert first == second


def test_listed_images_are_a_source(tmp_path: Path) -> None:
    _fetch(tmp_path, 2)
    source = open_source("soa", tmp_path)
    assert [one.name for one in source.inputs] == ["soa_00000.jpg", "soa_00005.png"]
    assert source.inputs[1].source == "madebyollin/soa-aesthetic, row 5"
    assert source.inputs[1].read(Size(64, 64)).pixels.shape == (64, 64, 3)


def test_images_that_are_not_as_listed_are_refused(tmp_path: Path) -> None:
    _fetch(tmp_path, 2)
    (folder(tmp_path) / "soa_00005.png").write_bytes(b"other")
    with pytest.raises(ReportError, match=r"soa_00005.png is not as listed: .* data fetch soa"):
        open_source("soa", tmp_path)


def test_without_a_listing_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"run `fluxvae data fetch soa` once .* --images photos"):
        open_source("soa", tmp_path)
    folder(tmp_path).mkdir()
    (folder(tmp_path) / LISTING).write_text("{}")
    with pytest.raises(ReportError, match="not the list of soa images"):
        open_source("soa", tmp_path)


def test_too_few_images_leave_no_listing(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="gave 4 usable images of 20"):
        _fetch(tmp_path, 20)
    assert not (folder(tmp_path) / LISTING).exists()


def test_stream_that_breaks_becomes_one_line(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise RuntimeError("connection\nreset")

    with pytest.raises(DownloadError, match=r"cannot be streamed \(connection reset\)"):
        fetch_soa(tmp_path, 2, stream=lambda: Stream(rows(), None), download=_download)


def test_missing_datasets_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if not installed
    with pytest.raises(ToolError, match=r"pip install 'fluxvae\[soa\]', or use --images photos"):
        open_stream()


def test_only_https_is_downloaded() -> None:
    for address in ("file:///etc/passwd", "http://example.org/a.jpg"):
        with pytest.raises(ValueError, match="https"):
            download(address)
