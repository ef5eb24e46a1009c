"""What one convolution's weight is to be stored as, before any number is chosen."""

import math
from dataclasses import dataclass

from fluxvae.compress.forms import CompressedDecoder, CompressedWeight, Palettized
from fluxvae.compress.sites import Site
from fluxvae.errors import CompressionError

INTEGER_BITS = {"int8": 8, "int4": 4}


@dataclass(frozen=True)
class Scheme:
    """``kind``: palette, int8 or int4. ``granularity`` as in a Compression of that kind."""

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

    def stored_bytes(self, site: Site, precision: str) -> int:
        """What ``forms.stored_bytes`` of such a form will be."""
        channels, inputs, height, width = site.shape
        size = channels * inputs * height * width
        if self.kind == "palette":
            floats = self.tables(channels) * 2**self.bits + (channels if self.scaled else 0)
        elif self.granularity == "tensor":
            floats = 1
        else:
            floats = channels * self.blocks(inputs)
        return (size * self.bits + 7) // 8 + floats * (2 if precision == "float16" else 4)


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
