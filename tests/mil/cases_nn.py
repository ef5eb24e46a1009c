"""Cases of convolution, normalisation and resampling, which coremltools cannot evaluate.

Their oracle is torch in float64 on explicit paddings, or the definition written out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.mil.case import Case, Oracle, normal, positive

X = normal(2, 4, 7, 8)
W = normal(6, 4, 3, 3)
B = normal(6)
T = normal(4, 6, 4, 4)


def _conv(pads: tuple[int, ...] = (0,), **options: int | tuple[int, ...]) -> Oracle:
    """``pads``: left, right, top, bottom as torch orders them."""

    def oracle(x: Tensor, weight: Tensor, bias: Tensor | None = None, **_: object) -> Tensor:
        function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.dim()]
        return function(F.pad(x, pads) if any(pads) else x, weight, bias, **options)

    return oracle


def _transposed(crop: tuple[int, int, int, int] = (0, 0, 0, 0), **options: int) -> Oracle:
    """Full transposed convolution with (left, right, top, bottom) removed."""
    left, right, top, bottom = crop

    def oracle(x: Tensor, weight: Tensor, bias: Tensor | None = None, **_: object) -> Tensor:
        if x.dim() == 3:
            return F.conv_transpose1d(x, weight, bias, **options)
        full = F.conv_transpose2d(x, weight, bias, **options)
        return full[..., top : full.shape[-2] - bottom, left : full.shape[-1] - right]

    return oracle


def _gradient_of_same(x: Tensor, weight: Tensor, **_: object) -> Tensor:
    """TensorFlow defines transposed 'same' as the gradient of a 'same' convolution, stride 2."""
    start = torch.zeros(x.shape[0], weight.shape[1], x.shape[2] * 2, x.shape[3] * 2).double()
    start.requires_grad_()
    forward = F.conv2d(F.pad(start, (0, 1, 0, 1)), weight, stride=2)
    (gradient,) = torch.autograd.grad(forward, start, x)
    return gradient


def conv(id: str, oracle: Oracle, weight: Any = W, x: Any = X, **constants: Any) -> Case:
    return Case("conv", id, {"x": x}, {"weight": weight, **constants}, oracle)


def transpose(id: str, oracle: Oracle, weight: Any = T, x: Any = X, **constants: Any) -> Case:
    return Case("conv_transpose", id, {"x": x}, {"weight": weight, **constants}, oracle)


_ONE_EACH = {"pad_type": "custom", "pad": [1, 1, 1, 1]}
_SAME, _SAME_LOWER, _VALID = {"pad_type": "same"}, {"pad_type": "same_lower"}, {"pad_type": "valid"}
_CONV = [
    conv("3x3", _conv((1, 1, 1, 1)), bias=B, **_ONE_EACH),
    conv("1x1", _conv(), W[..., :1, :1]),
    conv("defaults", _conv()),
    conv(
        *("downsample", _conv((0, 1, 0, 1), stride=2)),
        **{"strides": [2, 2], "pad_type": "custom", "pad": [0, 1, 0, 1]},
    ),
    conv("four-pads", _conv((2, 3, 0, 1)), pad_type="custom", pad=[0, 1, 2, 3]),
    conv("same", _conv((1, 1, 1, 1)), **_SAME),
    # Stride 2 on 7x8: one row above and below, and one column, at the right end.
    conv("same-stride", _conv((0, 1, 1, 1), stride=2), strides=[2, 2], **_SAME),
    conv("same-even", _conv((0, 1, 0, 1)), W[..., :2, :2], **_SAME),
    conv("same-lower", _conv((1, 0, 1, 0)), W[..., :2, :2], **_SAME_LOWER),
    conv("pad-ignored", _conv(), pad=[1, 1, 1, 1], **_VALID),
    conv("dilated", _conv(dilation=(2, 1)), dilations=[2, 1]),
    conv("dilated-same", _conv((2, 2, 2, 2), dilation=2), dilations=[2, 2], **_SAME),
    conv("groups", _conv(groups=2), W[:, :2], bias=B, groups=2),
    conv("depthwise", _conv(groups=4), normal(4, 1, 3, 3), groups=4),
    conv("1d", _conv((1, 0)), W[..., 0], X[:, :, 0], pad_type="custom", pad=[1, 0]),
    conv("3d", _conv(), normal(2, 4, 2, 2, 2), normal(1, 4, 3, 4, 5)),
    Case("conv", "ios15", {"x": X}, {"weight": W, "bias": B}, _conv(), target="iOS15"),
    Case("conv", "dynamic-weight", {"x": X, "weight": W}, {}, _conv()),
]
_TRANSPOSE = [
    transpose("defaults", _transposed(), bias=B),
    transpose("upsample", _transposed((1, 1, 1, 1), stride=2), strides=[2, 2], **_ONE_EACH),
    transpose(
        *("four-pads", _transposed((2, 1, 0, 1))),
        **{"bias": B, "pad_type": "custom", "pad": [0, 1, 2, 1]},
    ),
    transpose("same", _gradient_of_same, T[..., :3, :3], strides=[2, 2], **_SAME),
    transpose("groups", _transposed(groups=2), groups=2),
    transpose("dilated", _transposed(dilation=2), dilations=[2, 2]),
    transpose("1d", _transposed(stride=2), T[..., 0], X[:, :, 0], strides=[2]),
    transpose("output-shape", _transposed(), output_shape=[2, 6, 10, 11]),
]


def _normalised(axes: tuple[int, ...]) -> Callable[..., Tensor]:
    def oracle(
        x: Tensor,
        gamma: Tensor | None = None,
        beta: Tensor | None = None,
        epsilon: Tensor | float = 1e-5,
        **_: object,
    ) -> Tensor:
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        shape = [1, -1] + [1] * (x.dim() - 2)
        result = (x - mean) / torch.sqrt(variance + epsilon)
        if gamma is not None:
            result = result * gamma.reshape(shape)
        return result if beta is None else result + beta.reshape(shape)

    return oracle


def _batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    shape = [1, -1] + [1] * (x.dim() - 2)
    result = (x - mean.reshape(shape)) / torch.sqrt(variance.reshape(shape) + epsilon)
    if gamma is not None:
        result = result * gamma.reshape(shape)
    return result if beta is None else result + beta.reshape(shape)


_STATS = {"mean": normal(4), "variance": positive(4)}
_AFFINE = {"gamma": normal(4, seed=1), "beta": normal(4, seed=2)}
_PLANE = {"gamma": normal(7, 8), "beta": normal(7, 8, seed=1)}
_NORM = [
    Case("batch_norm", "plain", {"x": X}, _STATS, _batch_norm),
    Case("batch_norm", "affine", {"x": X}, _STATS | _AFFINE | {"epsilon": 0.125}, _batch_norm),
    Case("batch_norm", "gamma", {"x": X}, _STATS | {"gamma": normal(4)}, _batch_norm),
    Case("batch_norm", "1d", {"x": X[:, :, 0]}, _STATS, _batch_norm),
    Case("batch_norm", "3d", {"x": X[:, :, None]}, _STATS | _AFFINE, _batch_norm),
    Case("instance_norm", "plain", {"x": X}, {}, _normalised((2, 3))),
    Case(
        *("instance_norm", "affine", {"x": X + 5}),
        *(_AFFINE | {"epsilon": 0.125}, _normalised((2, 3))),
    ),
    Case("instance_norm", "1d", {"x": X[:, :, 0]}, _AFFINE, _normalised((2,))),
    Case("layer_norm", "all", {"x": X}, {"axes": [0, 1, 2, 3]}),
    Case("layer_norm", "last", {"x": X}, {"axes": [-1], "gamma": normal(8), "beta": positive(8)}),
    Case("layer_norm", "two", {"x": X}, {"axes": [2, 3], **_PLANE}),
    Case("layer_norm", "channel", {"x": X}, {"axes": [1], **_AFFINE, "epsilon": 0.125}),
    Case("layer_norm", "apart", {"x": X}, {"axes": [3, 1], "gamma": normal(4, 8)}),
]


def _repeat(high: int, wide: int) -> Oracle:
    return lambda x, **_: x.repeat_interleave(high, -2).repeat_interleave(wide, -1)


def _torch_bilinear(align_corners: bool) -> Oracle:
    def oracle(
        x: Tensor, scale_factor_height: float, scale_factor_width: float, **_: object
    ) -> Tensor:
        size = (
            int(x.shape[-2] * scale_factor_height),
            int(x.shape[-1] * scale_factor_width),
        )
        flat = x.reshape(-1, 1, *x.shape[-2:])
        resized = F.interpolate(flat, size=size, mode="bilinear", align_corners=align_corners)
        return resized.reshape(*x.shape[:-2], *size)

    return oracle


def _at(rows: list[float], columns: list[float]) -> Oracle:
    """Linear interpolation at grid points printed in MIL's documentation."""

    def oracle(x: Tensor, **_: object) -> Tensor:
        high, wide = (np.arange(n) for n in x.shape[-2:])
        by_row = np.apply_along_axis(lambda line: np.interp(rows, high, line), -2, x.numpy())
        return torch.from_numpy(
            np.apply_along_axis(lambda line: np.interp(columns, wide, line), -1, by_row)
        )

    return oracle


_PAIR = np.array([[[[0.0, 1.0], [4.0, 7.0]]]])


def _scales(height: float, width: float) -> dict[str, Any]:
    """Scale factors as they come: int32, or fp32 also in fp16 programs."""
    whole = isinstance(height, int) and isinstance(width, int)
    kind = int if whole else np.float32
    return {"scale_factor_height": kind(height), "scale_factor_width": kind(width)}


def repeat(id: str, height: float, width: float, x: Any = X) -> Case:
    oracle = _repeat(int(height), int(width))
    constants = _scales(height, width)
    return Case("upsample_nearest_neighbor", id, {"x": x}, constants, oracle, tolerance=None)


def bilinear(id: str, oracle: Oracle, height: float, width: float, x: Any, **more: Any) -> Case:
    return Case("upsample_bilinear", id, {"x": x}, _scales(height, width) | more, oracle)


def resize(id: str, oracle: Oracle, height: int, width: int, mode: str, x: Any = X) -> Case:
    size = {"target_size_height": height, "target_size_width": width}
    return Case("resize_bilinear", id, {"x": x}, size | {"sampling_mode": mode}, oracle)


# Xin = 2: the grids of resize_bilinear's documentation, to two or three digits there.
_GRIDS = {
    "UNALIGN_CORNERS": ([0, 0.1, 0.5, 0.9, 1], [0, 0, 1 / 3, 2 / 3, 1, 1]),
    "STRICT_ALIGN_CORNERS": ([0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "ALIGN_CORNERS": ([0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "DEFAULT": ([0, 0.4, 0.8, 1, 1], [0, 1 / 3, 2 / 3, 1, 1, 1]),
    "OFFSET_CORNERS": ([0.1, 0.3, 0.5, 0.7, 0.9], [1 / 12, 0.25, 5 / 12, 7 / 12, 0.75, 11 / 12]),
}
_HALF = {"align_corners": False}
_RESIZE = [
    repeat("x2", 2, 2),
    repeat("x2-fp32", 2.0, 2.0),
    repeat("uneven", 3, 7),
    repeat("rank-3", 2, 2, X[0]),
    Case("upsample_nearest_neighbor", "default", {"x": X}, {}, _repeat(1, 1), tolerance=None),
    *(
        bilinear(
            f"{'aligned' if align else 'centres'}-{height}x{width}",
            *(_torch_bilinear(align), height, width, x),
            align_corners=align,
        )
        for x, height, width in ((X, 2, 2), (X, 3, 1), (X, 0.5, 0.75), (X[0], 2.5, 1.5))
        for align in (True, False)
    ),
    bilinear("default", _torch_bilinear(True), 2, 2, X),
    # Neither aligned nor centred is the grid that resize_bilinear calls DEFAULT.
    bilinear(
        *("neither", _at(*_GRIDS["DEFAULT"]), 2.5, 3, _PAIR), **_HALF, half_pixel_centers=False
    ),
    bilinear(
        *("half", _at(*_GRIDS["UNALIGN_CORNERS"]), 2.5, 3, _PAIR), **_HALF, half_pixel_centers=True
    ),
    *(resize(mode, _at(*grid), 5, 6, mode, _PAIR) for mode, grid in _GRIDS.items()),
    Case(
        *("resize_nearest_neighbor", "multiples", {"x": X}),
        *({"target_size_height": 14, "target_size_width": 24}, _repeat(2, 3)),
        tolerance=None,
    ),
    resize("one-point", _at([3.0], [3.5]), 1, 1, "ALIGN_CORNERS"),
    resize("one-point-strict", _at([0.0], [0.0]), 1, 1, "STRICT_ALIGN_CORNERS"),
    Case("resize_bilinear", "defaults", {"x": X}, {}, _at([0.0], [0.0])),
]

NN = (*_CONV, *_TRANSPOSE, *_NORM, *_RESIZE)
