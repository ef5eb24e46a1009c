"""Images of any size from a package that makes tiles of one size.

The front (everything at latent resolution, which sees the whole map) runs on the whole latent; the
up part, which takes nearly all the memory and time, runs on one tile after the other. A pixel of
the up part depends on its features no further away than the halo, so the middle of a tile comes out
as in the whole image: in the tiny decoders it is the same arithmetic on the same numbers. A KL
decoder's up part has GroupNorms, which see the whole map; its tiles take their statistics as an
input: from one pass over all the features ("whole"), which is exact and takes the memory of a whole
decode; or from four passes over a quarter of the features each ("strided"), in a quarter of it. A
quarter is every second block of 8 rows and columns: blocks keep what convolutions see together,
taking every second gives each quarter the whole's statistics (45 dB; every second single row and
column 37, the four quadrants 43). Never averaged features: averaging shrinks a variance (9 dB).

All tiles of an image have one size: those at its end are moved inwards, not made smaller.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fluxvae.artifact.backends import FunctionRunner, function_runner
from fluxvae.artifact.record import Record, Tiles
from fluxvae.errors import LatentError, UsageError
from fluxvae.mil.executor import OnOp
from fluxvae.mil.program import Program
from fluxvae.recipes import SCALE, Size
from fluxvae.recipes.functions import FEATURES, INPUT_NAME, STATISTICS, TILE, function_names

_BLOCKS = (8, 4, 2, 1)  # latent pixels; see ``places``


@dataclass(frozen=True)
class Cut:
    """A tile along one axis, in latent pixels: what goes in, and which part of it is kept.

    The tile reads ``start`` to ``start + input`` and answers for ``low`` to ``high``.
    """

    start: int
    low: int
    high: int


@dataclass(frozen=True)
class Grid:
    """All tiles of an image: each row with each column. ``shape``: what a tile takes."""

    rows: tuple[Cut, ...]
    columns: tuple[Cut, ...]
    shape: tuple[int, int]

    def __iter__(self) -> Iterator[tuple[Cut, Cut]]:
        return ((row, column) for row in self.rows for column in self.columns)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)


def cut(total: int, size: int, halo: int) -> tuple[Cut, ...]:
    """Tiles of ``size`` over an axis of ``total``, each ``halo`` away from what it leaves out.

    The image's own ends need no halo: padding there is the whole decoder's. The last tile ends
    where the image does. Raises UsageError when a tile is nothing but halo, LatentError when the
    image is smaller than a tile.
    """
    if total == size:
        return (Cut(0, 0, total),)
    if size <= 2 * halo:
        raise UsageError(
            f"tiles of {size} latent pixels are smaller than their halo of {halo} on either side"
        )
    if total < size:
        raise LatentError(
            f"an image of {total * SCALE} px is smaller than the tiles, which take "
            f"{size * SCALE} px: use an artifact of this size, or of smaller tiles"
        )
    step = size - 2 * halo
    count = 1 + -(-(total - size) // step)
    starts = [min(i * step, total - size) for i in range(count)]
    bounds = [0, *(start + halo for start in starts[1:]), total]
    return tuple(Cut(s, *ends) for s, ends in zip(starts, pairwise(bounds), strict=True))


def grid(height: int, width: int, shape: tuple[int, int], halo: int) -> Grid:
    """``cut`` along both axes of a latent of ``height`` x ``width``."""
    return Grid(cut(height, shape[0], halo), cut(width, shape[1], halo), shape)


def tiles_for(tiles: Tiles, size: Size) -> tuple[str, Grid]:
    """The function that makes the tiles of an image, and where they lie. Raises as ``cut``."""
    own = f"{TILE}_{size.function}"
    name = own if own in tiles.shapes else TILE
    if name not in tiles.shapes:
        raise LatentError(f"there are no tiles for images of {size}")
    return name, grid(size.height // SCALE, size.width // SCALE, tiles.shapes[name], tiles.halo)


def samples(features: np.ndarray, stride: int) -> Iterator[np.ndarray]:
    """The features (1, C, h, w) in ``stride`` x ``stride`` samples of one size, all places once.

    A sample takes every ``stride``-th block of rows and of columns; see ``places``.
    """
    axes = [places(extent, stride) for extent in features.shape[2:]]
    for rows in axes[0]:
        for columns in axes[1]:
            yield np.ascontiguousarray(features[:, :, rows][..., columns])


def places(extent: int, stride: int) -> list[np.ndarray]:
    """Rows (or columns) of each sample: every ``stride``-th block of 8, 4, 2 or 1, as it divides.

    ``extent`` is a multiple of ``stride``.
    """
    block = next(b for b in _BLOCKS if extent % (stride * b) == 0)
    index = np.arange(extent)
    return [index[index // block % stride == start] for start in range(stride)]


def pooled(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Statistics (1, norms, groups, 2) of several equal samples as those of one sample of all.

    In the last axis stand a mean and sqrt(variance + eps). The variance of all is the mean variance
    and the variance of the means; computed in float64, given back in the parts' dtype.
    """
    if len(parts) == 1:
        return parts[0]
    values = np.stack([part.astype(np.float64) for part in parts])
    means, deviations = values[..., 0], values[..., 1]
    variance = (deviations**2).mean(0) + means.var(0)
    return np.stack([means.mean(0), variance**0.5], -1).astype(parts[0].dtype)


class TiledDecoder:
    """A tiled package as one function from latent to image, in the model's layout and dtype.

    Functions are loaded when they are first needed. ``on_op`` sees every operation of them all.
    """

    def __init__(
        self,
        program: Program,
        record: Record,
        backend: str,
        units: str = "all",
        *,
        on_op: OnOp | None = None,
    ) -> None:
        if record.tiles is None:
            raise UsageError(f"{program.path.name} makes no tiles")
        self._program, self._record, self._tiles = program, record, record.tiles
        self._backend, self._units = backend, units
        self._on_op = on_op
        self._runners: dict[str, FunctionRunner] = {}

    def __call__(self, latent: np.ndarray) -> np.ndarray:
        """Latent (1, C, h, w) to image (1, 3, 8h, 8w), or both channels-last.

        Raises LatentError for a size that the package does not make.
        """
        height, width = latent.shape[1:3] if self._last else latent.shape[2:4]
        size = Size(height * SCALE, width * SCALE)
        front, measure = function_names(self._record.recipe, size)
        self._require(front, size)
        tile, tiles = tiles_for(self._tiles, size)
        features = self._run(front, **{INPUT_NAME: latent})
        fixed = {}
        if self._tiles.stride is not None:
            fixed[STATISTICS] = self._measured(measure, features, self._tiles.stride)
        return self._join(tile, features, fixed, tiles, size)

    def _measured(self, name: str, features: np.ndarray, stride: int) -> np.ndarray:
        """Statistics of every norm, over all of the features."""
        parts = samples(features, stride)
        return pooled([self._run(name, **{FEATURES: part}) for part in parts])

    @property
    def _last(self) -> bool:
        return self._record.recipe.layout == "nhwc"

    def _join(
        self,
        tile: str,
        features: np.ndarray,
        fixed: dict[str, np.ndarray],
        tiles: Grid,
        size: Size,
    ) -> np.ndarray:
        shape = (1, size.height, size.width, 3) if self._last else (1, 3, size.height, size.width)
        image: np.ndarray | None = None
        for row, column in tiles:
            rows = slice(row.start, row.start + tiles.shape[0])
            columns = slice(column.start, column.start + tiles.shape[1])
            part = np.ascontiguousarray(features[:, :, rows, columns])
            made = self._run(tile, **{FEATURES: part}, **fixed)
            if image is None:
                image = np.empty(shape, made.dtype)
            image[self._place(row, column)] = made[self._place(row, column, inside=True)]
        assert image is not None  # a grid has a tile
        return image

    def _place(self, row: Cut, column: Cut, *, inside: bool = False) -> tuple[slice, ...]:
        """Pixels that a tile answers for: of the image, or of the tile itself."""
        axes = [
            slice((c.low - inside * c.start) * SCALE, (c.high - inside * c.start) * SCALE)
            for c in (row, column)
        ]
        rest = slice(None)
        return (rest, *axes, rest) if self._last else (rest, rest, *axes)

    def _require(self, front: str, size: Size) -> None:
        if front not in self._program.functions:
            made = ", ".join(str(s) for s in self._record.recipe.sizes)
            raise LatentError(
                f"{self._program.path.name} makes images of {made}, not of {size}: a KL decoder's "
                "front has an attention of one size; convert with the --size you need"
            )

    def _run(self, name: str, **arrays: np.ndarray) -> np.ndarray:
        if name not in self._runners:
            self._runners[name] = function_runner(
                self._program, name, self._backend, self._units, self._on_op
            )
        return self._runners[name](arrays)
