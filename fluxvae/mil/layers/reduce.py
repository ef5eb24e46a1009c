"""Layers that reduce axes, and normalizations."""

from typing import Any

import numpy as np

from fluxvae.mil.layers.elementwise import DEFAULT_EPSILON
from fluxvae.mil.layers.graph import Layer, Shape, Translate, positive
from fluxvae.mil.layers.rank5 import per_image
from fluxvae.mil.program import Ref

# Stated by the format for a batchnorm epsilon that is not set, or set to 0
BATCHNORM_EPSILON = 1e-5

_REDUCE = {
    "reduceL1": "reduce_l1_norm", "reduceL2": "reduce_l2_norm", "reduceMax": "reduce_max",
    "reduceMin": "reduce_min", "reduceSum": "reduce_sum", "reduceProd": "reduce_prod",
    "reduceMean": "reduce_mean", "reduceLogSum": "reduce_log_sum",
    "reduceSumSquare": "reduce_sum_square", "reduceLogSumExp": "reduce_log_sum_exp",
}  # fmt: skip


def _reduce(op: str) -> Translate:
    def translate(layer: Layer) -> None:
        p, rank = layer.params, layer.rank(layer.x)
        everything = p.reduceAll or not len(p.axes)
        axes = tuple(range(rank)) if everything else tuple(positive(a, rank) for a in p.axes)
        out = reduced(layer.shape(layer.x), axes, keep=p.keepDims)
        layer.result(op, out, x=layer.x, axes=axes, keep_dims=p.keepDims)

    return translate


def reduced(shape: Shape, axes: tuple[int, ...], *, keep: bool) -> Shape:
    """Shape after reducing ``axes``, which count from the front."""
    if keep:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def reduce_last(layer: Layer, op: str, axes: tuple[int, ...]) -> None:
    """Write ``op`` over ``axes``, which count from the end; they keep the size 1."""
    layer.result(op, _kept(layer, axes), x=layer.x, axes=axes, keep_dims=True)


def _reduce_named(layer: Layer) -> None:
    """``reduce``: the older form, with named axes and the reduced dimensions kept."""
    p = layer.params
    wanted = {p.CHW: (-3, -2, -1), p.HW: (-2, -1), p.C: (-3,), p.H: (-2,), p.W: (-1,)}[p.axis]
    ops = {
        p.SUM: "reduce_sum", p.AVG: "reduce_mean", p.PROD: "reduce_prod", p.L1: "reduce_l1_norm",
        p.SUMSQUARE: "reduce_sum_square", p.L2: "reduce_l2_norm", p.MAX: "reduce_max",
        p.MIN: "reduce_min",
    }  # fmt: skip
    if p.mode not in ops:
        raise layer.unsupported(f"the mode {p.ReduceOperation.Name(p.mode)}")
    reduce_last(layer, ops[p.mode], wanted)


def _batchnorm(layer: Layer) -> None:
    p, shape = layer.params, layer.shape(layer.x)
    channels, epsilon = int(p.channels), float(p.epsilon) or BATCHNORM_EPSILON
    if len(shape) < 3:
        raise layer.damaged("has an input of rank below 3")
    if shape[-3] not in (None, channels):
        raise layer.damaged(f"wants {channels} channels, its input has {shape[-3]}")
    gamma = layer.weights(p.gamma, (channels,), "gamma")
    beta = layer.weights(p.beta, (channels,), "beta")
    if p.computeMeanVar:
        if not p.instanceNormalization:
            raise layer.unsupported("statistics of the whole batch")
        normal = _normalized(layer, axes=(-2, -1), epsilon=epsilon)
        _affine(layer, normal, gamma, beta)
        return
    mean = layer.weights(p.mean, (channels,), "the mean")
    variance = layer.weights(p.variance, (channels,), "the variance")
    if len(shape) == 4:
        layer.result(
            "batch_norm", shape, x=layer.x, mean=mean, variance=variance,
            gamma=gamma, beta=beta, epsilon=epsilon,
        )  # fmt: skip
        return
    # MIL's channel axis is 1, here it is -3: fold the statistics into factor and offset
    factor = gamma / np.sqrt(variance.astype(np.float64) + epsilon)
    _affine(layer, layer.x, factor, beta - mean * factor)


def _affine(layer: Layer, x: Ref, factor: np.ndarray, offset: np.ndarray) -> None:
    shape = layer.shape(x)
    scaled = layer.emit("mul", shape, x=x, y=factor.astype(np.float32).reshape(-1, 1, 1))
    layer.result("add", shape, x=scaled, y=offset.astype(np.float32).reshape(-1, 1, 1))


def _normalized(layer: Layer, *, axes: tuple[int, ...], epsilon: float) -> Ref:
    """(x - mean) / sqrt(variance + epsilon) over ``axes``."""
    centered = layer.emit("sub", layer.shape(layer.x), **_centered(layer, axes))
    return layer.emit("mul", layer.shape(layer.x), **_unit(layer, centered, axes, epsilon))


def _centered(layer: Layer, axes: tuple[int, ...]) -> dict[str, Any]:
    shape = _kept(layer, axes)
    mean = layer.emit("reduce_mean", shape, x=layer.x, axes=axes, keep_dims=True)
    return {"x": layer.x, "y": mean}


def _unit(layer: Layer, centered: Ref, axes: tuple[int, ...], epsilon: float) -> dict[str, Any]:
    shape = _kept(layer, axes)
    square = layer.emit("square", layer.shape(centered), x=centered)
    variance = layer.emit("reduce_mean", shape, x=square, axes=axes, keep_dims=True)
    return {"x": centered, "y": layer.emit("rsqrt", shape, x=variance, epsilon=epsilon)}


def _kept(layer: Layer, axes: tuple[int, ...]) -> Shape:
    rank = layer.rank(layer.x)
    return reduced(layer.shape(layer.x), tuple(positive(a, rank) for a in axes), keep=True)


def _mvn(layer: Layer) -> None:
    """Zero mean, and unit variance if asked, within a channel or across them.

    The format does not say where epsilon goes; coremltools lowers ``layer_norm`` to this layer,
    so it is layer_norm's: under the root, beside the variance.
    """
    p, shape = layer.params, layer.shape(layer.x)
    axes = (-3, -2, -1) if p.acrossChannels else (-2, -1)
    if not p.normalizeVariance:
        layer.result("sub", shape, **_centered(layer, axes))
        return
    centered = layer.emit("sub", shape, **_centered(layer, axes))
    epsilon = float(p.epsilon) or DEFAULT_EPSILON
    layer.result("mul", shape, **_unit(layer, centered, axes, epsilon))


@per_image
def _lrn(layer: Layer) -> None:
    p, shape = layer.params, layer.shape(layer.x)
    if len(shape) < 4:
        raise layer.unsupported(f"a tensor of rank {len(shape)}")
    layer.result(
        "local_response_norm", shape, x=layer.x, size=int(p.localSize), alpha=float(p.alpha),
        beta=float(p.beta), k=float(p.k) or 1.0,
    )  # fmt: skip


def _l2_normalize(layer: Layer) -> None:
    """x / sqrt(sum of squares over the last three axes + epsilon)."""
    axes, epsilon = (-3, -2, -1), float(layer.params.epsilon) or DEFAULT_EPSILON
    shape = _kept(layer, axes)
    total = layer.emit("reduce_sum_square", shape, x=layer.x, axes=axes, keep_dims=True)
    norm = layer.emit("rsqrt", shape, x=total, epsilon=epsilon)
    layer.result("mul", layer.shape(layer.x), x=layer.x, y=norm)


def _layer_normalization(layer: Layer) -> None:
    p, shape = layer.params, layer.shape(layer.x)
    normal = tuple(int(d) for d in p.normalizedShape)
    layer.result(
        "layer_norm",
        shape,
        x=layer.x,
        axes=tuple(range(-len(normal), 0)),
        gamma=layer.weights(p.gamma, normal, "gamma"),
        beta=layer.weights(p.beta, normal, "beta"),
        epsilon=float(p.eps),
    )


def _softmax(layer: Layer, axis: int) -> None:
    axis = positive(axis, layer.rank(layer.x))
    layer.result("softmax", layer.shape(layer.x), x=layer.x, axis=axis)


TABLE: dict[str, Translate] = {
    "batchnorm": _batchnorm,
    "l2normalize": _l2_normalize,
    "layerNormalization": _layer_normalization,
    "lrn": _lrn,
    "mvn": _mvn,
    "reduce": _reduce_named,
    "softmax": lambda layer: _softmax(layer, -3),
    "softmaxND": lambda layer: _softmax(layer, layer.params.axis),
    **{layer: _reduce(op) for layer, op in _REDUCE.items()},
}
