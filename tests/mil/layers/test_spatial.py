"""Image layers against torch in float64, or against the arrays the format's text gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fluxvae.errors import ArtifactError
from fluxvae.mil.package import read_package
from tests.mil.networks import LayerCase, check_case, layer, normal, save_network

X = normal(2, 4, 7, 6, seed=1)
TX = torch.from_numpy(X)
BIAS = normal(6, seed=2)


def convolution(
    name: str,
    expected: torch.Tensor,
    weight: np.ndarray,
    *,
    stride: tuple[int, int] = (1, 1),
    mode: str = "valid",
    groups: int = 1,
    bias: bool = True,
    transposed: bool = False,
    **params: Any,
) -> LayerCase:
    """``weight`` as torch has it; the builder wants height and width first."""
    order = (2, 3, 0, 1) if transposed else (2, 3, 1, 0)
    outputs = weight.shape[1] * groups if transposed else weight.shape[0]
    return LayerCase(
        f"convolution {name}",
        lambda b: b.add_convolution(
            "layer", weight.shape[0] if transposed else weight.shape[1], outputs,
            *weight.shape[2:], *stride, mode, groups, weight.transpose(order),
            BIAS if bias else None, bias, is_deconv=transposed, input_name="x",
            output_name="y0", **params,
        ),
        {"x": X},
        (expected.numpy(),),
    )  # fmt: skip


W = normal(6, 4, 3, 3, seed=3)
GROUPED = normal(6, 2, 3, 3, seed=4)
UP = normal(4, 6, 4, 4, seed=5)
UP_GROUPED = normal(4, 3, 4, 4, seed=6)
TW, TG, TU = (torch.from_numpy(v) for v in (W, GROUPED, UP))
TUG, TB = torch.from_numpy(UP_GROUPED), torch.from_numpy(BIAS)
ONES = {f"padding_{side}": 1 for side in ("top", "bottom", "left", "right")}
# The format's own example of blocks: 8 channels of 1 x 2 pixels
BLOCKS = np.arange(1.0, 17).reshape(1, 8, 1, 2)
DEPTH_TO_SPACE = np.array(
    [[[1, 5, 2, 6], [9, 13, 10, 14]], [[3, 7, 4, 8], [11, 15, 12, 16]]], np.float64
)[None]
PIXEL_SHUFFLE = np.array(
    [[[1, 3, 2, 4], [5, 7, 6, 8]], [[9, 11, 10, 12], [13, 15, 14, 16]]], np.float64
)[None]


def bilinear(mode: str, size: tuple[int, int]) -> np.ndarray:
    """X at the grid points the format's text defines, for each axis in turn."""
    out = X
    for axis, new in ((2, size[0]), (3, size[1])):
        old = out.shape[axis]
        spacing, offset = {
            "DEFAULT": ((old - old / new) / (new - 1), 0.0),
            "ALIGN_CORNERS_TRUE": ((old - 1) / (new - 1), 0.0),
            "ALIGN_CORNERS_FALSE": (old / new, 0.5 * old / new - 0.5),
        }[mode]
        points = np.minimum(old - 1, np.maximum(0, np.arange(new) * spacing + offset))
        low = np.floor(points).astype(int)
        high = np.minimum(low + 1, old - 1)
        share = (points - low).reshape((-1, 1) if axis == 2 else (-1,))
        out = out.take(low, axis) * (1 - share) + out.take(high, axis) * share
    return out


CASES = [
    convolution("valid", F.conv2d(TX, TW, TB), W),
    convolution("without bias", F.conv2d(TX, TW), W, bias=False),
    convolution("padded", F.conv2d(TX, TW, TB, padding=1), W, **ONES),
    convolution(
        "padded unevenly", F.conv2d(F.pad(TX, (0, 2, 1, 0)), TW, TB), W,
        padding_top=1, padding_right=2,
    ),
    convolution(
        "stride and dilation", F.conv2d(TX, TW, TB, (2, 1), 1, (1, 2)), W,
        stride=(2, 1), dilation_factors=[1, 2], **ONES,
    ),
    convolution(
        "grouped", F.conv2d(TX, TG, TB, padding=1, groups=2), GROUPED, groups=2, **ONES
    ),
    # height 7: (1, 1) around it; width 6, stride 2: one column, at the end or at the start
    convolution(
        "same", F.conv2d(F.pad(TX, (0, 1, 1, 1)), TW, TB, 2), W, stride=(2, 2), mode="same"
    ),
    convolution(
        "same, heavy at the start", F.conv2d(F.pad(TX, (1, 0, 1, 1)), TW, TB, 2), W,
        stride=(2, 2), mode="same", same_padding_asymmetry_mode="TOP_LEFT_HEAVY",
    ),
    convolution(
        "transposed", F.conv_transpose2d(TX, TU, TB, 2, 1), UP,
        stride=(2, 2), transposed=True, **ONES,
    ),
    convolution(
        "transposed, grouped", F.conv_transpose2d(TX, TUG, TB, 2, groups=2), UP_GROUPED,
        stride=(2, 2), groups=2, transposed=True,
    ),
    convolution(
        "transposed, same", F.conv_transpose2d(TX, TU, TB, 2, 1), UP,
        stride=(2, 2), mode="same", transposed=True,
    ),
    convolution(
        "transposed, with the size it implies", F.conv_transpose2d(TX, TU, TB, 2, 1), UP,
        stride=(2, 2), transposed=True, output_shape=(14, 12), **ONES,
    ),
    LayerCase(
        "convolution by a second input",
        lambda b: b.add_convolution(
            "layer", 4, 6, 3, 3, 1, 1, "valid", 1, None, None, False,
            input_name=["x", "w"], output_name="y0",
        ),
        {"x": X, "w": W}, (F.conv2d(TX, TW).numpy(),),
    ),
    layer(
        "upsample nearest", "add_upsample", X, X.repeat(2, 2).repeat(3, 3),
        scaling_factor_h=2, scaling_factor_w=3,
    ),
    *(
        layer(
            f"upsample bilinear {mode}", "add_upsample", X, bilinear(mode, (14, 18)),
            scaling_factor_h=2, scaling_factor_w=3, mode="BILINEAR", linear_upsample_mode=mode,
        )
        for mode in ("DEFAULT", "ALIGN_CORNERS_TRUE", "ALIGN_CORNERS_FALSE")
    ),
    layer(
        "resizeBilinear strict", "add_resize_bilinear", X, bilinear("ALIGN_CORNERS_TRUE", (5, 9)),
        target_height=5, target_width=9, mode="STRICT_ALIGN_ENDPOINTS_MODE",
    ),
    layer(
        "resizeBilinear as upsample", "add_resize_bilinear", X, bilinear("DEFAULT", (5, 9)),
        target_height=5, target_width=9, mode="UPSAMPLE_MODE",
    ),
    layer(
        "padding constant", "add_padding", X,
        np.pad(X, ((0, 0), (0, 0), (3, 4), (1, 2)), constant_values=0.5),
        left=1, right=2, top=3, bottom=4, value=0.5,
    ),
    layer(
        "padding reflection", "add_padding", X,
        np.pad(X, ((0, 0), (0, 0), (3, 4), (1, 2)), mode="reflect"),
        left=1, right=2, top=3, bottom=4, padding_type="reflection",
    ),
    layer(
        "padding replication", "add_padding", X,
        np.pad(X, ((0, 0), (0, 0), (3, 4), (1, 2)), mode="edge"),
        left=1, right=2, top=3, bottom=4, padding_type="replication",
    ),
    LayerCase(
        "constantPad",
        lambda b: b.add_constant_pad(
            "layer", ["x"], "y0", -1.5, pad_amounts=[0, 1, 2, 0, 0, 0, 3, 4]
        ),
        {"x": X}, (np.pad(X, ((0, 1), (2, 0), (0, 0), (3, 4)), constant_values=-1.5),),
    ),
    LayerCase(
        "constantPad by a second input",
        lambda b: b.add_constant_pad("layer", ["x", "p"], "y0", 0.5),
        {"x": X, "p": np.array([0.0, 0, 0, 0, 1, 2, 3, 4])},
        (np.pad(X, ((0, 0), (0, 0), (1, 2), (3, 4)), constant_values=0.5),),
    ),
    LayerCase(
        "crop", lambda b: b.add_crop("layer", 1, 2, 3, 0, 0, ["x"], "y0"),
        {"x": X}, (X[:, :, 3:, 1:-2],),
    ),
    *(
        LayerCase(
            f"pooling of everything {kind}",
            lambda b, kind=kind: b.add_pooling(
                "layer", 0, 0, 0, 0, kind, "VALID", "x", "y0", is_global=True
            ),
            {"x": X}, (expected,),
        )
        for kind, expected in (
            ("MAX", X.max((2, 3), keepdims=True)),
            ("AVERAGE", X.mean((2, 3), keepdims=True)),
            ("L2", np.sqrt((X**2).sum((2, 3), keepdims=True))),
        )
    ),
    *(
        layer(
            f"pooling {name}", "add_pooling", X, expected.numpy(),
            height=3, width=2, stride_height=2, stride_width=2, **params,
        )
        for name, expected, params in (
            ("max", F.max_pool2d(TX, (3, 2), 2),
             {"layer_type": "MAX", "padding_type": "VALID"}),
            ("average", F.avg_pool2d(F.pad(TX, (0, 1, 1, 0)), (3, 2), 2),
             {"layer_type": "AVERAGE", "padding_type": "VALID", "exclude_pad_area": False,
              "padding_top": 1, "padding_right": 1}),
            ("average inside", F.avg_pool2d(TX, (3, 2), 2, (1, 1), count_include_pad=False),
             {"layer_type": "AVERAGE", "padding_type": "VALID", **ONES}),
            # 7 rows: one more above and below; 6 columns: none
            ("same", F.max_pool2d(F.pad(TX, (0, 0, 1, 1), value=-9e9), (3, 2), 2),
             {"layer_type": "MAX", "padding_type": "SAME"}),
            ("last pixel", F.max_pool2d(TX, (3, 2), 2, (1, 1), ceil_mode=True),
             {"layer_type": "MAX", "padding_type": "INCLUDE_LAST_PIXEL", **ONES}),
            ("l2", 6 ** 0.5 * F.avg_pool2d(TX**2, (3, 2), 2).sqrt(),
             {"layer_type": "L2", "padding_type": "VALID"}),
        )
    ),
    layer("depth to space", "add_reorganize_data", BLOCKS, DEPTH_TO_SPACE, mode="DEPTH_TO_SPACE"),
    layer("space to depth", "add_reorganize_data", DEPTH_TO_SPACE, BLOCKS),
    layer("pixel shuffle", "add_reorganize_data", BLOCKS, PIXEL_SHUFFLE, mode="PIXEL_SHUFFLE"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_image_layer_computes_its_definition(case: LayerCase, tmp_path: Path) -> None:
    check_case(case, tmp_path)


def test_convolution_for_other_channels_is_refused(tmp_path: Path) -> None:
    path = save_network(
        tmp_path / "a.mlmodel",
        lambda b: b.add_convolution(
            "conv_9", 4, 6, 3, 3, 1, 1, "valid", 1, W.transpose(2, 3, 1, 0), None, False,
            input_name="x", output_name="y",
        ),
        {"x": (1, 5, 8, 8)},
        ("y",),
    )  # fmt: skip
    with pytest.raises(ArtifactError, match=r"'conv_9' .*wants 4 channels.*has 5"):
        read_package(path)
