"""Layers that move data or compute with shapes, against numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.package import read_package
from tests.mil.networks import LayerCase, check_case, layer, normal, save_network

X = normal(2, 6, 4, 5, seed=1)
Y = normal(2, 6, 4, 5, seed=2)


def pair(
    name: str, method: str, x: np.ndarray, y: np.ndarray, expected: np.ndarray, **params: Any
) -> LayerCase:
    return LayerCase(
        name,
        lambda b: getattr(b, method)("layer", ["x", "y"], "y0", **params),
        {"x": x, "y": y},
        (expected,),
    )


def _constant(b: Any) -> None:
    b.add_load_constant_nd("constant", "c", X[:1], X[:1].shape)
    b.add_add_broadcastable("sum", ["x", "c"], "y0")


def _dynamic_slice(b: Any) -> None:
    b.add_slice_dynamic(
        "layer", ["x", "begin", "end"], "y0",
        strides=[1, 2, 1, 1], begin_masks=[True, False, False, True],
        end_masks=[True, False, False, True], squeeze_masks=[False] * 4,
    )  # fmt: skip


MASKS: dict[str, Any] = {
    "begin_ids": [1, 5, 3, 0], "end_ids": [2, 0, -1, 3], "strides": [1, -2, 1, 2],
    "begin_masks": [False, False, True, False], "end_masks": [False, True, False, True],
}  # fmt: skip
CASES = [
    layer("transpose", "add_transpose", X, X.transpose(3, 1, 0, 2), axes=[3, 1, 0, 2]),
    layer("reshapeStatic", "add_reshape_static", X, X.reshape(8, 30), output_shape=(8, 30)),
    layer(
        "reshapeStatic what is left", "add_reshape_static", X, X.reshape(8, 30),
        output_shape=(8, -1),
    ),
    layer(
        "rankPreservingReshape", "add_rank_preserving_reshape", X, X.reshape(2, 6, 2, 10),
        output_shape=(0, 0, -1, 10),
    ),
    pair(
        "reshapeDynamic", "add_reshape_dynamic", X, np.array([2.0, 3, 40]), X.reshape(2, 3, 40)
    ),
    pair("reshapeLike", "add_reshape_like", X, Y.reshape(12, 20), X.reshape(12, 20)),
    layer("flattenTo2D", "add_flatten_to_2d", X, X.reshape(12, 20), axis=2),
    layer("flattenTo2D from the end", "add_flatten_to_2d", X, X.reshape(48, 5), axis=-1),
    layer("getShape", "add_get_shape", X, np.array([2.0, 6, 4, 5])),
    layer("expandDims", "add_expand_dims", X, X[:, None, ..., None], axes=[1, -1]),
    layer("squeeze", "add_squeeze", X[:1, :, :1], X[0, :, 0], axes=[0, -2]),
    layer("squeeze all", "add_squeeze", X[:1, :, :1], X[0, :, 0], squeeze_all=True),
    layer("squeeze to a vector of one", "add_squeeze", X[:1, :1, 0, 0], X[0, 0, 0, :1],
          squeeze_all=True),
    layer("squeeze nothing", "add_squeeze", X, X, squeeze_all=True),
    pair("concatND", "add_concat_nd", X, Y, np.concatenate([X, Y], 2), axis=-2),
    pair(
        "concatND interleaved", "add_concat_nd", X, Y, np.stack([X, Y], 2).reshape(2, 12, 4, 5),
        axis=1, interleave=True,
    ),
    LayerCase(
        "concat", lambda b: b.add_elementwise("layer", ["x", "y"], "y0", mode="CONCAT"),
        {"x": X, "y": Y}, (np.concatenate([X, Y], 1),),
    ),
    pair("stack", "add_stack", X, Y, np.stack([X, Y], 2), axis=2),
    layer("split", "add_split", X, *np.split(X, 3, 1)),
    layer("splitND equal", "add_split_nd", X, *np.split(X, 2, 2), axis=2, num_splits=2),
    layer(
        "splitND sizes", "add_split_nd", X, X[:, :1], X[:, 1:3], X[:, 3:],
        axis=1, num_splits=3, split_sizes=[1, 2, 3],
    ),
    layer("slice channel", "add_slice", X, X[:, 1:5:2], axis="channel", start_index=1,
          end_index=5, stride=2),
    layer("slice width", "add_slice", X, X[..., 1:-1], axis="width", start_index=1, end_index=-1),
    layer("sliceStatic", "add_slice_static", X, X[1:2, 5::-2, :-1, 0::2], **MASKS),
    layer("sliceStatic squeezed", "add_slice_static", X, X[1, 5::-2, :-1, 0],
          **MASKS, squeeze_masks=[True, False, False, True]),
    layer("sliceStatic to a vector of one", "add_slice_static", X[0, 0, 0], X[0, 0, 0, 3:4],
          begin_ids=[3], end_ids=[4], strides=[1], begin_masks=[False], end_masks=[False],
          squeeze_masks=[True]),
    LayerCase(
        "sliceDynamic", _dynamic_slice,
        {"x": X, "begin": np.array([0.0, 1, 1, 0]), "end": np.array([0.0, 6, -1, 0])},
        (X[:, 1:6:2, 1:-1],),
    ),
    layer("tile", "add_tile", X, np.tile(X, (1, 2, 1, 3)), reps=[2, 1, 3]),
    pair("gather", "add_gather", X, np.array([3.0, 0, 3]), X[:, [3, 0, 3]], axis=1),
    LayerCase("loadConstantND", _constant, {"x": X}, (X + X[:1],)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layer_moves_the_same_values_as_numpy(case: LayerCase, tmp_path: Path) -> None:
    check_case(case, tmp_path)


def test_shape_of_unknown_length_is_refused(tmp_path: Path) -> None:
    def add(b: Any) -> None:
        b.add_slice_dynamic("cut", ["s", "begin", "end"], "t")
        b.add_reshape_dynamic("shape_it", ["x", "t"], "y")

    inputs = {"x": (4, 5), "s": (3,), "begin": (1,), "end": (1,)}
    path = save_network(tmp_path / "a.mlmodel", add, inputs, ("y",))
    with pytest.raises(UnsupportedOpError, match=r"'shape_it' .*length"):
        read_package(path)


def test_transpose_of_another_rank_is_refused(tmp_path: Path) -> None:
    path = save_network(
        tmp_path / "a.mlmodel",
        lambda b: b.add_transpose("turn", [0, 2, 1], "x", "y"),
        {"x": (1, 2, 3, 4)},
        ("y",),
    )
    with pytest.raises(ArtifactError, match=r"'turn' .*rank 4 by \[0, 2, 1\]"):
        read_package(path)
