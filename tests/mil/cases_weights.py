"""Cases of quantization and of compressed weights.

``materialized_val_inference`` of coremltools is the oracle of decompression: bit for bit.
"""

from typing import Any

import numpy as np

from tests.mil.case import Case, SubByte, integers, normal, positive

X = normal(2, 3, 4, 5) * 40
_WIDTHS = {1: "uint1", 2: "uint2", 3: "uint3", 4: "uint4", 6: "uint6"}


def exact(op: str, id: str, constants: dict[str, Any], target: str = "iOS18", **more: Any) -> Case:
    return Case(op, id, more.pop("tensors", {}), constants, target=target, tolerance=None, **more)


def quantized(dtype: str, *shape: int) -> np.ndarray:
    low, high = (0, 256) if dtype == "uint8" else (-128, 128)
    return integers(low, high, *shape, dtype=dtype)


def indices(bits: int, *shape: int) -> Any:
    values = integers(0, 1 << bits, *shape, dtype="uint8")
    return values if bits == 8 else SubByte(_WIDTHS[bits], values)


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Little-endian bit packing by numpy alone."""
    flat = np.unpackbits(values.reshape(-1, 1), axis=1, bitorder="little")[:, :bits]
    return np.packbits(flat, bitorder="little")


_SCALES = positive(3) / 10
_QUANTIZE = [
    exact(
        *("quantize", id, {"output_dtype": dtype, **constants}, "iOS17"),
        tensors={"input": X},
    )
    for id, dtype, constants in (
        ("int8", "int8", {"scale": 0.25}),
        ("uint8", "uint8", {"scale": 0.25, "zero_point": np.uint8(120)}),
        ("saturates", "int8", {"scale": 0.03125, "zero_point": np.int8(-7)}),
        ("channels", "int8", {"scale": _SCALES, "axis": 1}),
        (
            "channels-zero-points",
            "uint8",
            {"scale": _SCALES, "zero_point": quantized("uint8", 3), "axis": -3},
        ),
    )
]
# Halves in both directions, exact in fp16: 0.5 to 0, 1.5 to 2, 2.5 to 2.
_QUANTIZE += [
    exact(
        *("quantize", "half-to-even", {"scale": 1.0, "output_dtype": "int8"}, "iOS17"),
        tensors={"input": np.arange(-4.5, 5)},
    )
]
_DEQUANTIZE = [
    exact("dequantize", id, constants, "iOS17", tensors={"input": quantized(dtype, 2, 3, 4, 5)})
    for id, dtype, constants in (
        ("int8", "int8", {"scale": 0.3}),
        ("uint8", "uint8", {"scale": 0.3, "zero_point": np.uint8(120)}),
        ("channels", "int8", {"scale": _SCALES, "axis": 1}),
        (
            "channels-zero-points",
            "uint8",
            {"scale": _SCALES, "zero_point": quantized("uint8", 3), "axis": -3},
        ),
    )
]
_AFFINE = [
    exact("constexpr_affine_dequantize", id, {"axis": 0, **constants}, "iOS16")
    for id, constants in (
        (
            "tensor",
            {"quantized_data": quantized("int8", 3, 4), "scale": 0.3, "zero_point": np.int8(-100)},
        ),
        (
            "channels",
            {
                "quantized_data": quantized("uint8", 3, 4, 2, 2),
                "scale": _SCALES,
                "zero_point": quantized("uint8", 3),
            },
        ),
        (
            "last-axis",
            {
                "quantized_data": quantized("int8", 4, 3),
                "scale": _SCALES,
                "zero_point": np.int8(3),
                "axis": -1,
            },
        ),
    )
]
_BLOCKS = [
    exact("constexpr_blockwise_shift_scale", id, constants)
    for id, constants in (
        ("int8", {"data": quantized("int8", 4, 6), "scale": positive(4, 1) / 10}),
        (
            "uint8-offset",
            {
                "data": quantized("uint8", 4, 6),
                "scale": positive(4, 1) / 10,
                "offset": quantized("uint8", 4, 1),
            },
        ),
        (
            "int4-blocks",
            {
                "data": SubByte("int4", integers(-8, 8, 4, 6, 1, 1, dtype="int8")),
                "scale": positive(4, 3, 1, 1) / 10,
            },
        ),
        (
            "uint4-offset",
            {
                "data": SubByte("uint4", integers(0, 16, 4, 6, dtype="uint8")),
                "scale": positive(2, 2) / 10,
                "offset": SubByte("uint4", integers(0, 16, 2, 2, dtype="uint8")),
            },
        ),
        (
            "float-offset",  # rounded after the subtraction too
            {"data": quantized("int8", 4, 6), "scale": positive(4, 1), "offset": normal(4, 1)},
        ),
        ("float-data", {"data": normal(4, 6), "scale": positive(4, 2), "offset": normal(4, 2)}),
    )
]
_LUT = [
    exact(
        *("constexpr_lut_to_dense", f"ios16-{bits}-bit"),
        {
            "indices": packed(integers(0, 1 << bits, 3, 5, dtype="uint8"), bits),
            "lut": normal(1 << bits),
            "shape": np.array([3, 5], np.uint32),
        },
        "iOS16",
    )
    for bits in (1, 2, 4, 6, 8)
]
_LUT += [
    exact(
        *("constexpr_lut_to_dense", f"{bits}-bit"),
        {"indices": indices(bits, 3, 5), "lut": normal(1, 1, 1 << bits, 1)},
    )
    for bits in (1, 2, 3, 4, 6, 8)
]
_TABLES = normal(3, 2, 2, 2)
_LUT += [
    exact("constexpr_lut_to_dense", id, {"indices": index, "lut": lut, **more})
    for id, index, lut, more in (
        ("groups", indices(2, 6, 2), normal(3, 1, 4, 1), {}),
        ("grid", indices(2, 6, 4, 3, 3), normal(3, 2, 1, 1, 4, 1), {}),
        ("vector-0", indices(2, 6, 4), normal(1, 1, 4, 2), {"vector_axis": 0}),
        ("vector-1", indices(2, 2, 3, 4), normal(1, 1, 1, 4, 3), {"vector_axis": 1}),
        ("vector-groups", indices(1, 6, 4), _TABLES, {"vector_axis": -1}),
        ("vector-groups-0", indices(1, 6, 4), _TABLES, {"vector_axis": 0}),
        ("int8", indices(2, 6, 2), quantized("int8", 1, 1, 4, 1), {}),
    )
]
_MASK = integers(0, 2, 4, 6, dtype="uint8")
_ONES = int(_MASK.sum())
_SPARSE = [
    exact(
        *("constexpr_sparse_to_dense", "ios16"),
        {
            "nonzero_data": normal(_ONES),
            "mask": packed(_MASK, 1),
            "shape": np.array([4, 6], np.uint32),
        },
        "iOS16",
    ),
    exact(
        *("constexpr_sparse_to_dense", "plain"),
        {"nonzero_data": normal(_ONES), "mask": SubByte("uint1", _MASK)},
    ),
    exact(
        *("constexpr_sparse_to_dense", "int8"),
        {"nonzero_data": quantized("int8", _ONES), "mask": SubByte("uint1", _MASK)},
    ),
    exact(
        *("constexpr_lut_to_sparse", "scalar"),
        {
            "indices_mask": SubByte("uint1", _MASK),
            "indices_nonzero_data": indices(2, _ONES),
            "lut": normal(2, 1, 4, 1),
        },
    ),
    exact(
        *("constexpr_lut_to_sparse", "vector"),
        {
            "indices_mask": SubByte("uint1", _MASK),
            "indices_nonzero_data": indices(1, _ONES),
            "lut": normal(1, 1, 2, 2),
            "vector_axis": 0,
        },
    ),
    exact(
        *("constexpr_sparse_blockwise_shift_scale", "plain"),
        {
            "data_mask": SubByte("uint1", _MASK),
            "nonzero_data": quantized("int8", _ONES),
            "scale": positive(4, 1) / 10,
        },
    ),
    exact(
        *("constexpr_sparse_blockwise_shift_scale", "offset"),
        {
            "data_mask": SubByte("uint1", _MASK),
            "nonzero_data": quantized("uint8", _ONES),
            "scale": positive(2, 3) / 10,
            "offset": quantized("uint8", 2, 3),
        },
    ),
]
_CAST = [
    exact(
        *("constexpr_cast", target, {"source_val": normal(4, 6), "output_dtype": "fp32"}, target),
        dtypes=("fp16",),
    )
    for target in ("iOS16", "iOS18")
]

WEIGHTS = (*_QUANTIZE, *_DEQUANTIZE, *_AFFINE, *_BLOCKS, *_LUT, *_SPARSE, *_CAST)
