"""One-dimensional k-means against every partition there is, and against coremltools' own."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fluxvae.compress.kmeans import kmeans
from fluxvae.errors import CompressionError
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import load_weights


def error_of(parts: list[np.ndarray], masses: list[np.ndarray]) -> float:
    total = 0.0
    for part, mass in zip(parts, masses, strict=True):
        centre = (part * mass).sum() / mass.sum()
        total += float((mass * (part - centre) ** 2).sum())
    return total


def least_error(values: np.ndarray, count: int, weights: np.ndarray) -> float:
    """Of all ways to cut the sorted values into ``count`` runs."""
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    cuts = combinations(range(1, len(values)), min(count, len(values)) - 1)
    return min(error_of(np.split(values, cut), np.split(weights, cut)) for cut in cuts)


numbers = st.floats(-1e3, 1e3, width=16)


@settings(max_examples=150, deadline=None)
@given(
    values=hnp.arrays(np.float64, st.integers(1, 9), elements=numbers),
    count=st.integers(1, 5),
    data=st.data(),
)
def test_no_partition_has_less_error(values: np.ndarray, count: int, data: st.DataObject) -> None:
    weights = data.draw(hnp.arrays(np.float64, values.shape, elements=st.floats(0.125, 8)))
    found = kmeans(values, count, weights)
    spread = float((weights * values**2).sum()) + 1e-300
    assert found.error <= least_error(values, count, weights) + 1e-9 * spread
    assert len(found.centres) <= count
    assert found.labels.shape == values.shape
    rounded = found.centres[found.labels]
    assert found.error == pytest.approx(
        float((weights * (values - rounded) ** 2).sum()), rel=1e-9, abs=1e-9
    )
    assert (np.diff(found.centres) > 0).all()


def exact_reference(values: np.ndarray, count: int) -> float:
    """Least error by the textbook's dynamic program over all pairs of places, float64."""
    x = np.sort(values.astype(np.float64).ravel())
    first, second = (np.concatenate([[0.0], np.cumsum(x**power)]) for power in (1, 2))
    start, end = np.meshgrid(np.arange(len(x) + 1), np.arange(len(x) + 1), indexing="ij")
    size = np.maximum(end - start, 1)
    cost = (second[end] - second[start]) - (first[end] - first[start]) ** 2 / size
    cost[start > end] = np.inf
    best = cost[0]
    for _ in range(count - 1):
        best = (best[:, None] + cost).min(axis=0)
    return float(best[-1])


@pytest.mark.parametrize("count", [2, 3, 7, 16, 40])
@pytest.mark.parametrize("shape", ["normal", "two heaps", "heavy tails", "grid"])
def test_the_least_error_is_found_where_lloyd_would_stop_early(shape: str, count: int) -> None:
    generator = np.random.Generator(np.random.PCG64(3))
    values = {
        "normal": generator.standard_normal(400),
        "two heaps": np.concatenate(
            [generator.normal(-5, 0.01, 300), generator.normal(5, 2.0, 100)]
        ),
        "heavy tails": generator.standard_t(1.5, 400),
        "grid": np.round(generator.standard_normal(400) * 20) / 20,
    }[shape]
    wanted = exact_reference(values, count)
    assert kmeans(values, count).error == pytest.approx(wanted, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_never_more_error_than_coremltools_on_the_same_weights(bits: int) -> None:
    """Demo weights of three sizes: with kmeans1d (10,000 elements and more) and scikit-learn."""
    from coremltools.models.neural_network.quantization_utils import (
        _get_kmeans_lookup_table_and_weight as theirs,
    )

    decoder = build_decoder(load_weights("flux1", "demo"))
    for name in ("3.conv.0", "1", "19"):
        weight = decoder.get_submodule(name).weight.numpy().astype(np.float16)
        table, places = theirs(bits, weight)
        exact = weight.astype(np.float64).ravel()
        error = float(((exact - np.ravel(table)[np.ravel(places)]) ** 2).sum())
        found = kmeans(weight, 2**bits)
        assert found.error <= error * (1 + 1e-9), name
        assert found.labels.shape == weight.shape
        assert kmeans(weight, 2**bits, proved=False).error <= found.error * 1.05  # 1.024 at most


def test_fewer_values_than_centres_are_kept_as_they_are() -> None:
    values = np.array([[1.5, -2.0], [1.5, 1.5]])
    found = kmeans(values, 16)
    assert found.centres.tolist() == [-2.0, 1.5]
    assert found.labels.tolist() == [[1, 0], [1, 1]]
    assert found.error == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_constant_weights_and_minus_zero(dtype: type) -> None:
    assert kmeans(np.full((3, 4), 0.25, dtype), 4).centres.tolist() == [0.25]
    both_zeros = kmeans(np.array([0.0, -0.0, 1.0], dtype), 2)
    assert both_zeros.centres.tolist() == [0.0, 1.0]
    assert both_zeros.labels.tolist() == [0, 0, 1]


def test_counting_float16_patterns_and_sorting_agree() -> None:
    values = np.random.Generator(np.random.PCG64(5)).standard_normal(3000).astype(np.float16)
    counted, sorted_ = kmeans(values, 16), kmeans(values.astype(np.float32), 16)
    assert np.array_equal(counted.centres, sorted_.centres)
    assert np.array_equal(counted.labels, sorted_.labels)


def test_the_same_call_gives_the_same_table() -> None:
    values = np.random.Generator(np.random.PCG64(6)).standard_normal(5000)
    first, second = kmeans(values, 64), kmeans(values, 64)
    assert first.centres.tobytes() == second.centres.tobytes()
    assert np.array_equal(first.labels, second.labels)


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [np.inf, 1.0], []])
def test_numbers_that_are_not_finite_are_refused(bad: list[float]) -> None:
    with pytest.raises(CompressionError, match="finite"):
        kmeans(np.array(bad), 2)


@pytest.mark.parametrize("bad", [[-1.0, 1.0], [0.0, 0.0], [np.nan, 1.0]])
def test_weights_that_make_no_sense_are_refused(bad: list[float]) -> None:
    with pytest.raises(CompressionError, match="weights"):
        kmeans(np.array([1.0, 2.0]), 1, np.array(bad))


def test_values_without_weight_pull_no_centre() -> None:
    found = kmeans(np.array([0.0, 1.0, 100.0]), 2, np.array([1.0, 1.0, 0.0]))
    assert found.error == pytest.approx(0, abs=1e-6)
