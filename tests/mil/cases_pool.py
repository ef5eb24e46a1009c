"""Cases of pooling, which coremltools cannot evaluate. Oracle: torch in float64."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.mil.case import Case, Oracle, normal

X = normal(2, 3, 7, 8)
LINE = X[:, :, 0]
CUBE = normal(1, 2, 4, 5, 6)
_MAX = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}
_AVG = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}
Pads = tuple[int, ...]


def _max(kernel: Any, pads: Pads = (), stride: int = 1, **options: Any) -> Oracle:
    """``pads``: as torch orders them, on top of torch's own symmetric ``padding``."""
    return lambda x, **_: _MAX[x.dim()](F.pad(x, pads, value=-math.inf), kernel, stride, **options)


def _avg(kernel: Any, pads: Pads = (), stride: int = 1, **options: Any) -> Oracle:
    return lambda x, **_: _AVG[x.dim()](F.pad(x, pads), kernel, stride, **options)


def _avg_inside(kernel: Any, pads: Pads, stride: int = 1) -> Oracle:
    """Mean of what is not padding: that of the input over that of ones."""

    def oracle(x: Tensor, **_: object) -> Tensor:
        sums = [_AVG[x.dim()](F.pad(v, pads), kernel, stride) for v in (x, torch.ones_like(x))]
        return sums[0] / sums[1]

    return oracle


def _l2(kernel: Any, pads: Pads = (), stride: int = 1) -> Oracle:
    count = math.prod(kernel)
    return lambda x, **_: (_AVG[x.dim()](F.pad(x, pads).square(), kernel, stride) * count).sqrt()


def pool(op: str, id: str, oracle: Oracle, kernel: list[int], x: Any = X, **more: Any) -> Case:
    constants = {"kernel_sizes": kernel, "pad_type": "valid"} | more
    target = more.pop("target", "iOS17")
    constants.pop("target", None)
    tolerance = None if op == "max_pool" else 1e-6
    return Case(op, id, {"x": x}, constants, oracle, target=target, tolerance=tolerance)


_ONE_EACH = {"pad_type": "custom", "pad": [1, 1, 1, 1]}
_UNEVEN = {"pad_type": "custom", "pad": [0, 1, 2, 0]}
_OUTSIDE = {"exclude_padding_from_average": True}
_TWO = {"strides": [2, 2]}
_CEIL = {"ceil_mode": True}
# Windows of 3 by strides of 2 on 7 x 8: one row above and below, and one column, at the right end.
_POOLS = [
    pool("max_pool", "valid", _max((3, 2)), [3, 2]),
    pool("max_pool", "stride", _max(2, stride=2), [2, 2], **_TWO),
    pool("max_pool", "wide-stride", _max(2, stride=3), [2, 2], strides=[3, 3]),
    pool("max_pool", "one-each", _max(3, padding=1, stride=2), [3, 3], **_ONE_EACH, **_TWO),
    pool("max_pool", "negative", _max(3, (2, 0, 0, 1)), [3, 3], X - 9, **_UNEVEN),
    pool("max_pool", "pad-ignored", _max(2), [2, 2], pad=[1, 1, 1, 1]),
    pool("max_pool", "same", _max(3, (0, 1, 1, 1), stride=2), [3, 3], pad_type="same", **_TWO),
    pool("max_pool", "same-lower", _max(2, (1, 0, 1, 0)), [2, 2], pad_type="same_lower"),
    pool("max_pool", "ceil", _max(2, stride=2, ceil_mode=True), [2, 2], **_TWO, **_CEIL),
    pool(
        *("max_pool", "ceil-padded", _max(3, stride=2, padding=1, ceil_mode=True), [3, 3]),
        **_ONE_EACH, **_TWO, **_CEIL,
    ),
    # The third window would begin in the padding on the right: torch and MIL drop it.
    pool(
        *("max_pool", "ceil-dropped", _max(2, stride=2, padding=1, ceil_mode=True), [2], LINE),
        **{"strides": [2], "pad_type": "custom", "pad": [1, 1]}, **_CEIL,
    ),
    pool("max_pool", "1d", _max(3, (1, 0)), [3], LINE, pad_type="custom", pad=[1, 0]),
    pool("max_pool", "3d", _max(2, (0, 0, 0, 0, 1, 0), stride=2), [2] * 3, CUBE,
         strides=[2] * 3, pad_type="custom", pad=[1, 0, 0, 0, 0, 0]),
    pool("max_pool", "ios15", _max(2), [2, 2], target="iOS15"),
    pool("avg_pool", "valid", _avg((3, 2)), [3, 2]),
    pool("avg_pool", "stride", _avg(2, stride=2), [2, 2], **_TWO),
    pool("avg_pool", "one-each", _avg(3, padding=1), [3, 3], **_ONE_EACH),
    pool("avg_pool", "uneven", _avg(3, (2, 0, 0, 1)), [3, 3], **_UNEVEN),
    pool("avg_pool", "outside", _avg_inside(3, (2, 0, 0, 1)), [3, 3], **_UNEVEN, **_OUTSIDE),
    pool(
        *("avg_pool", "one-each-outside", _avg(3, padding=1, count_include_pad=False), [3, 3]),
        **_ONE_EACH, **_OUTSIDE,
    ),
    pool("avg_pool", "same", _avg(3, (0, 1, 1, 1), stride=2), [3, 3], pad_type="same", **_TWO),
    pool(
        *("avg_pool", "same-outside", _avg_inside(3, (0, 1, 1, 1), stride=2), [3, 3]),
        **{"pad_type": "same"}, **_TWO, **_OUTSIDE,
    ),
    pool("avg_pool", "same-lower", _avg(2, (1, 0, 1, 0)), [2, 2], pad_type="same_lower"),
    pool("avg_pool", "ceil", _avg(2, stride=2, ceil_mode=True), [2, 2], **_TWO, **_CEIL),
    pool(
        *("avg_pool", "ceil-padded", _avg(3, stride=2, padding=1, ceil_mode=True), [3, 3]),
        **_ONE_EACH, **_TWO, **_CEIL,
    ),
    pool(
        "avg_pool", "ceil-outside",
        _avg(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), [3, 3],
        **_ONE_EACH, **_TWO, **_CEIL, **_OUTSIDE,
    ),
    pool("avg_pool", "1d", _avg(3, (1, 0)), [3], LINE, pad_type="custom", pad=[1, 0]),
    pool("avg_pool", "3d", _avg((2, 3, 2)), [2, 3, 2], CUBE),
    pool("avg_pool", "whole", _avg((7, 8)), [7, 8]),
    pool("avg_pool", "ios15", _avg(2), [2, 2], target="iOS15"),
    pool("l2_pool", "valid", _l2((3, 2)), [3, 2]),
    pool("l2_pool", "uneven", _l2((3, 3), (2, 0, 0, 1)), [3, 3], **_UNEVEN),
    pool("l2_pool", "1d", _l2((2,), stride=2), [2], LINE, strides=[2]),
]  # fmt: skip

POOL = tuple(_POOLS)
