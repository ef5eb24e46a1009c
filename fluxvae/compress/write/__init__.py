"""Compressed forms into a converted package, in place.

The package comes fresh from a conversion of ``CompressedDecoder.decoder``, or of parts of it: its
convolutions stand in the order they run, and each stored weight must be that decoder's.
Constants become constexpr operations, quantized convolutions get a ``quantize`` and a
``dequantize`` in front of them, and the weight file is written anew: what is still used, once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fluxvae.compress.forms import (
    Activation,
    CompressedDecoder,
    CompressedWeight,
    as_stored,
    dense,
)
from fluxvae.compress.guard import own_layers, site_names
from fluxvae.compress.write.blobs import WeightWriter
from fluxvae.compress.write.ops import FLOAT_TYPES, activation_operations, weight_operations
from fluxvae.errors import CompressionError
from fluxvae.mil.blobs import weight_path
from fluxvae.mil.package import model_file, parse_model, read_package
from fluxvae.mil.program import Constant, Function, Op, Program, Ref, Variable


@dataclass(frozen=True)
class Placed:
    """A convolution of a program and what it was asked to be. ``weight`` names its constant."""

    site: str
    op: Op
    weight: str
    form: CompressedWeight | None
    activation: Activation | None


def write_compressed(
    package: Path,
    compressed: CompressedDecoder,
    precision: str,
    layers: Mapping[str, Sequence[tuple[str, nn.Module]]] | None = None,
) -> None:
    """Replace the weights of a freshly converted ``.mlpackage`` by their compressed forms.

    ``precision``: ``float16`` or ``float32``, the package's. ``layers``: as ``check_weights`` takes
    them. Raises CompressionError when the
    package is not of ``compressed.decoder``, when a form names no convolution of it, or when the
    package's target cannot hold a form; OSError when the disk is full. The package is a draft: on
    an error it may be left half edited.
    """
    program = read_package(package)
    if program.kind != "mlprogram":
        raise CompressionError(
            f"{package.name} is a neural network; compressed weights need an ML Program"
        )
    own = own_layers(compressed.decoder)
    _expect_known(compressed, {name for name, _ in own})
    placed = {
        name: locate(function, compressed, precision, own if layers is None else layers[name])
        for name, function in program.functions.items()
    }
    file = model_file(package)
    model = parse_model(file)
    name = _weight_file(program)
    target = weight_path(file.parent, name)
    draft = target.with_name(f".{target.name}.new")
    store = WeightWriter(draft, name)
    editor = _Editor(precision, store)
    for function in sorted(program.functions):
        message = model.mlProgram.functions[function]
        editor.rewrite(message, program.functions[function], placed[function])
    store.close()
    draft.replace(target)
    file.write_bytes(model.SerializeToString(deterministic=True))


def locate(
    function: Function,
    compressed: CompressedDecoder,
    precision: str,
    layers: Sequence[tuple[str, nn.Module]],
) -> tuple[Placed, ...]:
    """The convolutions of a function beside those of ``layers``, each weight compared.

    Raises CompressionError where they do not belong together.
    """
    convolutions = [op for op in function.ops if op.kind == "conv"]
    if len(convolutions) != len(layers):
        raise CompressionError(
            f"function {function.name!r} has {len(convolutions)} convolutions, "
            f"the decoder {len(layers)}"
        )
    constants = {op.outputs[0].name: op for op in function.ops if op.kind == "const"}
    found = []
    named = site_names(compressed.decoder, layers)
    for (site, module), op in zip(named, convolutions, strict=True):
        assert isinstance(module, nn.Conv2d)
        form, shape = compressed.weights.get(site), tuple(module.weight.shape)
        if form is not None and dense(form, precision).shape != shape:
            raise CompressionError(
                f"the form of convolution {site} is of shape {dense(form, precision).shape}, "
                f"its weight of {shape}"
            )
        (weight,) = op.inputs["weight"]
        if not isinstance(weight, Ref) or weight.name not in constants:
            raise CompressionError(
                f"the weight of convolution {site} ({op.name!r}) is not a constant: compress "
                "a package that is not compressed yet"
            )
        stored = constants[weight.name].attributes["val"]
        _expect_weight(site, op.name, stored, module, precision)
        found.append(Placed(site, op, weight.name, form, compressed.activations.get(site)))
    return tuple(found)


def _expect_known(compressed: CompressedDecoder, names: set[str]) -> None:
    for what, given in (("weight", compressed.weights), ("activation", compressed.activations)):
        unknown = sorted(set(given) - names)
        if unknown:
            raise CompressionError(
                f"a form is given for the {what} of {unknown[0]!r}, which is not a convolution of "
                f"the decoder (it has {', '.join(sorted(names)[:3])}, …)"
            )


def _expect_weight(
    site: str, name: str, stored: Constant, module: nn.Conv2d, precision: str
) -> None:
    if stored.type.dtype != FLOAT_TYPES[precision]:
        raise CompressionError(
            f"the weight of convolution {site} ({name!r}) is stored as {stored.type.dtype}; "
            f"expected {FLOAT_TYPES[precision]}"
        )
    wanted = as_stored(module.weight.detach().cpu().numpy(), precision)
    found = np.asarray(stored.value(), np.float32)
    if found.shape != wanted.shape or not np.array_equal(found, wanted):
        raise CompressionError(
            f"convolution {name!r} of the package holds another weight than {site} of the decoder: "
            "they were not made from each other, or the converter changed the weight"
        )


def _weight_file(program: Program) -> str:
    """What the program calls its one weight file."""
    files = {
        constant.blob.file.path
        for function in program.functions.values()
        for op in function.ops
        for constant in op.constants()
        if constant.blob is not None
    }
    if len(files) != 1:
        raise CompressionError(f"{program.path.name} has {len(files)} weight files; expected one")
    (path,) = files
    return f"@model_path/{path.relative_to(model_file(program.path).parent).as_posix()}"


class _Editor:
    """Rewrites the blocks of a package's functions. Operations made for a site are kept, so that
    every function points at the same blobs.
    """

    def __init__(self, precision: str, store: WeightWriter) -> None:
        self._precision = precision
        self._store = store
        self._made: dict[tuple[str, str], list[Any]] = {}

    def rewrite(self, message: Any, function: Function, placed: tuple[Placed, ...]) -> None:
        """Change ``message``, the Function message that ``function`` was read from."""
        block = message.block_specializations[message.opset]
        replaced: dict[str, list[Placed]] = {}
        for item in placed:
            if item.form is not None:
                replaced.setdefault(item.weight, []).append(item)
        unread = set(replaced) - _read_otherwise(function, placed)
        convolutions = {id(item.op): item for item in placed}
        activations = _activation_numbers(placed)
        types = {v.name: v for v in function.inputs}
        types |= {v.name: v for op in function.ops for v in op.outputs}
        operations: list[Any] = []
        for op, message_of_op in zip(function.ops, block.operations, strict=True):
            for index, item in enumerate(replaced.get(_constant_name(op), ())):
                operations += self._weight(item, index, function.opset)
            if _constant_name(op) in unread:
                continue
            kept = type(message_of_op)()
            kept.CopyFrom(message_of_op)
            self._move_blobs(op, kept)
            if id(op) in convolutions:
                item = convolutions[id(op)]
                operations += self._rewire(kept, item, activations, function.opset, types)
            operations.append(kept)
        _expect_distinct(operations, function)
        del block.operations[:]
        block.operations.extend(operations)

    def _weight(self, item: Placed, index: int, opset: str) -> list[Any]:
        """Operations that expand a weight; ``index`` counts those of one shared constant."""
        if (item.site, opset) not in self._made:
            assert item.form is not None
            name = f"{item.weight}_{index}" if index else item.weight
            self._made[item.site, opset] = weight_operations(
                item.form, name, opset, self._precision, self._store
            )
        return self._made[item.site, opset]

    def _rewire(
        self,
        convolution: Any,
        item: Placed,
        activations: Mapping[str, int],
        opset: str,
        types: Mapping[str, Variable],
    ) -> list[Any]:
        """Let a Conv message read its new weight and input; returns what must stand before it."""
        if item.form is not None:
            weight = self._made[item.site, opset][-1].outputs[0].name
            convolution.inputs["weight"].arguments[0].name = weight
        if item.activation is None:
            return []
        (x,) = item.op.inputs["x"]
        assert isinstance(x, Ref)
        number = activations[item.site]
        before = activation_operations(item.activation, types[x.name], number, opset, self._store)
        convolution.inputs["x"].arguments[0].name = before[-1].outputs[0].name
        return before

    def _move_blobs(self, op: Op, message: Any) -> None:
        """Copy the blobs of an operation that stays, and let it point at the copies."""
        for key in sorted(op.attributes):
            self._move(op.attributes[key], message.attributes[key])
        for key in sorted(op.inputs):
            bindings = message.inputs[key].arguments
            for argument, binding in zip(op.inputs[key], bindings, strict=True):
                if isinstance(argument, Constant):
                    self._move(argument, binding.value)

    def _move(self, constant: Constant, value: Any) -> None:
        if constant.blob is not None:
            value.blobFileValue.offset = self._store.copied(constant)


def _constant_name(op: Op) -> str:
    return op.outputs[0].name if op.kind == "const" else ""


def _activation_numbers(placed: tuple[Placed, ...]) -> dict[str, int]:
    """Numbers for ``quantize_0``, ``quantize_1``, ... by site, in execution order."""
    quantized = [item.site for item in placed if item.activation is not None]
    return {site: number for number, site in enumerate(quantized)}


def _read_otherwise(function: Function, placed: tuple[Placed, ...]) -> set[str]:
    """Values that something reads besides the convolutions whose weight is replaced."""
    replaced = {id(item.op) for item in placed if item.form is not None}
    return set(function.outputs) | {
        argument.name
        for op in function.ops
        for key, arguments in op.inputs.items()
        for argument in arguments
        if isinstance(argument, Ref) and not (key == "weight" and id(op) in replaced)
    }


def _expect_distinct(operations: list[Any], function: Function) -> None:
    names = Counter(v.name for op in operations for v in op.outputs)
    names.update(v.name for v in function.inputs)
    for name, times in names.items():
        if times > 1:
            raise CompressionError(
                f"function {function.name!r} would hold two values named {name!r}: compress a "
                "package that is not compressed yet"
            )
