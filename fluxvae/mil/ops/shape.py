"""Operations that move, repeat or create elements and compute none."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.numerics import storage_dtype
from fluxvae.mil.program import TensorType
from fluxvae.mil.registry import Bools, Ints, Tensors, op


@op("identity", exact=True)
def identity(*, x: Tensor) -> Tensor:
    """x itself."""
    return x


@op("reshape", exact=True)
def reshape(*, x: Tensor, shape: Ints) -> Tensor:
    """New shape; 0 takes x's size counted from the right (none: 1), -1 takes the rest."""
    offset = x.dim() - len(shape)
    sizes = [
        s if s != 0 else (x.shape[i + offset] if i + offset >= 0 else 1)
        for i, s in enumerate(shape)
    ]
    return x.reshape(sizes)


@op("expand_dims", exact=True)
def expand_dims(*, x: Tensor, axes: Ints) -> Tensor:
    """Inserts dimensions of size 1 at the positions they have in the result."""
    rank = x.dim() + len(axes)
    sizes = list(x.shape)
    for axis in sorted(a % rank for a in axes):
        sizes.insert(axis, 1)
    return x.reshape(sizes)


@op("squeeze", exact=True)
def squeeze(*, x: Tensor, axes: Ints | None = None) -> Tensor:
    """Removes dimensions of size 1, all or those of `axes`; others are left alone."""
    return x.squeeze() if axes is None else x.squeeze(axes)


@op("transpose", exact=True)
def transpose(*, x: Tensor, perm: Ints) -> Tensor:
    """Permutes the dimensions."""
    # A strided result would make every later reduction slow and less accurate.
    return x.permute(perm).contiguous()


@op("concat", exact=True)
def concat(*, values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    """Joins tensors along `axis`, one after the other or element by element in turn."""
    if values[0].dim() == 0:
        return torch.stack(values)
    if not interleave:
        return torch.cat(values, axis)
    axis %= values[0].dim()
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


@op("stack", exact=True)
def stack(*, values: Tensors, axis: int) -> Tensor:
    """Joins tensors along a new dimension."""
    return torch.stack(values, axis)


@op("split", exact=True)
def split(
    *, x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None
) -> Tensors:
    """Cuts x along `axis` into equal parts or parts of the given sizes."""
    if split_sizes is None:
        if num_splits is None or x.shape[axis] % num_splits:
            raise ArtifactError(f"split of {x.shape[axis]} elements into {num_splits} equal parts")
        split_sizes = (x.shape[axis] // num_splits,) * num_splits
    return tuple(part.contiguous() for part in torch.split(x, list(split_sizes), axis))


@op("flatten2d", exact=True)
def flatten2d(*, x: Tensor, axis: int = 1) -> Tensor:
    """Two dimensions: those before `axis`, and the others."""
    rows = math.prod(x.shape[:axis])
    return x.reshape(rows, math.prod(x.shape[axis:]))


@op("reverse", exact=True)
def reverse(*, x: Tensor, axes: Ints | None = None) -> Tensor:
    """Reverses the order along `axes` (default: all)."""
    return x.flip(tuple(range(x.dim())) if axes is None else axes)


@op("sliding_windows", exact=True)
def sliding_windows(*, x: Tensor, axis: int, size: int, stride: int = 1) -> Tensor:
    """Windows of `size` elements along `axis`, in a new dimension after it."""
    axis %= x.dim()
    return x.unfold(axis, size, stride).movedim(-1, axis + 1).contiguous()


@op("crop", exact=True)
def crop(*, x: Tensor, crop_height: Ints, crop_width: Ints) -> Tensor:
    """Removes rows from top and bottom, and columns from left and right."""
    for axis, (before, after) in ((-2, crop_height), (-1, crop_width)):
        length = x.shape[axis] - before - after
        if min(before, after) < 0 or length < 1:
            raise ArtifactError(f"crop of {before} and {after} of {x.shape[axis]} elements")
        x = x.narrow(axis, before, length)
    return x.contiguous()


@op("band_part", exact=True)
def band_part(*, x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    """Zeros outside a band around the diagonal of each matrix; -1 keeps that whole side."""
    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])
    keep = ((lower < 0) | (rows - columns <= lower)) & ((upper < 0) | (columns - rows <= upper))
    return torch.where(keep.to(x.device), x, torch.zeros_like(x))


@op("tile", exact=True)
def tile(*, x: Tensor, reps: Ints) -> Tensor:
    """Repeats x along each dimension."""
    return x.repeat(reps)


@op("shape", exact=True)
def shape(*, x: Tensor) -> Tensor:
    """Sizes of x as int32."""
    return torch.tensor(x.shape, dtype=torch.int32)


@op("fill", exact=True)
def fill(*, shape: Ints, out: TensorType, value: float = 0.0) -> Tensor:
    """A tensor of one value."""
    return torch.full(shape, value, dtype=storage_dtype(out.dtype))


@op("fill_like", since="iOS16", exact=True)
def fill_like(*, ref_tensor: Tensor, out: TensorType, value: float = 0.0) -> Tensor:
    """A tensor of one value, shaped like another."""
    return torch.full(
        ref_tensor.shape, value, dtype=storage_dtype(out.dtype), device=ref_tensor.device
    )


@op("one_hot", exact=True)
def one_hot(
    *,
    indices: Tensor,
    one_hot_vector_size: int,
    out: TensorType,
    axis: int = -1,
    on_value: float = 1.0,
    off_value: float = 0.0,
) -> Tensor:
    """`on_value` at each index along a new dimension, `off_value` elsewhere.

    Indices outside are refused: what they give is not documented.
    """
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < one_hot_vector_size:
        raise ArtifactError(f"one_hot of indices outside 0 to {one_hot_vector_size - 1}")
    axis %= indices.dim() + 1
    shape = [1] * (indices.dim() + 1)
    shape[axis] = one_hot_vector_size
    chosen = indices.unsqueeze(axis) == torch.arange(one_hot_vector_size).reshape(shape)
    result = torch.full(chosen.shape, off_value, dtype=storage_dtype(out.dtype))
    return result.masked_fill_(chosen, on_value)


@op("range_1d")
def range_1d(*, end: float, start: float, step: float, out: TensorType) -> Tensor:
    """`start, start + step, ...` below `end`."""
    count = max(0, math.ceil((end - start) / step))
    values = start + step * torch.arange(count, dtype=torch.float64)
    return values.to(storage_dtype(out.dtype))


@op("pad", exact=True)
def pad(*, x: Tensor, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Adds elements before and after each of the last dimensions: a constant, edges, a mirror."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        return F.pad(x, [side for pair in reversed(pairs) for side in pair], value=constant_val)
    if mode not in ("reflect", "replicate"):
        raise UnsupportedOpError(f"pad with mode {mode!r} is not supported")
    for axis, (before, after) in enumerate(pairs, x.dim() - len(pairs)):
        if before or after:
            sources = _sources(x.shape[axis], before, after, mode)
            x = x.index_select(axis, sources.to(x.device))
    return x


def _sources(size: int, before: int, after: int, mode: str) -> Tensor:
    """For each element of a padded axis, the index it is copied from."""
    index = torch.arange(-before, size + after)
    if mode == "replicate":
        return index.clamp_(0, size - 1)
    if max(before, after) >= size:
        raise ArtifactError(f"pad 'reflect' by {max(before, after)} on {size} elements")
    index = index.abs()  # mirror at the start, then at the end
    return (size - 1) - ((size - 1) - index).abs()


@op("pixel_shuffle", exact=True)
def pixel_shuffle(*, x: Tensor, upscale_factor: int) -> Tensor:
    """Channels to space, channel c * f * f + i * f + j to row i, column j (PyTorch's order)."""
    return F.pixel_shuffle(x, upscale_factor)


@op("pixel_unshuffle", since="iOS16", exact=True)
def pixel_unshuffle(*, x: Tensor, downscale_factor: int) -> Tensor:
    """Space to channels, the inverse of `pixel_shuffle`."""
    return F.pixel_unshuffle(x, downscale_factor)


@op("depth_to_space", exact=True)
def depth_to_space(*, x: Tensor, block_size: int) -> Tensor:
    """Channels to space, channel (i * b + j) * C + c to row i, column j (TensorFlow's order)."""
    n, channels, height, width = x.shape
    blocks = x.reshape(n, block_size, block_size, -1, height, width)
    depth = channels // block_size**2
    moved = blocks.permute(0, 3, 4, 1, 5, 2)
    return moved.reshape(n, depth, height * block_size, width * block_size)


@op("space_to_depth", exact=True)
def space_to_depth(*, x: Tensor, block_size: int) -> Tensor:
    """Space to channels, the inverse of `depth_to_space`."""
    n, channels, height, width = x.shape
    rows, columns = height // block_size, width // block_size
    blocks = x.reshape(n, channels, rows, block_size, columns, block_size)
    moved = blocks.permute(0, 3, 5, 1, 2, 4)
    return moved.reshape(n, channels * block_size**2, rows, columns)


@op("slice_by_index", exact=True)
def slice_by_index(
    *,
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """`x[begin:end:stride, ...]` as in numpy; a mask drops a bound, or the dimension itself."""
    rank = x.dim()
    no = (False,) * rank
    steps = stride or (1,) * rank
    open_begin, open_end, single = begin_mask or no, end_mask or no, squeeze_mask or no
    picks: list[slice | int] = []
    flips = []
    for axis in range(rank):
        first = None if open_begin[axis] else begin[axis]
        if single[axis]:
            picks.append(first or 0)
            continue
        last = None if open_end[axis] else end[axis]
        chosen = range(x.shape[axis])[first : last : steps[axis]]
        if not chosen:
            chosen = range(0)
        elif steps[axis] < 0:  # torch has no negative steps: slice forwards, then flip
            flips.append(len(picks) - sum(isinstance(p, int) for p in picks))
            chosen = chosen[::-1]
        picks.append(slice(chosen.start, chosen.stop, chosen.step))
    result = x[tuple(picks)]
    return result.flip(flips) if flips else result.contiguous()


@op("slice_by_size", exact=True)
def slice_by_size(*, x: Tensor, begin: Ints, size: Ints) -> Tensor:
    """`size` elements from `begin` along each dimension; -1 takes the rest."""
    for axis, (start, length) in enumerate(zip(begin, size, strict=True)):
        first = start + x.shape[axis] if start < 0 else start
        x = x.narrow(axis, first, x.shape[axis] - first if length == -1 else length)
    return x.contiguous()


@op("gather", exact=True)
def gather(
    *,
    x: Tensor,
    indices: Tensor,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> Tensor:
    """Elements of x at `indices` along `axis`; negative indices count from the end."""
    axis %= x.dim()
    index = _checked(indices, x.shape[axis], validate_indices).to(x.device)
    if batch_dims == 0:
        flat = x.index_select(axis, index.reshape(-1))
        return flat.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))
    batch = x.shape[:batch_dims]
    rows = zip(x.flatten(0, batch_dims - 1), index.flatten(0, batch_dims - 1), strict=True)
    picked = torch.stack([r.index_select(axis - batch_dims, i.reshape(-1)) for r, i in rows])
    tail = (*x.shape[batch_dims:axis], *indices.shape[batch_dims:], *x.shape[axis + 1 :])
    return picked.reshape((*batch, *tail))


@op("gather_along_axis", exact=True)
def gather_along_axis(
    *, x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False
) -> Tensor:
    """Element `[.., indices[.., i, ..], ..]` of x at each position; shaped like `indices`."""
    index = _checked(indices, x.shape[axis], validate_indices)
    return torch.gather(x, axis, index.to(x.device))


@op("gather_nd", exact=True)
def gather_nd(
    *, x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """Elements or slices of x at index vectors, the last dimension of `indices`."""
    depth = indices.shape[-1]
    if batch_dims + depth > x.dim() or indices.shape[:batch_dims] != x.shape[:batch_dims]:
        raise ArtifactError(
            f"gather_nd of {list(x.shape)} by indices of {list(indices.shape)}, batch_dims "
            f"{batch_dims}"
        )
    columns = [
        _checked(column, x.shape[batch_dims + i], validate_indices).to(x.device)
        for i, column in enumerate(indices.unbind(-1))
    ]
    rank = indices.dim() - 1
    for axis in reversed(range(batch_dims)):
        own = torch.arange(x.shape[axis], device=x.device)
        columns.insert(0, own.reshape([-1 if a == axis else 1 for a in range(rank)]))
    return x[tuple(columns)].contiguous()


def _checked(indices: Tensor, size: int, strict: bool) -> Tensor:
    """Indices as non-negative int64.

    Outside its range MIL leaves the result open (or, with ``validate_indices``, is an error, and
    then negative ones count as outside): refuse rather than invent a value.
    """
    low, high = (0 if strict else -size), size - 1
    index = indices.to(torch.int64)
    if index.numel() and (int(index.min()) < low or int(index.max()) > high):
        raise ArtifactError(
            f"indices must lie in [{low}, {high}], got {int(index.min())} to {int(index.max())}"
        )
    return torch.where(index < 0, index + size, index)
