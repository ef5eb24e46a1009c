"""Reductions and normalizations against numpy and torch in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fluxvae.errors import UnsupportedOpError
from fluxvae.mil.package import read_package
from tests.mil.networks import LayerCase, check_case, layer, normal, positive, save_network

X = normal(2, 3, 4, 5, seed=1)
P = positive(2, 3, 4, 5, seed=2)
GAMMA, BETA, MEAN = positive(3, seed=3), normal(3, seed=4), normal(3, seed=5)
VARIANCE = positive(3, seed=6)


def reduction(mode: str, x: np.ndarray, expected: np.ndarray) -> LayerCase:
    """Over axes 1 and -1, kept; ``expected`` reduces the same axes."""
    return layer(mode, f"add_reduce_{mode}", x, expected, axes=[1, -1], keepdims=True)


def over(function: Any, x: np.ndarray, **kwargs: Any) -> np.ndarray:
    return function(x, axis=(1, 3), keepdims=True, **kwargs)


def normalized(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    center = x - x.mean(axes, keepdims=True)
    return center / np.sqrt((center**2).mean(axes, keepdims=True) + epsilon)


def batchnorm(x: np.ndarray) -> np.ndarray:
    lift = (-1, 1, 1)
    scaled = (x - MEAN.reshape(lift)) / np.sqrt(VARIANCE.reshape(lift) + 1e-3)
    return scaled * GAMMA.reshape(lift) + BETA.reshape(lift)


STATISTICS: dict[str, Any] = {
    "channels": 3, "gamma": GAMMA, "beta": BETA, "mean": MEAN, "variance": VARIANCE,
    "epsilon": 1e-3,
}  # fmt: skip
CASES = [
    reduction("sum", X, over(np.sum, X)),
    reduction("mean", X, over(np.mean, X)),
    reduction("max", X, over(np.max, X)),
    reduction("min", X, over(np.min, X)),
    reduction("prod", P, over(np.prod, P)),
    reduction("l1", X, over(np.sum, np.abs(X))),
    reduction("l2", X, np.sqrt(over(np.sum, X**2))),
    reduction("sumsquare", X, over(np.sum, X**2)),
    reduction("logsum", P, np.log(over(np.sum, P))),
    reduction("logsumexp", X, np.log(over(np.sum, np.exp(X)))),
    layer("dropped axes", "add_reduce_mean", X, X.mean((2, 3)), axes=[2, 3], keepdims=False),
    layer(
        "all axes leave a vector of one",
        "add_reduce_sum", P, P.sum().reshape(1), reduce_all=True, keepdims=False,
    ),
    layer("named CHW", "add_reduce", X, X.mean((1, 2, 3), keepdims=True), axis="CHW", mode="avg"),
    layer("named W", "add_reduce", X, X.max(3, keepdims=True), axis="W", mode="max"),
    layer("batchnorm", "add_batchnorm", X, batchnorm(X), **STATISTICS),
    layer("batchnorm rank 3", "add_batchnorm", X[0], batchnorm(X[0]), **STATISTICS),
    layer(
        "instance norm", "add_batchnorm", X,
        normalized(X, (2, 3), 1e-3) * GAMMA.reshape(3, 1, 1) + BETA.reshape(3, 1, 1),
        channels=3, gamma=GAMMA, beta=BETA, compute_mean_var=True, instance_normalization=True,
        epsilon=1e-3,
    ),
    layer(
        "mvn within channels", "add_mvn", X, normalized(X, (2, 3), 1e-2),
        across_channels=False, epsilon=1e-2,
    ),
    layer("mvn across channels", "add_mvn", X, normalized(X, (1, 2, 3), 1e-2), epsilon=1e-2),
    layer(
        "mvn mean only", "add_mvn", X, X - X.mean((1, 2, 3), keepdims=True),
        normalize_variance=False,
    ),
    layer(
        "l2 normalize", "add_l2_normalize", X,
        X / np.sqrt((X**2).sum((1, 2, 3), keepdims=True) + 1e-2), epsilon=1e-2,
    ),
    layer(
        "layer norm", "add_layer_normalization", X,
        F.layer_norm(
            torch.from_numpy(X), (4, 5), torch.from_numpy(P[0, 0]), torch.from_numpy(X[0, 1]), 1e-3
        ).numpy(),
        normalized_shape=[4, 5], gamma=P[0, 0], beta=X[0, 1], eps=1e-3,
    ),
    layer("softmax", "add_softmax", X, torch.from_numpy(X).softmax(-3).numpy()),
    layer("softmaxND", "add_softmax_nd", X, torch.from_numpy(X).softmax(2).numpy(), axis=-2),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reduction_computes_its_formula(case: LayerCase, tmp_path: Path) -> None:
    check_case(case, tmp_path)


def test_group_norm_from_batchnorm_layers_is_torchs(tmp_path: Path) -> None:
    """The composition other converters write: reshape, instance normalization, affine."""
    x = normal(1, 8, 4, 5, seed=9)
    gamma, beta = positive(8, seed=10), normal(8, seed=11)

    def add(b: Any) -> None:
        b.add_reshape_static("groups", "x", "g", (1, 2, 4, 20))
        b.add_batchnorm("norm", 2, np.ones(2), np.zeros(2), None, None, "g", "n", True, True, 1e-5)
        b.add_reshape_static("back", "n", "r", (1, 8, 4, 5))
        b.add_scale("affine", gamma, beta, True, "r", "y0", [8], [8])

    expected = F.group_norm(
        torch.from_numpy(x), 2, torch.from_numpy(gamma), torch.from_numpy(beta), 1e-5
    )
    check_case(LayerCase("group norm", add, {"x": x}, (expected.numpy(),)), tmp_path)


def test_statistics_of_the_batch_are_refused_by_name(tmp_path: Path) -> None:
    def add(b: Any) -> None:
        made = b.add_batchnorm("bn_2", input_name="x", output_name="y", **STATISTICS)
        made.batchnorm.computeMeanVar = True  # the builder does not write it

    path = save_network(tmp_path / "a.mlmodel", add, {"x": (2, 3, 4, 5)}, ("y",))
    with pytest.raises(UnsupportedOpError, match=r"'bn_2' .*batch"):
        read_package(path)
