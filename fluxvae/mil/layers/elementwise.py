"""Elementwise layers: activations, arithmetic, comparisons."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fluxvae.mil.layers.graph import Layer, Shape, Translate
from fluxvae.mil.program import Ref

# Stated by the format for an epsilon that is not set, or set to 0
DEFAULT_EPSILON = 1e-6

# Layer -> operation of one argument
_UNARY = {
    "copy": "identity", "ceil": "ceil", "floor": "floor", "sign": "sign", "round": "round",
    "tanh": "tanh", "erf": "erf",
}  # fmt: skip
# Layer -> operation of two arguments; those that fold also take more than two inputs
_FOLD = {
    "addBroadcastable": "add", "multiplyBroadcastable": "mul",
    "max": "maximum", "maxBroadcastable": "maximum",
    "min": "minimum", "minBroadcastable": "minimum",
}  # fmt: skip
_BINARY = {
    "subtractBroadcastable": "sub", "divideBroadcastable": "real_div",
    "floorDivBroadcastable": "floor_div", "modBroadcastable": "mod", "powBroadcastable": "pow",
}  # fmt: skip
_COMPARE = {
    "equal": "equal", "notEqual": "not_equal", "lessThan": "less", "lessEqual": "less_equal",
    "greaterThan": "greater", "greaterEqual": "greater_equal",
}  # fmt: skip
_LOGICAL = {"logicalAnd": "logical_and", "logicalOr": "logical_or", "logicalXor": "logical_xor"}
# Non-linearity -> operation, and the numbers of both by their name in either
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "ReLU": ("relu",),
    "tanh": ("tanh",),
    "sigmoid": ("sigmoid",),
    "softplus": ("softplus",),
    "softsign": ("softsign",),
    "ELU": ("elu", "alpha"),
    "leakyReLU": ("leaky_relu", "alpha"),
    "thresholdedReLU": ("thresholded_relu", "alpha"),
    "linear": ("linear_activation", "alpha", "beta"),
    "scaledTanh": ("scaled_tanh", "alpha", "beta"),
    "sigmoidHard": ("sigmoid_hard", "alpha", "beta"),
}


def _plain(op: str, names: str) -> Translate:
    """Of one argument (``x``) or two (``xy``)."""

    def translate(layer: Layer) -> None:
        values = layer.take(len(names))
        layer.result(op, layer.joint(*values), **dict(zip(names, values, strict=True)))

    return translate


def _fold(op: str) -> Translate:
    def translate(layer: Layer) -> None:
        if len(layer.inputs) < 2:
            raise layer.damaged(f"has {len(layer.inputs)} inputs, expected two or more")
        *rest, last = layer.inputs
        total = _total(layer, op, rest)
        layer.result(op, layer.joint(total, last), x=total, y=last)

    return translate


def _total(layer: Layer, op: str, values: Sequence[Ref]) -> Ref:
    total = values[0]
    for y in values[1:]:
        total = layer.emit(op, layer.joint(total, y), x=total, y=y)
    return total


def _with_scalar(op: str) -> Translate:
    """``add`` and ``multiply``: of all inputs, or of the only one and the scalar alpha."""
    several = _fold(op)

    def translate(layer: Layer) -> None:
        if len(layer.inputs) == 1:
            layer.result(op, layer.shape(layer.x), x=layer.x, y=float(layer.params.alpha))
        else:
            several(layer)

    return translate


def _average(layer: Layer) -> None:
    total = _total(layer, "add", layer.inputs)
    layer.result("real_div", layer.shape(total), x=total, y=float(len(layer.inputs)))


def _activation(layer: Layer) -> None:
    kind = layer.params.WhichOneof("NonlinearityType")
    if kind in _ACTIVATIONS:
        op, *names = _ACTIVATIONS[kind]
        numbers = {name: float(getattr(getattr(layer.params, kind), name)) for name in names}
        layer.result(op, layer.shape(layer.x), x=layer.x, **numbers)
    elif kind == "PReLU":
        _prelu(layer)
    elif kind == "parametricSoftplus":
        _parametric_softplus(layer)
    else:
        raise layer.unsupported(f"the non-linearity {kind}")


def _prelu(layer: Layer) -> None:
    """x above 0, alpha x below; not as MIL's ``prelu``, whose channel axis is 1, here it is -3."""
    shape = layer.shape(layer.x)
    alpha = _channelwise(layer, layer.params.PReLU.alpha, "the slopes")
    above = layer.emit("relu", shape, x=layer.x)
    below = layer.emit("minimum", shape, x=layer.x, y=0.0)
    leak = layer.emit("mul", shape, x=below, y=alpha)
    layer.result("add", shape, x=above, y=leak)


def _parametric_softplus(layer: Layer) -> None:
    """alpha log(1 + exp(beta x)), channel axis -3 (MIL's ``softplus_parametric`` has 1)."""
    params, shape = layer.params.parametricSoftplus, layer.shape(layer.x)
    scaled = layer.emit("mul", shape, x=layer.x, y=_channelwise(layer, params.beta, "beta"))
    soft = layer.emit("softplus", shape, x=scaled)
    layer.result("mul", shape, x=soft, y=_channelwise(layer, params.alpha, "alpha"))


def _channelwise(layer: Layer, message: Any, what: str) -> np.ndarray:
    """Values for axis -3: one for each channel, or one for all."""
    shape = layer.shape(layer.x)
    if len(shape) < 3 or shape[-3] is None:
        raise layer.unsupported("channels that are not known before run time")
    single = len(message.floatValue) == 1 or len(message.float16Value) == 2
    return layer.weights(message, (1 if single else shape[-3], 1, 1), what)


def _function(layer: Layer) -> None:
    """``unary``: f(scale x + shift)."""
    p, shape = layer.params, layer.shape(layer.x)
    x = layer.x
    if p.scale not in (0.0, 1.0):
        x = layer.emit("mul", shape, x=x, y=float(p.scale))
    if p.shift:
        x = layer.emit("add", shape, x=x, y=float(p.shift))
    epsilon = float(p.epsilon) or DEFAULT_EPSILON
    functions: dict[int, tuple[str, dict[str, float]]] = {
        p.SQRT: ("sqrt", {}),
        p.RSQRT: ("rsqrt", {"epsilon": epsilon}),
        p.INVERSE: ("inverse", {"epsilon": epsilon}),
        p.POWER: ("pow", {"y": float(p.alpha)}),
        p.EXP: ("exp", {}),
        p.LOG: ("log", {}),
        p.ABS: ("abs", {}),
        p.THRESHOLD: ("maximum", {"y": float(p.alpha)}),
    }
    if p.type not in functions:
        raise layer.unsupported(f"the function number {p.type}")
    op, numbers = functions[p.type]
    layer.result(op, shape, x=x, **numbers)


def _between(op: str, low: str, high: str) -> Translate:
    def translate(layer: Layer) -> None:
        alpha, beta = (float(getattr(layer.params, name)) for name in (low, high))
        layer.result(op, layer.shape(layer.x), x=layer.x, alpha=alpha, beta=beta)

    return translate


def _gelu(layer: Layer) -> None:
    modes = ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")
    layer.result("gelu", layer.shape(layer.x), x=layer.x, mode=modes[layer.params.mode])


def _scale(layer: Layer) -> None:
    """``scale``: x times constants, plus constants; both of shape (1), (C), (1|C, H, W)."""
    p, shape = layer.params, layer.shape(layer.x)
    factor = _spread(layer.weights(p.scale, p.shapeScale, "the scales"))
    if not p.hasBias:
        layer.result("mul", shape, x=layer.x, y=factor)
        return
    scaled = layer.emit("mul", shape, x=layer.x, y=factor)
    bias = _spread(layer.weights(p.bias, p.shapeBias, "the biases"))
    layer.result("add", shape, x=scaled, y=bias)


def _bias(layer: Layer) -> None:
    p = layer.params
    bias = _spread(layer.weights(p.bias, p.shape, "the biases"))
    layer.result("add", layer.shape(layer.x), x=layer.x, y=bias)


def _spread(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, 1, 1) if values.ndim == 1 else values


def _compare(op: str) -> Translate:
    def translate(layer: Layer) -> None:
        if len(layer.inputs) == 1:
            _truth(layer, op, layer.shape(layer.x), x=layer.x, y=float(layer.params.alpha))
            return
        x, y = layer.take(2)
        _truth(layer, op, layer.joint(x, y), x=x, y=y)

    return translate


def _logical(op: str) -> Translate:
    def translate(layer: Layer) -> None:
        x, y = layer.take(2)
        _truth(layer, op, layer.joint(x, y), x=layer.cast(x, "bool"), y=layer.cast(y, "bool"))

    return translate


def _logical_not(layer: Layer) -> None:
    _truth(layer, "logical_not", layer.shape(layer.x), x=layer.cast(layer.x, "bool"))


def _truth(layer: Layer, op: str, shape: Shape, **arguments: Any) -> None:
    """The result of an operation that gives booleans, as 0 and 1."""
    layer.result("cast", shape, x=layer.emit(op, shape, "bool", **arguments), dtype="fp32")


def _where(layer: Layer) -> None:
    condition, a, b = layer.take(3)
    shape = layer.joint(condition, a, b)
    layer.result("select", shape, cond=layer.cast(condition, "bool"), a=a, b=b)


TABLE: dict[str, Translate] = {
    "activation": _activation,
    "add": _with_scalar("add"),
    "average": _average,
    "bias": _bias,
    "clampedReLU": _between("clamped_relu", "alpha", "beta"),
    "clip": _between("clip", "minVal", "maxVal"),
    "gelu": _gelu,
    "logicalNot": _logical_not,
    "multiply": _with_scalar("mul"),
    "scale": _scale,
    "unary": _function,
    "whereBroadcastable": _where,
    **{layer: _plain(op, "x") for layer, op in _UNARY.items()},
    **{layer: _fold(op) for layer, op in _FOLD.items()},
    **{layer: _plain(op, "xy") for layer, op in _BINARY.items()},
    **{layer: _compare(op) for layer, op in _COMPARE.items()},
    **{layer: _logical(op) for layer, op in _LOGICAL.items()},
}
