"""Matrix products and attention. Products accumulate in float32 and are rounded once."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxvae.mil.registry import Tensors, op


@op("linear")
def linear(*, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`."""
    return F.linear(x, weight, bias)


@op("matmul")
def matmul(*, x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Batched matrix product; the last two dimensions may be transposed first."""
    if transpose_x and x.dim() > 1:
        x = x.mT
    if transpose_y and y.dim() > 1:
        y = y.mT
    return torch.matmul(x, y)


@op("einsum")
def einsum(*, values: Tensors, equation: str) -> Tensor:
    """Product of two tensors by an equation such as `nchw,nwhu->nchu`."""
    return torch.einsum(equation, *values).contiguous()


@op("softmax")
def softmax(*, x: Tensor, axis: int = -1) -> Tensor:
    """`exp(x - max) / sum(exp(x - max))` along `axis`."""
    return torch.softmax(x, axis)


@op("scaled_dot_product_attention", since="iOS18")
def scaled_dot_product_attention(
    *, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """`softmax(query @ key.T / sqrt(d) + attn_mask) @ value`; a bool mask keeps where true."""
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.device)
    return F.scaled_dot_product_attention(query, key, value, attn_mask).contiguous()
