"""Cases of elementwise operations, reductions and matrix products."""

import numpy as np
import torch.nn.functional as F

from tests.mil.case import Case, integers, normal, positive

X = normal(2, 3, 4, 5) * 3
Y = normal(2, 3, 4, 5, seed=1) * 3
ROW = normal(1, 1, 1, 5, seed=2)
CORNERS = np.array([-3.5, -2.5, -1.0, -0.5, 0.0, 0.5, 1.5, 2.5, 6.0, 7.25])
IA = integers(-9, 10, 3, 4)
IB = np.where(IA % 2 == 0, np.int32(-3), np.int32(4))
BA = IA > 0
BB = IB > 0
INT32 = ("int32",)
BOOL = ("bool",)

_UNARY = [
    Case(name, "normal", {"x": X}, tolerance=tolerance)
    for name, tolerance in (
        ("tanh", 1e-6),
        ("sigmoid", 1e-6),
        ("softplus", 1e-6),
        ("erf", 1e-6),
        ("exp", 1e-6),
        ("square", 1e-6),
        ("relu", None),
        ("relu6", None),
        ("abs", None),
        ("floor", None),
        ("ceil", None),
        ("round", None),
        ("sign", None),
    )
]
_UNARY += [
    Case(name, "corners", {"x": CORNERS}, tolerance=None)
    for name in ("relu", "relu6", "abs", "floor", "ceil", "round", "sign")
]
_UNARY += [
    Case(name, "int32", {"x": IA}, dtypes=INT32, tolerance=None)
    for name in ("abs", "sign", "square")
]
_UNARY += [
    Case("silu", "normal", {"x": X}, oracle=lambda x: F.silu(x)),
    Case("sqrt", "positive", {"x": positive(3, 4)}),
    Case("log", "default", {"x": positive(3, 4)}),
    Case("log", "epsilon", {"x": positive(3, 4)}, {"epsilon": 0.25}),
    Case("rsqrt", "default", {"x": positive(3, 4)}),
    Case("rsqrt", "epsilon", {"x": positive(3, 4)}, {"epsilon": 0.25}),
    Case("inverse", "epsilon", {"x": positive(3, 4)}, {"epsilon": 0.25}),
    # 1e-4 rounded to fp16 is 1.0002e-4; the values around 1 hide that, and
    # test_default_epsilon_has_the_type_of_the_operation does not.
    Case("inverse", "default", {"x": positive(3, 4)}),
    Case("logical_not", "bool", {"x": BA}, dtypes=BOOL, tolerance=None),
    Case("clip", "normal", {"x": X}, {"alpha": -0.75, "beta": 1.5}, tolerance=None),
    Case("clamped_relu", "normal", {"x": X}, {"alpha": 0.25, "beta": 1.5}),
    Case("clamped_relu", "negative", {"x": X}, {"alpha": -2.0, "beta": 1.5}),
    Case("leaky_relu", "normal", {"x": X}, {"alpha": 0.1}),
    Case("gelu", "default", {"x": X}),
    Case("gelu", "exact", {"x": X}, {"mode": "EXACT"}),
    Case("gelu", "tanh", {"x": X}, {"mode": "TANH_APPROXIMATION"}),
    Case("gelu", "sigmoid", {"x": X}, {"mode": "SIGMOID_APPROXIMATION"}),
]
_CASTS = [
    Case("cast", "to-fp32", {"x": X}, {"dtype": "fp32"}, tolerance=None),
    # The value of a cast to fp16 is rounded by the executor, as every fp16 result is.
    Case("cast", "to-fp16", {"x": X}, {"dtype": "fp16"}),
    Case("cast", "to-int32", {"x": CORNERS}, {"dtype": "int32"}, tolerance=None),
    Case("cast", "to-bool", {"x": CORNERS}, {"dtype": "bool"}, tolerance=None),
    Case("cast", "to-uint8", {"x": np.abs(CORNERS)}, {"dtype": "uint8"}, tolerance=None),
    Case("cast", "to-int8", {"x": CORNERS}, {"dtype": "int8"}, tolerance=None),
    Case("cast", "to-int16", {"x": CORNERS * 100}, {"dtype": "int16"}, tolerance=None),
    Case("cast", "to-uint16", {"x": np.abs(CORNERS)}, {"dtype": "uint16"}, tolerance=None),
    Case("cast", "int-to-float", {"x": IA}, {"dtype": "fp32"}, dtypes=INT32, tolerance=None),
    Case("cast", "int-wraps", {"x": IA * 100}, {"dtype": "int8"}, dtypes=INT32, tolerance=None),
    Case("cast", "int-to-uint16", {"x": IA}, {"dtype": "uint16"}, dtypes=INT32, tolerance=None),
    Case("cast", "bool-to-fp16", {"x": BA}, {"dtype": "fp16"}, dtypes=BOOL, tolerance=None),
    Case("cast", "bool-to-int", {"x": BA}, {"dtype": "int32"}, dtypes=BOOL, tolerance=None),
]
_BINARY = [
    Case(name, form, {"x": X, "y": y}, tolerance=tolerance)
    for form, y in (("same", Y), ("row", ROW), ("scalar", np.array(1.5)))
    for name, tolerance in (
        ("add", 1e-6),
        ("sub", 1e-6),
        ("mul", 1e-6),
        ("real_div", 1e-6),
        ("floor_div", None),
        ("mod", 1e-6),
        ("maximum", None),
        ("minimum", None),
        ("equal", None),
        ("not_equal", None),
        ("greater", None),
        ("greater_equal", None),
        ("less", None),
        ("less_equal", None),
    )
]
_BINARY += [
    Case(name, "int32", {"x": IA, "y": IB}, dtypes=INT32, tolerance=None)
    for name in (
        *("add", "sub", "mul", "floor_div", "mod", "maximum", "minimum", "equal", "not_equal"),
        *("greater", "greater_equal", "less", "less_equal"),
    )
]
_BINARY += [
    Case("sub", "left-is-smaller", {"x": ROW, "y": X}),
    Case("pow", "positive", {"x": positive(3, 4), "y": normal(3, 4)}),
    Case("pow", "square", {"x": X, "y": np.array(2.0)}),
    Case("pow", "int32", {"x": IA, "y": np.abs(IB)}, dtypes=INT32, tolerance=None),
    *(
        Case(name, "bool", {"x": BA, "y": BB}, dtypes=BOOL, tolerance=None)
        for name in ("logical_and", "logical_or", "logical_xor")
    ),
    Case("select", "same", {"cond": X > 0, "a": X, "b": Y}, tolerance=None),
    Case("select", "broadcast", {"cond": ROW > 0, "a": X, "b": ROW}, tolerance=None),
    Case("select", "int32", {"cond": BA, "a": IA, "b": IB}, dtypes=INT32, tolerance=None),
]
_REDUCTIONS = [
    Case(name, form, {"x": data}, constants, tolerance=tolerance)
    for name, data, tolerance in (
        ("reduce_mean", X + 4, 1e-6),
        ("reduce_sum", X + 4, 1e-6),
        ("reduce_prod", positive(2, 3, 2, 2), 1e-6),
        ("reduce_sum_square", X, 1e-6),
        ("reduce_l1_norm", X, 1e-6),
        ("reduce_l2_norm", X, 1e-6),
        ("reduce_log_sum", positive(2, 3, 4, 5), 1e-6),
        ("reduce_log_sum_exp", X, 1e-6),
        ("reduce_max", X, None),
        ("reduce_min", X, None),
    )
    for form, constants in (
        ("spatial", {"axes": [2, 3], "keep_dims": True}),
        ("dropped", {"axes": [-1, 1]}),
        ("keep-all", {"keep_dims": True}),
    )
]
_REDUCTIONS += [
    Case(name, "int32", {"x": IA}, {"axes": [1]}, dtypes=INT32, tolerance=None)
    for name in (
        *("reduce_mean", "reduce_sum", "reduce_prod", "reduce_max", "reduce_min"),
        *("reduce_sum_square", "reduce_l1_norm", "reduce_l2_norm"),
    )
]
_REDUCTIONS += [
    # The mean of a GroupNorm group far from zero. numpy's own float32 mean is 3e-8 off here.
    Case(
        "reduce_mean",
        "group",
        {"x": normal(1, 2, 8, 48, 48) + 10},
        {"axes": [2, 3, 4], "keep_dims": True},
    ),
]
_PRODUCTS = [
    Case("linear", "bias", {"x": X[0]}, {"weight": normal(6, 5), "bias": normal(6)}),
    Case("linear", "no-bias", {"x": X[0]}, {"weight": normal(6, 5)}),
    Case("linear", "vector", {"x": X[0, 0, 0]}, {"weight": normal(6, 5)}),
    Case("matmul", "plain", {"x": X, "y": normal(5, 6)}),
    Case("matmul", "transposed", {"x": X, "y": Y}, {"transpose_x": True}),
    Case("matmul", "scores", {"x": X, "y": Y}, {"transpose_y": True}),
    Case(
        "matmul",
        "both",
        {"x": normal(4, 3), "y": normal(5, 4)},
        {"transpose_x": True, "transpose_y": True},
    ),
    Case("matmul", "batch", {"x": normal(4, 3), "y": normal(2, 5, 3, 6)}),
    Case("matmul", "vector", {"x": normal(4), "y": normal(4, 6)}),
    Case("matmul", "int32", {"x": IA, "y": integers(-9, 9, 4, 2)}, dtypes=INT32, tolerance=None),
    Case("einsum", "rank-4", {"values": (X, normal(2, 5, 4, 6))}, {"equation": "nchw,nwhu->nchu"}),
    Case("einsum", "rank-3", {"values": (X[0], normal(5, 4, 6))}, {"equation": "chw,whr->chr"}),
    Case(
        "einsum", "broadcast", {"values": (X, normal(1, 5, 1, 6))}, {"equation": "nchw,nwhu->nchu"}
    ),
    Case("softmax", "last", {"x": X}),
    Case("softmax", "channel", {"x": X}, {"axis": 1}),
    Case("softmax", "large", {"x": X * 20}, {"axis": -1}),
]
_QKV = {"query": normal(2, 3, 7, 8), "key": normal(2, 3, 5, 8, seed=1), "value": normal(2, 3, 5, 4)}
_ONE_HEAD = {k: v[:, 0] for k, v in _QKV.items()}
_KEEP = np.arange(35).reshape(7, 5) % 3 > 0
_PRODUCTS += [
    Case("scaled_dot_product_attention", id, tensors, target="iOS18")
    for id, tensors in (
        ("plain", _QKV),
        ("one-head", _ONE_HEAD),
        ("float-mask", _QKV | {"attn_mask": normal(7, 5)}),
        ("bool-mask", _QKV | {"attn_mask": _KEEP}),
        ("head-mask", _QKV | {"attn_mask": normal(2, 3, 7, 5)}),
        ("one-head-mask", _ONE_HEAD | {"attn_mask": normal(1, 7, 5)}),
    )
]

MATH = (*_UNARY, *_CASTS, *_BINARY, *_REDUCTIONS, *_PRODUCTS)
