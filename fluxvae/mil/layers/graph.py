"""The program under construction while the layers of a network are translated.

A neural network has one element type, float32, even for shapes and conditions; where MIL wants
integers or booleans, the translation inserts a ``cast``. It has no rank 0 either: what MIL makes
a scalar is a vector of length 1.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.layers.weights import weights
from fluxvae.mil.program import Argument, Constant, Op, Ref, TensorType, Variable

Shape = tuple[int | None, ...]


class Graph:
    """Operations in program order and the shape of every value so far."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._shapes: dict[str, Shape] = {}

    def define(self, name: str, shape: Shape) -> None:
        """Enter a value. Raises ArtifactError when the name is taken."""
        if name in self._shapes:
            # https://github.com/apple/coremltools/blob/9.0/mlmodel/src/Validation/NeuralNetwork/NeuralNetworkValidator.cpp
            raise ArtifactError(
                f"the value {name!r} is computed twice; Core ML refuses such a network. "
                "coremltools 9.0 makes them of exported attention: trace it, or make an ML Program"
            )
        self._shapes[name] = shape

    def shape(self, name: str) -> Shape:
        """Shape of a value; None for dimensions known at run time only."""
        if name not in self._shapes:
            raise ArtifactError(f"the value {name!r} is read before any layer computes it")
        return self._shapes[name]

    def write(
        self,
        op: str,
        name: str,
        outs: Sequence[tuple[str, Shape]],
        dtype: str = "fp32",
        /,
        **arguments: Any,
    ) -> None:
        """Add an operation, ``outs`` its results; see ``argument`` for its arguments."""
        inputs = {k: argument(v) for k, v in arguments.items() if v is not None}
        for out, shape in outs:
            self.define(out, shape)
        variables = tuple(Variable(out, TensorType(dtype, shape)) for out, shape in outs)
        self.ops.append(Op(op, name, inputs, variables))

    def fresh(self, stem: str) -> str:
        """A name no value has yet."""
        number = len(self.ops)
        while (name := f"{stem}:{number}") in self._shapes:
            number += 1
        return name


class Layer:
    """One layer being translated: what it says, and the ways to write operations for it.

    ``params`` is the layer's own protobuf message; ``inputs`` and ``outputs`` name values.
    """

    def __init__(self, graph: Graph, message: Any, aliases: dict[str, str]) -> None:
        self.kind: str = message.WhichOneof("layer")
        self.name: str = message.name or self.kind
        self.params = getattr(message, self.kind)
        self.inputs = tuple(Ref(aliases.get(n, n)) for n in message.input)
        self.outputs = tuple(aliases.get(n, n) for n in message.output)
        self._graph = graph

    @property
    def x(self) -> Ref:
        """The only input. Raises ArtifactError when there are none or several."""
        return self.take(1)[0]

    def take(self, count: int) -> tuple[Ref, ...]:
        """The inputs, of which there must be ``count``."""
        if len(self.inputs) != count:
            raise self.damaged(f"has {len(self.inputs)} inputs, expected {count}")
        return self.inputs

    def shape(self, value: Ref) -> Shape:
        """Shape of a value; None for dimensions known at run time only."""
        return self._graph.shape(value.name)

    def joint(self, *values: Ref) -> Shape:
        """Shape of an elementwise result of these values."""
        return broadcast(*map(self.shape, values))

    def rank(self, value: Ref) -> int:
        """Number of dimensions of a value."""
        return len(self.shape(value))

    def emit(self, op: str, out: Shape, dtype: str = "fp32", /, **arguments: Any) -> Ref:
        """Write an operation with an intermediate result; see ``argument`` for its arguments."""
        name = self._graph.fresh(self.name)
        self._graph.write(op, name, ((name, out),), dtype, **arguments)
        return Ref(name)

    def emit_several(self, op: str, outs: Sequence[Shape], /, **arguments: Any) -> tuple[Ref, ...]:
        """Write an operation with several intermediate results."""
        stem = self._graph.fresh(self.name)
        named = tuple((f"{stem}:{i}", out) for i, out in enumerate(outs))
        self._graph.write(op, stem, named, **arguments)
        return tuple(Ref(name) for name, _ in named)

    def write(self, output: str, op: str, out: Shape, /, **arguments: Any) -> None:
        """Write the operation that computes one of the layer's outputs."""
        self._graph.write(op, output, ((output, out),), **arguments)

    def inside(self, inputs: tuple[Ref, ...]) -> "Layer":
        """The same layer between other inputs and an intermediate result."""
        inner = copy.copy(self)
        inner.inputs, inner.outputs = inputs, (self._graph.fresh(self.name),)
        return inner

    def result(self, op: str, out: Shape, /, **arguments: Any) -> None:
        """Write the operation that computes the layer's only output."""
        if not out:  # a network has no rank 0
            scalar = self.emit(op, (), **arguments)
            self.result("reshape", (1,), x=scalar, shape=(1,))
        else:
            self.results(op, (out,), **arguments)

    def results(self, op: str, outs: Sequence[Shape], /, **arguments: Any) -> None:
        """Write the operation that computes all of the layer's outputs."""
        if len(self.outputs) != len(outs):
            raise self.damaged(f"has {len(self.outputs)} outputs, expected {len(outs)}")
        named = tuple(zip(self.outputs, outs, strict=True))
        self._graph.write(op, self.name, named, **arguments)

    def result_constant(self, value: np.ndarray) -> None:
        """Write a float32 constant as the layer's output."""
        self.results("const", (value.shape,))
        constant = Constant(TensorType("fp32", value.shape), value)
        self._graph.ops[-1] = replace(self._graph.ops[-1], attributes={"val": constant})

    def cast(self, value: Ref, dtype: str) -> Ref:
        """A value in another element type."""
        return self.emit("cast", self.shape(value), dtype, x=value, dtype=dtype)

    def weights(
        self, message: Any, shape: Sequence[int], what: str, *, channel: int = 0
    ) -> np.ndarray:
        """A WeightParams of the layer; ``what`` names it in errors, as ``weights`` raises them."""
        return weights(message, shape, f"{what} of {self.name!r}", channel=channel)

    def unsupported(self, what: str) -> UnsupportedOpError:
        """The error for a variant of a layer that is not translated."""
        return UnsupportedOpError(
            f"layer {self.name!r} ({self.kind}) uses {what}, which is not supported; "
            "convert the model to an ML Program instead"
        )

    def damaged(self, what: str) -> ArtifactError:
        """The error for a layer that contradicts itself."""
        return ArtifactError(f"layer {self.name!r} ({self.kind}) {what}; the model is damaged")


Translate = Callable[[Layer], None]


def argument(value: Any) -> tuple[Argument, ...]:
    """An argument of an operation from a value or values (Ref), or from plain data.

    Data: a float32 or int32 array, str, bool, int, float, or a sequence of bools or ints.
    """
    if isinstance(value, Ref):
        return (value,)
    if isinstance(value, tuple) and value and isinstance(value[0], Ref):
        return value
    if isinstance(value, str):
        return (Constant(TensorType("string", ()), value),)
    if isinstance(value, bool) or _all(value, bool):
        dtype, array = "bool", np.asarray(value, bool)
    elif isinstance(value, int) or _all(value, int):
        dtype, array = "int32", np.asarray(value, np.int32)
    else:
        dtype, array = "fp32", np.asarray(value, np.float32)
    return (Constant(TensorType(dtype, array.shape), array),)


def _all(value: Any, kind: type) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(v, kind) for v in value)


def broadcast(*shapes: Shape) -> Shape:
    """Shape of an elementwise result. Raises ArtifactError when the shapes do not broadcast."""
    rank = max(map(len, shapes))
    out: list[int | None] = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        known = {size for size in sizes if size not in (None, 1)}
        if len(known) > 1:
            listed = " and ".join(str(list(shape)) for shape in shapes)
            raise ArtifactError(f"the shapes {listed} do not broadcast")
        # beside an unknown dimension, only a known one above 1 decides
        out.append(known.pop() if known else None if None in sizes else 1)
    return tuple(out)


def positive(axis: int, rank: int) -> int:
    """An axis counted from the front. Raises ArtifactError when the rank has no such axis."""
    if not -rank <= axis < rank:
        raise ArtifactError(f"axis {axis} does not exist in a tensor of rank {rank}")
    return axis % rank


def product(dims: Shape) -> int | None:
    """Number of elements, or None when a dimension is unknown."""
    known = [d for d in dims if d is not None]
    return math.prod(known) if len(known) == len(dims) else None
