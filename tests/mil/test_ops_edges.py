"""What operations refuse, and corners that one value in a table does not show."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil import ops as ops
from fluxvae.mil.program import TensorType
from fluxvae.mil.registry import REGISTRY
from tests.mil.case import Case
from tests.mil.programs import build

X = torch.arange(24.0).reshape(1, 2, 3, 4)
OUT = TensorType("fp32", (1,))


def run(name: str, **arguments: Any) -> Any:
    return REGISTRY[name].run(**arguments)


def weight(*shape: int) -> Tensor:
    return torch.ones(shape)


_UP = {"x": X, "scale_factor_height": 2, "scale_factor_width": 1.5}
_SPARSE = {"data_mask": torch.ones(2, 2), "nonzero_data": torch.ones(4, dtype=torch.int32)}
UNSUPPORTED: dict[str, tuple[Callable[[], Any], str]] = {
    "fractional nearest": (lambda: run("upsample_nearest_neighbor", **_UP), "2 x 1.5"),
    "nearest to a fraction": (
        lambda: run("resize_nearest_neighbor", x=X, target_size_height=6, target_size_width=6),
        "3 x 4 to 6 x 6",
    ),
    "integer division": (
        lambda: run("real_div", x=torch.tensor([3]), y=torch.tensor([2])),
        "real_div of integers",
    ),
    "gelu mode": (lambda: run("gelu", x=X, mode="FAST"), "'FAST'"),
    "pad mode": (lambda: run("pad", x=X, pad=(1, 1), mode="wrap"), "'wrap'"),
    "sampling mode": (lambda: run("resize_bilinear", x=X, sampling_mode="OTHER"), "'OTHER'"),
    "two grids": (
        lambda: run("upsample_bilinear", x=X, align_corners=True, half_pixel_centers=True),
        "half_pixel_centers",
    ),
    "conv padding": (
        lambda: run("conv", x=X, weight=weight(1, 2, 1, 1), pad_type="full"),
        "'full'",
    ),
    "pad count": (
        lambda: run("conv", x=X, weight=weight(1, 2, 1, 1), pad_type="custom", pad=(1, 1)),
        r"\[1, 1\] for 2",
    ),
    "transposed padding": (
        lambda: run("conv_transpose", x=X, weight=weight(2, 1, 1, 1), pad_type="same_lower"),
        "'same_lower'",
    ),
    "transposed same below stride": (
        lambda: run(
            "conv_transpose", x=X, weight=weight(2, 1, 1, 1), pad_type="same", strides=(2, 2)
        ),
        "stride above",
    ),
    "transposed output shape": (
        lambda: run("conv_transpose", x=X, weight=weight(2, 1, 2, 2), output_shape=(1, 1, 5, 6)),
        r"\[1, 1, 5, 6\].*\[1, 1, 4, 5\]",
    ),
    "quantize to int16": (
        lambda: run("quantize", input=X, scale=torch.tensor(1.0), output_dtype="int16"),
        "'int16'",
    ),
    "scales without axis": (
        lambda: run("dequantize", input=X.int(), scale=torch.ones(2)),
        "needs an axis",
    ),
    "constexpr_cast": (
        lambda: run("constexpr_cast", source_val=X, output_dtype="int8"),
        "'int8'",
    ),
    "sparse float offset": (
        lambda: run(
            "constexpr_sparse_blockwise_shift_scale",
            **_SPARSE,
            scale=torch.ones(1, 1),
            offset=torch.ones(1, 1),
        ),
        "float data or offsets",
    ),
    "fp64": (lambda: run("cast", x=X, dtype="fp64"), "fp64"),
    "pool padding": (lambda: pool(pad_type="full"), "pooling with pad_type 'full'"),
    "pool pad count": (lambda: pool(pad_type="custom", pad=(1, 1)), r"\[1, 1\] for 2"),
    "ceil_mode with same": (lambda: pool(pad_type="same", ceil_mode=True), "ceil_mode"),
    "ceil_mode, asymmetric": (
        lambda: pool(pad_type="custom", pad=(0, 1, 0, 0), ceil_mode=True),
        "symmetric padding",
    ),
    "ceil_mode outside": (
        lambda: pool(kernel_sizes=(1, 1), strides=(3, 4), ceil_mode=True),
        "window of 1 outside 3 elements",
    ),
    "recurrent direction": (lambda: lstm(direction="both"), "direction 'both'"),
    "recurrent activation": (lambda: lstm(activation="scaled_tanh"), "'scaled_tanh'"),
    "even response norm": (lambda: run("local_response_norm", x=X, size=4), "over 4 channels"),
    "indices of int64": (
        lambda: run("topk", x=X, k=1, output_indices_dtype="int64"),
        "'int64'",
    ),
}


def pool(**arguments: Any) -> Tensor:
    """max_pool by windows of 2 x 2, by default, of 3 x 4 elements."""
    result: Tensor = run(
        "max_pool", **{"x": X, "kernel_sizes": (2, 2), "pad_type": "valid"} | arguments
    )
    return result


def lstm(**arguments: Any) -> Any:
    """Three features and two hidden values."""
    state = torch.zeros(1, 2)
    weights = {"weight_ih": weight(8, 3), "weight_hh": weight(8, 2)}
    given = {"x": weight(4, 1, 3), "initial_h": state, "initial_c": state, **weights}
    return run("lstm", **given | arguments)


_INDEX = torch.tensor([0, 3], dtype=torch.int32)
INVALID: dict[str, tuple[Callable[[], Any], str]] = {
    "index above": (lambda: run("gather", x=X, indices=_INDEX, axis=2), r"\[-3, 2\], got 0 to 3"),
    "negative index, validated": (
        lambda: run("gather", x=X, indices=-_INDEX, axis=3, validate_indices=True),
        r"\[0, 3\], got -3 to 0",
    ),
    "index along axis": (
        lambda: run("gather_along_axis", x=X[0, 0, 0], indices=_INDEX + 1),
        r"\[-4, 3\], got 1 to 4",
    ),
    "window beyond the input": (lambda: pool(kernel_sizes=(4, 2)), r"\[4, 2\] do not fit \[3, 4\]"),
    "window of nothing": (lambda: pool(kernel_sizes=(0, 2)), "1 is the least"),
    "stride 0": (lambda: pool(strides=(0, 1)), "1 is the least"),
    "stride 0 with same": (lambda: pool(strides=(0, 1), pad_type="same"), "1 is the least"),
    "one window side": (lambda: pool(kernel_sizes=(2,)), "rank 4"),
    "negative pool padding": (
        lambda: pool(pad_type="custom", pad=(-1, 0, 0, 0)),
        r"padding \[\(-1, 0\)",
    ),
    "window in the padding": (
        lambda: pool(pad_type="custom", pad=(0, 2, 0, 0)),
        "a window would lie in it",
    ),
    "huge window": (lambda: pool(kernel_sizes=(2**31 - 1, 1)), "do not fit"),
    "recurrent weights": (lambda: lstm(weight_hh=weight(6, 2)), "do not fit an input"),
    "no backward weights": (lambda: lstm(direction="bidirectional"), "backward"),
    "no steps": (lambda: lstm(x=weight(0, 1, 3)), r"\[0, 1, 3\]"),
    "topk beyond": (lambda: run("topk", x=X, k=5), "5 among 4"),
    "crop of everything": (
        lambda: run("crop", x=X, crop_height=(1, 2), crop_width=(0, 0)),
        "1 and 2 of 3",
    ),
    "one_hot outside": (
        lambda: run("one_hot", indices=_INDEX, one_hot_vector_size=3, out=OUT),
        "outside 0 to 2",
    ),
    "index vectors": (
        lambda: run("gather_nd", x=X, indices=torch.zeros(2, 5).int()),
        "gather_nd of",
    ),
    "uneven split": (lambda: run("split", x=X, axis=3, num_splits=3), "4 elements into 3"),
    "mirror beyond the edge": (
        lambda: run("pad", x=X, pad=(0, 4), mode="reflect"),
        "by 4 on 4 elements",
    ),
    "table and indices disagree": (
        lambda: run(
            "constexpr_lut_to_dense",
            indices=torch.zeros(2, dtype=torch.int32),
            lut=torch.zeros(4),
            shape=(9,),
        ),
        "4 values and 2 bytes",
    ),
    "table rank": (
        lambda: run(
            "constexpr_lut_to_dense", indices=torch.zeros(2, 2).int(), lut=torch.zeros(1, 4, 1)
        ),
        "rank 3 for indices of rank 2",
    ),
    "vector without axis": (
        lambda: run(
            "constexpr_lut_to_dense", indices=torch.zeros(2).int(), lut=torch.zeros(1, 4, 2)
        ),
        "vector_axis",
    ),
    "blocks that do not divide": (
        lambda: run(
            "constexpr_blockwise_shift_scale", data=torch.ones(4), scale=torch.ones(3), out=OUT
        ),
        "3 blocks do not divide 4",
    ),
    "mask too short": (
        lambda: run(
            "constexpr_sparse_to_dense",
            nonzero_data=torch.ones(1),
            mask=torch.tensor([1]),
            shape=(9,),
        ),
        "1 bytes for 9 elements",
    ),
    "mask and values disagree": (
        lambda: run(
            "constexpr_sparse_to_dense", nonzero_data=torch.ones(1), mask=torch.tensor([1, 1])
        ),
        "1 values for a mask of 2 ones",
    ),
}


@pytest.mark.parametrize("name", [*UNSUPPORTED, *INVALID])
def test_open_semantics_and_contradicting_arguments_are_refused(name: str) -> None:
    attempt, message = (UNSUPPORTED | INVALID)[name]
    error = UnsupportedOpError if name in UNSUPPORTED else ArtifactError
    with pytest.raises(error, match=message):
        attempt()


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["log", "rsqrt", "inverse"])
def test_default_epsilon_has_the_type_of_the_operation(name: str, dtype: str) -> None:
    """At zero the result is the default alone: log(0 + 1e-45) is -103.3, in fp16 minus infinity."""
    case = Case(name, "zero", {"x": np.array([0.0, 1e-4])})
    with np.errstate(divide="ignore"):
        want = build(case, case.arguments(dtype), constant=True).outputs[0].val
    x = torch.from_numpy(case.arguments(dtype)["x"].astype(np.float32))
    got = run(name, x=x, out=TensorType(dtype, (2,))).numpy()
    if dtype == "fp16":
        got = got.astype(np.float16)
        # numpy rounds x + epsilon to fp16 first: one step there is 1e-3 of the result
        np.testing.assert_allclose(got, want, rtol=2e-3)
    else:
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_depth_to_space_matches_apples_example() -> None:
    # coremltools/converters/mil/mil/ops/tests/iOS14/test_tensor_transformation.py
    x = torch.tensor([9.0, 5.0, 1.0, 3.0]).reshape(1, 4, 1, 1)
    want = torch.tensor([[[[9.0, 5.0], [1.0, 3.0]]]])
    assert torch.equal(run("depth_to_space", x=x, block_size=2), want)
    assert torch.equal(run("space_to_depth", x=want, block_size=2), x)


def test_concat_interleaves_as_documented() -> None:
    # the example of concat's documentation
    first = torch.tensor([[1, 2], [3, 4], [5, 6]])
    second = torch.tensor([[7, 8], [9, 10], [11, 12]])
    joined = run("concat", values=(first, second), axis=0, interleave=True)
    assert joined.tolist() == [[1, 2], [7, 8], [3, 4], [9, 10], [5, 6], [11, 12]]


def test_concat_of_scalars_makes_a_vector() -> None:
    joined = run("concat", values=(torch.tensor(1), torch.tensor(2)), axis=0)
    assert joined.tolist() == [1, 2]


def test_slice_by_size_counts_a_negative_begin_from_the_end() -> None:
    # test_builder_eval of coremltools' slice_by_size; its type inference gets this case wrong
    x = torch.arange(24).reshape(2, 3, 4)
    got = run("slice_by_size", x=x, begin=(0, -2, 0), size=(-1, -1, 3))
    assert torch.equal(got, x[:, -2:, :3])


def test_a_vector_in_a_product_is_not_transposed_and_its_dimension_is_dropped() -> None:
    seed = torch.Generator().manual_seed(0)  # a sum that nearly cancels has no relative accuracy
    x, y = torch.randn(2, 3, 4, generator=seed), torch.randn(4, generator=seed)
    want = np.matmul(x.numpy(), y.numpy())
    np.testing.assert_allclose(run("matmul", x=x, y=y, transpose_y=True), want, rtol=1e-5)
    want = np.matmul(y.numpy(), x.mT.numpy())
    np.testing.assert_allclose(run("matmul", x=y, y=x.mT, transpose_x=True), want, rtol=1e-5)


def test_reduction_over_no_axes_changes_nothing() -> None:
    assert torch.equal(run("reduce_sum", x=X, axes=()), X)


def test_layer_norm_without_axes_normalises_everything() -> None:
    assert torch.equal(run("layer_norm", x=X), run("layer_norm", x=X, axes=(0, 1, 2, 3)))


def test_mean_of_a_groupnorm_group_is_accurate() -> None:
    """64 channels of 96x96: added one by one in float32 the error is 1e-4, cascaded 3e-7."""
    x = torch.randn(1, 1, 64, 96, 96, generator=torch.Generator().manual_seed(0)) + 10
    got = run("reduce_mean", x=x, axes=(2, 3, 4))
    assert abs(got.item() - x.double().mean().item()) < 2e-6


def test_batch_norm_far_from_its_mean_is_accurate() -> None:
    """Folding into one multiply-add loses at most a few bits: 1e-6 of the largest value."""
    x = torch.randn(1, 8, 32, 32, generator=torch.Generator().manual_seed(0)) * 3 + 5
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    wide = (x.double() - mean[:, None, None]) / (variance.double() + 1e-5).sqrt()[:, None, None]
    got = run("batch_norm", x=x, mean=mean, variance=variance)
    assert ((got - wide).abs().max() / wide.abs().max()).item() < 1e-6


def test_large_mask_of_minus_infinity_keeps_attention_finite() -> None:
    q = torch.randn(1, 2, 4)
    mask = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]])
    got = run("scaled_dot_product_attention", query=q, key=q, value=q, attn_mask=mask)
    torch.testing.assert_close(got[0, 0], q[0, 0])
