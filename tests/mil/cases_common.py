"""Cases of activations with parameters, of sorting, and of what other people's models use."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.mil.case import Case, integers, normal, positive

X = normal(2, 3, 4, 5) * 3
INSIDE = X / 12  # within -1 and 1
ORDER = np.random.default_rng(3).permutation(24).reshape(4, 6) - 12.0  # no equal values
PER_CHANNEL = normal(3, seed=4)
IA = integers(-9, 10, 3, 4)
HOT = np.array([[0, 3], [2, 1]], np.int32)
AT = np.array([[[1, -1], [0, 2]], [[1, 0], [-2, 1]]], np.int32)  # (2, 2, 2), into axes 1 and 2

_ACTIVATIONS = [
    *(Case(name, "normal", {"x": X}) for name in ("sin", "cos", "atan", "exp2", "softsign")),
    *(
        Case(name, "inside", {"x": INSIDE})
        for name in ("tan", "asin", "acos", "sinh", "cosh", "atanh")
    ),
    Case("elu", "normal", {"x": X}, {"alpha": 0.5}),
    Case("prelu", "normal", {"x": X}, {"alpha": PER_CHANNEL}),
    Case("linear_activation", "normal", {"x": X}, {"alpha": 0.5, "beta": -2.0}),
    Case("scaled_tanh", "normal", {"x": X}, {"alpha": 1.5, "beta": 0.75}),
    Case("sigmoid_hard", "normal", {"x": X}, {"alpha": 0.25, "beta": 0.5}),
    Case("softplus_parametric", "normal", {"x": X}, {"alpha": PER_CHANNEL, "beta": positive(3)}),
    Case("threshold", "normal", {"x": X}, {"alpha": 0.5}, tolerance=None),
    Case("thresholded_relu", "normal", {"x": X}, {"alpha": 0.5}, tolerance=None),
    Case("l2_norm", "batch", {"x": X}),
    Case("l2_norm", "epsilon", {"x": X[0]}, {"epsilon": 0.5}),
    Case("local_response_norm", "defaults", {"x": X}, {"size": 3},
         lambda x, size: F.local_response_norm(x, 3, 1e-4)),
    Case("local_response_norm", "strong", {"x": X},
         {"size": 5, "alpha": 2.0, "beta": 0.5, "k": 0.25},
         lambda x, **_: F.local_response_norm(x, 5, 2.0, 0.5, 0.25)),
]  # fmt: skip


def _shifted(x: Tensor, **_: object) -> Tensor:
    """Sums over the elements after each one of axis 1."""
    return torch.stack([x[:, i + 1 :].sum(1) for i in range(x.shape[1])], 1)


def _batched(x: Tensor, indices: Tensor, **_: object) -> Tensor:
    """Each sample's elements (2, 4, 5) at its own index vectors."""
    return torch.stack([s[tuple(i.long().T)] for s, i in zip(x, indices, strict=True)])


_SUMS = [
    Case("cumsum", "first", {"x": X}, {"axis": 0}),
    Case("cumsum", "reverse", {"x": X}, {"axis": 2, "reverse": True}),
    Case("cumsum", "exclusive", {"x": X}, {"axis": 1, "exclusive": True, "reverse": True},
         _shifted),
    Case("cumsum", "int32", {"x": IA}, {"axis": -1}, dtypes=("int32",)),
    Case("reduce_argmax", "default", {"x": ORDER}),
    Case("reduce_argmax", "kept", {"x": ORDER}, {"axis": 0, "keep_dims": True}),
    Case("reduce_argmax", "ios15", {"x": ORDER}, target="iOS15"),
    Case("reduce_argmin", "default", {"x": ORDER}),
    Case("reduce_argmin", "kept", {"x": ORDER}, {"axis": 0, "keep_dims": True}),
    Case("topk", "largest", {"x": ORDER}, {"k": 3}, tolerance=None),
    Case("topk", "smallest", {"x": ORDER}, {"k": 2, "axis": 0, "ascending": True}, tolerance=None),
    Case("topk", "values", {"x": ORDER}, {"k": 3, "return_indices": False},
         lambda x, **_: x.topk(3).values, target="iOS16", tolerance=None),
    Case("topk", "ios15", {"x": ORDER}, {"k": 3}, target="iOS15", tolerance=None),
    Case("argsort", "default", {"x": ORDER}),
    Case("argsort", "ascending", {"x": ORDER}, {"axis": 0, "ascending": True}),
]  # fmt: skip
_MOVES = [
    Case("flatten2d", "default", {"x": X}, tolerance=None),
    Case("flatten2d", "axis", {"x": X}, {"axis": -1}, tolerance=None),
    Case("reverse", "all", {"x": X}, tolerance=None),
    Case("reverse", "axes", {"x": X}, {"axes": [1, -1]}, tolerance=None),
    Case("crop", "normal", {"x": X}, {"crop_height": [1, 0], "crop_width": [0, 2]},
         lambda x, **_: x[..., 1:, :-2], tolerance=None),
    Case("band_part", "default", {"x": X}, tolerance=None),
    Case("band_part", "band", {"x": X}, {"lower": 0, "upper": 2}, tolerance=None),
    Case("fill_like", "value", {"ref_tensor": X}, {"value": 0.5}, target="iOS16", tolerance=None),
    Case("sliding_windows", "stride", {"x": X}, {"axis": -1, "size": 3, "stride": 2},
         lambda x, **_: torch.stack([x[..., :3], x[..., 2:]], -2), tolerance=None),
    Case("sliding_windows", "first", {"x": X[:, 0, 0]}, {"axis": 0, "size": 2},
         lambda x, **_: x[None], tolerance=None),
    Case("one_hot", "default", {"indices": HOT}, {"one_hot_vector_size": 4},
         lambda indices, **_: F.one_hot(indices.long(), 4), dtypes=("int32",), tolerance=None),
    Case("one_hot", "values", {"indices": HOT},
         {"one_hot_vector_size": 5, "axis": 0, "on_value": 0.5, "off_value": -1.0},
         lambda indices, **_: F.one_hot(indices.long(), 5).movedim(-1, 0) * 1.5 - 1.0,
         tolerance=None),
    Case("gather_nd", "slices", {"x": X}, {"indices": AT},
         lambda x, indices: x[indices[..., 0].long(), indices[..., 1].long()], tolerance=None),
    Case("gather_nd", "batch", {"x": X}, {"indices": AT, "batch_dims": 1}, _batched,
         tolerance=None),
    Case("gather_nd", "ios15", {"x": X}, {"indices": AT[0] % 2},
         lambda x, indices: x[indices[:, 0].long(), indices[:, 1].long()], target="iOS15",
         tolerance=None),
]  # fmt: skip

COMMON = (*_ACTIVATIONS, *_SUMS, *_MOVES)
