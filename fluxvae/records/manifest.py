"""An I/O bundle's ``manifest.json`` as data. docs/io.schema.json is the same for other languages.

Standard library and ``recipes`` only.
"""

import re
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Any, ClassVar, Literal

from fluxvae.errors import BundleError, UsageError
from fluxvae.recipes import Size, parse_sizes
from fluxvae.records.harness import Limit
from fluxvae.schema import Header, Record, StructureError

MANIFEST = "manifest.json"
NUMPY_DTYPES = {"float16": "<f2", "float32": "<f4"}
SOURCES: dict[str, dict[str, type]] = {
    "normal": {"kind": str, "seed": int, "generator": str},
    "photo": {"kind": str, "photo": str, "sha256": str},
    "file": {"kind": str, "name": str, "sha256": str},
}
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TensorFile:
    """One ``.bin`` file: C order, little-endian. ``layout`` is of the array as stored.

    Four axes; three for a latent of tokens, which have no layout: there it is the image's.
    """

    name: str
    file: str
    dtype: Literal["float16", "float32"]
    shape: tuple[int, ...]
    layout: Literal["nchw", "nhwc"]
    sha256: str

    def __post_init__(self) -> None:
        _require_texts(self)
        if PurePath(self.file).name != self.file or "\\" in self.file:
            # nothing outside the bundle is ever read
            raise StructureError(f"file should be a bare file name, got {self.file!r}")


@dataclass(frozen=True)
class Origin:
    """Of the weights: source (hub, file, demo, random), and the digest that the artifact's own
    metadata has to show."""

    source: str
    digest: str

    def __post_init__(self) -> None:
        _require_texts(self)


@dataclass(frozen=True)
class Manifest(Record):
    """What a bundle holds, and the limits that an artifact's output has to keep.

    ``limits`` is keyed by the artifact's compute precision. ``size`` is written in full:
    ``256x256``. ``source`` has the keys that ``SOURCES`` gives for its ``kind``.
    """

    header: ClassVar = Header(
        BundleError, "the manifest of an I/O bundle",
        "make the bundle again with fluxvae export-io --overwrite", "fluxvae-io", indent=2,
        sort_keys=True,
    )  # fmt: skip
    variant: str
    size: str
    case: str
    input: TensorFile
    output: TensorFile
    source: dict[str, Any]
    weights: Origin
    latent_space: str
    limits: dict[str, Limit]
    versions: dict[str, str]

    def __post_init__(self) -> None:
        _require_texts(self)
        try:
            count = len(parse_sizes(self.size))
        except UsageError as error:
            raise StructureError(f"size: {error}") from error
        if count != 1:
            raise StructureError(f"size should be one size, got {self.size!r}")
        # FLUX.1's tokens have no rows and columns
        tokens = self.variant == "flux1" and self.latent_space.endswith("-packed")
        image = self.input if self.input.name == "image" else self.output  # an encoder's input
        for name, tensor in (("input", self.input), ("output", self.output)):
            _require_axes(name, tensor, 3 if tokens and tensor is not image else 4)
        if set(self.limits) != set(NUMPY_DTYPES):
            wanted = list(NUMPY_DTYPES)
            raise StructureError(f"limits should be of {wanted}, got {list(self.limits)}")
        _require_source(self.source)

    @property
    def image_size(self) -> Size:
        """``size`` as a size."""
        return parse_sizes(self.size)[0]


def _require_texts(part: Any) -> None:
    """No text is empty; a digest has 64 hexadecimal digits."""
    for name, value in ((f.name, getattr(part, f.name)) for f in fields(part)):
        if value == "":
            raise StructureError(f"{name} should be text, got ''")
        if name in ("digest", "sha256") and not _HEX.fullmatch(value):
            raise StructureError(f"{name} should be 64 hexadecimal digits, got {value!r}")


def _require_axes(name: str, tensor: TensorFile, axes: int) -> None:
    if len(tensor.shape) != axes or min(tensor.shape) < 1:
        count = {3: "three", 4: "four"}[axes]
        raise StructureError(
            f"{name}.shape should be {count} positive whole numbers, got {list(tensor.shape)}"
        )


def _require_source(source: dict[str, Any]) -> None:
    wanted = SOURCES.get(str(source.get("kind")))
    if wanted is None:
        raise StructureError(
            f"source.kind should be one of {list(SOURCES)}, got {source.get('kind')!r}"
        )
    if {name: type(value) for name, value in source.items()} != wanted:
        described = ", ".join(f"{name} ({kind.__name__})" for name, kind in wanted.items())
        raise StructureError(f"source should be {described}, got {source}")
