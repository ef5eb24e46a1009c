"""Reductions, normalisations and sorting.

Sums go through torch's cascade summation, whose error does not grow with length. A device that
adds one element after the other in float32 is about 40 times less accurate over the 589,824
elements of a GroupNorm group; the executor does not imitate that. Statistics of normalisations
are those of the population (divided by n, not n - 1).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.numerics import epsilon_for
from fluxvae.mil.program import TensorType
from fluxvae.mil.registry import Ints, op

_Reduction = Callable[[Tensor, Ints, bool], Tensor]


def _prod(x: Tensor, axes: Ints, keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep)
    return x


_REDUCTIONS: dict[str, tuple[_Reduction, str]] = {
    "reduce_mean": (torch.mean, "Mean"),
    "reduce_sum": (torch.sum, "Sum"),
    "reduce_prod": (_prod, "Product"),
    "reduce_sum_square": (lambda x, axes, keep: x.square().sum(axes, keep), "Sum of squares"),
    "reduce_l1_norm": (lambda x, axes, keep: x.abs().sum(axes, keep), "Sum of absolute values"),
    "reduce_l2_norm": (
        lambda x, axes, keep: x.square().sum(axes, keep).sqrt_(),
        "Root of the sum of squares",
    ),
    "reduce_log_sum": (
        lambda x, axes, keep: x.sum(axes, keep).log_(),
        "Natural logarithm of the sum",
    ),
    "reduce_log_sum_exp": (torch.logsumexp, "`log(sum(exp(x)))`"),
    "reduce_max": (torch.amax, "Largest value"),
    "reduce_min": (torch.amin, "Smallest value"),
}


def _enter(name: str, reduction: _Reduction, what: str) -> None:
    exact = name in ("reduce_max", "reduce_min")

    @op(name, exact=exact, summary=f"{what} over `axes` (default: all).")
    def run(*, x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
        chosen = tuple(range(x.dim())) if axes is None else axes
        if not chosen:  # torch reads an empty list as "all"
            chosen, x, keep = (0,), x.unsqueeze(0), False
        else:
            keep = keep_dims
        if x.is_floating_point():
            return reduction(x, chosen, keep)
        # coremltools evaluates integers in float64 and truncates the result
        return reduction(x.double(), chosen, keep).to(torch.int64).to(torch.int32)


for _name, _entry in _REDUCTIONS.items():
    _enter(_name, *_entry)


def _check_indices(dtype: str) -> None:
    if dtype not in ("int32", "uint16"):
        raise UnsupportedOpError(f"indices of type {dtype!r} are not supported")


def _arg(
    x: Tensor, axis: int, keep: bool, output_dtype: str, best: Callable[..., Tensor]
) -> Tensor:
    _check_indices(output_dtype)
    return best(x, axis, keepdim=keep).to(torch.int32)


@op("reduce_argmax")
def reduce_argmax(
    *, x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Tensor:
    """Index of the largest value along `axis`."""
    return _arg(x, axis, keep_dims, output_dtype, torch.argmax)


@op("reduce_argmin")
def reduce_argmin(
    *, x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Tensor:
    """Index of the smallest value along `axis`."""
    return _arg(x, axis, keep_dims, output_dtype, torch.argmin)


@op("cumsum")
def cumsum(*, x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Sums up to each element along `axis`, itself included or not; `reverse` from the end."""
    given = x.flip(axis) if reverse else x
    total = torch.cumsum(given, axis, dtype=x.dtype)
    if exclusive:
        none = torch.zeros_like(total.narrow(axis, 0, 1))
        total = torch.cat([none, total.narrow(axis, 0, total.shape[axis] - 1)], axis)
    return total.flip(axis) if reverse else total


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
    _check_indices(output_indices_dtype)
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


@op("batch_norm")
def batch_norm(
    *,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """`(x - mean) / sqrt(variance + epsilon) * gamma + beta` for each channel."""
    return F.batch_norm(x, mean, variance, gamma, beta, training=False, eps=epsilon)


@op("instance_norm")
def instance_norm(
    *, x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    """Normalises each channel of each sample over its spatial dimensions."""
    return F.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


@op("layer_norm")
def layer_norm(
    *,
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalises over `axes` (default: all); gamma and beta have the shape of those axes."""
    rank = x.dim()
    chosen = sorted(a % rank for a in axes) if axes is not None else list(range(rank))
    if chosen == list(range(chosen[0], rank)):
        return F.layer_norm(x, x.shape[chosen[0] :], gamma, beta, epsilon)
    centred = x - x.mean(chosen, keepdim=True)
    spread = centred.square().mean(chosen, keepdim=True).add_(epsilon).sqrt_()
    centred.div_(spread)
    shape = [size if axis in chosen else 1 for axis, size in enumerate(x.shape)]
    if gamma is not None:
        centred.mul_(gamma.reshape(shape))
    if beta is not None:
        centred.add_(beta.reshape(shape))
    return centred


@op("l2_norm")
def l2_norm(*, x: Tensor, out: TensorType, epsilon: float | None = None) -> Tensor:
    """`x / sqrt(sum of squares + epsilon)` over the last three dimensions; epsilon is 1e-6."""
    total = x.square().sum((-3, -2, -1), keepdim=True)
    return x / (total + epsilon_for(epsilon, 1e-6, out.dtype)).sqrt_()


@op("local_response_norm")
def local_response_norm(
    *, x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """`x / (k + alpha * mean of squares) ** beta` over `size` channels around each.

    An even ``size`` is refused: on which side the window is longer is not documented.
    """
    if size < 1 or size % 2 == 0:
        raise UnsupportedOpError(f"local_response_norm over {size} channels is not supported")
    return F.local_response_norm(x, size, alpha, beta, k)
