"""Which of its allowed values each weight takes, so that a convolution's output changes least.

Rows are output channels (O), columns the K unfolded inputs. With the inputs' Gram matrix G the
error of rounded rows Q is ``trace((W - Q) G (W - Q)^T)``: a closest-vector problem for each row.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Alphabet:
    """The values each weight may take.

    ``values`` float64 (O, B, N), rising along N; column k uses those of ``block[k]`` (K,).
    """

    values: np.ndarray
    block: np.ndarray

    def dense(self, codes: np.ndarray) -> np.ndarray:
        """The values float64 (O, K) that codes intp (O, K) stand for."""
        rows = np.arange(len(codes))[:, None]
        return self.values[rows, self.block[None], codes]


def error(difference: np.ndarray, gram: np.ndarray) -> float:
    """``trace(D G D^T)`` of rows (O, K)."""
    return float(((difference @ gram) * difference).sum())


def carry_errors(
    weight: np.ndarray, gram: np.ndarray, alphabet: Alphabet, *, damping: float = 0.01
) -> np.ndarray:
    """Codes intp (O, K), column by column, each column's error made up for by those after it.

    Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ", 2022; the columns with the largest inputs
    first. ``damping`` of the Gram matrix's mean diagonal keeps it invertible.
    """
    order = columns_by_size(gram)
    ordered = gram[np.ix_(order, order)]
    ridge = damping * max(float(np.diag(gram).mean()), 1e-30)
    inverse = np.linalg.inv(ordered + ridge * np.eye(len(gram)))
    factor = np.linalg.cholesky((inverse + inverse.T) / 2).T
    left = weight[:, order].astype(np.float64)
    codes = np.empty(weight.shape, np.intp)
    rows = np.arange(len(weight))
    middle = _middles(alphabet)
    for place, column in enumerate(order):
        block = alphabet.block[column]
        chosen = _nearest(left[:, place], middle[:, block])
        codes[:, column] = chosen
        miss = left[:, place] - alphabet.values[rows, block, chosen]
        left[:, place + 1 :] -= np.outer(miss / factor[place, place], factor[place, place + 1 :])
    return codes


def settle(
    weight: np.ndarray, gram: np.ndarray, alphabet: Alphabet, codes: np.ndarray, *, passes: int = 3
) -> np.ndarray:
    """Codes in which few single changes lower the error: coordinate descent over the columns.

    Each step takes the best value of one column with all others fixed, so the error never rises.
    Stops after ``passes``, or when a pass changes fewer than one code in ten thousand.
    """
    codes = codes.copy()
    chosen = alphabet.dense(codes)
    pull = (weight - chosen) @ gram
    size = np.maximum(np.diag(gram), 1e-30)
    rows = np.arange(len(weight))
    middle = _middles(alphabet)
    order = columns_by_size(gram)
    for _ in range(passes):
        changes = 0
        for column in order:
            block = alphabet.block[column]
            wanted = chosen[:, column] + pull[:, column] / size[column]
            new = _nearest(wanted, middle[:, block])
            changed = int((new != codes[:, column]).sum())
            if changed:
                values = alphabet.values[rows, block, new]
                pull -= np.outer(values - chosen[:, column], gram[column])
                codes[:, column], chosen[:, column] = new, values
                changes += changed
        if changes * 10_000 < codes.size:
            break
    return codes


def columns_by_size(gram: np.ndarray) -> np.ndarray:
    """Columns (K,), those with the largest mean square first."""
    return np.argsort(-np.diag(gram), kind="stable")


def _middles(alphabet: Alphabet) -> np.ndarray:
    return (alphabet.values[..., 1:] + alphabet.values[..., :-1]) / 2


def _nearest(wanted: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Index of the nearest of each row's values, given the points half-way between them."""
    return (wanted[:, None] > middle).sum(axis=1)
