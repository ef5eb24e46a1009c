"""Weights that are stored compressed and expanded when a model is loaded; 8-bit activations.

Operations of iOS16 and iOS18 share names with different parameters: iOS16 keeps packed bytes and
a ``shape``, iOS18 typed sub-byte values. Which ones came tells the generation.

Results equal coremltools' own decompression bit for bit, which works in the type of ``scale``:
in fp16 each of conversion, subtraction and product is rounded.
"""

import torch
from torch import Tensor

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.blobs import unpack
from fluxvae.mil.numerics import storage_dtype
from fluxvae.mil.program import TensorType
from fluxvae.mil.registry import Ints, op

_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


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
    if output_dtype not in _RANGES:
        raise UnsupportedOpError(f"quantize to {output_dtype!r} is not supported")
    result = (input / _along(scale, input, axis)).round_()
    if zero_point is not None:
        result += _along(zero_point, input, axis)
    low, high = _RANGES[output_dtype]
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
    return _affine(input, scale, zero_point, axis)


@op("constexpr_affine_dequantize", since="iOS16")
def constexpr_affine_dequantize(
    *, quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int
) -> Tensor:
    """`scale * (quantized_data - zero_point)`, per tensor or along `axis`."""
    return _affine(quantized_data, scale, zero_point, axis)


@op("constexpr_blockwise_shift_scale", since="iOS18")
def constexpr_blockwise_shift_scale(
    *, data: Tensor, scale: Tensor, out: TensorType, offset: Tensor | None = None
) -> Tensor:
    """`scale * (data - offset)`; scale and offset hold one value for each block of data."""
    values = _in_type(data.to(scale.device), out)
    if offset is not None:
        values = _in_type(values - _repeat(offset.to(scale.device), data.shape), out)
    return values * _repeat(scale, data.shape)


@op("constexpr_lut_to_dense", since="iOS16", exact=True)
def constexpr_lut_to_dense(
    *, indices: Tensor, lut: Tensor, shape: Ints | None = None, vector_axis: int | None = None
) -> Tensor:
    """Values looked up in one table or, since iOS18, a table for each block, of vectors too."""
    if shape is None:
        return _look_up(indices, lut, vector_axis)
    bits = lut.numel().bit_length() - 1
    flat = torch.Size(shape).numel()
    if lut.numel() not in (2, 4, 16, 64, 256) or indices.numel() != -(-bits * flat // 8):
        raise ArtifactError(
            f"a table of {lut.numel()} values and {indices.numel()} bytes of indices do not make "
            f"{flat} elements"
        )
    packed = indices.to(torch.uint8).numpy()
    return lut[torch.from_numpy(unpack(packed, bits, flat)).to(torch.int64)].reshape(shape)


@op("constexpr_sparse_to_dense", since="iOS16", exact=True)
def constexpr_sparse_to_dense(
    *, nonzero_data: Tensor, mask: Tensor, shape: Ints | None = None
) -> Tensor:
    """Stored values where the mask is 1, zeros elsewhere."""
    if shape is not None:
        elements = torch.Size(shape).numel()
        packed = mask.to(torch.uint8).numpy()
        if mask.numel() != -(-elements // 8):
            raise ArtifactError(f"a mask of {mask.numel()} bytes for {elements} elements")
        mask = torch.from_numpy(unpack(packed, 1, elements)).reshape(shape)
    return _scatter(nonzero_data, mask)


@op("constexpr_cast", since="iOS16", exact=True)
def constexpr_cast(*, source_val: Tensor, output_dtype: str) -> Tensor:
    """fp16 weights as fp32."""
    if output_dtype != "fp32":
        raise UnsupportedOpError(f"constexpr_cast to {output_dtype!r} is not supported")
    return source_val.to(storage_dtype(output_dtype))


@op("constexpr_lut_to_sparse", since="iOS18", exact=True)
def constexpr_lut_to_sparse(
    *,
    indices_mask: Tensor,
    indices_nonzero_data: Tensor,
    lut: Tensor,
    vector_axis: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Looks up the stored elements of a sparse tensor; returns the mask and the values."""
    dense = _look_up(_scatter(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask
    if lut.shape[-1] > 1 and vector_axis is not None:
        mask = mask.repeat_interleave(lut.shape[-1], vector_axis)
    return mask, dense[mask != 0]


@op("constexpr_sparse_blockwise_shift_scale", since="iOS18")
def constexpr_sparse_blockwise_shift_scale(
    *, data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`scale * (value - offset)` of the stored elements; returns the mask and the values."""
    if nonzero_data.is_floating_point() or (offset is not None and offset.is_floating_point()):
        # The declared type of the second output says where to round; it is not passed here.
        raise UnsupportedOpError(
            "constexpr_sparse_blockwise_shift_scale of float data or offsets is not supported"
        )
    keep = data_mask != 0
    values = nonzero_data.to(scale.device).float()
    if offset is not None:
        values -= _repeat(offset.to(scale.device), data_mask.shape)[keep]
    return data_mask, values.mul_(_repeat(scale, data_mask.shape)[keep])


def _in_type(values: Tensor, out: TensorType) -> Tensor:
    return values.half().float() if out.dtype == "fp16" else values.float()


def _scatter(values: Tensor, mask: Tensor) -> Tensor:
    dense = torch.zeros(mask.shape, dtype=values.dtype, device=values.device)
    keep = mask != 0
    if int(keep.sum()) != values.numel():
        raise ArtifactError(f"{values.numel()} values for a mask of {int(keep.sum())} ones")
    dense[keep] = values
    return dense


def _repeat(blocks: Tensor, shape: torch.Size) -> Tensor:
    """``blocks`` repeated along each dimension until it has ``shape``."""
    for axis, (have, want) in enumerate(zip(blocks.shape, shape, strict=True)):
        if want % have:
            raise ArtifactError(f"{have} blocks do not divide {want} elements along axis {axis}")
        if 1 < have < want:  # 1 broadcasts
            blocks = blocks.repeat_interleave(want // have, axis)
    return blocks.expand(shape)


def _look_up(indices: Tensor, lut: Tensor, vector_axis: int | None) -> Tensor:
    """Values from ``lut``: (number of tables along each dimension of indices, palette, vector)."""
    *tables, palette, vector = lut.shape
    if len(tables) != indices.dim():
        raise ArtifactError(f"a table of rank {lut.dim()} for indices of rank {indices.dim()}")
    rows = indices.to(torch.int64)
    number = torch.arange(torch.Size(tables).numel()).reshape(tables)
    if number.numel() > 1:
        rows = rows + _repeat(number * palette, indices.shape)
    found = lut.reshape(-1, vector)[rows]
    if vector == 1:
        return found[..., 0]
    if vector_axis is None:
        raise ArtifactError("a table of vectors needs vector_axis")
    axis = vector_axis % indices.dim()
    return found.movedim(-1, axis + 1).flatten(axis, axis + 1).contiguous()


def _affine(data: Tensor, scale: Tensor, zero_point: Tensor | None, axis: int | None) -> Tensor:
    """``scale * (data - zero_point)`` in float32, as a fresh tensor."""
    device = scale.device if scale.dim() else data.device  # integers may still be on the CPU
    result = data.to(device, torch.float32, copy=True)
    if zero_point is not None:
        result -= _along(zero_point, result, axis)
    return result.mul_(_along(scale, result, axis))


def _along(parameter: Tensor, data: Tensor, axis: int | None) -> Tensor:
    """A scalar as it is; a vector to the device of ``data``, shaped to broadcast along ``axis``."""
    if parameter.dim() == 0:
        return parameter
    if axis is None:
        raise UnsupportedOpError("a vector of scales or zero points needs an axis")
    shape = [1] * data.dim()
    shape[axis] = -1
    return parameter.reshape(shape).to(data.device)
