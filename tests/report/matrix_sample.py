"""A run folder without running one: cells of a matrix with figures that are plainly made up."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path

from fluxvae.records.experiment import (
    NONE,
    RESULT,
    Cell,
    Energy,
    ErrorFigures,
    Host,
    Latency,
    Result,
)
from fluxvae.schema import plain
from tests.matrix_results import done

LINUX = Host("Linux", "6.1.0", None, "x86_64", "Sample CPU", 16_000_000_000, "3.12.1")
MAC = Host("Darwin", "24.0.0", "24A335", "arm64", "Sample M9", 16_000_000_000, "3.12.1")
VERSIONS = {"fluxvae": "0.9", "coremltools": "9.0", "torch": "2.13", "python": "3.12.1"}
LOSSES = {NONE: 0.0, "pal8": 21.0, "int8": 18.5, "pal6": 27.0, "pal4": 36.0, "int4": 38.5}  # dB
SHARES = {NONE: 1.0, "pal8": 0.51, "int8": 0.505, "pal6": 0.39, "pal4": 0.265, "int4": 0.26}
# What is not as it should be, by label.
FAILED = "flux2-nhwc-float32-int4-256"
NOT_HERE = "flux2-nhwc-float16-int4-256"
FLAGGED = "flux2-nchw-float16-pal4-256"
OUTLIER = "flux2-nhwc-float16-pal6-256"
LIMIT_FAILED = "flux2-nchw-float16-int4-256"
WITH_ENERGY = "flux2-nchw-float16-none-256"
HOSTILE = '</script><img src=x onerror="alert(1)"> | `a` "quoted" *b* & $x$'


def cells() -> tuple[Cell, ...]:
    """2 precisions, 2 layouts, 6 compressions of one decoder."""
    axes = product(("float16", "float32"), ("nchw", "nhwc"), LOSSES)
    return tuple(Cell("flux2", precision=p, layout=n, compression=c) for p, n, c in axes)


def wave(text: str) -> float:
    """A number from 0 to 1 that only the text decides."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 0xFFFFFF


def result(cell: Cell) -> Result:
    """A cell that was done. 5 runs of 4 samples; whole figures, so that they can be added up."""
    label, loss = cell.label(), LOSSES.get(cell.compression, 30.0)
    half = cell.precision == "float16"
    noise = 10 ** -(7.8 if half else 12.0) + (10 ** (loss / 10 - 7.8) if loss else 0.0)
    psnr = -10 * math.log10(noise) - wave(label)  # squared errors add up, nearly
    middle = (140.0 if half else 180.0) * (1.12 if cell.layout == "nhwc" else 1.0)
    middle += 40 * wave(f"{label} latency") + 8 * (loss > 0)
    steps = (0.0, -0.012, 0.008, 0.013, -0.006)
    runs = tuple(_run(middle * (1 + step)) for step in steps)
    size = int((2.45e6 if half else 4.9e6) * SHARES.get(cell.compression, 0.4))
    errors = tuple(
        ErrorFigures(
            name, kind, psnr + more, 10 ** (-psnr / 30), ssim, "PSNR at least 39.2 dB", psnr > 39.2
        )
        for name, kind, more, ssim in (
            ("coffee", "photo", 0.0, 1 - 10 ** (-psnr / 12)),
            ("normal", "normal", 1.25, None),
        )
    )
    return done(
        cell,
        versions=VERSIONS,
        host=LINUX,
        seconds={"capture": 4.2, "convert": 11.5, "compress": 6.25, "save": 0.5, "validate": 21.0},
        bytes=size,
        artifact="sample.mlpackage",
        artifact_sha256={"sample.mlpackage/Manifest.json": "c3" * 32},
        errors=errors,
        budget={"conversion": 121.0, "precision": 78.0, "compression": psnr},
        runs=runs,
    )


def _run(middle: float) -> Latency:
    samples = tuple(round(middle + d, 3) for d in (-0.5, 0.25, 0.5, -0.25))
    return Latency(round(middle / 400, 4), round(middle / 900, 4), samples, 410_000_000)


def sample() -> list[Result]:
    """The whole matrix: one cell each failed, n/a, flagged, not within limits, with energy."""
    changes: dict[str, Callable[[Result], Result]] = {
        FAILED: lambda r: without(r, "failed", "MemoryError: the cell's limit of 6 GB was reached"),
        NOT_HERE: lambda r: without(r, "n/a", "int4 of channels last needs macOS"),
        FLAGGED: lambda r: replace(r, flags=("worst PSNR 41.66 dB is below 42 dB",)),
        OUTLIER: lambda r: replace(r, runs=(*r.runs[:4], _run(260.0))),
        LIMIT_FAILED: lambda r: replace(
            r, verdict="fail", errors=tuple(replace(e, passed=False) for e in r.errors)
        ),
        WITH_ENERGY: lambda r: replace(
            r,
            energy=Energy({"CPU": 412.5, "GPU": 3.25, "ANE": 0.0}, {"CPU": 80.0, "GPU": 12.0},
                          200, 30.0, "relative only"),
        ),
    }  # fmt: skip
    found = [result(cell) for cell in cells()]
    return [changes.get(r.cell.label(), lambda r: r)(r) for r in found]


def without(found: Result, status: str, reason: str) -> Result:
    """The same cell when nothing came of it."""
    return replace(found, status=status, reason=reason, verdict=None, bytes=None, artifact=None,
                   artifact_sha256={}, errors=(), budget={}, runs=())  # type: ignore[arg-type]  # fmt: skip


def write(folder: Path, results: Iterable[Result]) -> Path:
    """The results as ``fluxvae matrix run`` leaves them in ``folder``."""
    for found in results:
        write_one(folder / "cells" / f"{found.key[:16]}-{found.cell.label()}", found)
    return folder


def write_one(place: Path, found: Result) -> None:
    """A cell's folder."""
    place.mkdir(parents=True, exist_ok=True)
    (place / RESULT).write_text(json.dumps(plain(found)), "utf-8")
