"""Layers that multiply by a matrix."""

from typing import Any

import numpy as np

from fluxvae.mil.layers.graph import Layer, Shape, Translate, broadcast
from fluxvae.mil.program import Ref


def _inner_product(layer: Layer) -> None:
    """Fully connected; ranks 4 and 5 flatten their last three axes into the channels."""
    p, shape = layer.params, layer.shape(layer.x)
    inputs, outputs = int(p.inputChannels), int(p.outputChannels)
    matrix, bias = _matrix(layer, inputs, outputs)
    if len(shape) <= 3:
        _linear(layer, layer.x, matrix, bias)
        return
    flat = layer.emit("reshape", (None, inputs), x=layer.x, shape=(-1, inputs))
    product = layer.emit("linear", (None, outputs), x=flat, weight=matrix, bias=bias)
    lead = shape[:-3]
    if sum(d is None for d in lead) > 1:
        raise layer.unsupported("several dimensions that are known at run time only")
    target = (*(-1 if d is None else d for d in lead), outputs, 1, 1)
    layer.result("reshape", (*lead, outputs, 1, 1), x=product, shape=target)


def _batched_matmul(layer: Layer) -> None:
    """Product of two values, or of one and a matrix that is stored column by column."""
    p = layer.params
    if len(layer.inputs) == 2:
        _matmul(layer, p.transposeA, p.transposeB)
        return
    inputs, outputs = int(p.weightMatrixFirstDimension), int(p.weightMatrixSecondDimension)
    matrix, bias = _matrix(layer, inputs, outputs)
    if layer.rank(layer.x) <= 3:
        _linear(layer, layer.x, matrix, bias)
        return
    out = (*layer.shape(layer.x)[:-1], outputs)
    arguments: dict[str, Any] = {"x": layer.x, "y": matrix, "transpose_y": True}
    if bias is None:
        layer.result("matmul", out, **arguments)
    else:
        layer.result("add", out, x=layer.emit("matmul", out, **arguments), y=bias)


def _matrix(layer: Layer, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The matrix (outputs, inputs) and the biases of a layer, if it has some."""
    p = layer.params
    if p.int8DynamicQuantize:
        raise layer.unsupported("int8 arithmetic")
    matrix = layer.weights(p.weights, (outputs, inputs), "the weights")
    return matrix, layer.weights(p.bias, (outputs,), "the biases") if p.hasBias else None


def _linear(layer: Layer, x: Ref, matrix: np.ndarray, bias: np.ndarray | None) -> None:
    shape = layer.shape(x)
    if shape[-1] not in (None, matrix.shape[1]):
        raise layer.damaged(f"wants {matrix.shape[1]} channels, its input has {shape[-1]}")
    layer.result("linear", (*shape[:-1], matrix.shape[0]), x=x, weight=matrix, bias=bias)


def _matmul(layer: Layer, transpose_x: bool, transpose_y: bool) -> None:
    x, y = layer.take(2)
    if min(layer.rank(x), layer.rank(y)) < 2:
        raise layer.unsupported("a vector in a product")
    a: Shape = layer.shape(x)
    b: Shape = layer.shape(y)
    rows = a[-1] if transpose_x else a[-2]
    columns = b[-2] if transpose_y else b[-1]
    out = (*broadcast(a[:-2], b[:-2]), rows, columns)
    layer.result("matmul", out, x=x, y=y, transpose_x=transpose_x, transpose_y=transpose_y)


TABLE: dict[str, Translate] = {"batchedMatmul": _batched_matmul, "innerProduct": _inner_product}
