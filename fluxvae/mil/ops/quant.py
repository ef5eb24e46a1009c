"""Quantization of activations: 8-bit affine, per tensor or per channel."""

import torch
from torch import Tensor

from fluxvae.errors import UnsupportedOpError
from fluxvae.mil.registry import op

RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


@op("quantize", since="iOS17")
def quantize(
    *,
    input: Tensor,
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """`clip(round(input / scale) + zero_point)`, half to even, to int8 or uint8.

    The quotient is not rounded to fp16 first, also in an fp16 program.
    """
    if output_dtype not in RANGES:
        raise UnsupportedOpError(f"quantize to {output_dtype!r} is not supported")
    result = (input / along(scale, input, axis)).round_()
    if zero_point is not None:
        result += along(zero_point, input, axis)
    low, high = RANGES[output_dtype]
    return result.clamp_(low, high).to(torch.int32)


@op("dequantize", since="iOS17")
def dequantize(
    *,
    input: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """`scale * (input - zero_point)`."""
    return affine(input, scale, zero_point, axis)


def affine(data: Tensor, scale: Tensor, zero_point: Tensor | None, axis: int | None) -> Tensor:
    """``scale * (data - zero_point)`` in float32, as a fresh tensor."""
    device = scale.device if scale.dim() else data.device  # integers may still be on the CPU
    result = data.to(device, torch.float32, copy=True)
    if zero_point is not None:
        result -= along(zero_point, result, axis)
    return result.mul_(along(scale, result, axis))


def along(parameter: Tensor, data: Tensor, axis: int | None) -> Tensor:
    """A scalar as it is; a vector to the device of ``data``, shaped to broadcast along ``axis``."""
    if parameter.dim() == 0:
        return parameter
    if axis is None:
        raise UnsupportedOpError("a vector of scales or zero points needs an axis")
    shape = [1] * data.dim()
    shape[axis] = -1
    return parameter.reshape(shape).to(data.device)
