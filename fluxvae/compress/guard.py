"""Whether a saved package holds what was asked for, as the executor's own reader finds it.

coremltools can drop or corrupt a weight on its way to the file (its issues 2716 and 2777), and so
could we. Nothing here is shared with the writer: the package is read by ``fluxvae.mil``, its
weights expanded by the operations the executor runs, and compared with ``forms.dense``.

Layers are compared in the order they run: the first that differs is named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from fluxvae.compress.forms import Activation, CompressedDecoder, as_stored, dense
from fluxvae.errors import CompressionError
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Feature, Function, Op, Program, Ref, Signature
from fluxvae.networks.structure import conv_sites, convolution

# coremltools 9.0 makes values that fp16 would flush to zero the smallest number it has, in tensors
# below 400 elements (_check_underflow_to_zero): so a bias can be.
_LIFTED = float(np.finfo(np.float16).smallest_subnormal)
# An image output's factor, which coremltools moves into the last convolution where it is let.
_LEVELS = 255.0
LAYERS = ("conv", "linear")  # operations with a weight
WAY_OUT = "the package must not be used; convert again, and report this if it happens twice"


@dataclass(frozen=True)
class _Layer:
    """A layer as it is asked for or found: float32 values that the precision holds."""

    name: str
    weight: np.ndarray | None
    bias: np.ndarray | None
    activation: Activation | None = None


def check_weights(
    package: Path,
    asked: CompressedDecoder | nn.Module,
    precision: str,
    layers: Mapping[str, Sequence[tuple[str, nn.Module]]] | None = None,
) -> None:
    """Read a saved ``.mlpackage`` back and compare every layer, in order, with ``asked``.

    ``asked``: the compressed network, or a plain one whose weights were to be kept as they are;
    ``precision``: ``float16`` or ``float32``. ``layers``: of each function, its convolutions and
    linear layers in the order they run, with names for those that are not ``asked``'s own; None
    for a network that was converted as it is. Weights must be equal bit for bit once rounded to
    ``precision``, and so must the rounding of inputs to 8 bits. Nothing is decoded: about as long
    as loading the model. Raises CompressionError that names the first layer that differs and how;
    ArtifactError when the package cannot be read.
    """
    program = read_package(package)
    compressed = asked if isinstance(asked, CompressedDecoder) else CompressedDecoder(asked, {})
    for name in sorted(program.functions):
        run = own_layers(compressed.decoder) if layers is None else layers[name]
        wanted = _wanted(compressed, run, precision)
        found = _stored(program, program.functions[name], LAYERS)
        if len(found) != len(wanted):
            raise CompressionError(
                f"the saved function {name!r} has {len(found)} convolutions and linear layers; "
                f"{len(wanted)} were asked for"
            )
        if program.signatures[name].outputs[0].kind == "image":
            merged = _wanted(compressed, run[-1:], precision, factor=_LEVELS)
            if _equal(found[-1].weight, merged[0].weight):
                wanted = (*wanted[:-1], *merged)
        _compare_in_order(name, found, wanted, precision)


def own_layers(network: nn.Module) -> tuple[tuple[str, nn.Module], ...]:
    """Names and convolutions of a network's sites, in execution order."""
    return tuple((site.name, convolution(network, site.name)) for site in conv_sites(network))


def site_names(
    network: nn.Module, layers: Sequence[tuple[str, nn.Module]]
) -> tuple[tuple[str, nn.Module], ...]:
    """The layers under the names that they have in ``network``, where they are its own."""
    own = {id(module): name for name, module in network.named_modules()}
    return tuple((own.get(id(module), name), module) for name, module in layers)


def _wanted(
    compressed: CompressedDecoder,
    layers: Sequence[tuple[str, nn.Module]],
    precision: str,
    *,
    factor: float = 1,
) -> tuple[_Layer, ...]:
    """What each layer must hold; ``factor`` multiplies those that have no form."""
    result = []
    for name, module in site_names(compressed.decoder, layers):
        assert isinstance(module, nn.Conv2d | nn.Linear)
        form = compressed.weights.get(name)
        times = np.float32(factor if form is None else 1)
        weight, bias = (
            None if t is None else as_stored(t.detach().cpu().numpy() * times, precision)
            for t in (module.weight, module.bias)
        )
        weight = weight if form is None else dense(form, precision)
        result.append(_Layer(name, weight, bias, compressed.activations.get(name)))
    return tuple(result)


def _stored(program: Program, function: Function, kinds: Sequence[str]) -> list[_Layer]:
    """The layers of a saved function in program order, their constants expanded."""
    stored = _expanded(program, function)
    makers = {v.name: op for op in function.ops for v in op.outputs}
    return [
        _Layer(
            op.name,
            _argument(op, "weight", stored),
            _argument(op, "bias", stored),
            _activation(op, makers, stored),
        )
        for op in function.ops
        if op.kind in kinds
    ]


def _compare_in_order(
    function: str, found: Sequence[_Layer], wanted: Sequence[_Layer], precision: str
) -> None:
    for stored, asked in zip(found, wanted, strict=True):
        # Of a program with parts in float32 some values are wider.
        weight, bias = (
            None if values is None else as_stored(values, precision)
            for values in (stored.weight, stored.bias)
        )
        layer = replace(stored, weight=weight, bias=bias)
        where = f"convolution {asked.name} ({layer.name!r} of function {function!r})"
        if not _equal(layer.weight, asked.weight):
            raise CompressionError(
                f"the saved weight of {where} {_difference(layer.weight, asked.weight)}"
                f"{_owner(layer.weight, asked, wanted)}: {WAY_OUT}"
            )
        if not _same_bias(layer.bias, asked.bias):
            raise CompressionError(
                f"the saved bias of {where} {_difference(layer.bias, asked.bias)}: {WAY_OUT}"
            )
        if layer.activation != asked.activation:
            raise CompressionError(
                f"the input of {where} is {_words(layer.activation, 'not rounded to 8 bits')}; "
                f"expected {_words(asked.activation, 'none of that')}: {WAY_OUT}"
            )


def _expanded(program: Program, function: Function) -> Mapping[str, np.ndarray]:
    """Values of constants as the executor expands them: weights, biases, scales, zero points.

    Of those that convolutions, linear layers and operations that round read. Runs the function
    cut down to the operations that need no input.
    """
    fixed = [o for o in function.ops if o.kind == "const" or o.kind.startswith("constexpr_")]
    types = {v.name: v.type for op in fixed for v in op.outputs}
    read = {
        name
        for op in function.ops
        if op.kind in (*LAYERS, "quantize", "dequantize")
        for name in op.refs()
        if name in types and types[name].dtype not in ("string", "bool")
    }
    outputs = tuple(
        Feature(name, "tensor", "fp32", tuple(d or 0 for d in types[name].shape))
        for name in sorted(read)
    )
    names = tuple(feature.name for feature in outputs)
    cut = replace(function, inputs=(), ops=tuple(fixed), outputs=names)
    alone = replace(
        program,
        functions={function.name: cut},
        signatures={function.name: Signature((), outputs)},
        default_function=function.name,
    )
    return Session(alone).run({})


def _argument(op: Op, name: str, stored: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The value of an argument; None when it is absent or not constant."""
    (binding,) = op.inputs.get(name, (None,))
    if isinstance(binding, Ref):
        return stored.get(binding.name)
    return None if binding is None else np.asarray(binding.value(), np.float32)


def _equal(found: np.ndarray | None, wanted: np.ndarray | None) -> bool:
    if found is None or wanted is None:
        return False
    return found.shape == wanted.shape and bool(np.array_equal(found, wanted))


def _same_bias(found: np.ndarray | None, wanted: np.ndarray | None) -> bool:
    """Equal, but for values that coremltools keeps from becoming zero; no bias may be zeros."""
    if found is None or wanted is None:
        return all(bias is None or not bias.any() for bias in (found, wanted))
    if found.shape != wanted.shape:
        return False
    lifted = (wanted == 0) & (np.abs(found) <= _LIFTED)
    return bool(np.all((found == wanted) | lifted))


def _activation(
    op: Op, makers: Mapping[str, Op], stored: Mapping[str, np.ndarray]
) -> Activation | None:
    """How the input of a convolution is rounded, read from the operations before it."""
    dequantize = _maker(op, "x", makers, "dequantize")
    quantize = dequantize and _maker(dequantize, "input", makers, "quantize")
    if dequantize is None or quantize is None:
        return None
    read = []
    for step in (quantize, dequantize):
        scale, point = (_argument(step, key, stored) for key in ("scale", "zero_point"))
        if scale is None or scale.size != 1 or (point is not None and point.size != 1):
            raise CompressionError(f"{step.name!r} has no single constant scale; {WAY_OUT}")
        read.append((float(scale), 0 if point is None else int(point)))
    if read[0] != read[1]:
        raise CompressionError(
            f"{quantize.name!r} and {dequantize.name!r} before convolution {op.name!r} have "
            f"different scales or zero points: {read[0]} and {read[1]}; {WAY_OUT}"
        )
    return Activation(*read[0], quantize.outputs[0].type.dtype)


def _maker(op: Op, argument: str, makers: Mapping[str, Op], kind: str) -> Op | None:
    (binding,) = op.inputs.get(argument, (None,))
    maker = makers.get(binding.name) if isinstance(binding, Ref) else None
    return maker if maker is not None and maker.kind == kind else None


def _words(activation: Activation | None, without: str) -> str:
    if activation is None:
        return without
    scale, point = activation.scale, activation.zero_point
    return f"rounded to {activation.dtype} of scale {scale:g} and zero point {point}"


def _difference(found: np.ndarray | None, wanted: np.ndarray | None) -> str:
    """``differs in 3 of 36864 values, by up to 0.01``, or what else is wrong with it."""
    if found is None or wanted is None:
        return "is missing" if found is None else "is there, where none was expected"
    if found.shape != wanted.shape:
        return f"has the shape {found.shape}, not {wanted.shape}"
    wrong = found != wanted
    largest = float(np.abs(found[wrong] - wanted[wrong]).max())
    return (
        f"differs from what was asked in {int(wrong.sum())} of {wanted.size} values, "
        f"by up to {largest:.2g}"
    )


def _owner(found: np.ndarray | None, asked: _Layer, wanted: Sequence[_Layer]) -> str:
    """Names the convolution that a misplaced weight belongs to."""
    for other in wanted:
        if other is not asked and _equal(found, other.weight):
            return f" (it is that of {other.name})"
    return ""
