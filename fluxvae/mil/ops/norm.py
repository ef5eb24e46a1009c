"""Normalisations. Statistics are those of the population (divided by n, not n - 1)."""

import torch.nn.functional as F
from torch import Tensor

from fluxvae.errors import UnsupportedOpError
from fluxvae.mil.numerics import epsilon_for
from fluxvae.mil.program import TensorType
from fluxvae.mil.registry import Ints, op


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
