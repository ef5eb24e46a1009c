"""Properties of operations over generated shapes and parameters, against numpy and torch."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fluxvae.mil import ops as ops
from fluxvae.mil.registry import REGISTRY
from tests.mil.cases_weights import packed

quick = settings(max_examples=25, derandomize=True, deadline=None, database=None)
sizes = st.integers(1, 6)


def run(name: str, **arguments: Any) -> Any:
    return REGISTRY[name].run(**arguments)


def counting(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape)


@st.composite
def slices(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[int, int, int, bool, bool, bool]]]:
    shape = tuple(draw(st.lists(sizes, min_size=1, max_size=4)))
    step = st.integers(-3, 3).filter(bool)
    axes = []
    for size in shape:
        inside = st.integers(-size, size - 1)  # a squeezed dimension has to exist
        axes.append(
            (
                *(draw(inside), draw(st.integers(-8, 8)), draw(step)),
                *(draw(st.booleans()) for _ in range(3)),
            )
        )
    return shape, axes


@quick
@given(slices())
def test_slice_by_index_is_numpys(
    drawn: tuple[tuple[int, ...], list[tuple[int, int, int, bool, bool, bool]]],
) -> None:
    shape, axes = drawn
    begin, end, stride, begin_mask, end_mask, squeeze = zip(*axes, strict=True)
    picks = [
        (0 if bm else b) if sq else slice(None if bm else b, None if em else e, s)
        for b, e, s, bm, em, sq in axes
    ]
    x = counting(shape)
    got = run(
        *("slice_by_index",),
        x=x,
        begin=begin,
        end=end,
        stride=stride,
        begin_mask=begin_mask,
        end_mask=end_mask,
        squeeze_mask=squeeze,
    )
    np.testing.assert_array_equal(got.numpy(), x.numpy()[tuple(picks)])


@quick
@given(
    shape=st.lists(sizes, min_size=1, max_size=4),
    data=st.data(),
    mode=st.sampled_from(["constant", "reflect", "replicate"]),
)
def test_pad_is_numpys(shape: list[int], data: st.DataObject, mode: str) -> None:
    padded = data.draw(st.integers(1, len(shape)))
    most = [s - 1 if mode == "reflect" else s for s in shape[-padded:]]
    pairs = [(data.draw(st.integers(0, m)), data.draw(st.integers(0, m))) for m in most]
    x = counting(tuple(shape))
    got = run("pad", x=x, pad=tuple(side for pair in pairs for side in pair), mode=mode)
    whole = [(0, 0)] * (len(shape) - padded) + pairs
    want = np.pad(x.numpy(), whole, "edge" if mode == "replicate" else mode)
    np.testing.assert_array_equal(got.numpy(), want)


@quick
@given(
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.tuples(*[st.integers(0, 2)] * 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
)
def test_conv_is_torchs_on_an_explicitly_padded_input(
    size: tuple[int, int],
    kernel: tuple[int, int],
    pad: tuple[int, int, int, int],
    stride: int,
    dilation: int,
    groups: int,
) -> None:
    generator = torch.Generator().manual_seed(sum(size) + sum(pad))
    x = torch.randn(1, 4, *size, generator=generator)
    weight = torch.randn(6, 4 // groups, *kernel, generator=generator)
    top, bottom, left, right = pad
    want = F.conv2d(
        F.pad(x.double(), (left, right, top, bottom)),
        *(weight.double(), None, stride, 0, dilation, groups),
    )
    got = run(
        *("conv",),
        x=x,
        weight=weight,
        strides=(stride, stride),
        pad_type="custom",
        pad=pad,
        dilations=(dilation, dilation),
        groups=groups,
    )
    # 36 products of normal numbers: 4e-7 of the largest sum measured
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-5)


@quick
@given(
    size=st.integers(1, 12), kernel=st.integers(1, 5), stride=st.integers(1, 4), lower=st.booleans()
)
def test_same_padding_divides_the_size_rounded_up(
    size: int, kernel: int, stride: int, lower: bool
) -> None:
    """MIL's documentation: ``d_out[i] = ceil(d_in[i] / strides[i])``; the ends differ by one."""
    x, weight = torch.ones(1, 1, size), torch.ones(1, 1, kernel)
    kind = "same_lower" if lower else "same"
    got = run("conv", x=x, weight=weight, strides=(stride,), pad_type=kind)
    assert got.shape[-1] == -(-size // stride)
    mirrored = run(
        *("conv",),
        x=x,
        weight=weight,
        strides=(stride,),
        pad_type="same" if lower else "same_lower",
    )
    assert torch.equal(got, mirrored.flip(-1))


@quick
@given(
    bits=st.sampled_from([1, 2, 4, 6, 8]),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_packed_indices_find_their_table_entries(bits: int, shape: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    indices = generator.integers(0, 1 << bits, shape).astype(np.uint8)
    lut = generator.standard_normal(1 << bits).astype(np.float32)
    got = run(
        "constexpr_lut_to_dense",
        indices=torch.from_numpy(packed(indices, bits).astype(np.int32)),
        lut=torch.from_numpy(lut),
        shape=tuple(shape),
    )
    np.testing.assert_array_equal(got.numpy(), lut[indices])


@quick
@given(scale=st.floats(0.01, 10), zero_point=st.integers(-128, 127), seed=st.integers(0, 99))
def test_quantized_integers_come_back(scale: float, zero_point: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    stored = torch.from_numpy(generator.integers(-128, 128, (3, 5)).astype(np.int32))
    parameters = {"scale": torch.tensor(scale), "zero_point": torch.tensor(zero_point)}
    values = run("dequantize", input=stored, **parameters)
    assert torch.equal(run("quantize", input=values, output_dtype="int8", **parameters), stored)


@quick
@given(shape=st.lists(sizes, min_size=1, max_size=4), data=st.data())
def test_reshape_to_a_factorisation_keeps_the_order(shape: list[int], data: st.DataObject) -> None:
    x = counting(tuple(shape))
    wanted = data.draw(st.permutations(shape))
    hidden = data.draw(st.integers(0, len(shape) - 1))
    assume(0 not in wanted)
    asked = tuple(-1 if i == hidden else s for i, s in enumerate(wanted))
    got = run("reshape", x=x, shape=asked)
    np.testing.assert_array_equal(got.numpy(), x.numpy().reshape(wanted))
