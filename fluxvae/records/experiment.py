"""The records of ``fluxvae matrix``: what a cell is, what came of it, one line for each.

docs/matrix.schema.json describes a ``result.json``.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Literal

from fluxvae.errors import MatrixError
from fluxvae.schema import Header, Record, load

CELLS = "cells"  # below the folder of a run, whichever command's
RESULT = "result.json"
Status = Literal["done", "failed", "n/a"]
NONE = "none"  # compression of a cell that has none


@dataclass(frozen=True)
class Cell:
    """What to do: one artifact, and how it is to be run. Plain values only.

    Fields have the names of ``Recipe``'s own where there is one. ``sizes`` as ``parse_sizes``
    takes them (``256x256``, ``768,1024``); ``compression`` a label of ``recipes.parse_label``, or
    ``none``; ``compute_unit`` one of ``harness.UNITS``; ``driver`` is ``python`` or ``swift``.
    """

    variant: str
    decoder: str = "tiny"
    layout: str = "nchw"
    precision: str = "float16"
    io_precision: str = "auto"
    shapes: str = "fixed"
    sizes: str = "256x256"
    compression: str = NONE
    attention: str = "auto"
    compute_unit: str = "all"
    driver: str = "python"

    def label(self) -> str:
        """Readable, fit for a file name, and another one for every other cell of a matrix.

        ``flux2-nchw-float16-pal4-256``; what is at its default and seldom asked for is left out.
        """
        parts = [self.variant]
        parts += [] if self.decoder == "tiny" else [self.decoder]
        parts += [self.layout, self.precision]
        parts += [] if self.io_precision == "auto" else [f"io{self.io_precision}"]
        parts += [self.compression, _short(self.sizes)]
        parts += [] if self.shapes == "fixed" else [self.shapes]
        parts += [] if self.attention == "auto" else ["attn" + self.attention.replace(":", "")]
        parts += [] if self.compute_unit == "all" else [self.compute_unit]
        parts += [] if self.driver == "python" else [self.driver]
        return "-".join(parts)


AXES = tuple(axis.name for axis in fields(Cell))


@dataclass(frozen=True)
class Host:
    """Where a cell was measured. ``memory`` in bytes; None for what is not known."""

    system: str
    release: str
    build: str | None
    arch: str
    chip: str | None
    memory: int | None
    python: str


@dataclass(frozen=True)
class Latency:
    """One run: a fresh process. Its loads in seconds, every timed prediction in milliseconds.

    Peak memory is the process's own, in bytes.
    """

    first_load_s: float | None
    later_load_s: float | None
    samples_ms: tuple[float, ...]
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class ErrorFigures:
    """One input against the float32 torch decoder; ``kind``: photo, normal (noise) or extreme.

    ``psnr_db`` None: the images are equal, and ``max_abs`` is 0; or the image is not finite, and
    ``max_abs`` is None too. ``ssim`` is of images, None for noise. ``limit``: validate's, in words.
    """

    input: str
    kind: str
    psnr_db: float | None
    max_abs: float | None
    ssim: float | None
    limit: str
    passed: bool


@dataclass(frozen=True)
class Energy:
    """Relative only: millijoules per decode by engine, over an idle baseline in milliwatts.

    See ``fluxvae.device.power``. ``seconds``: how long was measured; ``note``: what it may be used
    for.
    """

    engines_mj: dict[str, float]
    idle_mw: dict[str, float]
    decodes: int
    seconds: float
    note: str


@dataclass(frozen=True)
class Thresholds:
    """What counts as equivalent, where something is asked for; crossing one flags a cell."""

    psnr_db: float | None = None  # the worst input's, at least
    latency_ms: float | None = None  # at most


@dataclass(frozen=True, kw_only=True)
class Result(Record):
    """What came of one cell: a ``result.json``, written last.

    ``key``: sha256 over all that decides the figures. ``reason``: why it failed, or why it cannot
    be done (``n/a``); None for ``done``. ``verdict``: of validate's limits, None where nothing was
    judged; a crossed threshold flags and never fails. ``seconds`` by step (capture, convert,
    compress, save, validate, measure). ``bytes``: of all files of ``artifact``, which lies beside;
    ``artifact_sha256``: digest of each of its files, by path from the cell's folder, and of its
    compiled model's where Apple's compiler made one; ``bytes`` are the artifact's own. ``budget``:
    worst PSNR in dB after each stage (conversion, precision, compression), photos where there are
    some. ``placement``: operations by device. ``flags``: thresholds crossed, in words.
    """

    header: ClassVar = Header(
        MatrixError, "a result of `fluxvae matrix run`",
        "remove its folder and run the matrix again", "fluxvae-matrix-cell", version=2,
    )  # fmt: skip
    key: str
    cell: Cell
    status: Status
    reason: str | None = None
    verdict: str | None = None
    weights_digest: str
    inputs_digest: str
    versions: dict[str, str]
    host: Host
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: int | None = None
    artifact: str | None = None
    artifact_sha256: dict[str, str] = field(default_factory=dict)
    errors: tuple[ErrorFigures, ...] = ()
    budget: dict[str, float] = field(default_factory=dict)
    runs: tuple[Latency, ...] = ()
    placement: dict[str, int] = field(default_factory=dict)
    energy: Energy | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of the summary, all of it relative to the others.

    ``latency_ms``, p10 and p90 are of the runs' medians, which ``runs_ms`` holds; ``outliers``:
    numbers of the runs, from 1. Loads are medians over the runs; memory is the
    largest. ``fraction``: bytes of those of the float16 cell without compression that is otherwise
    nearest; ``psnr_db``: the worst photo's (the worst input's where there is no photo), None when
    infinite or when any image is not finite. ``energy_mj``: of all engines together.
    """

    key: str
    label: str
    status: Status
    verdict: str | None
    reason: str | None
    latency_ms: float | None
    latency_p10_ms: float | None
    latency_p90_ms: float | None
    runs_ms: tuple[float, ...]
    outliers: tuple[int, ...]
    first_load_s: float | None
    later_load_s: float | None
    bytes: int | None
    fraction: float | None
    psnr_db: float | None
    energy_mj: float | None
    peak_memory_bytes: int | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """A cell that differs from the base in ``axes``, and by how much its figures do."""

    key: str
    label: str
    axes: dict[str, str]  # axis -> this cell's value
    psnr_db: float | None
    latency_ms: float | None
    bytes: int | None


@dataclass(frozen=True)
class Compounding:
    """A cell that differs in several axes at once, beside the sum of the single changes.

    ``sum_psnr_db`` is the change if the single changes' squared errors added up.
    """

    together: Change
    sum_psnr_db: float | None
    sum_latency_ms: float | None
    sum_bytes: int | None


@dataclass(frozen=True)
class Ablation:
    """One axis at a time, of one variant and kind of decoder, from ``base`` on."""

    base: Row
    single: tuple[Change, ...]
    compounding: tuple[Compounding, ...]


@dataclass(frozen=True)
class Provenance:
    """Where the figures are from. Each is a list, since only ``verify`` says that it is one.

    ``notes``: what the figures may be used for.
    """

    hosts: tuple[Host, ...]
    versions: tuple[dict[str, str], ...]
    weights_digests: dict[str, str]  # variant and kind -> digest
    inputs_digests: dict[str, str]
    commands: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """All that a page shows. Made by ``records.summary.summarize`` from results alone."""

    rows: tuple[Row, ...]
    ablation: tuple[Ablation, ...]
    provenance: Provenance


def cell_path(folder: Path, group: str, name: str) -> Path:
    """Where one of several cells of a group is kept as one file; both names are fit for files."""
    return folder / CELLS / group / f"{name}.json"


def read_results(folder: Path) -> tuple[Result, ...]:
    """Every result of a run folder, by label. Raises MatrixError when one is damaged."""
    paths = sorted((folder / CELLS).glob(f"[!.]*/{RESULT}"))
    results = (load(Result, path) for path in paths)
    return tuple(sorted(results, key=lambda r: (r.cell.label(), r.key)))


def _short(sizes: str) -> str:
    """``256x256`` as ``256``, commas as ``+``; other text stays."""
    parts = []
    for part in sizes.replace(" ", "").split(","):
        height, _, width = part.partition("x")
        parts.append(height if width in ("", height) else part)
    return "+".join(parts)
