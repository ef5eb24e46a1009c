"""Matrix layers against numpy in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxvae.errors import UnsupportedOpError
from fluxvae.mil.package import read_package
from tests.mil.networks import LayerCase, check_case, normal, save_network

W, BIAS = normal(7, 12, seed=1), normal(7, seed=2)


def inner(shape: tuple[int, ...], out: tuple[int, ...], bias: np.ndarray | None) -> LayerCase:
    x = normal(*shape, seed=3)
    expected = x.reshape(-1, 12) @ W.T + (0 if bias is None else bias)
    return LayerCase(
        f"innerProduct-rank{len(shape)}{'' if bias is None else '-bias'}",
        lambda b: b.add_inner_product("layer", W, bias, 12, 7, bias is not None, "x", "y0"),
        {"x": x},
        (expected.reshape(out),),
    )


def by_matrix(shape: tuple[int, ...], bias: np.ndarray | None) -> LayerCase:
    x = normal(*shape, seed=4)
    return LayerCase(
        f"batchedMatmul-rank{len(shape)}{'' if bias is None else '-bias'}",
        lambda b: b.add_batched_mat_mul(
            "layer", ["x"], "y0", weight_matrix_rows=12, weight_matrix_columns=7, W=W.T, bias=bias
        ),
        {"x": x},
        (x @ W.T + (0 if bias is None else bias),),
    )


def product(a: tuple[int, ...], b: tuple[int, ...], ta: bool, tb: bool) -> LayerCase:
    x, y = normal(*a, seed=5), normal(*b, seed=6)
    expected = (x.swapaxes(-1, -2) if ta else x) @ (y.swapaxes(-1, -2) if tb else y)
    return LayerCase(
        f"batchedMatmul-{len(a)}x{len(b)}-{ta}-{tb}",
        lambda builder: builder.add_batched_mat_mul(
            "layer", ["x", "y"], "y0", transpose_a=ta, transpose_b=tb
        ),
        {"x": x, "y": y},
        (expected,),
    )


CASES = [
    inner((12,), (7,), BIAS),
    inner((5, 12), (5, 7), None),
    inner((2, 5, 12), (2, 5, 7), BIAS),
    inner((5, 3, 2, 2), (5, 7, 1, 1), BIAS),
    inner((2, 5, 3, 2, 2), (2, 5, 7, 1, 1), None),
    by_matrix((5, 12), BIAS),
    by_matrix((2, 3, 5, 12), None),
    by_matrix((2, 3, 5, 12), BIAS),
    product((2, 3, 4, 5), (2, 3, 5, 6), False, False),
    product((2, 3, 5, 4), (5, 6), True, False),
    product((3, 4, 5), (2, 1, 6, 5), False, True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matrix_layer_computes_its_product(case: LayerCase, tmp_path: Path) -> None:
    check_case(case, tmp_path)


def test_int8_arithmetic_is_refused_by_name(tmp_path: Path) -> None:
    def add(builder: Any) -> None:
        layer = builder.add_inner_product("fc_3", W, None, 12, 7, False, "x", "y")
        layer.innerProduct.int8DynamicQuantize = True

    path = save_network(tmp_path / "a.mlmodel", add, {"x": (5, 12)}, ("y",))
    with pytest.raises(UnsupportedOpError, match=r"'fc_3' .*int8"):
        read_package(path)
