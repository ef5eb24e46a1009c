"""Slices and gathers."""

import torch
from torch import Tensor

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.registry import Bools, Ints, op


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


@op("topk", exact=True)
def topk(
    *,
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Tensor | tuple[Tensor, Tensor]:
    """The `k` largest (or smallest) values along `axis`, in order, and where they were; -1: all."""
    if output_indices_dtype not in ("int32", "uint16"):
        raise UnsupportedOpError(f"indices of type {output_indices_dtype!r} are not supported")
    count = x.shape[axis] if k == -1 else k
    if not 0 <= count <= x.shape[axis]:
        raise ArtifactError(f"topk of {k} among {x.shape[axis]} elements")
    found = torch.sort(x, dim=axis, descending=not ascending, stable=True)
    values = found.values.narrow(axis, 0, count).contiguous()
    if not return_indices:
        return values
    return values, found.indices.narrow(axis, 0, count).to(torch.int32).contiguous()


@op("argsort", exact=True)
def argsort(*, x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    """Indices that sort x along `axis`; equal values keep their order."""
    return torch.argsort(x, dim=axis, descending=not ascending, stable=True).to(torch.int32)


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
