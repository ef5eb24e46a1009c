"""What an image in tiles costs, and how near it comes to the image in one go."""

import math
from dataclasses import dataclass

from fluxvae.artifact.open import Artifact
from fluxvae.artifact.tiles import tiles_for
from fluxvae.recipes import SCALE, Size
from fluxvae.recipes.functions import FEATURES, function_names
from fluxvae.validation.inspect import FunctionReport, inspect_model
from fluxvae.validation.limits import STRIDED_DB

# Against the whole decode. Measured on random KL weights and photo latents at 384 px: 131 dB and
# more with exact statistics, at float32; with strided ones 45.3 to 46.9 for blocks of 8 and 42.6 to
# 45.8 for blocks of 4 (scripts/measure_tiling.py). Real KL weights were not at hand.
WHOLE_DB = 120.0


@dataclass(frozen=True)
class TileCosts:
    """Figures for one image.

    ``tile_size``: of a tile with its halo, in pixels. ``work``: multiply-accumulates over those of
    the whole decode. ``live_bytes``: the most that any of the functions has alive at once by
    program order, see ``fluxvae.validation.inspect.peak_live``; ``whole_live_bytes``: the same of
    the whole decode. ``held_bytes``: what the caller holds beside it, the features and the image.
    ``bound_db``: at least this PSNR against the whole decode at float32; None: the very same
    numbers, where the engine rounds alike at all sizes.
    """

    size: Size
    tiles: int
    tile_size: Size
    work: float
    live_bytes: int
    whole_live_bytes: int
    held_bytes: int
    bound_db: float | None

    def sentence(self) -> str:
        """One line for people."""
        bound = "the whole decode's own numbers"
        if self.bound_db is not None:
            bound = f"{self.bound_db:g} dB or more against the whole decode (fp32)"
        return (
            f"{self.size} in {self.tiles} tiles of {self.tile_size} px: {self.work:.2f} times the "
            f"work, {self.live_bytes / 1e6:.0f} MB live of {self.whole_live_bytes / 1e6:.0f} "
            f"({self.held_bytes / 1e6:.0f} MB held beside them); {bound}"
        )


def tile_costs(artifact: Artifact, size: Size) -> TileCosts:
    """What ``size`` costs in tiles of a tiled artifact. Raises LatentError for one it cannot make.

    The work of convolutions grows with their map, so the whole decode is counted from the tile's
    and the front's.
    """
    program, tiles = artifact.programs[0], artifact.record.tiles
    assert tiles is not None
    height, width = size.height // SCALE, size.width // SCALE
    name, cells = tiles_for(tiles, size)
    rows, columns = cells.shape
    reports = {report.name: report for report in inspect_model(program.path).functions}
    front_name, statistics = function_names(artifact.record.recipe, size)
    front, tile = reports[front_name], reports[name]
    area = height * width / (rows * columns)
    share = height * width / _places(front, artifact.record.contract.channels)
    whole = front.macs * share + tile.macs * area
    made = front.macs * share + tile.macs * len(cells)
    live = [front.live.bytes * share, tile.live.bytes]
    if tiles.stride is not None:
        made += tile.macs * area  # one pass over every place, in stride^2 pieces
        live.append(reports[statistics].live.bytes)
    return TileCosts(
        size=size,
        tiles=len(cells),
        tile_size=Size(rows * SCALE, columns * SCALE),
        work=made / whole,
        live_bytes=math.ceil(max(live)),
        whole_live_bytes=math.ceil(max(live[0], tile.live.bytes * area)),
        held_bytes=_held(tile, height * width),
        bound_db={None: None, 1: WHOLE_DB}.get(tiles.stride, STRIDED_DB),
    )


def _places(front: FunctionReport, channels: int) -> float:
    """Places of the latent map that the front was counted at."""
    return math.prod(front.inputs[0].shape) / channels


def _held(tile: FunctionReport, places: int) -> int:
    """Bytes of all features and of the whole image, as the functions hand them over."""
    features = next(f for f in tile.inputs if f.name == FEATURES)
    width = {"fp16": 2, "fp32": 4}
    image = 3 * places * SCALE**2 * width.get(tile.outputs[0].dtype, 4)
    return features.shape[1] * places * width.get(features.dtype, 4) + image
