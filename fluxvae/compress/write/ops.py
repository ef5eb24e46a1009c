"""Compressed forms as operations of an ML Program, as coremltools 9.0 writes them.

Up to iOS17 a constexpr operation holds its operands as attributes, and indices as packed bytes;
from iOS18 on as inputs, and indices as integers of fewer than 8 bits. Activations are a
``quantize`` and a ``dequantize`` with constants of their own (iOS17).
"""

from typing import Any

import numpy as np

from fluxvae.compress.forms import Activation, CompressedWeight, Palettized, Quantized
from fluxvae.compress.write.blobs import WeightWriter, fill_type, pack, text_value
from fluxvae.errors import CompressionError
from fluxvae.mil.program import OPSET_TARGETS, OPSETS, TensorType, Variable
from fluxvae.mil.protobuf import message_module

FLOAT_TYPES = {"float16": "fp16", "float32": "fp32"}
# constexpr_lut_to_dense of iOS16 (coremltools 9.0: "a vector of size from one of {...}")
_OLD_TABLE_BITS = (1, 2, 4, 6, 8)


def weight_operations(
    form: CompressedWeight, name: str, opset: str, precision: str, store: WeightWriter
) -> list[Any]:
    """Operations that expand ``form``; the last one's output is the weight.

    ``name`` is that of the constant they replace. Operands go into ``store``. Raises
    CompressionError for a form that ``opset`` cannot hold, naming the target that can.
    """
    if OPSETS.index(opset) < OPSETS.index("CoreML6"):
        raise CompressionError(
            f"compressed weights need iOS16, the program is for {OPSET_TARGETS[opset]}: "
            "give a newer --target"
        )
    new = OPSETS.index(opset) >= OPSETS.index("CoreML8")
    if isinstance(form, Palettized):
        build = _typed_table if new else _packed_table
        return build(form, f"{name}_palettized", FLOAT_TYPES[precision], store)
    build_integers = _blockwise if new else _affine
    return [build_integers(form, f"{name}_quantized", FLOAT_TYPES[precision], store)]


def activation_operations(
    activation: Activation, source: Variable, number: int, opset: str, store: WeightWriter
) -> list[Any]:
    """``quantize`` and ``dequantize`` of a value, with their constants; named by ``number``.

    The last one's output is what a convolution reads. Raises CompressionError below iOS17.
    """
    if OPSETS.index(opset) < OPSETS.index("CoreML7"):
        raise CompressionError(
            f"8-bit activations need iOS17, the program is for {OPSET_TARGETS[opset]}: "
            "give a newer --target"
        )
    operations: list[Any] = []

    def constant(name: str, value: Any, declared: TensorType) -> str:
        operations.append(_operation("const", Variable(name, declared), attributes={"val": value}))
        return name

    def number_constant(name: str, value: float, dtype: str) -> str:
        stored = store.value(np.array(value), dtype, inline=True)
        return constant(name, stored, TensorType(dtype, ()))

    def step(kind: str, read: str, dtype: str) -> str:
        name = f"{kind}_{number}"
        inputs = {
            "input": read,
            "scale": number_constant(f"{name}_scale_0", activation.scale, source.type.dtype),
        }
        if activation.zero_point:
            point = number_constant(f"{name}_zero_point_0", activation.zero_point, activation.dtype)
            inputs["zero_point"] = point
        if kind == "quantize":
            text = text_value(activation.dtype)
            text_type = TensorType("string", ())
            inputs["output_dtype"] = constant(f"{name}_output_dtype_0", text, text_type)
        output = Variable(name, TensorType(dtype, source.type.shape))
        operations.append(_operation(kind, output, inputs=inputs))
        return name

    quantized = step("quantize", source.name, activation.dtype)
    step("dequantize", quantized, source.type.dtype)
    return operations


def _typed_table(form: Palettized, name: str, floats: str, store: WeightWriter) -> list[Any]:
    """``constexpr_lut_to_dense`` of iOS18, and a scale for each output channel around it.

    coremltools scales the table instead, which needs a table for each channel; its importer of
    torch's palettes scales the result (``_construct_palettization_op``), as here.
    """
    indices = store.value(form.indices, f"uint{form.bits}")
    # one table for each block of indices: (groups, 1, 1, 1, entries, values for an index)
    table = form.lut.reshape(form.lut.shape[0], 1, 1, 1, 2**form.bits, 1)
    weight = TensorType(floats, form.indices.shape)
    operands = {"indices": indices, "lut": store.value(table, floats)}
    operations = [_operation("constexpr_lut_to_dense", Variable(name, weight), inputs=operands)]
    if form.scale is not None:
        scale = store.value(form.scale.reshape(-1, 1, 1, 1), floats)
        scaled = Variable(f"{name}_pcs", weight)  # coremltools' ending
        operations.append(
            _operation(
                "constexpr_blockwise_shift_scale", scaled, inputs={"data": name, "scale": scale}
            )
        )
    return operations


def _packed_table(form: Palettized, name: str, floats: str, store: WeightWriter) -> list[Any]:
    if form.bits not in _OLD_TABLE_BITS:
        raise CompressionError(
            f"palettes of {form.bits} bits need iOS18: give --target iOS18, or 2 or 4 bits"
        )
    if form.lut.shape[0] > 1 or form.scale is not None:
        what = "scales for channels of a palette" if form.scale is not None else "several tables"
        raise CompressionError(f"{what} need iOS18: give --target iOS18, or --granularity tensor")
    packed = pack(form.indices, form.bits)
    attributes = {
        "indices": store.value(packed, "uint8"),
        "lut": store.value(form.lut[0], floats),
        "shape": store.value(np.array(form.indices.shape), "uint32", inline=True),
    }
    weight = TensorType(floats, form.indices.shape)
    return [_operation("constexpr_lut_to_dense", Variable(name, weight), attributes=attributes)]


def _blockwise(form: Quantized, name: str, floats: str, store: WeightWriter) -> Any:
    operands = {
        "data": store.value(form.data, form.dtype),
        "scale": store.value(form.scale, floats),
    }
    weight = Variable(name, TensorType(floats, form.data.shape))
    return _operation("constexpr_blockwise_shift_scale", weight, inputs=operands)


def _affine(form: Quantized, name: str, floats: str, store: WeightWriter) -> Any:
    """``constexpr_affine_dequantize``: one scale, or one for each output channel."""
    channels = form.data.shape[0]
    if form.dtype != "int8":
        raise CompressionError(f"{form.dtype} weights need iOS18: give --target iOS18, or int8")
    if form.scale.shape not in ((1, 1, 1, 1), (channels, 1, 1, 1)):
        raise CompressionError(
            f"scales of shape {form.scale.shape} need iOS18: give --target iOS18, or "
            "--granularity channel"
        )
    scale = form.scale.reshape(() if form.scale.size == 1 else (channels,))
    attributes = {
        "quantized_data": store.value(form.data, "int8"),
        "zero_point": store.value(np.zeros(scale.shape, np.int8), "int8"),
        "scale": store.value(scale, floats),
        "axis": store.value(np.array(0), "int32", inline=True),
    }
    weight = Variable(name, TensorType(floats, form.data.shape))
    return _operation("constexpr_affine_dequantize", weight, attributes=attributes)


def _operation(
    kind: str,
    output: Variable,
    *,
    inputs: dict[str, Any] | None = None,
    attributes: dict[str, Any] | None = None,
) -> Any:
    """An Operation message named as its output. Inputs are names of values, or Value messages."""
    operation = message_module("MIL_pb2").Operation(type=kind)
    result = operation.outputs.add()
    result.name = output.name
    fill_type(result.type, output.type)
    operation.attributes["name"].CopyFrom(text_value(output.name))
    for key, value in (attributes or {}).items():
        operation.attributes[key].CopyFrom(value)
    for key, argument in (inputs or {}).items():
        binding = operation.inputs[key].arguments.add()
        if isinstance(argument, str):
            binding.name = argument
        else:
            binding.value.CopyFrom(argument)
    return operation
