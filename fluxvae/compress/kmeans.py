"""One-dimensional k-means, to the least possible error.

Clusters of sorted numbers are intervals, so a partition is a rising list of boundaries, the error
of an interval comes from prefix sums, and a step of Lloyd's costs a binary search for each
boundary. Lloyd stops at a local optimum. What follows moves all boundaries together, by dynamic
programming over windows around each, and ends with windows wide enough for a proof:

A partition b that nothing improves with boundary i in [b(i-1), b(i+1)] is a global optimum. The
error of an interval meets the quadrangle inequality; so for b and any partition c, the lower and
the upper parts of their boundaries make two partitions whose errors sum to no more, and so do they
for b and c with the indices shifted by one: step by step c turns into b and never gets worse.
A step of Lloyd's never adds error and keeps the order of two partitions; applied to b(i-1) and
b(i+1) it moves them towards b, and what it passes over holds no better partition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fluxvae.errors import CompressionError

LLOYD_STEPS = 60
POINTS = 9  # positions tried for each boundary at once, before the pass that tries all
WORTHWHILE = 1e-3  # of the error: what a pass in wide steps must save to be repeated
BRACKETED = 64  # clusters up to which steps of Lloyd's narrow the last pass's windows fast enough
BRACKETING = 300  # such steps
WHOLE_CELLS = 8000  # pairs of positions up to which trying each is faster than searching


@dataclass(frozen=True)
class Clusters:
    """``centres`` float64, rising (at most as many as asked); ``labels`` intp, as the values.

    ``error``: sum of squared distances, weighted.
    """

    centres: np.ndarray
    labels: np.ndarray
    error: float


def kmeans(
    values: np.ndarray, count: int, weights: np.ndarray | None = None, *, proved: bool = True
) -> Clusters:
    """At most ``count`` clusters of finite numbers of any shape; deterministic.

    ``weights``: not negative, as ``values``. ``proved`` False leaves out the passes that make sure
    of the least error: where tens of thousands of values are distinct they are most of the work,
    and on the tiny decoders' weights what comes before is within 5 %. With no more distinct values
    than ``count``, each is a centre. Raises CompressionError for NaN, infinity, no values or no
    positive weight.
    """
    flat = np.asarray(values, np.float64).ravel()
    bad = int((~np.isfinite(flat)).sum())
    if flat.size == 0 or bad:
        raise CompressionError(
            f"k-means needs finite numbers, got {flat.size} of which {bad} are not finite; check "
            "the weights with fluxvae weights"
        )
    distinct, where, masses = _distinct(np.asarray(values).ravel(), flat)
    if weights is not None:
        masses = np.bincount(where, np.asarray(weights, np.float64).ravel())
        if not (np.isfinite(masses).all() and masses.min() >= 0 and masses.sum() > 0):
            raise CompressionError("k-means weights must be finite, not negative, and not all zero")
        masses = np.maximum(masses, 1e-12 * masses.max())  # none is without weight
    if len(distinct) <= count:
        return Clusters(distinct, where.reshape(np.shape(values)), 0.0)
    sums = _Sums.of(distinct, masses)
    bounds = np.array([0, len(distinct)])
    if count > 1:
        bounds = _improved(sums, _lloyd(sums, _seed(sums, count), LLOYD_STEPS), proved)
    labels = np.repeat(np.arange(count), np.diff(bounds))
    centres = sums.means(bounds) + sums.offset
    error = float((masses * (distinct - centres[labels]) ** 2).sum())
    return Clusters(centres, labels[where].reshape(np.shape(values)), error)


def _distinct(raw: np.ndarray, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted distinct values, where each number is among them, and how often each comes."""
    if raw.dtype != np.float16:
        distinct, where, counts = np.unique(flat, return_inverse=True, return_counts=True)
        return distinct, where, counts.astype(np.float64)
    # Counting the 65,536 patterns is some twenty times faster than sorting.
    patterns = (raw + np.float16(0)).view(np.uint16)  # adding makes -0 into 0
    counts = np.bincount(patterns, minlength=2**16)
    present = np.flatnonzero(counts).astype(np.uint16)
    present = present[np.argsort(present.view(np.float16), kind="stable")]
    positions = np.zeros(2**16, np.intp)
    positions[present] = np.arange(len(present))
    masses = counts[present].astype(np.float64)
    return present.view(np.float16).astype(np.float64), positions[patterns], masses


@dataclass(frozen=True)
class _Sums:
    """Sorted distinct values less their mean, and prefix sums (n + 1,): of weight, and of both."""

    values: np.ndarray
    mass: np.ndarray
    moment: np.ndarray
    offset: float

    @classmethod
    def of(cls, values: np.ndarray, masses: np.ndarray) -> "_Sums":
        offset = float((values * masses).sum() / masses.sum())
        centred = values - offset
        mass = np.concatenate([[0.0], np.cumsum(masses)])
        moment = np.concatenate([[0.0], np.cumsum(masses * centred)])
        return cls(centred, mass, moment, offset)

    def means(self, bounds: np.ndarray) -> np.ndarray:
        mass, moment = self.mass[bounds], self.moment[bounds]
        return (moment[1:] - moment[:-1]) / (mass[1:] - mass[:-1])

    def gains(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """How much squared error one centre for values[start:end] saves; -inf where empty."""
        mass = self.mass[end] - self.mass[start]
        moment = self.moment[end] - self.moment[start]
        empty = mass <= 0
        mass[empty] = 1.0
        moment *= moment
        moment /= mass
        moment[empty] = -np.inf
        return moment

    def gain(self, bounds: np.ndarray) -> float:
        return float(self.gains(bounds[:-1], bounds[1:]).sum())


def _seed(sums: _Sums, count: int) -> np.ndarray:
    """Boundaries (count + 1,) as dense as the cube root of the density of the values.

    That is the best for many clusters: Panter and Dite, "Quantization distortion in pulse-count
    modulation with nonuniform spacing of levels", 1951. A value's density is its weight over the
    distance between its neighbours.
    """
    values = sums.values
    room = np.gradient(values)
    rising = np.cumsum(np.cbrt(np.diff(sums.mass) * room * room))
    cuts = np.linspace(0, rising[-1], count + 1)
    return _apart(np.searchsorted(rising, cuts), len(values))


def _apart(bounds: np.ndarray, size: int) -> np.ndarray:
    """The boundaries (..., count + 1) of ``size`` values, changed least: no cluster is empty."""
    steps = np.arange(bounds.shape[-1])
    room = size - steps[-1]
    slack = np.clip(np.maximum.accumulate(bounds - steps, axis=-1), 0, room)
    slack[..., 0], slack[..., -1] = 0, room
    return slack + steps


def _lloyd(sums: _Sums, bounds: np.ndarray, limit: int) -> np.ndarray:
    """Boundaries (..., count + 1) midway between the means beside them, ``limit`` times at most."""
    for _ in range(limit):
        mass, moment = sums.mass[bounds], sums.moment[bounds]
        means = (moment[..., 1:] - moment[..., :-1]) / (mass[..., 1:] - mass[..., :-1])
        middle = (means[..., 1:] + means[..., :-1]) * 0.5
        moved = bounds.copy()
        moved[..., 1:-1] = sums.values.searchsorted(middle, side="right")
        if (moved[..., 1:] <= moved[..., :-1]).any():
            moved = _apart(moved, len(sums.values))
        if (moved == bounds).all():
            break
        bounds = moved
    return bounds


def _improved(sums: _Sums, bounds: np.ndarray, proved: bool) -> np.ndarray:
    """Boundaries that no joint move improves: nearby, or (``proved``) up to their neighbours."""
    stride = max(1, int(np.diff(bounds).max()) // (POINTS // 2))
    gain, spread = sums.gain(bounds), sums.gain(np.arange(len(sums.values) + 1))
    proving = False
    while True:
        if proving:
            moved = _move(sums, bounds, _proving_windows(sums, bounds))
        else:
            moved = _move_near(sums, bounds, stride)
        better = sums.gain(moved)
        last = proving or (stride == 1 and not proved)
        enough = 1e-14 * gain if last else WORTHWHILE * (spread - gain)
        if better > gain + enough:
            bounds, gain = moved, better
        elif stride > 1:
            stride = max(1, stride // 4)
        elif proved and not proving:
            proving = True
        else:
            return bounds


def _move_near(sums: _Sums, bounds: np.ndarray, stride: int) -> np.ndarray:
    """The best of POINTS positions around each boundary, never beyond its neighbours."""
    steps = (np.arange(POINTS) - POINTS // 2) * stride
    positions = np.clip(bounds[1:-1, None] + steps, bounds[:-2, None], bounds[2:, None])
    best = sums.gains(bounds[:1], positions[0])
    choices = []
    for step in sums.gains(positions[:-1, :, None], positions[1:, None, :]):
        total = best[:, None] + step
        choices.append(total.argmax(0))
        best = total.max(0)
    return _traced(sums, bounds, positions, best, choices)


def _proving_windows(sums: _Sums, bounds: np.ndarray) -> list[np.ndarray]:
    """Every position for each inner boundary that the proof above does not rule out."""
    low, high = bounds.copy(), bounds.copy()
    low[1:-1], high[1:-1] = bounds[:-2], bounds[2:]
    sides = _apart(np.stack([low, high]), len(sums.values))
    if len(bounds) <= BRACKETED:
        sides = _lloyd(sums, sides, BRACKETING)
    low, high = np.minimum(sides[0], bounds), np.maximum(sides[1], bounds)
    return [np.arange(a, b + 1) for a, b in zip(low[1:-1], high[1:-1], strict=True)]


def _move(sums: _Sums, bounds: np.ndarray, windows: Sequence[np.ndarray]) -> np.ndarray:
    """The best boundaries among the positions in each one's window."""
    best = sums.gains(bounds[:1], windows[0])
    choices = []
    for before, after in pairwise(windows):
        best, choice = _stage(sums, best, before, after)
        choices.append(choice)
    return _traced(sums, bounds, windows, best, choices)


def _traced(
    sums: _Sums,
    bounds: np.ndarray,
    windows: Sequence[np.ndarray] | np.ndarray,
    best: np.ndarray,
    choices: Sequence[np.ndarray],
) -> np.ndarray:
    """The boundaries that dynamic programming chose, from its last stage back."""
    position = int((best + sums.gains(windows[-1], bounds[-1:])).argmax())
    path = [position]
    for choice in reversed(choices):
        position = int(choice[position])
        path.append(position)
    inner = [window[i] for window, i in zip(windows, path[::-1], strict=True)]
    return np.concatenate([bounds[:1], np.array(inner, np.intp), bounds[-1:]])


def _stage(
    sums: _Sums, best: np.ndarray, before: np.ndarray, after: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each of ``after`` the largest ``best`` plus gain from ``before``, and from where.

    The best position rises with ``after`` (the quadrangle inequality again): of wide windows every
    eighth column is solved first, and the others are searched between their neighbours' finds.
    """
    if len(before) * len(after) <= WHOLE_CELLS or len(after) <= 8:
        total = sums.gains(before[:, None], after)
        total += best[:, None]
        return total.max(0), total.argmax(0)
    coarse = np.append(np.arange(0, len(after) - 1, 8), len(after) - 1)
    _, found = _stage(sums, best, before, after[coarse])
    found = np.maximum.accumulate(found)  # rounding may break the order where gains tie
    spans = np.append(np.diff(coarse), 1)
    low = np.repeat(found, spans)
    lengths = np.repeat(np.append(found[1:], found[-1]), spans) - low + 1
    starts = np.cumsum(lengths) - lengths
    rows = np.arange(lengths.sum()) + np.repeat(low - starts, lengths)
    total = best[rows] + sums.gains(before[rows], np.repeat(after, lengths))
    peak = np.maximum.reduceat(total, starts)
    hits = np.flatnonzero(total == np.repeat(peak, lengths))
    return peak, rows[hits[np.searchsorted(hits, starts)]]
