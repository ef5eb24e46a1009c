"""Compressed forms of a convolution's weight and of its input, as frozen data.

A form says exactly what is stored; ``dense`` says what Core ML and the executor expand it to. All
tables and scales hold values that float16 holds exactly, so a form means the same in both
precisions but for the rounding of products.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from fluxvae.errors import CompressionError

PALETTE_BITS = (1, 2, 3, 4, 6, 8)
INTEGER_BITS = {"int8": 8, "int4": 4}
INTEGER_RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7)}


@dataclass(frozen=True)
class Palettized:
    """Each weight is an entry of a table of ``2 ** bits`` values.

    ``indices`` uint8 (O, I, kh, kw); ``lut`` float32 (groups, 2 ** bits), one table for each
    ``O / groups`` consecutive output channels; ``scale`` float32 (O,) multiplies each output
    channel, or None. Raises CompressionError when these do not belong together.
    """

    bits: int
    indices: np.ndarray
    lut: np.ndarray
    scale: np.ndarray | None = None

    def __post_init__(self) -> None:
        channels = self.indices.shape[0]
        if self.bits not in PALETTE_BITS or self.lut.shape[1:] != (2**self.bits,):
            raise CompressionError(f"a table of shape {self.lut.shape} for {self.bits} bits")
        if channels % self.lut.shape[0]:
            raise CompressionError(f"{self.lut.shape[0]} tables for {channels} output channels")
        if self.indices.dtype != np.uint8 or int(self.indices.max()) >= 2**self.bits:
            raise CompressionError(
                f"indices of {self.bits} bits must be uint8 below the table's end"
            )
        if self.scale is not None and self.scale.shape != (channels,):
            raise CompressionError(f"{self.scale.shape} scales for {channels} output channels")
        _expect_float16(self.lut, *([] if self.scale is None else [self.scale]))


@dataclass(frozen=True)
class Quantized:
    """Each weight is ``scale * data``: symmetric integers.

    ``dtype`` int8 or int4; ``data`` int8 (O, I, kh, kw); ``scale`` float32: (1, 1, 1, 1) per
    tensor, (O, 1, 1, 1) per channel, (O, I / block, 1, 1) per block of input channels.
    """

    dtype: str
    data: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        low, high = INTEGER_RANGES[self.dtype]
        if self.data.dtype != np.int8 or self.data.min() < low or self.data.max() > high:
            raise CompressionError(f"{self.dtype} weights must be int8 in [{low}, {high}]")
        fits = self.scale.ndim == self.data.ndim and all(
            want % have == 0 for want, have in zip(self.data.shape, self.scale.shape, strict=True)
        )
        if not fits:
            raise CompressionError(
                f"scales of shape {self.scale.shape} for weights of shape {self.data.shape}"
            )
        _expect_float16(self.scale)


CompressedWeight = Palettized | Quantized


@dataclass(frozen=True)
class Activation:
    """How a convolution's input is rounded to 8 bits: ``q = clip(round(x / scale) + zero_point)``.

    ``dtype`` int8 or uint8; ``scale`` positive and exact in float16; ``zero_point`` in its range.
    """

    scale: float
    zero_point: int = 0
    dtype: str = "int8"

    def __post_init__(self) -> None:
        low, high = INTEGER_RANGES[self.dtype]
        if not low <= self.zero_point <= high:
            raise CompressionError(f"zero point {self.zero_point} is not in [{low}, {high}]")
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise CompressionError(f"an activation's scale must be positive, got {self.scale}")
        _expect_float16(np.array([self.scale], np.float32))


@dataclass(frozen=True)
class Scheme:
    """What one convolution's weight is to be stored as, before any number is chosen.

    ``kind``: palette, int8 or int4. ``granularity`` as in a Compression of that kind.
    """

    kind: str
    bits: int
    granularity: str

    @property
    def scaled(self) -> bool:
        """A palette whose output channels each have a scale."""
        return self.granularity == "channel-scale"

    def tables(self, channels: int) -> int:
        """Tables of a palette: one for each group of consecutive output channels.

        A group holds the greatest common divisor of the size asked for and ``channels``: of
        ``grouped:16`` each of the last convolution's three channels gets its own.
        """
        name, _, size = self.granularity.partition(":")
        return channels // math.gcd(int(size), channels) if name == "grouped" else 1

    def blocks(self, inputs: int) -> int:
        """Blocks of input channels with scales of their own, as many channels as divide both."""
        name, _, size = self.granularity.partition(":")
        return inputs // math.gcd(int(size), inputs) if name == "block" else 1

    def describes(self, form: CompressedWeight) -> bool:
        """Whether ``form`` has the tables and scales of this scheme's granularity."""
        if isinstance(form, Palettized):
            tables = self.tables(form.indices.shape[0])
            return (form.lut.shape[0], form.scale is not None) == (tables, self.scaled)
        channels, inputs = form.data.shape[:2]
        fine = (channels, self.blocks(inputs), 1, 1)
        return form.scale.shape == ((1, 1, 1, 1) if self.granularity == "tensor" else fine)


@dataclass(frozen=True)
class CompressedDecoder:
    """A decoder and what its convolutions are stored as.

    ``decoder``: float32 module of the catalogue's structure, equal in function to what was asked
    (equalized, its biases corrected); its convolutions' weights are used as they are where no form
    is given. ``weights`` and ``activations`` are keyed by module name (``"3.conv.0"``).
    ``notes`` is plain data for the artifact's record: how the forms were found.
    """

    decoder: nn.Module
    weights: Mapping[str, CompressedWeight]
    activations: Mapping[str, Activation] = field(default_factory=dict)
    notes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Solved:
    """A compressed decoder, and the seconds that solving it took, in whichever run that was."""

    compressed: CompressedDecoder
    seconds: float


def require_granularity(compressed: CompressedDecoder, granularity: str) -> None:
    """Raise CompressionError unless every weight is stored as the recipe, and so the name, says."""
    for name, form in compressed.weights.items():
        if isinstance(form, Palettized):
            kind, bits = "palette", form.bits
            found = f"{form.lut.shape[0]} tables, {'no' if form.scale is None else 'with'} scales"
        else:
            kind, bits = form.dtype, INTEGER_BITS[form.dtype]
            found = f"scales of the shape {list(form.scale.shape)}"
        if not Scheme(kind, bits, granularity).describes(form):
            raise CompressionError(
                f"convolution {name} would be stored with {found}; the recipe says {granularity}: "
                "report this, with the command"
            )


def dense(form: CompressedWeight, precision: str) -> np.ndarray:
    """What the form expands to, float32 (O, I, kh, kw); products rounded to ``precision``."""
    if isinstance(form, Palettized):
        groups = form.lut.shape[0]
        per_group = form.indices.shape[0] // groups
        rows = form.indices.reshape(groups, per_group, -1)
        values = np.take_along_axis(form.lut[:, None, :], rows.astype(np.int64), axis=2).reshape(
            form.indices.shape
        )
        if form.scale is None:
            return values.astype(np.float32)
        return as_stored(values * form.scale[:, None, None, None], precision)
    scale = form.scale
    for axis, (have, want) in enumerate(zip(scale.shape, form.data.shape, strict=True)):
        scale = np.repeat(scale, want // have, axis)
    return as_stored(form.data.astype(np.float32) * scale, precision)


def to_float16(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to what float16 holds, as float32."""
    return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)


def as_stored(values: np.ndarray, precision: str) -> np.ndarray:
    """float32 values as a package of ``precision`` holds them, as float32."""
    return to_float16(values) if precision == "float16" else values.astype(np.float32)


def _expect_float16(*arrays: np.ndarray) -> None:
    for array in arrays:
        if not np.array_equal(to_float16(array), array):
            raise CompressionError("tables and scales must hold finite values that float16 holds")
