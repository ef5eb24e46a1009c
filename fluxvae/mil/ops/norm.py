"""Normalisations. Statistics are those of the population (divided by n, not n - 1)."""

import torch.nn.functional as F
from torch import Tensor

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
