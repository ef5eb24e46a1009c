"""The record of ``fluxvae roundtrip``: every figure, and the names of the pictures beside it.

Pages, sheets and summaries are made from it and those pictures alone.
docs/roundtrip.schema.json describes it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fluxvae.errors import ReportError
from fluxvae.schema import Header, Record

REFERENCE = "fp32"  # label of the float32 torch decode, always the first variant
Figures = dict[str, float | None]


@dataclass(frozen=True)
class Metric:
    """One column. ``left_out`` says why it could not be computed; figures then lack its name.

    A figure of None is infinity for ``psnr`` (the images are equal), and otherwise undefined for
    that image (MS-SSIM of an image below 176 pixels). ``library`` is name and version.
    """

    name: str  # psnr, ssim, ms_ssim, flip, ssimulacra2, max_abs, lpips, clip
    label: str
    unit: str
    better: Literal["higher", "lower"]
    library: str
    left_out: str | None


@dataclass(frozen=True)
class Cell(Record):
    """One picture through one candidate: a file of its own below the round trip's folder.

    ``key`` is over all that decides the figures: ``loss`` against the float32 decode, ``total``
    against the original.
    """

    header: ClassVar = Header(ReportError, "a cell of `fluxvae roundtrip`", "it is made again")
    key: str
    loss: Figures
    total: Figures


@dataclass(frozen=True)
class Crop:
    """A square of an image, in pixels from its top left."""

    top: int
    left: int
    side: int


@dataclass(frozen=True)
class Picture:
    """One input. ``sha256`` of the uint8 RGB pixels used; sizes in pixels, height by width.

    ``file`` is the original's PNG, relative to the record. ``changes`` says in words what was done
    to the file's pixels (turned, alpha laid on white, reduced from 16 bits, cropped from H x W).
    ``crop`` is the square, in pixels, where the variants differ most.
    """

    name: str
    source: str
    sha256: str
    height: int
    width: int
    file: str
    changes: tuple[str, ...]
    crop: Crop


@dataclass(frozen=True)
class Skipped:
    """An input that could not be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Variant:
    """One column of pictures. ``bytes`` of the weight file, ``fraction`` of fp16's (None: torch).

    ``label`` is what the user asked for, unique; ``words`` one line about it; ``evidence`` the
    classification by ``inspect`` (weights only, ...). ``artifact`` is a file name, ``recipe`` its
    data; both None for the reference.
    """

    label: str
    words: str
    artifact: str | None
    recipe: dict[str, Any] | None
    bytes: int | None
    fraction: float | None
    evidence: str | None


@dataclass(frozen=True)
class Result:
    """One picture through one variant.

    ``loss`` is against the float32 decode (what the conversion costs; empty for the reference
    itself), ``total`` against the original (what the viewer gets). ``file``, ``difference`` and
    ``flip`` are PNG names relative to the record: the image, its absolute difference from the
    float32 decode times ``Roundtrip.gain``, and its FLIP map; the last two None for the reference.
    """

    picture: str
    variant: str
    file: str
    difference: str | None
    flip: str | None
    loss: Figures
    total: Figures


@dataclass(frozen=True)
class Ablation:
    """One part changed alone, or all together; ``loss`` by picture, against the float32 decode.

    ``part`` names it (precision, I/O precision, pal6, ...), ``variant`` is whose part it is. The
    first is the float32 program without any, the last, ``all``, has them all together. ``recipe``
    is what was converted.
    """

    variant: str
    part: str
    recipe: dict[str, Any]
    loss: dict[str, Figures]


@dataclass(frozen=True)
class Roundtrip(Record):
    """A whole run. ``weights`` and ``encoder`` name what was used, with digests."""

    header: ClassVar = Header(
        ReportError, "a record of this version's `fluxvae roundtrip`", "make it again",
        "fluxvae-roundtrip", sort_keys=True,
    )  # fmt: skip
    family: str  # flux1 or flux2
    size: str  # 512, or 512x768 as in recipes
    weights: str
    weights_digest: str
    encoder: str
    encoder_digest: str
    source: str  # photos, soa, or the folder's name
    gain: float  # of the difference pictures
    tools: dict[str, str]  # name to version
    metrics: tuple[Metric, ...]
    pictures: tuple[Picture, ...]
    skipped: tuple[Skipped, ...]
    variants: tuple[Variant, ...]
    results: tuple[Result, ...]
    ablations: tuple[Ablation, ...]
