"""Resampling of the last two dimensions."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fluxvae.errors import UnsupportedOpError
from fluxvae.mil.registry import op


@op("upsample_nearest_neighbor", exact=True)
def upsample_nearest_neighbor(
    *, x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1
) -> Tensor:
    """Repeats rows and columns; whole scale factors only.

    Which neighbour a fractional factor takes is not documented, so that is refused.
    """
    if scale_factor_height % 1 or scale_factor_width % 1:
        raise UnsupportedOpError(
            "upsample_nearest_neighbor supports whole scale factors, not "
            f"{scale_factor_height} x {scale_factor_width}"
        )
    height, width = int(scale_factor_height), int(scale_factor_width)
    if height == width == 2 and x.dim() == 4:  # the decoders' case: torch's kernel is 15% faster
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    *lead, rows, columns = x.shape
    spread = x[..., :, None, :, None].expand(*lead, rows, height, columns, width)
    return spread.reshape(*lead, rows * height, columns * width)


@op("resize_nearest_neighbor", exact=True)
def resize_nearest_neighbor(
    *, x: Tensor, target_size_height: int, target_size_width: int
) -> Tensor:
    """Repeats rows and columns up to a size; whole multiples of the size of x only."""
    rows, columns = x.shape[-2:]
    if min(target_size_height, target_size_width) < 1 or (
        target_size_height % rows or target_size_width % columns
    ):
        raise UnsupportedOpError(
            f"resize_nearest_neighbor of {rows} x {columns} to {target_size_height} x "
            f"{target_size_width} is not supported: only whole multiples are"
        )
    return upsample_nearest_neighbor(
        x=x,
        scale_factor_height=target_size_height // rows,
        scale_factor_width=target_size_width // columns,
    )


@op("upsample_bilinear")
def upsample_bilinear(
    *,
    x: Tensor,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Linear interpolation by scale factors; the size is rounded down, the scale follows it."""
    if half_pixel_centers is None:
        half_pixel_centers = not align_corners
    if align_corners and half_pixel_centers:
        raise UnsupportedOpError("upsample_bilinear with align_corners and half_pixel_centers")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "DEFAULT"
    if half_pixel_centers:
        mode = "UNALIGN_CORNERS"
    rows = int(np.floor(np.float32(scale_factor_height) * x.shape[-2]))
    columns = int(np.floor(np.float32(scale_factor_width) * x.shape[-1]))
    return _bilinear(x, rows, columns, mode)


@op("resize_bilinear")
def resize_bilinear(
    *,
    x: Tensor,
    target_size_height: int = 1,
    target_size_width: int = 1,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Linear interpolation to a size, in all five sampling modes of MIL."""
    return _bilinear(x, target_size_height, target_size_width, sampling_mode)


def _bilinear(x: Tensor, rows: int, columns: int, mode: str) -> Tensor:
    return _linear(_linear(x, -2, rows, mode), -1, columns, mode).contiguous()


def _linear(x: Tensor, axis: int, size: int, mode: str) -> Tensor:
    """``x`` with ``axis`` sampled at ``size`` grid points, linearly between its neighbours."""
    last = x.shape[axis] - 1
    points = np.clip(_grid(x.shape[axis], size, mode), 0, last)
    low = np.minimum(points.astype(np.int64), last)
    weight = torch.from_numpy((points - low).astype(np.float32)).to(x.device)
    weight = weight.reshape(-1, *(1,) * (-1 - axis))
    below = x.index_select(axis, torch.from_numpy(low).to(x.device))
    above = x.index_select(axis, torch.from_numpy(np.minimum(low + 1, last)).to(x.device))
    return torch.lerp(below, above, weight)


def _grid(old: int, new: int, mode: str) -> np.ndarray:
    """Grid points as the documentation of ``resize_bilinear`` defines them, before clamping."""
    steps = np.arange(new, dtype=np.float64)
    if mode == "ALIGN_CORNERS" and new == 1:
        return np.array([(old - 1) / 2])
    if mode in ("ALIGN_CORNERS", "STRICT_ALIGN_CORNERS"):
        return steps * ((old - 1) / max(new - 1, 1))
    if mode == "DEFAULT":
        return steps * (old / new)
    if mode == "OFFSET_CORNERS":
        return (steps + 0.5) * (max(1, old - 1) / new)
    if mode == "UNALIGN_CORNERS":
        return (steps + 0.5) * (old / new) - 0.5
    raise UnsupportedOpError(f"resize_bilinear with sampling_mode {mode!r} is not supported")
