"""What one convolution's weight is to be stored as, before any number is chosen."""

import math
from dataclasses import dataclass

from fluxvae.compress.sites import Site

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
