"""What a program does in integers: how weights are stored, and what computes with 8-bit values."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fluxvae.mil.program import BITS, Argument, Constant, Op, Program, Ref

_WEIGHTED = ("conv", "conv_transpose", "linear")
_BYTES = ("int8", "uint8")


@dataclass(frozen=True)
class Evidence:
    """What a program does in integers, from its operations alone.

    ``constexpr`` counts the operations that expand weights, by kind; ``weights`` the operations
    with a weight (convolutions and linear layers) by how it is stored: ``fp16``, ``int8``,
    ``4-bit palette``, ... ``consumers``: operations that read a dequantized value, by kind.
    ``quantized_convs`` of ``convs`` read one; ``paired`` of them have a ``quantize`` and
    ``dequantize`` of the same scale and zero point, made for them alone, directly before them.
    ``quantized_adds`` names every ``add`` that reads a dequantized value: a quantized skip path.
    ``int8_macs``: share (0 to 1) of the multiply-accumulates with 8-bit integer weights and
    activations. ``classification``: ``not compressed``, ``weights only``, ``activations only``,
    ``weights and activations``, or ``not known`` for a neural network, whose weights are read
    dequantized.
    """

    quantize: int
    dequantize: int
    constexpr: Mapping[str, int]
    weights: Mapping[str, int]
    consumers: Mapping[str, int]
    convs: int
    quantized_convs: int
    paired: int
    quantized_adds: tuple[str, ...]
    int8_macs: float
    classification: str


def gather(program: Program, name: str, macs: Mapping[int, int]) -> Evidence:
    """Evidence of the function ``name``; ``macs`` counts those of an operation, by its ``id``."""
    function = program.functions[name]
    makers = {v.name: op for op in function.ops for v in op.outputs}
    kinds = Counter(op.kind for op in function.ops)
    reads = [op for op in function.ops if _reads_dequantized(op, makers)]
    weighted = [op for op in function.ops if op.kind in _WEIGHTED]
    convs = [op for op in weighted if op.kind == "conv"]
    quantized = [op for op in convs if _made_by(op, "x", makers, "dequantize")]
    readers = Counter(read for op in function.ops for read in op.refs())
    in_bytes = sum(macs[id(op)] for op in weighted if _in_bytes(op, makers))
    compressed = any(kind.startswith("constexpr_") for kind in kinds)
    return Evidence(
        quantize=kinds["quantize"],
        dequantize=kinds["dequantize"],
        constexpr={k: n for k, n in kinds.most_common() if k.startswith("constexpr_")},
        weights=dict(Counter(_storage(op, makers) for op in weighted).most_common()),
        consumers=dict(Counter(op.kind for op in reads).most_common()),
        convs=len(convs),
        quantized_convs=len(quantized),
        paired=sum(_paired(op, makers, readers) for op in quantized),
        quantized_adds=tuple(op.name for op in reads if op.kind == "add"),
        int8_macs=in_bytes / (sum(macs.values()) or 1),
        classification=_classification(program, compressed, activations=bool(reads)),
    )


def _classification(program: Program, weights: bool, *, activations: bool) -> str:
    if program.kind != "mlprogram":
        return "not known"
    if weights:
        return "weights and activations" if activations else "weights only"
    return "activations only" if activations else "not compressed"


def _made_by(op: Op, argument: str, makers: Mapping[str, Op], kind: str) -> Op | None:
    """The operation of ``kind`` whose result ``argument`` is, if it is."""
    for binding in op.inputs.get(argument, ()):
        if isinstance(binding, Ref):
            maker = makers.get(binding.name)
            if maker is not None and maker.kind == kind:
                return maker
    return None


def _reads_dequantized(op: Op, makers: Mapping[str, Op]) -> bool:
    """Whether an operation computes with a dequantized value; one that rounds it again does not."""
    return op.kind != "quantize" and any(
        _made_by(op, argument, makers, "dequantize") for argument in op.inputs
    )


def _in_bytes(op: Op, makers: Mapping[str, Op]) -> bool:
    """Whether weight and input of ``op`` are 8-bit integers."""
    dequantize = _made_by(op, "x", makers, "dequantize")
    quantize = dequantize and _made_by(dequantize, "input", makers, "quantize")
    if quantize is None:
        return False
    return quantize.outputs[0].type.dtype in _BYTES and _storage(op, makers) in _BYTES


def _paired(op: Op, makers: Mapping[str, Op], readers: Mapping[str, int]) -> bool:
    """Whether a ``quantize`` and its own ``dequantize`` stand before ``op``, for it alone."""
    dequantize = _made_by(op, "x", makers, "dequantize")
    quantize = dequantize and _made_by(dequantize, "input", makers, "quantize")
    if dequantize is None or quantize is None:
        return False
    alone = all(readers[o.outputs[0].name] == 1 for o in (dequantize, quantize))
    return alone and all(
        _value(quantize, key, makers) == _value(dequantize, key, makers)
        for key in ("scale", "zero_point", "axis")
    )


def _value(op: Op, argument: str, makers: Mapping[str, Op]) -> object:
    """A constant argument as plain data; None when it is not given."""
    for binding in op.inputs.get(argument, ()):
        maker = makers.get(binding.name) if isinstance(binding, Ref) else None
        constant = maker.attributes.get("val") if maker else binding
        if isinstance(constant, Constant):
            return np.asarray(constant.value()).tolist()
    return None


def _storage(op: Op, makers: Mapping[str, Op]) -> str:
    """How the weight of ``op`` is stored: an element type, or a palette's bits."""
    binding: Argument | None = next(iter(op.inputs.get("weight", ())), None)
    while isinstance(binding, Ref):
        maker = makers.get(binding.name)
        if maker is None:
            return "computed"
        operands = {**{k: v[0] for k, v in maker.inputs.items()}, **maker.attributes}
        if maker.kind == "constexpr_lut_to_dense":
            return f"{_bits(operands)}-bit palette"
        keys = {
            "const": "val",
            "constexpr_affine_dequantize": "quantized_data",
            "constexpr_blockwise_shift_scale": "data",
        }
        if maker.kind not in keys:
            return maker.kind if maker.kind.startswith("constexpr_") else "computed"
        binding = operands.get(keys[maker.kind])
    return binding.type.dtype if isinstance(binding, Constant) else "computed"


def _bits(operands: Mapping[str, Argument]) -> int | str:
    """Bits of a palette's indices: their type's, or, where they are packed, by the table's size."""
    indices, table = operands.get("indices"), operands.get("lut")
    if not isinstance(indices, Constant):
        return "?"
    if "shape" not in operands or not isinstance(table, Constant):
        return BITS[indices.type.dtype]
    return table.elements.bit_length() - 1
