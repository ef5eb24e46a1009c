"""Elementwise layers against numpy in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.package import read_package
from tests.mil.networks import LayerCase, check_case, layer, normal, positive, save_network

A, B, C = normal(2, 3, 4, 5, seed=1), normal(2, 3, 4, 5, seed=2), normal(2, 3, 4, 5, seed=3)
ROW = normal(1, 3, 1, 1, seed=4)
P, Q = positive(2, 3, 4, 5, seed=5), positive(2, 3, 4, 5, seed=6)
# one value in ten equal, so that comparisons differ from their strict forms
N, M = np.round(A * 2), np.round(B * 2)
SLOPES = np.array([0.125, -0.5, 2.0])
CHW = normal(3, 4, 5, seed=7)


def activation(kind: str, params: Any, expected: np.ndarray) -> LayerCase:
    return LayerCase(
        f"activation-{kind}",
        lambda b: b.add_activation("layer", kind, "x", "y0", params),
        {"x": A},
        (expected,),
    )


def unary(mode: str, x: np.ndarray, expected: np.ndarray, **params: float) -> LayerCase:
    name = "-".join([f"unary-{mode}", *params])
    return LayerCase(
        name, lambda b: b.add_unary("layer", "x", "y0", mode, **params), {"x": x}, (expected,)
    )


def one(method: str, x: np.ndarray, expected: np.ndarray, **params: Any) -> LayerCase:
    name = "-".join([method, *(f"{k}={v}" for k, v in params.items() if np.isscalar(v))])
    return layer(name, method, x, expected, **params)


def several(
    method: str, values: list[np.ndarray], expected: np.ndarray, **params: Any
) -> LayerCase:
    names = [f"x{i}" for i in range(len(values))]
    return LayerCase(
        "-".join([method, str(len(values)), *map(str, params.values())]),
        lambda b: getattr(b, method)("layer", names, "y0", **params),
        dict(zip(names, values, strict=True)),
        (expected,),
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def erf(x: np.ndarray) -> np.ndarray:
    return torch.erf(torch.from_numpy(x)).numpy()


LIFT = SLOPES.reshape(3, 1, 1)
CASES = [
    activation("RELU", None, np.maximum(A, 0)),
    activation("TANH", None, np.tanh(A)),
    activation("SIGMOID", None, sigmoid(A)),
    activation("SOFTPLUS", None, np.log1p(np.exp(A))),
    activation("SOFTSIGN", None, A / (1 + np.abs(A))),
    activation("LEAKYRELU", [0.25], np.where(A < 0, 0.25 * A, A)),
    activation("ELU", 0.5, np.where(A < 0, 0.5 * np.expm1(A), A)),
    activation("THRESHOLDEDRELU", 0.5, np.where(A < 0.5, 0, A)),
    activation("LINEAR", [0.75, -2.0], 0.75 * A - 2),
    activation("SCALED_TANH", [1.5, 0.75], 1.5 * np.tanh(0.75 * A)),
    activation("SIGMOID_HARD", [0.25, 0.5], np.clip(0.25 * A + 0.5, 0, 1)),
    activation("PRELU", SLOPES, np.where(A < 0, LIFT * A, A)),
    activation("PRELU", SLOPES[:1], np.where(A < 0, 0.125 * A, A)),
    activation(
        "PARAMETRICSOFTPLUS", [SLOPES, SLOPES[::-1]], LIFT * np.log1p(np.exp(LIFT[::-1] * A))
    ),
    unary("sqrt", P, np.sqrt(P)),
    unary("sqrt", P, np.sqrt(2 * P + 0.5), scale=2, shift=0.5),
    unary("rsqrt", P, 1 / np.sqrt(P + 1e-6), epsilon=0),
    unary("rsqrt", P, 1 / np.sqrt(P + 0.25), epsilon=0.25),
    unary("inverse", P, 1 / (P + 0.25), epsilon=0.25),
    unary("power", A, A**2, alpha=2),
    unary("power", P, P**-1.5, alpha=-1.5),
    unary("exp", A, np.exp(A)),
    unary("log", P, np.log(P)),
    unary("abs", A, np.abs(A)),
    unary("threshold", A, np.maximum(A, 0.5), alpha=0.5),
    several("add_elementwise", [A], A + 0.75, mode="ADD", alpha=0.75),
    several("add_elementwise", [A], A * -0.75, mode="MULTIPLY", alpha=-0.75),
    several("add_elementwise", [A, B], A + B, mode="ADD"),
    several("add_elementwise", [A, ROW], A * ROW, mode="MULTIPLY"),
    several("add_elementwise", [A, B, C], A + B + C, mode="ADD"),
    several("add_elementwise", [A, B, C], A * B * C, mode="MULTIPLY"),
    several("add_elementwise", [A, B, C], (A + B + C) / 3, mode="AVE"),
    several("add_elementwise", [A, B, C], np.maximum(np.maximum(A, B), C), mode="MAX"),
    several("add_elementwise", [A, B], np.minimum(A, B), mode="MIN"),
    several("add_add_broadcastable", [A, CHW], A + CHW),
    several("add_add_broadcastable", [ROW, B, CHW], ROW + B + CHW),
    several("add_multiply_broadcastable", [CHW, A], CHW * A),
    several("add_subtract_broadcastable", [ROW, A], ROW - A),
    several("add_divide_broadcastable", [A, Q], A / Q),
    several("add_floor_div_broadcastable", [A, Q], np.floor(A / Q)),
    several("add_mod_broadcastable", [A, Q], np.mod(A, Q)),
    several("add_pow_broadcastable", [P, A], P**A),
    several("add_max_broadcastable", [A, ROW], np.maximum(A, ROW)),
    several("add_min_broadcastable", [A, ROW], np.minimum(A, ROW)),
    one("add_copy", A, A),
    one("add_ceil", A, np.ceil(A)),
    one("add_floor", A, np.floor(A)),
    one("add_round", A, np.round(A)),
    one("add_sign", N, np.sign(N)),
    one("add_tanh", A, np.tanh(A)),
    one("add_erf", A, erf(A)),
    one("add_clip", A, np.clip(A, -0.5, 0.75), min_value=-0.5, max_value=0.75),
    one(
        "add_clamped_relu", A, np.minimum(0.75, np.where(A < 0, 0.25 * A, A)), alpha=0.25, beta=0.75
    ),
    one("add_gelu", A, 0.5 * A * (1 + erf(A / np.sqrt(2))), mode="EXACT"),
    one(
        "add_gelu",
        A,
        0.5 * A * (1 + np.tanh(np.sqrt(2 / np.pi) * (A + 0.044715 * A**3))),
        mode="TANH_APPROXIMATION",
    ),
    one("add_gelu", A, A * sigmoid(1.702 * A), mode="SIGMOID_APPROXIMATION"),
    one("add_scale", A, A * LIFT, W=SLOPES, b=None, has_bias=False, shape_scale=[3]),
    one(
        "add_scale", A, A * CHW + LIFT, W=CHW, b=SLOPES, has_bias=True,
        shape_scale=[3, 4, 5], shape_bias=[3],
    ),
    one("add_bias", A, A + CHW[:1], b=CHW[:1], shape_bias=[1, 4, 5]),
    several("add_equal", [N, M], N == M),
    several("add_equal", [N], N == 1, alpha=1.0),
    several("add_not_equal", [N, M], N != M),
    several("add_greater_than", [N, M], N > M),
    several("add_greater_than", [N, M], N >= M, use_greater_than_equal=True),
    several("add_less_than", [N, M], N < M),
    several("add_less_than", [N], N <= 1, use_less_than_equal=True, alpha=1.0),
    several("add_logical", [N, M], (N != 0) & (M != 0), mode="AND"),
    several("add_logical", [N, M], (N != 0) | (M != 0), mode="OR"),
    several("add_logical", [N, M], (N != 0) ^ (M != 0), mode="XOR"),
    several("add_logical", [N], N == 0, mode="NOT"),
    several("add_where_broadcastable", [N, A, ROW], np.where(N != 0, A, ROW)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_elementwise_layer_computes_its_formula(case: LayerCase, tmp_path: Path) -> None:
    check_case(case, tmp_path)


def test_unknown_non_linearity_is_refused_by_name(tmp_path: Path) -> None:
    def add(builder: Any) -> None:
        builder.add_activation("act_7", "RELU", "x", "y").activation.Clear()  # of a newer format

    path = save_network(tmp_path / "a.mlmodel", add, {"x": (1, 3, 4, 4)}, ("y",))
    with pytest.raises(UnsupportedOpError, match=r"'act_7' \(activation\).*non-linearity"):
        read_package(path)


def test_shapes_that_do_not_broadcast_are_refused(tmp_path: Path) -> None:
    path = save_network(
        tmp_path / "a.mlmodel",
        lambda b: b.add_add_broadcastable("sum", ["x", "y"], "z"),
        {"x": (1, 3, 4, 4), "y": (1, 2, 4, 4)},
        ("z",),
    )
    with pytest.raises(ArtifactError, match=r"\[1, 3, 4, 4\].*\[1, 2, 4, 4\].*broadcast"):
        read_package(path)


def test_slopes_for_other_channels_are_refused(tmp_path: Path) -> None:
    path = save_network(
        tmp_path / "a.mlmodel",
        lambda b: b.add_activation("act", "PRELU", "x", "y", np.ones(4)),
        {"x": (1, 3, 4, 4)},
        ("y",),
    )
    with pytest.raises(ArtifactError, match=r"slopes of 'act' hold 4 values, expected 3"):
        read_package(path)
