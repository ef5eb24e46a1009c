"""Image sizes, and what is chosen by them: tiles and forms of attention. Standard library only."""

import re
from dataclasses import dataclass

from fluxvae.errors import UsageError

SCALE = 8  # image pixels per latent pixel of every FLUX decoder
LARGEST_SIDE = 4096  # 16384 is the Neural Engine's limit for a map; memory ends long before
# Latent pixels that reach into a tile from each side, from where the front passes its features on;
# exact from the graph: tests compare them with fluxvae.networks.structure.receptive_field.
HALO = {"tiny": 9, "full": 7, "small": 7}
# plain: diffusers' own; sdpa: iOS 18's operation; all of them: fluxvae.convert.rewrite.attention.
ATTENTION = ("auto", "plain", "channels-first", "chunked", "split-einsum", "sdpa")
_QUERIES = 1024  # at a time; 512 save a quarter more and double the operations
_MEGABYTE = 1e6


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


def best_tile(height: int, width: int, side: int, halo: int) -> tuple[int, int]:
    """The tile for a map of ``height`` x ``width``: least work in no more than ``side`` squared.

    Rows and columns of what a tile takes, its halo included, in the map's pixels. As many equal
    tiles as fit exactly: those at an end need no halo there, so two of n make 2 n - 2 halo.
    """

    def needed(total: int, count: int) -> int:
        return -(-(total + 2 * halo * (count - 1)) // count)

    choices = [
        (rows * columns * needed(height, rows) * needed(width, columns), rows * columns, rows)
        for rows in range(1, max(1, height - 2 * halo) + 1)
        for columns in range(1, max(1, width - 2 * halo) + 1)
        if needed(height, rows) * needed(width, columns) <= side**2
    ]
    _, count, rows = min(choices)
    return needed(height, rows), needed(width, count // rows)


def parse_attention(text: str) -> tuple[str, int | None]:
    """``chunked:1024`` to ("chunked", 1024): a form and how many queries it computes at a time.

    The number is None where the form computes all of them at once. Raises UsageError.
    """
    form, colon, digits = text.partition(":")
    number = int(digits) if digits.isascii() and digits.isdigit() else 0
    if form not in ATTENTION:
        raise UsageError(
            f"attention {text!r} is none of auto, plain, channels-first, chunked:N, split-einsum "
            "and sdpa"
        )
    if form == "chunked" and not colon:
        raise UsageError("attention 'chunked' needs a number of queries, such as chunked:1024")
    if colon and (form in ("auto", "sdpa", "channels-first") or number < 1):
        raise UsageError(
            f"attention {text!r} is not understood: a number of queries of at least 1 goes with "
            "chunked, plain and split-einsum, as in chunked:1024"
        )
    return form, number or None


def choose_attention(places: int, precision: str, newest: bool) -> tuple[str, str]:
    """The form for a map of ``places`` latent pixels, and why, in a sentence.

    ``newest``: the target has the attention operation (iOS18 on). The scores of all queries and
    their softmax are the largest values of the whole decoder at 1024 px; a few queries at a time
    need no more than a feature map.
    """
    width = 2 if precision == "float16" else 4

    def megabytes(queries: int) -> str:
        return f"{2 * queries * places * width / _MEGABYTE:.3g} MB"

    if places <= _QUERIES:
        return "channels-first", f"all scores at once take {megabytes(places)} ({places} places)"
    why = (
        f"{_QUERIES} queries at a time hold {megabytes(_QUERIES)} of scores, all {places} at once "
        f"{megabytes(places)}"
    )
    if newest:
        why += "; sdpa was not chosen, as its memory on devices is not known"
    return f"chunked:{_QUERIES}", why
