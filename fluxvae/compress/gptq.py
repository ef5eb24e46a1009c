"""The better recipe at the same size: values, tables and scales chosen for the output's error.

Each convolution is a least squares Problem (``layerwise``). Rows are output channels (O), columns
the K unfolded inputs. With the inputs' Gram matrix G the error of rounded rows Q is
``trace((W - Q) G (W - Q)^T)``: a closest-vector problem for each row. Weights get codes by GPTQ's
pass and coordinate descent; then, in turn, tables and scales are solved for by least squares under
the same Gram matrix and the codes are improved again.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fluxvae.compress.forms import (
    CompressedWeight,
    Palettized,
    Quantized,
    Scheme,
    as_stored,
    dense,
    to_float16,
)
from fluxvae.compress.kmeans import kmeans
from fluxvae.compress.layerwise import Problem, Solution
from fluxvae.compress.nearest import padded_table

# Rounds of solving for tables and scales. Each lowers the error of a 4-bit layer by about 2, 1 and
# 0.5 % of what is left (TAEF1); at 6 bits and above the first takes most of it.
ROUNDS = {1: 4, 2: 4, 3: 3, 4: 3, 6: 2, 8: 1}
WIDE = 2304  # inputs K beyond which one round is enough, and sums over codes are float32
BLOCK = 128  # columns whose effect on the others is one product of matrices
SHRINKS = np.linspace(1.0, 0.5, 26)  # of the largest magnitude, tried for an integer's scale


@dataclass(frozen=True)
class Codebook:
    """The values each weight may take.

    ``values`` float64 (O, B, N), rising along N; column k uses those of ``block[k]`` (K,).
    """

    values: np.ndarray
    block: np.ndarray

    def dense(self, codes: np.ndarray) -> np.ndarray:
        """The values float64 (O, K) that codes intp (O, K) stand for."""
        rows = np.arange(len(codes))[:, None]
        return self.values[rows, self.block[None], codes]


@dataclass(frozen=True)
class _Layer:
    """A Problem as matrices, float64: ``weight`` (O, K), ``gram`` (K, K)."""

    weight: np.ndarray
    gram: np.ndarray
    shape: tuple[int, ...]
    precision: str

    def round_table(self, values: np.ndarray) -> np.ndarray:
        """Products of a table or integer and a scale, as they will be expanded."""
        return as_stored(values, self.precision).astype(np.float64)


@dataclass(frozen=True)
class _Params:
    """What a form stores beside the codes: tables (G, N) of a palette, and scales."""

    tables: np.ndarray  # of an integer kind: (1, N), the integers themselves
    scale: np.ndarray  # (O, B)


def compensated(problem: Problem, scheme: Scheme, precision: str) -> Solution:
    """The form whose expansion changes the convolution's output least, as far as is found."""
    layer = _Layer(
        problem.weight.flatten(1).double().numpy(),
        problem.gram.numpy(),
        tuple(problem.weight.shape),
        precision,
    )
    begin, refit = (
        (_begin_palette, _refit_palette)
        if scheme.kind == "palette"
        else (_begin_integers, _refit_scales)
    )
    params = begin(layer, scheme)
    params, codes = _rounds(layer, scheme, params, refit)
    form = _form(scheme, params, codes.reshape(layer.shape))
    return Solution(torch.from_numpy(dense(form, precision)), form)


def _rounds(
    layer: _Layer,
    scheme: Scheme,
    params: _Params,
    refit: Callable[[_Layer, Scheme, _Params, np.ndarray], _Params],
) -> tuple[_Params, np.ndarray]:
    """The best parameters and codes (O, K) of all rounds."""
    codebook = _codebook(layer, scheme, params)
    codes = gptq(layer.weight, layer.gram, codebook)
    codes = coordinate_descent(layer.weight, layer.gram, codebook, codes)
    best = (error(layer.weight - codebook.dense(codes), layer.gram), params, codes)
    for _ in range(ROUNDS[scheme.bits] if len(layer.gram) <= WIDE else 1):
        params = refit(layer, scheme, params, codes)
        codebook = _codebook(layer, scheme, params)
        codes = coordinate_descent(layer.weight, layer.gram, codebook, codes)
        found = error(layer.weight - codebook.dense(codes), layer.gram)
        if found < best[0]:
            best = (found, params, codes)
    return best[1], best[2]


def _codebook(layer: _Layer, scheme: Scheme, params: _Params) -> Codebook:
    """Every product of table and scale that each weight could be."""
    rows = len(layer.weight)
    inputs = layer.shape[1]
    tables = np.repeat(params.tables, rows // len(params.tables), axis=0)
    values = tables[:, None, :] * params.scale[:, :, None]
    taps = layer.weight.shape[1] // inputs
    block = np.repeat(np.arange(inputs) * params.scale.shape[1] // inputs, taps)
    return Codebook(layer.round_table(values), block)


def _begin_palette(layer: _Layer, scheme: Scheme) -> _Params:
    """Weighted k-means of rows that are divided by their weighted root mean square."""
    rows = len(layer.weight)
    importance = np.diag(layer.gram) + 1e-9 * np.diag(layer.gram).mean() + 1e-30
    scale = np.ones(rows)
    if scheme.scaled:
        mean = (layer.weight**2 * importance).sum(1) / importance.sum()
        scale = _positive_float16(np.sqrt(mean))
    weights = scale[:, None] ** 2 * importance
    groups = zip(
        np.split(layer.weight / scale[:, None], scheme.tables(rows)),
        np.split(weights, scheme.tables(rows)),
        strict=True,
    )
    centres = [kmeans(part, 2**scheme.bits, mass, proved=False).centres for part, mass in groups]
    tables = np.stack([padded_table(group, scheme.bits) for group in centres])
    return _Params(to_float16(tables).astype(np.float64), scale[:, None])


def _refit_palette(layer: _Layer, scheme: Scheme, params: _Params, codes: np.ndarray) -> _Params:
    """Tables that fit the codes best under the Gram matrix; then the scales, given the tables."""
    count, size = params.tables.shape
    wanted = layer.weight @ layer.gram
    tables = params.tables.copy()
    gram = layer.gram if len(layer.gram) <= WIDE else layer.gram.astype(np.float32)
    for group, rows in enumerate(np.split(np.arange(len(codes)), count)):
        normal, right = np.zeros((size, size)), np.zeros(size)
        for row in rows:
            scale = params.scale[row, 0]
            normal += scale**2 * _pool(gram, codes[row], size)
            right += scale * np.bincount(codes[row], wanted[row], minlength=size)
        # Entries no weight uses, and those the Gram matrix says nothing about, stay.
        ridge = 1e-6 * float(np.trace(normal)) / size + 1e-30
        normal[np.diag_indices(size)] += ridge
        tables[group] = np.sort(np.linalg.solve(normal, right + ridge * tables[group]))
    tables = to_float16(tables).astype(np.float64)
    if not scheme.scaled:
        return _Params(tables, params.scale)
    per_row = np.repeat(tables, len(codes) // count, axis=0)
    units = np.take_along_axis(per_row, codes, axis=1)
    return _Params(tables, _best_scales(layer, units[:, None, :], params.scale))


def _pool(gram: np.ndarray, codes: np.ndarray, size: int) -> np.ndarray:
    """The Gram matrix (size, size) of inputs summed over each code; codes intp (K,)."""
    one_hot = (codes == np.arange(size)[:, None]).astype(gram.dtype)
    pooled: np.ndarray = one_hot @ gram @ one_hot.T
    return pooled


def _begin_integers(layer: _Layer, scheme: Scheme) -> _Params:
    """Scales with the least weighted rounding error among shrunken largest magnitudes."""
    rows, inputs = layer.shape[:2]
    largest = 2 ** (scheme.bits - 1) - 1
    integers = np.arange(-largest - 1, largest + 1, dtype=np.float64)
    importance = np.diag(layer.gram) + 1e-9 * np.diag(layer.gram).mean() + 1e-30
    blocks = scheme.blocks(inputs)
    parts = layer.weight.reshape(rows, blocks, -1)
    masses = np.broadcast_to(importance.reshape(blocks, -1), parts.shape)
    if scheme.granularity == "tensor":
        parts, masses = parts.reshape(1, 1, -1), masses.reshape(1, 1, -1)
    peak = np.abs(parts).max(axis=2)
    candidates = _positive_float16(peak * SHRINKS[:, None, None] / largest)
    losses = []
    for scale in candidates:
        codes = np.clip(np.round(parts / scale[..., None]), integers[0], integers[-1])
        losses.append((masses * (parts - codes * scale[..., None]) ** 2).sum(axis=2))
    best = np.take_along_axis(candidates, np.argmin(losses, axis=0)[None], axis=0)[0]
    return _Params(integers[None], np.broadcast_to(best, (rows, blocks)).copy())


def _refit_scales(layer: _Layer, scheme: Scheme, params: _Params, codes: np.ndarray) -> _Params:
    """Scales of integers that fit best: one for all rows, or each row's by least squares."""
    integers = params.tables[0][codes]
    if scheme.granularity == "tensor":
        wanted = float((integers * (layer.weight @ layer.gram)).sum())
        size = error(integers, layer.gram)
        scale = wanted / size if wanted > 0 and size > 0 else float(params.scale[0, 0])
        return _Params(params.tables, _positive_float16(np.full_like(params.scale, scale)))
    blocks = params.scale.shape[1]
    width = integers.shape[1] // blocks
    units = np.zeros((len(integers), blocks, integers.shape[1]))
    for block in range(blocks):
        where = slice(block * width, (block + 1) * width)
        units[:, block, where] = integers[:, where]
    return _Params(params.tables, _best_scales(layer, units, params.scale))


def _best_scales(layer: _Layer, units: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Positive scales (O, B) that bring ``units`` (O, B, K) closest to the weight.

    Where least squares finds none that is positive, the present one stays.
    """
    seen = units @ layer.gram
    normal = seen @ units.transpose(0, 2, 1)
    right = np.einsum("obk,ok->ob", seen, layer.weight)
    ridge = 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None] / normal.shape[1] + 1e-30
    normal += ridge[..., None] * np.eye(normal.shape[1])
    scale = np.linalg.solve(normal, (right + ridge * present)[..., None])[..., 0]
    return np.where(scale > 0, _positive_float16(np.maximum(scale, 0)), present)


def _positive_float16(scale: np.ndarray) -> np.ndarray:
    """Scales as float16 holds them; 1 where that is nothing."""
    rounded = to_float16(scale).astype(np.float64)
    return np.where(rounded > 0, rounded, 1.0)


def _form(scheme: Scheme, params: _Params, codes: np.ndarray) -> CompressedWeight:
    if scheme.kind == "palette":
        scale = params.scale[:, 0].astype(np.float32) if scheme.scaled else None
        return Palettized(
            scheme.bits, codes.astype(np.uint8), params.tables.astype(np.float32), scale
        )
    data = params.tables[0][codes].astype(np.int8)
    scale = params.scale[:1, :1] if scheme.granularity == "tensor" else params.scale
    return Quantized(scheme.kind, data, scale[:, :, None, None].astype(np.float32))


def error(difference: np.ndarray, gram: np.ndarray) -> float:
    """``trace(D G D^T)`` of rows (O, K)."""
    return float(((difference @ gram) * difference).sum())


def gptq(
    weight: np.ndarray, gram: np.ndarray, codebook: Codebook, *, damping: float = 0.01
) -> np.ndarray:
    """Codes intp (O, K), column by column; later columns compensate each one's error.

    Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ", 2022; the columns with the largest inputs
    first. ``damping`` of the Gram matrix's mean diagonal keeps it invertible.
    """
    order = columns_by_size(gram)
    ordered = gram[np.ix_(order, order)]
    ridge = damping * max(float(np.diag(gram).mean()), 1e-30)
    inverse = np.linalg.inv(ordered + ridge * np.eye(len(gram)))
    factor = np.linalg.cholesky((inverse + inverse.T) / 2).T
    rest = weight[:, order].astype(np.float64)
    codes = np.empty(weight.shape, np.intp)
    rows = np.arange(len(weight))
    middle = _middles(codebook)
    for start in range(0, len(order), BLOCK):
        end = min(start + BLOCK, len(order))
        near = np.ascontiguousarray(rest[:, start:end])
        scaled = np.empty_like(near)
        for index, column in enumerate(order[start:end]):
            position, block = start + index, codebook.block[column]
            chosen = _nearest(near[:, index], middle[:, block])
            codes[:, column] = chosen
            miss = near[:, index] - codebook.values[rows, block, chosen]
            scaled[:, index] = miss / factor[position, position]
            later = factor[position, position + 1 : end]
            near[:, index + 1 :] -= np.multiply.outer(scaled[:, index], later)
        rest[:, end:] -= scaled @ factor[start:end, end:]
    return codes


def coordinate_descent(
    weight: np.ndarray, gram: np.ndarray, codebook: Codebook, codes: np.ndarray, *, passes: int = 3
) -> np.ndarray:
    """Codes in which few single changes lower the error: coordinate descent over the columns.

    Each step takes the best value of one column with all others fixed, so the error never rises.
    Stops after ``passes``, or when a pass changes fewer than one code in ten thousand.
    """
    codes = codes.copy()
    chosen = codebook.dense(codes)
    pull = (weight - chosen) @ gram
    size = np.maximum(np.diag(gram), 1e-30)
    rows = np.arange(len(weight))
    middle = _middles(codebook)
    # A code stays while what is wanted lies between these, as most do: (K, O), a row at each step.
    ends = np.pad(middle, ((0, 0), (0, 0), (1, 1)), constant_values=(-np.inf, np.inf))
    spread = rows[:, None], codebook.block[None]
    above, below = (ends[(*spread, codes + side)].T.copy() for side in (0, 1))
    order = columns_by_size(gram)
    for _ in range(passes):
        changes = 0
        for columns in np.split(order, range(BLOCK, len(order), BLOCK)):
            near, between = pull[:, columns], gram[np.ix_(columns, columns)]
            steps = np.zeros_like(near)
            for index, column in enumerate(columns):
                wanted = chosen[:, column] + near[:, index] / size[column]
                moved = np.flatnonzero((wanted <= above[column]) | (wanted > below[column]))
                if not len(moved):
                    continue
                block = codebook.block[column]
                new = _nearest(wanted[moved], middle[moved, block])
                values = codebook.values[moved, block, new]
                steps[moved, index] = values - chosen[moved, column]
                near[moved] -= np.multiply.outer(steps[moved, index], between[index])
                codes[moved, column], chosen[moved, column] = new, values
                above[column, moved], below[column, moved] = (
                    ends[moved, block, new + side] for side in (0, 1)
                )
                changes += len(moved)
            pull -= steps @ gram[columns]
        if changes * 10_000 < codes.size:
            break
    return codes


def columns_by_size(gram: np.ndarray) -> np.ndarray:
    """Columns (K,), those with the largest mean square first."""
    return np.argsort(-np.diag(gram), kind="stable")


def _middles(codebook: Codebook) -> np.ndarray:
    return (codebook.values[..., 1:] + codebook.values[..., :-1]) / 2


def _nearest(wanted: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Index of the nearest of each row's values, given the points half-way between them."""
    return (wanted[:, None] > middle).sum(axis=1)
