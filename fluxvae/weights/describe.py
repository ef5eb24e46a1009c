"""Say what a checkpoint file is, for ``fluxvae weights show``."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fluxvae.catalog import KNOWN_FILES, all_decoders
from fluxvae.digest import file_sha256
from fluxvae.errors import WeightsError
from fluxvae.weights.files import Header, read_header
from fluxvae.weights.keys import (
    PARTS,
    KeyLayout,
    check_fit,
    fitting_entries,
    likely_entry,
    part_names,
    part_shapes,
    read_layout,
)
from fluxvae.weights.load import load_file
from fluxvae.weights.source import WeightSource


@dataclass(frozen=True)
class FileReport:
    """What a file holds and what it is good for.

    ``format`` is ``safetensors``, ``pytorch`` or None when unreadable. ``fits`` are the
    (variant, kind, part) triples it can serve as. ``dtypes`` counts tensors by dtype. ``known``
    names a published file with the same sha256; ``pinned`` is the variant whose Hub file this is.
    ``problems`` says in words what stands against using it.
    """

    path: Path
    size: int  # bytes
    sha256: str
    format: str | None = None
    style: str | None = None
    fits: tuple[tuple[str, str, str], ...] = ()
    tensors: int = 0
    parameters: int = 0
    dtypes: Mapping[str, int] = field(default_factory=dict)
    known: str | None = None
    pinned: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def describe_file(path: Path) -> FileReport:
    """Facts about one checkpoint file; what is wrong with it is in ``problems``, not raised.

    Raises WeightsError only when there is no such file.
    """
    if not path.is_file():
        what = "is a folder; give a file in it" if path.is_dir() else "does not exist"
        raise WeightsError(f"{path}: {what}")
    sha256 = file_sha256(path)
    size = path.stat().st_size
    known, pinned = _published(sha256)
    try:
        header = read_header(path)
    except WeightsError as error:
        return FileReport(path, size, sha256, known=known, pinned=pinned, problems=(str(error),))
    layout = read_layout(header.shapes)
    fits = tuple(
        (entry.variant, entry.kind, part)
        for part in layout.parts
        for entry in fitting_entries(part_shapes(layout, part, header.shapes), part)
    )
    return FileReport(
        path,
        size,
        sha256,
        format=header.format,
        style=layout.style,
        fits=fits,
        tensors=len(header.shapes),
        parameters=sum(math.prod(shape) for shape in header.shapes.values()),
        dtypes=dict(Counter(header.dtypes.values())),
        known=known,
        pinned=pinned,
        metadata=header.metadata,
        problems=tuple(_problems(path, header, layout, fits)),
    )


def _published(sha256: str) -> tuple[str | None, str | None]:
    """(title, variant) when the digest is a published file's; variant only for a pinned one."""
    for entry in all_decoders():
        if entry.hub.sha256 == sha256:
            return f"{entry.hub.file} of {entry.hub.repo}, the pinned file", entry.variant
    return KNOWN_FILES.get(sha256), None


def _problems(
    path: Path, header: Header, layout: KeyLayout, fits: tuple[tuple[str, str, str], ...]
) -> Iterator[str]:
    """What stops each part from being loaded; reads the values of those that would fit."""
    if not layout.parts:
        yield from _refusal(lambda: part_names(layout, PARTS[0], path.name))
    served = {part for _, _, part in fits}
    for part in layout.parts:
        shapes = part_shapes(layout, part, header.shapes)
        entry = likely_entry(shapes, part, kl=layout.kl)
        if part in served:
            source = WeightSource("file", path.name, None)
            yield from _refusal(partial(load_file, entry, part, path, source))
        else:
            yield from _refusal(partial(check_fit, entry, part, shapes, path.name))


def _refusal(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except WeightsError as error:
        yield str(error)
