"""Metrics against the formulas of their names, computed another way."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxvae.validation.metrics import compare

VALUES = st.integers(-64, 64).map(lambda n: n / 32)  # exact in float16, as are their differences
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=24)


@given(PAIRS)
def test_distances_equal_those_of_exact_fractions(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.array(side, np.float16) for side in zip(*pairs, strict=True))
    errors = [abs(Fraction(x) - Fraction(y)) for x, y in pairs]
    square = sum(e * e for e in errors) / len(errors)
    found = compare(a, b)
    # 1e-12: float64 rounding of at most 24 terms, 24 * 2e-16, with room
    assert found.max_abs == float(max(errors))
    assert found.mae == pytest.approx(float(sum(errors) / len(errors)), rel=1e-12)
    assert found.rmse == pytest.approx(math.sqrt(square), rel=1e-12)
    if square:
        assert found.psnr_db == pytest.approx(-10 * math.log10(square), rel=1e-12, abs=1e-12)
    else:
        assert found.psnr_db == math.inf
    assert (found.nan, found.inf) == (0, 0)


@given(PAIRS)
def test_cosine_is_that_of_the_angle(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    found = compare(a, b).cosine
    if a.any() and b.any():
        # from the law of cosines: |a/|a| - b/|b||^2 = 2 - 2 cos
        gap = a / math.hypot(*a) - b / math.hypot(*b)
        assert found == pytest.approx(1 - float((gap**2).sum()) / 2, abs=1e-12)
    else:
        assert found == float((a == b).all())


@pytest.mark.parametrize(
    ("rmse", "peak", "psnr"), [(0.1, 1.0, 20.0), (0.01, 1.0, 40.0), (2.55, 255.0, 40.0)]
)
def test_psnr_of_a_constant_error_is_twenty_decades(rmse: float, peak: float, psnr: float) -> None:
    reference = np.zeros((1, 3, 4, 5))
    assert compare(reference + rmse, reference, peak=peak).psnr_db == pytest.approx(psnr, abs=1e-9)


def test_equal_arrays_have_no_distance() -> None:
    array = np.linspace(-1, 2, 60, dtype=np.float32).reshape(1, 3, 4, 5)
    found = compare(array.copy(), array)
    assert (found.max_abs, found.mae, found.rmse) == (0, 0, 0)
    assert found.psnr_db == math.inf
    assert found.cosine == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (0, 2, 1, 3), (0, 2, 4, 6)])
def test_worst_place_is_the_index_of_the_largest_difference(place: tuple[int, ...]) -> None:
    reference = np.random.default_rng(1).random((1, 3, 5, 7))
    candidate = reference + 0.001
    candidate[place] -= 0.5
    found = compare(candidate, reference)
    assert found.worst == place
    assert found.max_abs == pytest.approx(0.499, abs=1e-12)


def test_non_finite_values_are_counted_and_spoil_every_distance() -> None:
    reference = np.zeros((1, 3, 4, 4), np.float32)
    candidate = reference.copy()
    candidate[0, 1, 2, 3] = np.inf
    candidate[0, 2, 0, 0] = np.nan
    candidate[0, 2, 3, 3] = -np.inf
    found = compare(candidate, reference)
    assert (found.nan, found.inf) == (1, 2)
    assert found.worst == (0, 1, 2, 3)
    for value in (found.max_abs, found.mae, found.rmse, found.psnr_db, found.cosine):
        assert math.isnan(value)


def test_float16_differences_are_not_rounded_to_float16() -> None:
    # 1 - 2^-11 is half-way between float16's neighbours of 1: float16 arithmetic would lose it
    a, b = np.array([1.0], np.float16), np.array([1 - 2**-11], np.float64)
    assert compare(a, b).max_abs == 2**-11


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 4\) and \(1, 4, 4, 3\)"):
        compare(np.zeros((1, 3, 4, 4)), np.zeros((1, 4, 4, 3)))
