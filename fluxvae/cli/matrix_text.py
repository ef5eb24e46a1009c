"""What ``fluxvae matrix`` prints, and the file that ``matrix init`` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxvae.cli.harness import number

if TYPE_CHECKING:
    from fluxvae.experiments.status import Line, Status

TEMPLATE = """\
# A matrix of fluxvae: every combination of the axes is a cell, and a cell is one artifact that is
# converted, judged against the float32 PyTorch decoder, and timed in fresh processes.
#   fluxvae matrix run THIS --out runs/today --workers 2
# Adding a value or a cell is an edit of this file: cells that are done are not done again.

[matrix]
name = "first"
runs = 3             # fresh processes for each latency; 0: do not measure
iterations = 10      # timed predictions in each
warmup = 1           # predictions before them
cooldown_s = 0.0     # rest between two processes, in seconds
threads = 1          # of every computation, since others give other last bits
time_limit_s = 3600  # of a cell's process; a cell that takes longer is recorded as failed
memory_limit_gb = 0  # the same for resident memory; 0: no limit
# For --scheduler: what a Dask worker must offer to make cells, and to measure them (then another
# worker may do it). MAC is asked for by itself, where a compute unit needs one.
# make_needs = ["GPU"]
# measure_needs = ["QUIET"]

# What counts as equivalent. Crossing one flags a cell and drops nothing.
[matrix.thresholds]
psnr_db = 40.0       # the worst photo's, at least
# latency_ms = 50.0  # at most

# Where weights are from, by decoder (flux2, flux2-full, ...): a file or folder, "demo", "random".
# Without an entry: the pinned file of the Hugging Face Hub.
[matrix.weights]
flux2 = "demo"       # shipped, not FLUX's latent space

# [matrix.encoders]  # what makes the photos' latents, where it does not lie beside the decoder
# flux2 = "path/to/taef2_encoder.safetensors"

[axes]
variant = ["flux2"]                    # flux1, flux2
# decoder = ["tiny"]                   # tiny, full, small
layout = ["nchw", "nhwc"]
precision = ["float16"]                # float16, float32
# io_precision = ["auto"]
sizes = ["256"]                        # "768x1344"; several in one: "768,1024" with other shapes
# shapes = ["fixed"]                   # fixed, enumerated, multifunction
compression = ["none", "pal4-plain"]   # pal8, pal6, int8, int4-block32, mixed-900KB, w8a8, ...
# attention = ["auto"]                 # of full and small: plain, chunked:1024, sdpa, ...
# compute_unit = ["all"]               # all, cpuOnly; on a Mac also cpuAndGPU, cpuAndNeuralEngine
# driver = ["python"]                  # python; swift with --harness

# One cell more, outside of the combinations; what is not said is at its default.
[[cell]]
variant = "flux2"
sizes = "256"
precision = "float32"

# Combinations to leave out: cells for which all of an entry holds.
[[exclude]]
layout = "nhwc"
compression = ["pal4-plain"]
"""


def status_table(status: Status) -> str:
    """Aligned text: a line for each cell, the counts first."""
    counts = ", ".join(f"{count} {name}" for name, count in sorted(status.counts.items()))
    wide = max(len(line.label) for line in status.lines)
    head = (f"{'cell':<{wide}}  {'status':<7}  {'verdict':<7}  {'median ms':>10}  {'PSNR dB':>7}  "
            f"{'bytes':>9}")  # fmt: skip
    return "\n".join(
        [f"{status.name}: {counts}", "", head, *(_line(x, wide) for x in status.lines)]
    )


def _line(line: Line, wide: int) -> str:
    row = line.row
    start = f"{line.label:<{wide}}  {line.status:<7}"
    if row is None:
        return start
    if row.reason is not None:
        return f"{start}  {row.reason}"
    marks = "".join(f"  {flag}" for flag in row.flags)
    return (
        f"{start}  {row.verdict or '-':<7}  {number(row.latency_ms, '.3f'):>10}  "
        f"{number(row.psnr_db, '.2f'):>7}  {number(row.bytes, 'd'):>9}{marks}"
    )


def duration(seconds: float) -> str:
    """``40 minutes``, ``7 hours``, ``3 days``: a guess needs no more."""
    for unit, length in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}s"
    return f"{seconds:.0f} seconds"


def size(count: float) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
