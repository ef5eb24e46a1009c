"""Convolutions over one, two or three spatial dimensions, matrix products and attention.

Products accumulate in float32 and are rounded once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxvae.errors import UnsupportedOpError
from fluxvae.mil.registry import Ints, Tensors, op

_CONV = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_TRANSPOSE = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}
Pads = list[tuple[int, int]]


@op("conv")
def conv(
    *,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolution in 1, 2 or 3 dimensions; `pad_type` valid, custom, same, same_lower.

    ``same`` is TensorFlow's: the output has ceil(size / stride) elements and an odd padding puts
    its extra element at the end (``same_lower``: at the start).
    """
    spatial = x.dim() - 2
    steps = strides or (1,) * spatial
    spread = dilations or (1,) * spatial
    extents = _extents(weight, spread)
    pads = window_pads("conv", pad_type, pad, tuple(x.shape[2:]), extents, steps)
    if any(before != after for before, after in pads):
        x = F.pad(x, [side for pair in reversed(pads) for side in pair])
        pads = [(0, 0)] * spatial
    return _CONV[x.dim()](x, weight, bias, steps, [p for p, _ in pads], spread, groups)


@op("conv_transpose")
def conv_transpose(
    *,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Transposed convolution; `pad` removes elements from each side of the full output.

    ``output_shape`` is accepted where it states what the other arguments already imply; a shape
    that adds or drops elements is refused, for which side they go to is not documented.
    """
    spatial = x.dim() - 2
    steps = strides or (1,) * spatial
    spread = dilations or (1,) * spatial
    extents = _extents(weight, spread)
    pads = _transpose_pads(pad_type, pad, extents, steps)
    even = [before if before == after else 0 for before, after in pads]
    result = _TRANSPOSE[x.dim()](x, weight, bias, steps, even, 0, groups, spread)
    for axis, (before, after) in enumerate(pads, 2):
        if before != after:
            result = result.narrow(axis, before, result.shape[axis] - before - after)
    if output_shape is not None and output_shape != tuple(result.shape):
        raise UnsupportedOpError(
            f"conv_transpose with output_shape {list(output_shape)}, where its padding and strides "
            f"give {list(result.shape)}, is not supported"
        )
    return result.contiguous()


def _extents(weight: Tensor, dilations: Ints) -> list[int]:
    return [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]


def window_pads(
    what: str, kind: str, pad: Ints | None, sizes: Ints, extents: list[int], steps: Ints
) -> Pads:
    """Padding before and after each spatial dimension, for windows of ``extents`` elements.

    ``what`` names the operation in errors.
    """
    if kind in ("valid", "custom"):
        return _given_pads(kind, pad, len(sizes))
    if kind not in ("same", "same_lower"):
        raise UnsupportedOpError(f"{what} with pad_type {kind!r} is not supported")
    pads = []
    for size, extent, step in zip(sizes, extents, steps, strict=True):
        total = max(0, (-(-size // step) - 1) * step + extent - size)
        less, more = total // 2, total - total // 2
        pads.append((less, more) if kind == "same" else (more, less))
    return pads


def _transpose_pads(kind: str, pad: Ints | None, extents: list[int], steps: Ints) -> Pads:
    if kind in ("valid", "custom"):
        return _given_pads(kind, pad, len(extents))
    if kind != "same":
        raise UnsupportedOpError(f"conv_transpose with pad_type {kind!r} is not supported")
    totals = [extent - step for extent, step in zip(extents, steps, strict=True)]
    if min(totals) < 0:
        raise UnsupportedOpError("conv_transpose 'same' with a stride above the kernel size")
    return [(total // 2, total - total // 2) for total in totals]


def _given_pads(kind: str, pad: Ints | None, spatial: int) -> Pads:
    if kind == "valid":
        return [(0, 0)] * spatial
    sides = pad or (0,) * 2 * spatial
    if len(sides) != 2 * spatial:
        raise UnsupportedOpError(f"padding {list(sides)} for {spatial} spatial dimensions")
    return list(zip(sides[::2], sides[1::2], strict=True))


@op("linear")
def linear(*, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`."""
    return F.linear(x, weight, bias)


@op("matmul")
def matmul(*, x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Batched matrix product; the last two dimensions may be transposed first."""
    if transpose_x and x.dim() > 1:
        x = x.mT
    if transpose_y and y.dim() > 1:
        y = y.mT
    return torch.matmul(x, y)


@op("einsum")
def einsum(*, values: Tensors, equation: str) -> Tensor:
    """Product of two tensors by an equation such as `nchw,nwhu->nchu`."""
    return torch.einsum(equation, *values).contiguous()


@op("softmax")
def softmax(*, x: Tensor, axis: int = -1) -> Tensor:
    """`exp(x - max) / sum(exp(x - max))` along `axis`."""
    return torch.softmax(x, axis)


@op("scaled_dot_product_attention", since="iOS18")
def scaled_dot_product_attention(
    *, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """`softmax(query @ key.T / sqrt(d) + attn_mask) @ value`; a bool mask keeps where true."""
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.device)
    return F.scaled_dot_product_attention(query, key, value, attn_mask).contiguous()
