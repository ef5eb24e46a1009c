"""Plain recipes against coremltools' own functions on the same weights."""

from collections.abc import Iterator

import numpy as np
import pytest
from coremltools.optimize.coreml import _quantization_passes as passes

from fluxvae.compress.forms import Palettized, Quantized, Scheme, dense
from fluxvae.compress.nearest import plain_form
from fluxvae.errors import CompressionError

SHAPES = [(64, 64, 3, 3), (64, 16, 3, 3), (3, 64, 3, 3), (256, 64, 1, 1)]


def weights() -> Iterator[np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(11))
    for shape in SHAPES:
        spread = np.exp(generator.standard_normal((shape[0], 1, 1, 1)))
        yield (generator.standard_normal(shape) * spread * 0.1).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "bits", "granularity", "blocks"),
    [
        ("int8", 8, "tensor", [0, 0, 0, 0]),
        ("int8", 8, "channel", [1, 0, 0, 0]),
        ("int4", 4, "channel", [1, 0, 0, 0]),
        ("int4", 4, "block:16", [1, 16, 0, 0]),
    ],
)
def test_integers_and_scales_are_those_of_coremltools(
    kind: str, bits: int, granularity: str, blocks: list[int]
) -> None:
    for weight in weights():
        theirs = passes.linear_quantize_weights.blockwise_compress(
            weight.astype(np.float16), bits, "LINEAR_SYMMETRIC", True, blocks
        )
        ours = plain_form(weight, Scheme(kind, bits, granularity))
        assert isinstance(ours, Quantized)
        assert np.array_equal(ours.data, theirs.data.astype(np.int8))
        assert np.array_equal(ours.scale, theirs.scale.astype(np.float32))
        expanded = passes.linear_quantize_weights.decompress(theirs)
        assert np.array_equal(dense(ours, "float16"), expanded.astype(np.float32))


@pytest.mark.parametrize(("granularity", "group"), [("tensor", 0), ("grouped:16", 16)])
@pytest.mark.parametrize("bits", [2, 4])
def test_palettes_are_no_worse_than_those_of_coremltools(
    granularity: str, group: int, bits: int
) -> None:
    for weight in weights():
        if group and len(weight) % group:
            continue  # coremltools leaves such a weight as it is
        half = weight.astype(np.float16)
        theirs = passes.palettize_weights.blockwise_compress(half, "KMEANS", bits, [group, 0, 0, 0])
        ours = plain_form(weight, Scheme("palette", bits, granularity))
        assert isinstance(ours, Palettized)
        assert ours.lut.shape[0] == theirs.lut.shape[0]
        exact = half.astype(np.float64)
        # Both tables are rounded to float16 after k-means, to either side: hence 1e-4.
        least = ((exact - passes.palettize_weights.decompress(theirs)) ** 2).sum()
        assert ((exact - dense(ours, "float16")) ** 2).sum() <= least * (1 + 1e-4)


def test_scales_of_channels_are_their_largest_magnitudes() -> None:
    weight = next(weights())
    ours = plain_form(weight, Scheme("palette", 4, "channel-scale"))
    assert isinstance(ours, Palettized)
    assert ours.scale is not None
    wanted = np.abs(weight.astype(np.float16)).max((1, 2, 3)).astype(np.float32)
    assert np.array_equal(ours.scale, wanted)
    assert float(np.abs(ours.lut).max()) <= 1


def test_groups_and_blocks_that_do_not_divide_become_smaller() -> None:
    """``grouped:16`` of 3 channels, ``block:32`` of 16 inputs: the greatest common divisors."""
    _, inputs16, outputs3, _ = weights()
    grouped = plain_form(outputs3, Scheme("palette", 2, "grouped:16"))
    assert isinstance(grouped, Palettized)
    assert grouped.lut.shape == (3, 4)
    blocked = plain_form(inputs16, Scheme("int4", 4, "block:32"))
    assert isinstance(blocked, Quantized)
    assert blocked.scale.shape == (64, 1, 1, 1)


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme("palette", 4, "channel-scale"),
        Scheme("palette", 1, "tensor"),
        Scheme("int8", 8, "channel"),
        Scheme("int4", 4, "block:2"),
    ],
)
def test_zeros_stay_zeros_and_nan_is_refused(scheme: Scheme) -> None:
    weight = np.zeros((4, 4, 3, 3), np.float32)
    assert not dense(plain_form(weight, scheme), "float16").any()
    weight[0, 0, 0, 0] = np.nan
    with pytest.raises(CompressionError, match="finite"):
        plain_form(weight, scheme)
