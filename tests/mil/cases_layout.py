"""Cases of operations that move elements: every one is bit for bit."""

from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from tests.mil.case import Case, from_numpy, integers, ints, normal

X = normal(2, 3, 4, 5)
MAP = normal(2, 8, 4, 6)
N = integers(-9, 10, 3, 4)
INT32 = ("int32",)


def exact(op: str, id: str, tensors: dict[str, Any], constants: Any = None, **more: Any) -> Case:
    return Case(op, id, tensors, constants or {}, tolerance=None, **more)


_SHAPE = [
    exact("identity", "plain", {"x": X}),
    exact("reshape", "plain", {"x": X}, {"shape": ints(6, 20)}),
    exact("reshape", "rest", {"x": X}, {"shape": ints(2, -1, 5)}),
    exact("reshape", "keep", {"x": X}, {"shape": ints(0, 0, -1, 1)}),
    exact("reshape", "from-right", {"x": X[0, 0]}, {"shape": ints(1, 0, -1, 0)}),
    exact("reshape", "ios15", {"x": X[..., :4]}, {"shape": ints(0, -1, 0, 2)}, target="iOS15"),
    exact("reshape", "int32", {"x": N}, {"shape": ints(-1)}, dtypes=INT32),
    exact("expand_dims", "front", {"x": X[0]}, {"axes": [0]}),
    exact("expand_dims", "several", {"x": X[0]}, {"axes": [-1, 1]}),
    exact("expand_dims", "scalar", {"x": np.array(1.5)}, {"axes": [0]}),
    exact("squeeze", "all", {"x": X[:1, :, :1]}),
    exact("squeeze", "chosen", {"x": X[:1, :, :1]}, {"axes": [-2]}),
    exact(
        *("squeeze", "not-one", {"x": X[:1]}, {"axes": [0, 1]}),
        oracle=lambda x, **_: x[0],  # numpy, and so coremltools' evaluation, refuses size 3
    ),
    exact("transpose", "nhwc", {"x": X}, {"perm": [0, 2, 3, 1]}),
    exact("transpose", "negative", {"x": X}, {"perm": [0, -1, 1, -2]}),
    exact("transpose", "int32", {"x": N}, {"perm": [1, 0]}, dtypes=INT32),
    exact("concat", "channel", {"values": (X, MAP[:, :, :, :5])}, {"axis": 1}),
    exact("concat", "last", {"values": (X, X, X)}, {"axis": -1}),
    exact(
        *("concat", "interleave", {"values": (X, -X)}, {"axis": 1, "interleave": True}),
        # coremltools' evaluation ignores `interleave`; this is its documentation's example
        oracle=lambda values, **_: from_numpy(
            np.stack([v.numpy() for v in values], 2).reshape(2, 6, 4, 5)
        ),
    ),
    exact("concat", "int32", {"values": (ints(1, 2), ints(3))}, {"axis": 0}, dtypes=INT32),
    exact("stack", "front", {"values": (X, -X)}, {"axis": 0}),
    exact("stack", "last", {"values": (X, -X)}, {"axis": -1}),
    exact("split", "equal", {"x": MAP}, {"num_splits": 2, "axis": 1}),
    exact("split", "sizes", {"x": MAP}, {"split_sizes": [1, 5], "axis": -1}),
    exact("split", "both", {"x": MAP}, {"num_splits": 2, "split_sizes": [3, 5], "axis": 1}),
    exact("tile", "plain", {"x": X}, {"reps": ints(1, 2, 1, 3)}),
    exact("shape", "plain", {"x": X}),
    exact("fill", "float", {}, {"shape": ints(2, 3), "value": 1.5}),
    exact("fill", "default", {}, {"shape": ints(2, 3)}, dtypes=("fp32",)),
    exact("fill", "int32", {}, {"shape": ints(2, 3), "value": np.int32(7)}, dtypes=INT32),
    exact("fill", "bool", {}, {"shape": ints(2), "value": np.bool_(True)}, dtypes=("bool",)),
    exact("range_1d", "int32", {}, {"end": 7, "start": 1, "step": 2}, dtypes=INT32),
    exact("range_1d", "down", {}, {"end": -3, "start": 4, "step": -2}, dtypes=INT32),
    exact("range_1d", "float", {}, {"end": 2.0, "start": 0.5, "step": 0.25}),
]
_PAD = [
    exact("pad", "constant", {"x": X}, {"pad": ints(0, 1, 2, 3)}),
    exact("pad", "value", {"x": X}, {"pad": ints(1, 0, 0, 1), "constant_val": 1.5}),
    exact("pad", "every-axis", {"x": X}, {"pad": ints(1, 0, 0, 2, 0, 0, 3, 0)}),
    exact("pad", "reflect", {"x": X}, {"pad": ints(1, 3, 4, 2), "mode": "reflect"}),
    exact("pad", "replicate", {"x": X}, {"pad": ints(1, 4, 5, 2), "mode": "replicate"}),
    exact(
        *("pad", "reflect-every-axis", {"x": X}),
        {"pad": ints(1, 0, 2, 2, 0, 0, 4, 1), "mode": "reflect"},
    ),
]


def _tensorflow_order(x: Tensor, f: int) -> Tensor:
    """TensorFlow's depth_to_space is PyTorch's pixel_shuffle of reordered channels."""
    n, c, h, w = x.shape
    return x.reshape(n, f * f, c // (f * f), h, w).transpose(1, 2).reshape(n, c, h, w)


def _depth_to_space(x: Tensor, block_size: int) -> Tensor:
    return F.pixel_shuffle(_tensorflow_order(x, block_size), block_size)


def _space_to_depth(x: Tensor, block_size: int) -> Tensor:
    n, c, h, w = F.pixel_unshuffle(x, block_size).shape
    split = F.pixel_unshuffle(x, block_size).reshape(n, -1, block_size**2, h, w)
    return split.transpose(1, 2).reshape(n, c, h, w)


_BLOCKS = [
    exact(
        *("pixel_shuffle", "2", {"x": MAP}, {"upscale_factor": 2}),
        oracle=lambda x, **_: F.pixel_shuffle(x, 2),
    ),
    exact(
        *("pixel_unshuffle", "2", {"x": MAP}, {"downscale_factor": np.uint32(2)}),
        oracle=lambda x, **_: F.pixel_unshuffle(x, 2),
    ),
    exact("depth_to_space", "2", {"x": MAP}, {"block_size": 2}, oracle=_depth_to_space),
    exact("space_to_depth", "2", {"x": MAP}, {"block_size": 2}, oracle=_space_to_depth),
]
_SLICE = [
    exact(
        *("slice_by_index", "plain", {"x": X}),
        {"begin": ints(0, 1, 0, 2), "end": ints(1, 3, 4, 5)},
    ),
    exact(
        *("slice_by_index", "stride", {"x": X}),
        {"begin": ints(0, 0, 1, -4), "end": ints(2, 3, 4, -1), "stride": [1, 2, 2, 1]},
    ),
    exact(
        *("slice_by_index", "backwards", {"x": X}),
        {
            "begin": ints(0, 2, 3, -1),
            "end": ints(2, 0, 0, 0),
            "stride": [1, -1, -2, -1],
            "end_mask": [False, True, False, False],
        },
    ),
    exact(
        *("slice_by_index", "masks", {"x": X}),
        {
            "begin": ints(9, 1, 0, 1),
            "end": ints(1, 9, 4, -9),
            "begin_mask": [True, False, False, False],
            "end_mask": [False, True, False, True],
        },
    ),
    exact(
        *("slice_by_index", "squeeze", {"x": X}),
        {
            "begin": ints(0, -1, 1, 0),
            "end": ints(0, 0, 3, 5),
            "squeeze_mask": [False, True, False, False],
            "end_mask": [True, False, False, False],
        },
    ),
    exact(
        *("slice_by_index", "element", {"x": ints(4, 5, 6)}),
        {"begin": ints(1), "end": ints(0), "squeeze_mask": [True]},
        dtypes=INT32,
    ),
    exact(
        *("slice_by_size", "plain", {"x": X}),
        {"begin": ints(0, 1, 2, 0), "size": ints(1, 2, 2, 5)},
    ),
    exact(
        *("slice_by_size", "rest", {"x": X}),
        {"begin": ints(1, 1, 0, 3), "size": ints(-1, -1, 2, -1)},
    ),
]
_GATHER = [
    exact("gather", "default", {"x": X, "indices": ints(1, 0, 1)}),
    exact("gather", "axis", {"x": X, "indices": ints(2, 0)}, {"axis": -2}),
    exact("gather", "negative", {"x": X, "indices": ints(-1, 0)}, {"axis": 1}, target="iOS16"),
    exact("gather", "scalar", {"x": ints(7, 8, 9)}, {"indices": np.int32(1)}, dtypes=INT32),
    exact("gather", "matrix", {"x": X, "indices": integers(0, 3, 2, 2)}, {"axis": 1}),
    exact(
        *("gather", "batch", {"x": X, "indices": integers(0, 4, 2, 3)}),
        {"axis": 2, "batch_dims": 1},
    ),
    exact(
        *("gather", "two-batches", {"x": X, "indices": integers(0, 5, 2, 3, 2)}),
        {"axis": 3, "batch_dims": 2},
    ),
    exact(
        *("gather", "validated", {"x": X, "indices": ints(2, 0)}),
        {"axis": 1, "validate_indices": True},
    ),
    exact("gather", "ios15", {"x": X, "indices": ints(1, -1)}, {"axis": 1}, target="iOS15"),
    exact(
        "gather_along_axis", "axis", {"x": X, "indices": integers(0, 4, 2, 3, 6, 5)}, {"axis": 2}
    ),
    exact(
        *("gather_along_axis", "default", {"x": N, "indices": integers(-3, 3, 2, 4)}),
        dtypes=INT32,
    ),
]

LAYOUT = (*_SHAPE, *_PAD, *_BLOCKS, *_SLICE, *_GATHER)
