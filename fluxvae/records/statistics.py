"""Figures over repeated measurements. Everything is computed in float64."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

Z_LIMIT = 3.5
_Z_SCALE = 0.6745  # the MAD of a normal distribution, in standard deviations
LEAST_FOR_OUTLIERS = 3


def percentile(values: Iterable[float], q: float) -> float:
    """numpy's linear percentile, for values that may be infinite (numpy gives NaN there)."""
    ordered = list(values)
    low, high = (float(np.percentile(ordered, q, method=m)) for m in ("lower", "higher"))
    return high if low == high or math.isinf(high) else float(np.percentile(ordered, q))


def median(values: Iterable[float | None]) -> float | None:
    """Of the values that are known; None of none."""
    known = [v for v in values if v is not None]
    return percentile(known, 50) if known else None


def decibels(squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error, in units of the peak squared.

    Infinite where there is no error.
    """
    return -10 * math.log10(squared_error) if squared_error > 0 else math.inf


def outliers(values: Sequence[float]) -> tuple[int, ...]:
    """Indices of values whose modified z-score exceeds 3.5 in size; none of fewer than three.

    z = 0.6745 (x - median) / MAD: Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993),
    as in the NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.5.17. Where more than
    half of the values are equal the MAD is 0 and every other value is an outlier.
    """
    array = np.asarray(values, np.float64)
    if array.size < LEAST_FOR_OUTLIERS:
        return ()
    distance = np.abs(array - np.median(array))
    # multiplied out, so that a MAD of 0 divides nothing
    far = _Z_SCALE * distance > Z_LIMIT * np.median(distance)
    return tuple(int(i) for i in np.flatnonzero(far))
