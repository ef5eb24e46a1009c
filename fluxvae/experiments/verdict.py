"""What a cell's own figures make of it: its verdict by validate's limits, its flags."""

from collections.abc import Sequence

import numpy as np

from fluxvae.experiments.file import Thresholds
from fluxvae.records.experiment import ErrorFigures, Result
from fluxvae.records.summary import run_medians, worst_psnr


def verdict_of(errors: Sequence[ErrorFigures]) -> str:
    """``pass`` when every input is within its limit, ``fail`` also where none was judged."""
    return "pass" if errors and all(e.passed for e in errors) else "fail"


def flags_of(result: Result, limits: Thresholds) -> tuple[str, ...]:
    """Thresholds crossed by the worst PSNR and the median of the runs' medians, in words.

    A figure that is not there crosses none.
    """
    flags = []
    psnr_db, medians = worst_psnr(result), run_medians(result)
    latency_ms = float(np.median(medians)) if medians else None
    floor, most = limits.psnr_db, limits.latency_ms
    if floor is not None and psnr_db is not None and psnr_db < floor:
        flags.append(f"worst PSNR {psnr_db:.2f} dB is below {floor:g} dB")
    if most is not None and latency_ms is not None and latency_ms > most:
        flags.append(f"latency {latency_ms:.3f} ms is above {most:g} ms")
    return tuple(flags)
