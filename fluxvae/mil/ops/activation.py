"""Activations with parameters of their own."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxvae.mil.registry import op


@op("elu")
def elu(*, x: Tensor, alpha: float) -> Tensor:
    """`x` where x > 0, `alpha * (exp(x) - 1)` below."""
    return F.elu(x, alpha)


@op("prelu")
def prelu(*, x: Tensor, alpha: Tensor) -> Tensor:
    """`x` where x >= 0, `alpha * x` below; one alpha for each channel, which is axis 1."""
    return F.prelu(x, alpha)


@op("linear_activation")
def linear_activation(*, x: Tensor, alpha: float, beta: float) -> Tensor:
    """`alpha * x + beta`."""
    return alpha * x + beta


@op("scaled_tanh")
def scaled_tanh(*, x: Tensor, alpha: float, beta: float) -> Tensor:
    """`alpha * tanh(beta * x)`."""
    return (beta * x).tanh_().mul_(alpha)


@op("sigmoid_hard")
def sigmoid_hard(*, x: Tensor, alpha: float, beta: float) -> Tensor:
    """`alpha * x + beta`, limited to 0..1."""
    return (alpha * x + beta).clamp_(0, 1)


@op("softplus_parametric")
def softplus_parametric(*, x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """`alpha * log(1 + exp(beta * x))`; one alpha and beta for each channel, which is axis 1."""
    shape = (-1, *(1,) * (x.dim() - 2))
    return F.softplus(x * beta.reshape(shape)) * alpha.reshape(shape)


@op("softsign")
def softsign(*, x: Tensor) -> Tensor:
    """`x / (1 + |x|)`."""
    return x / (1 + x.abs())


@op("threshold", exact=True)
def threshold(*, x: Tensor, alpha: float) -> Tensor:
    """`max(x, alpha)`."""
    return x.clamp(min=alpha)


@op("thresholded_relu", exact=True)
def thresholded_relu(*, x: Tensor, alpha: float) -> Tensor:
    """`x` where x >= alpha, else 0."""
    return torch.where(x >= alpha, x, torch.zeros_like(x))
