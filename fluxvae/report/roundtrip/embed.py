"""Pictures as data URIs, the worst first, within a bound on the page's size."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from fluxvae.records.roundtrip import Picture
from fluxvae.report.figures import Report
from fluxvae.report.roundtrip.sheet import open_picture

LIMIT = 60_000_000  # bytes of all data URIs: what phones still open
WEBP_SIDE = 16383  # pixels; a larger picture has no WebP


@dataclass(frozen=True)
class Embedded:
    """One picture's data URIs by side: the original, then the record's variants; None where none.

    ``images`` are the pictures themselves, ``flips`` their FLIP maps.
    """

    picture: Picture
    images: tuple[str | None, ...]
    flips: tuple[str | None, ...]

    @property
    def bytes(self) -> int:
        return sum(len(uri) for uri in (*self.images, *self.flips) if uri is not None)


def embed(report: Report, limit: int = LIMIT) -> tuple[tuple[Embedded, ...], tuple[Picture, ...]]:
    """What fits into ``limit`` bytes, worst first; and the pictures that are left out.

    Embedding ends at the first picture that does not fit, so that none is shown before a worse one.
    Raises ReportError when a picture of the record is missing or damaged.
    """
    order = report.worst_first
    embedded: list[Embedded] = []
    room = limit
    for picture in order:
        made = _embed_picture(report, picture)
        room -= made.bytes
        if room < 0:
            break
        embedded.append(made)
    return tuple(embedded), order[len(embedded) :]


def _embed_picture(report: Report, picture: Picture) -> Embedded:
    def uri(name: str | None) -> str | None:
        return None if name is None else data_uri(report.file(name), picture)

    found = [report.results.get((picture.name, v.label)) for v in report.record.variants]
    return Embedded(
        picture,
        (uri(picture.file), *(None if r is None else uri(r.file) for r in found)),
        (None, *(None if r is None else uri(r.flip) for r in found)),
    )


def data_uri(path: Path, picture: Picture) -> str:
    """A PNG of a picture as lossless WebP, about a sixth smaller; a huge one as the PNG it is."""
    image = open_picture(path, picture)
    if max(image.size) > WEBP_SIDE:
        return _uri("png", path.read_bytes())
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=True, exact=True, method=1, quality=40)
    return _uri("webp", stream.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
