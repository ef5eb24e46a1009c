"""Codes of weights: against every choice there is, and against the formulas written out."""

from itertools import pairwise, product

import numpy as np
import pytest

from fluxvae.compress.gptq import Codebook, columns_by_size, coordinate_descent, error, gptq


def problem(rows: int, columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights (rows, columns) and a Gram matrix of correlated inputs."""
    generator = np.random.Generator(np.random.PCG64(seed))
    mixing = generator.standard_normal((columns, columns)) + 1.5 * np.ones((columns, 1))
    inputs = generator.standard_normal((10 * columns, columns)) @ mixing
    return generator.standard_normal((rows, columns)), inputs.T @ inputs / len(inputs)


def uniform(rows: int, columns: int, levels: int, step: float = 0.5) -> Codebook:
    values = (np.arange(levels) - (levels - 1) / 2) * step
    return Codebook(np.tile(values, (rows, 1, 1)), np.zeros(columns, np.intp))


def nearest(weight: np.ndarray, codebook: Codebook) -> np.ndarray:
    values = codebook.values[:, codebook.block]
    return np.abs(values - weight[:, :, None]).argmin(2)


def test_dense_looks_codes_up_by_row_and_block() -> None:
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(float)
    codebook = Codebook(values, np.array([0, 2, 1, 1, 2]))
    codes = np.array([[0, 1, 2, 3, 0], [3, 2, 1, 0, 1]])
    wanted = [[0, 9, 6, 7, 8], [15, 22, 17, 16, 21]]
    assert codebook.dense(codes).tolist() == wanted


def test_errors_are_carried_as_gptq_says() -> None:
    """Each column's error over the inverse's factor is taken from the columns still to come."""
    weight, gram = problem(3, 6)
    codebook = uniform(3, 6, 5)
    found = gptq(weight, gram, codebook, damping=0.01)
    order = columns_by_size(gram)
    damped = gram + 0.01 * np.diag(gram).mean() * np.eye(6)
    left = weight.copy()
    remaining = list(order)
    wanted = np.zeros((3, 6), int)
    for column in order:  # the optimal brain surgeon's update, with a fresh inverse each time
        wanted[:, column] = nearest(left, codebook)[:, column]
        chosen = codebook.dense(wanted)[:, column]
        inverse = np.linalg.inv(damped[np.ix_(remaining, remaining)])
        here = remaining.index(column)
        miss = (left[:, column] - chosen) / inverse[here, here]
        left[:, remaining] -= np.outer(miss, inverse[here])
        remaining.remove(column)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("seed", range(4))
def test_settled_codes_are_near_the_best_of_all(seed: int) -> None:
    """Over four problems the error stays within 1.5 of the least; rounding alone reaches 40."""
    weight, gram = problem(1, 6, seed)
    codebook = uniform(1, 6, 4, 0.8)
    every = np.array(list(product(range(4), repeat=6)))
    values = codebook.values[0, 0][every]
    difference = values - weight
    least = float(((difference @ gram) * difference).sum(1).min())
    codes = coordinate_descent(weight, gram, codebook, gptq(weight, gram, codebook), passes=10)
    found = error(weight - codebook.dense(codes), gram)
    rounded = error(weight - codebook.dense(nearest(weight, codebook)), gram)
    assert least <= found * (1 + 1e-9)
    assert found <= 1.5 * least
    assert found <= rounded


def test_settling_never_adds_error_and_ends_where_no_single_change_helps() -> None:
    weight, gram = problem(4, 20, 9)
    codebook = uniform(4, 20, 6)
    codes = nearest(weight, codebook)
    errors = [error(weight - codebook.dense(codes), gram)]
    for _ in range(12):
        codes = coordinate_descent(weight, gram, codebook, codes, passes=1)
        errors.append(error(weight - codebook.dense(codes), gram))
    assert all(after <= before + 1e-9 for before, after in pairwise(errors))
    assert errors[-1] < 0.5 * errors[0]
    for row, column, code in product(range(4), range(20), range(6)):
        other = codes.copy()
        other[row, column] = code
        assert error(weight - codebook.dense(other), gram) >= errors[-1] - 1e-9


def test_inputs_that_never_vary_leave_plain_rounding() -> None:
    weight, _ = problem(2, 5)
    codebook = uniform(2, 5, 7)
    gram = np.zeros((5, 5))
    codes = coordinate_descent(weight, gram, codebook, gptq(weight, gram, codebook))
    assert np.array_equal(codes, nearest(weight, codebook))
