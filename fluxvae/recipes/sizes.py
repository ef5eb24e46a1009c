"""Image sizes and how people write them. Standard library only."""

import re
from dataclasses import dataclass

from fluxvae.errors import UsageError

SCALE = 8  # image pixels per latent pixel of every FLUX decoder
LARGEST_SIDE = 4096  # 16384 is the Neural Engine's limit for a map; memory ends long before


@dataclass(frozen=True, order=True)
class Size:
    """Height and width of an image in pixels, multiples of 8."""

    height: int
    width: int

    def __post_init__(self) -> None:
        for side in (self.height, self.width):
            if side % SCALE or not 64 <= side <= LARGEST_SIDE:
                raise UsageError(
                    f"size {self} is not possible: height and width must be multiples of "
                    f"{SCALE} between 64 and {LARGEST_SIDE}, for example 768, 1024 or 768x1344"
                )

    def __str__(self) -> str:
        side = self.height == self.width
        return str(self.height) if side else f"{self.height}x{self.width}"

    @property
    def function(self) -> str:
        """Name of this size's function in a multifunction package: ``hw768``, ``h768w1344``."""
        if self.height == self.width:
            return f"hw{self.height}"
        return f"h{self.height}w{self.width}"


def parse_sizes(text: str) -> tuple[Size, ...]:
    """``768``, ``768,1024`` or ``768x1344`` (height x width) to sizes, in the given order.

    Raises UsageError for anything else, for sides that are no multiple of 8 and for repetitions.
    """
    sizes = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:\s*x\s*(\d{1,6}))?\s*", part, re.IGNORECASE)
        if not match:
            raise UsageError(
                f"size {part.strip()!r} is not understood: give pixels, such as 768, "
                "768,1024 or 768x1344 (height x width)"
            )
        height = int(match[1])
        sizes.append(Size(height, int(match[2] or height)))
    if len(set(sizes)) != len(sizes):
        raise UsageError(f"a size is given twice in {text!r}")
    return tuple(sizes)
