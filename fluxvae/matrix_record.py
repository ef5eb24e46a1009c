"""A matrix's cells and their results as data: what running, reports and publishing agree on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """What to do, in plain values; names of ``Recipe``'s own fields where there is one."""

    variant: str
    decoder: str = "tiny"
    layout: str = "nchw"
    precision: str = "float16"
    io: str = "float32"
    shapes: str = "fixed"
    sizes: str = "256x256"
    compression: str = "none"
    attention: str = "auto"
    compute_unit: str = "all"
    driver: str = "python"

    def label(self) -> str:
        """Readable, fit for a file name, unique within a matrix."""
        parts = (
            *(self.variant, self.decoder, self.layout, self.precision, f"io{self.io}"),
            *(self.shapes, self.sizes.replace(",", "+"), self.compression),
            *(self.attention.replace(":", ""), self.compute_unit, self.driver),
        )
        return "-".join(parts)


@dataclass(frozen=True)
class Host:
    """The machine of a result. ``memory`` is in bytes."""

    system: str
    release: str
    build: str | None
    arch: str
    chip: str | None
    memory: int | None
    python: str


@dataclass(frozen=True)
class Latency:
    """One run: a fresh process."""

    first_load_s: float | None
    later_load_s: float | None
    samples_ms: tuple[float, ...]
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class ErrorFigures:
    """One input against the fp32 torch decoder. ``psnr_db`` None: infinite."""

    input: str
    psnr_db: float | None
    max_abs: float
    ssim: float | None
    limit: str
    passed: bool


@dataclass(frozen=True)
class Energy:
    """Relative only: millijoules per decode of each engine, its idle power subtracted."""

    engines_mj: dict[str, float]
    idle_mw: dict[str, float]
    decodes: int
    seconds: float
    note: str


@dataclass(frozen=True)
class Result:
    """One cell's result: ``done``, ``failed`` or ``n/a``, and what was measured."""

    format: str
    version: int
    key: str
    cell: Cell
    status: str
    reason: str | None
    verdict: str | None
    weights_digest: str
    inputs_digest: str
    versions: dict[str, str]
    host: Host
    seconds: dict[str, float]
    bytes: int | None
    artifact: str | None
    artifact_sha256: dict[str, str]
    errors: tuple[ErrorFigures, ...]
    budget: dict[str, float]
    runs: tuple[Latency, ...]
    placement: dict[str, int]
    energy: Energy | None
    flags: tuple[str, ...]
