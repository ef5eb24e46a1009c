"""What every reader produces: a saved model as frozen data, free of protobuf and of torch.

Element types are MIL's names: ``fp16 fp32 fp64 bf16 bool string int8 ... uint64`` and the
sub-byte ``int4 uint1 uint2 uint3 uint4 uint6``. A shape holds ints; ``None`` is a dimension
that is known only at run time.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fluxvae.errors import ArtifactError
from fluxvae.mil.blobs import NUMPY, PACKED_BITS, BlobRef, unpack_bits

BITS = {name: 8 * np.dtype(held).itemsize for name, held in NUMPY.items()} | PACKED_BITS
FLOATS = frozenset({"fp16", "fp32", "fp64", "bf16"})
OPSETS = ("CoreML5", "CoreML6", "CoreML7", "CoreML8", "CoreML9")
OPSET_TARGETS = dict(zip(OPSETS, ("iOS15", "iOS16", "iOS17", "iOS18", "iOS26"), strict=True))


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of a value."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        dims = ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.dtype}[{dims}]"


@dataclass(frozen=True)
class Constant:
    """A value stored in the model: immediate (``data``) or in a weight file (``blob``).

    A list of strings or integers is a tuple, of the type ``list`` and its length.
    """

    type: TensorType
    data: np.ndarray | str | tuple[str | int, ...] | None = None
    blob: BlobRef | None = None

    def value(self) -> np.ndarray | str | tuple[str | int, ...]:
        """The value; sub-byte elements unpacked, one to a byte; bf16 widened to float32.

        Raises ArtifactError when the blob is damaged or disagrees with the declared type.
        """
        raw = self.check()
        if raw is None:
            assert self.data is not None
            return self.data
        return self.shaped(unpack_bits(raw, self.type.dtype, self.elements))

    def shaped(self, values: np.ndarray) -> np.ndarray:
        """Flat values in the declared shape. Raises ArtifactError when they do not fit."""
        if values.size != self.elements:
            raise ArtifactError(
                f"a constant of type {self.type} holds {values.size} values; the model is damaged"
            )
        try:
            return values.reshape(self.static_shape)
        except (ValueError, OverflowError) as error:  # empty, other dimensions beyond numpy's
            raise ArtifactError(f"a constant has the impossible type {self.type}") from error

    def check(self) -> np.ndarray | None:
        """The raw bytes in the weight file, unread but known to be there; None outside of one.

        Raises ArtifactError as ``value`` does.
        """
        if self.blob is not None:
            return self.blob.read(self.type.dtype, self.elements)
        if self.data is None:
            raise ArtifactError(f"a constant of type {self.type} has no value")
        return None

    @property
    def static_shape(self) -> tuple[int, ...]:
        if any(d is None for d in self.type.shape):
            raise ArtifactError(f"a constant has an unknown dimension: {self.type}")
        return tuple(d for d in self.type.shape if d is not None)

    @property
    def elements(self) -> int:
        return math.prod(self.static_shape)

    @property
    def nbytes(self) -> int:
        """Bytes this constant takes on disk (0 for strings)."""
        return (self.elements * BITS.get(self.type.dtype, 0) + 7) // 8


@dataclass(frozen=True)
class Ref:
    """A use of another operation's output, or of a function's input, by name."""

    name: str


@dataclass(frozen=True)
class Variable:
    """A named, typed value: a function's input or an operation's output."""

    name: str
    type: TensorType


Argument = Ref | Constant


@dataclass(frozen=True)
class Op:
    """One operation. Every argument is a tuple: one binding, or several for lists.

    ``blocks``: the operations of each nested block of control flow, which can be listed only.
    """

    kind: str
    name: str
    inputs: Mapping[str, tuple[Argument, ...]]
    outputs: tuple[Variable, ...]
    attributes: Mapping[str, Constant] = field(default_factory=dict)
    blocks: "tuple[tuple[Op, ...], ...]" = ()

    def refs(self) -> Iterator[str]:
        """Names of every value this operation reads, with repetitions."""
        for arguments in self.inputs.values():
            for argument in arguments:
                if isinstance(argument, Ref):
                    yield argument.name

    def constants(self) -> Iterator[Constant]:
        """Every constant stored in this operation, arguments first, then attributes."""
        for arguments in self.inputs.values():
            for argument in arguments:
                if isinstance(argument, Constant):
                    yield argument
        yield from self.attributes.values()


@dataclass(frozen=True)
class Unsupported:
    """What a function needs and the executor lacks: operations with their counts, and a sentence.

    ``counts`` may be empty: a known layer can be used in a form that is not supported.
    """

    counts: Mapping[str, int]
    reason: str


@dataclass(frozen=True)
class Function:
    """A block of operations in program order; ``outputs`` names values.

    ``unsupported`` is set by readers that could list the function only: its operations are then
    the layers or models of the file, as the format calls them, and their results have no shape.
    """

    name: str
    opset: str
    inputs: tuple[Variable, ...]
    ops: tuple[Op, ...]
    outputs: tuple[str, ...]
    unsupported: Unsupported | None = None

    def every_op(self) -> Iterator[Op]:
        """Operations in program order, each followed by those of its nested blocks."""
        return _flat(self.ops)


def _flat(ops: Iterable[Op]) -> Iterator[Op]:
    for op in ops:
        yield op
        for block in op.blocks:
            yield from _flat(block)


@dataclass(frozen=True)
class Feature:
    """One input or output as the model's description shows it to an app.

    ``shapes`` lists the allowed shapes when they are enumerated; ``ranges`` gives inclusive
    (low, high) for each dimension when they are ranged (high -1: unbounded). An image has
    ``color`` ``RGB``, ``BGR`` or ``GRAYSCALE`` and shape (height, width). Features of any other
    kind have their kind as ``dtype``, and an empty shape. They can only be listed, but for the
    outputs of a classifier, which have ``labels``: the scores of all classes (a dictionary), or
    the most likely label.
    """

    name: str
    kind: str  # "tensor", "image"; "state", "dictionary", "string", ...
    dtype: str
    shape: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()
    color: str | None = None
    description: str = ""
    labels: tuple[str | int, ...] = ()

    @property
    def channels(self) -> int:
        """Of an image."""
        return 3 if self.color in ("RGB", "BGR") else 1

    @property
    def allowed(self) -> str:
        """Its shapes, for a sentence."""
        if self.ranges:
            return f"within {list(self.ranges)}"
        return " or ".join(str(list(shape)) for shape in self.shapes or (self.shape,))

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a value may have this shape."""
        if self.ranges:
            return within(shape, self.ranges)
        return shape in (self.shapes or (self.shape,))


def within(shape: tuple[int | None, ...], spans: tuple[tuple[int, int], ...]) -> bool:
    """Whether each dimension lies in its inclusive span (high -1: unbounded); None always does."""
    return len(shape) == len(spans) and all(
        d is None or (low <= d and (high < 0 or d <= high))
        for d, (low, high) in zip(shape, spans, strict=True)
    )


@dataclass(frozen=True)
class Signature:
    """Inputs, outputs and states of one function, in the description's order."""

    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...] = ()

    def unsupported(self) -> str | None:
        """Why the executor cannot run a function of these features, if so."""
        if self.states:
            return "the model has states; the executor runs stateless models only"
        for feature in (*self.inputs, *self.outputs):
            if feature.kind not in ("tensor", "image") and not feature.labels:
                return (
                    f"feature {feature.name!r} is of kind {feature.kind}; "
                    "the executor takes multi-arrays and images"
                )
        return None


@dataclass(frozen=True)
class Metadata:
    """What the author wrote into the model."""

    author: str = ""
    license: str = ""
    version: str = ""
    description: str = ""
    user: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """A saved model. ``functions`` and ``signatures`` share their keys."""

    kind: str  # "mlprogram", "neuralnetwork", or what can be listed only, such as "pipeline"
    specification: int
    functions: Mapping[str, Function]
    signatures: Mapping[str, Signature]
    default_function: str
    metadata: Metadata
    path: Path

    def function(self, name: str | None = None) -> Function:
        """The named function, or the default one. Raises ArtifactError with what there is."""
        wanted = name or self.default_function
        if wanted not in self.functions:
            there = ", ".join(sorted(self.functions))
            raise ArtifactError(f"{self.path.name} has no function {wanted!r}; it has: {there}")
        return self.functions[wanted]
