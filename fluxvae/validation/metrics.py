"""Arrays in, numbers out. Everything is computed in float64."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Metrics:
    """How far a candidate is from its reference.

    ``psnr_db`` is ``20 log10(peak / rmse)``: infinite for equal arrays, and not-a-number (as are
    all distances) when the candidate holds a NaN or an infinity. ``nan`` and ``inf`` count those.
    ``worst`` is the index of the largest difference, or of the first non-finite value.
    """

    max_abs: float
    mae: float
    rmse: float
    psnr_db: float
    cosine: float
    nan: int
    inf: int
    worst: tuple[int, ...]


def compare(candidate: np.ndarray, reference: np.ndarray, *, peak: float = 1.0) -> Metrics:
    """Distance of two arrays of one shape; ``peak`` is the reference's range (1 for [0, 1]).

    Raises ValueError when the shapes differ.
    """
    if candidate.shape != reference.shape:
        raise ValueError(f"shapes differ: {candidate.shape} and {reference.shape}")
    a, b = candidate.astype(np.float64), reference.astype(np.float64)
    nan, inf = int(np.isnan(a).sum()), int(np.isinf(a).sum())
    if nan or inf:
        where = np.unravel_index(int(np.argmax(~np.isfinite(a))), a.shape)
        bad = math.nan
        return Metrics(bad, bad, bad, bad, bad, nan, inf, tuple(int(i) for i in where))
    error = np.abs(a - b)
    where = np.unravel_index(int(np.argmax(error)), error.shape)
    rmse = float(np.sqrt(np.mean(error**2)))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return Metrics(
        max_abs=float(error.max()),
        mae=float(error.mean()),
        rmse=rmse,
        psnr_db=20 * math.log10(peak / rmse) if rmse else math.inf,
        cosine=float(np.vdot(a, b)) / norms if norms else float(np.array_equal(a, b)),
        nan=0,
        inf=0,
        worst=tuple(int(i) for i in where),
    )


def similarity(candidate: np.ndarray, reference: np.ndarray) -> float:
    """Mean SSIM of two images (1, 3, H, W) clamped to [0, 1] (scikit-image's, 7 x 7 windows)."""
    from skimage.metrics import structural_similarity

    a, b = (np.clip(x[0], 0, 1).astype(np.float64) for x in (candidate, reference))
    return float(structural_similarity(a, b, data_range=1.0, channel_axis=0))
