"""Forms of the KL decoders' attention for Core ML: one head over S = H W positions, C channels.

All are equal in real numbers to ``fluxvae.networks.attention.Attention``; the factor C^-0.5 is
folded into the queries' projection (but for ``sdpa``, whose operation has it). They differ in the
operations that reach Core ML, and above all in memory: all scores at once are S x S, a gigabyte at
1024 px with their softmax; computing N queries at a time needs N x S, and is exact, as the rows of
a softmax do not depend on each other.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxvae.convert.rewrite.replace import replaced
from fluxvae.networks.attention import Attention
from fluxvae.recipes import parse_attention


def with_attention(decoder: nn.Module, form: str) -> nn.Module:
    """A copy of ``decoder`` with its attentions in another form; shares the other parameters.

    ``form`` is a recipe's, but not ``auto``: ``plain``, ``plain:N``, ``channels-first``,
    ``chunked:N``, ``split-einsum``, ``split-einsum:N`` or ``sdpa``. A decoder without attention
    comes back as it is. Raises UsageError for a form that does not exist.
    """
    name, queries = parse_attention(form)
    make = _FORMS[name]

    if not any(isinstance(module, Attention) for module in decoder.modules()):
        return decoder
    return replaced(
        decoder, lambda part: make(part, queries) if isinstance(part, Attention) else None
    )


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def _conv(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1, dtype=weight.dtype)
    layer.load_state_dict({"weight": weight[:, :, None, None], "bias": bias})
    return layer


class _Form(nn.Module):
    """What the forms share: the norm, four projections and the residual."""

    def __init__(
        self,
        plain: Attention,
        queries: int | None,
        layer: Callable[[Tensor, Tensor], nn.Module],
        *,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        factor = 1 / math.sqrt(plain.to_q.in_features) if scaled else 1.0
        self.group_norm = plain.group_norm
        self.to_q = layer(plain.to_q.weight * factor, plain.to_q.bias * factor)
        self.to_k = layer(plain.to_k.weight, plain.to_k.bias)
        self.to_v = layer(plain.to_v.weight, plain.to_v.bias)
        out = plain.to_out[0]
        assert isinstance(out, nn.Linear)
        self.to_out = layer(out.weight, out.bias)
        self.queries = queries

    def in_turn(
        self, q: Tensor, axis: int, attend: Callable[[Tensor], Tensor], joined: int
    ) -> Tensor:
        """``attend`` for all queries, or for ``queries`` of them at a time along ``axis``."""
        if self.queries is None or self.queries >= q.shape[axis]:
            return attend(q)
        # One split, not slices: each part dies with its turn, so that parts and results together
        # take no more than one map.
        return torch.cat([attend(part) for part in q.split(self.queries, axis)], joined)


class TokenAttention(_Form):
    """diffusers' form: rows of a (B, S, C) matrix, Linear layers, two transposes."""

    def __init__(self, plain: Attention, queries: int | None) -> None:
        super().__init__(plain, queries, _linear)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, S, C)
        keys, values = self.to_k(tokens).transpose(1, 2), self.to_v(tokens)

        def attend(q: Tensor) -> Tensor:
            return torch.softmax(q @ keys, -1) @ values

        mixed = self.to_out(self.in_turn(self.to_q(tokens), 1, attend, 1))
        return x + mixed.transpose(1, 2).reshape(x.shape)


class ChannelsFirstAttention(_Form):
    """1x1 convolutions and (B, C, S) matrices: matmul transposes inside, no transpose is left."""

    def __init__(self, plain: Attention, queries: int | None) -> None:
        super().__init__(plain, queries, _conv)

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x)
        q, keys, values = (part(h).flatten(2) for part in (self.to_q, self.to_k, self.to_v))

        def attend(q: Tensor) -> Tensor:
            weights = torch.softmax(q.transpose(1, 2) @ keys, -1)  # (B, queries, S)
            return values @ weights.transpose(1, 2)

        return x + self.to_out(self.in_turn(q, 2, attend, 2).reshape(x.shape))


class SplitEinsumAttention(_Form):
    """Apple's form for the Neural Engine, (B, C, 1, S): softmax over keys on axis 1.

    https://github.com/apple/ml-ane-transformers
    """

    def __init__(self, plain: Attention, queries: int | None) -> None:
        super().__init__(plain, queries, _conv)

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x).flatten(2)[:, :, None]  # (B, C, 1, S)
        q, keys, values = self.to_q(h), self.to_k(h).transpose(1, 3), self.to_v(h)

        def attend(q: Tensor) -> Tensor:
            weights = torch.softmax(torch.einsum("bchq,bkhc->bkhq", q, keys), 1)
            return torch.einsum("bkhq,bchk->bchq", weights, values)

        mixed = self.to_out(self.in_turn(q, 3, attend, 3))
        return x + mixed.reshape(x.shape)


class FusedAttention(_Form):
    """One operation of iOS 18, ``scaled_dot_product_attention``; (B, 1, S, C) around it."""

    def __init__(self, plain: Attention, queries: int | None) -> None:
        super().__init__(plain, queries, _linear, scaled=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (part(tokens)[:, None] for part in (self.to_q, self.to_k, self.to_v))
        mixed = self.to_out(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return x + mixed.transpose(1, 2).reshape(x.shape)


_FORMS: dict[str, Callable[[Attention, int | None], nn.Module]] = {
    "plain": TokenAttention,
    "channels-first": ChannelsFirstAttention,
    "chunked": ChannelsFirstAttention,
    "split-einsum": SplitEinsumAttention,
    "sdpa": FusedAttention,
}
