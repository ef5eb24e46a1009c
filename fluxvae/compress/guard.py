"""Whether a saved package holds what was asked for, told by the executor's own reader.

coremltools can drop or corrupt a weight on its way to the file (its issues 2716 and 2777), and so
could we. Nothing here is shared with the writer: the package is read by ``fluxvae.mil``, its
weights expanded by the operations the executor runs, and held against ``forms.dense``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from fluxvae.compress.forms import Activation, CompressedDecoder, as_stored, dense
from fluxvae.errors import CompressionError
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Feature, Function, Op, Program, Ref, Signature
from fluxvae.networks.structure import conv_sites

# coremltools 9.0 makes values that fp16 would flush to zero the smallest number it has, in tensors
# below 400 elements (_check_underflow_to_zero): so a bias can be.
_LIFTED = float(np.finfo(np.float16).smallest_subnormal)
# An image output's factor, which coremltools moves into the last convolution where it is let.
_LEVELS = 255.0
LAYERS = ("conv", "linear")  # operations with a weight
WAY_OUT = "the package must not be used; convert again, and report this if it happens twice"


@dataclass(frozen=True)
class _Asked:
    """What a convolution must hold: float32 values that the precision holds."""

    site: str
    weight: np.ndarray
    bias: np.ndarray | None
    activation: Activation | None


def check_weights(package: Path, asked: CompressedDecoder | nn.Module, precision: str) -> None:
    """Read a saved ``.mlpackage`` back and compare every convolution with what was asked.

    ``asked``: the compressed decoder, or a plain one whose weights were to be kept as they are;
    ``precision``: ``float16`` or ``float32``. Weights must be equal bit for bit, and so must the
    rounding of inputs to 8 bits. Nothing is decoded: about as long as loading the model. Raises
    CompressionError that names the first convolution that differs and how; ArtifactError when the
    package cannot be read.
    """
    compressed = asked if isinstance(asked, CompressedDecoder) else CompressedDecoder(asked, {})
    wanted = _wanted(compressed, precision)
    merged = _wanted(compressed, precision, factor=_LEVELS)
    program = read_package(package)
    for name in sorted(program.functions):
        _check_function(program, program.functions[name], wanted, merged[-1])


def _wanted(
    compressed: CompressedDecoder, precision: str, *, factor: float = 1
) -> tuple[_Asked, ...]:
    """What each convolution must hold; ``factor`` multiplies the last one's, if it has no form."""
    sites = conv_sites(compressed.decoder)
    result = []
    for site in sites:
        module = compressed.decoder.get_submodule(site.name)
        assert isinstance(module, nn.Conv2d)
        form = compressed.weights.get(site.name)
        times = np.float32(factor if site is sites[-1] and form is None else 1)
        weight, bias = (
            None if t is None else as_stored(t.detach().cpu().numpy() * times, precision)
            for t in (module.weight, module.bias)
        )
        assert weight is not None
        weight = weight if form is None else dense(form, precision)
        result.append(_Asked(site.name, weight, bias, compressed.activations.get(site.name)))
    return tuple(result)


def _check_function(
    program: Program, function: Function, wanted: tuple[_Asked, ...], merged: _Asked
) -> None:
    """``merged``: the last convolution with an image output's factor in it."""
    convolutions = [op for op in function.ops if op.kind == "conv"]
    if len(convolutions) != len(wanted):
        raise CompressionError(
            f"the saved function {function.name!r} has {len(convolutions)} convolutions; "
            f"{len(wanted)} were asked for"
        )
    stored = expanded(program, function)
    last = argument(convolutions[-1], "weight", stored)
    image = program.signatures[function.name].outputs[0].kind == "image"
    if image and last is not None and _equal(last, merged.weight):
        wanted = (*wanted[:-1], merged)
    makers = {v.name: op for op in function.ops for v in op.outputs}
    for op, asked in zip(convolutions, wanted, strict=True):
        where = f"convolution {asked.site} ({op.name!r} of function {function.name!r})"
        weight = argument(op, "weight", stored)
        if weight is None or not _equal(weight, asked.weight):
            raise CompressionError(
                f"the saved weight of {where} {_difference(weight, asked.weight)}"
                f"{_whose(weight, asked, wanted)}: {WAY_OUT}"
            )
        bias = argument(op, "bias", stored)
        if not same_bias(bias, asked.bias):
            raise CompressionError(
                f"the saved bias of {where} {_difference(bias, asked.bias)}: {WAY_OUT}"
            )
        found = _activation(op, makers, stored)
        if found != asked.activation:
            raise CompressionError(
                f"the input of {where} is {_words(found, 'not rounded to 8 bits')}; "
                f"asked was {_words(asked.activation, 'none of that')}: {WAY_OUT}"
            )


def expanded(program: Program, function: Function) -> Mapping[str, np.ndarray]:
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


def argument(op: Op, name: str, stored: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The value of an argument; None when it is absent or not constant."""
    (binding,) = op.inputs.get(name, (None,))
    if isinstance(binding, Ref):
        return stored.get(binding.name)
    return None if binding is None else np.asarray(binding.value(), np.float32)


def _equal(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.shape == wanted.shape and bool(np.array_equal(found, wanted))


def same_bias(found: np.ndarray | None, wanted: np.ndarray | None) -> bool:
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
        scale, point = (argument(step, key, stored) for key in ("scale", "zero_point"))
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
        return "is missing" if found is None else "is there, where none was asked for"
    if found.shape != wanted.shape:
        return f"has the shape {found.shape}, not {wanted.shape}"
    wrong = found != wanted
    largest = float(np.abs(found[wrong] - wanted[wrong]).max())
    return (
        f"differs from what was asked in {int(wrong.sum())} of {wanted.size} values, "
        f"by up to {largest:.2g}"
    )


def _whose(found: np.ndarray | None, asked: _Asked, wanted: tuple[_Asked, ...]) -> str:
    """Names the convolution that a misplaced weight belongs to."""
    for other in wanted:
        if found is not None and other is not asked and _equal(found, other.weight):
            return f" (it is that of {other.site})"
    return ""
