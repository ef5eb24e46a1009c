"""Forms of the KL decoders' attention for Core ML: one head over S = H W positions, C channels.

All are equal in real numbers to ``fluxvae.networks.attention.Attention``; the factor C^-0.5 is
folded into the queries' projection (but for ``sdpa``, whose operation has it, and compressed
projections, after which it is a multiplication). They differ in the
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


class PointwiseAttention(Attention):
    """The plain attention with 1x1 convolutions of the same names for its linear layers.

    What is compressed: a form keeps these convolutions as they are, so that what was solved for
    them is what is stored.
    """

    def __init__(self, plain: Attention) -> None:
        nn.Module.__init__(self)
        self.channels, self.group_norm = plain.channels, plain.group_norm
        out = plain.to_out[0]
        made = [_conv(layer) for layer in (plain.to_q, plain.to_k, plain.to_v, out)]
        self.to_q, self.to_k, self.to_v = made[:3]
        self.to_out = nn.ModuleList(made[3:])

    def mix(self, x: Tensor) -> Tensor:
        """What is added, of the normalised map."""
        q, k, v = (
            part(x).flatten(2).transpose(1, 2)[:, None]
            for part in (self.to_q, self.to_k, self.to_v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return self.to_out[0](mixed.transpose(1, 2).reshape(x.shape))


def pointwise(network: nn.Module) -> nn.Module:
    """A copy of ``network`` whose layers with weights are all convolutions; shares the rest."""
    if not any(isinstance(module, Attention) for module in network.modules()):
        return network
    return replaced(
        network, lambda part: PointwiseAttention(part) if isinstance(part, Attention) else None
    )


class _OnTokens(nn.Module):
    """A 1x1 convolution of tokens (B, S, C)."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, tokens: Tensor) -> Tensor:
        columns: Tensor = self.conv(tokens.transpose(1, 2)[:, :, None])
        return columns[:, :, 0].transpose(1, 2)


def _linear(layer: nn.Module, factor: float = 1.0) -> nn.Linear:
    assert isinstance(layer, nn.Linear)
    made = nn.Linear(layer.in_features, layer.out_features, dtype=layer.weight.dtype)
    made.load_state_dict({"weight": layer.weight * factor, "bias": layer.bias * factor})
    return made


def _conv(layer: nn.Module, factor: float = 1.0) -> nn.Conv2d:
    assert isinstance(layer, nn.Linear)
    made = nn.Conv2d(layer.in_features, layer.out_features, 1, dtype=layer.weight.dtype)
    weight = (layer.weight * factor)[:, :, None, None]
    made.load_state_dict({"weight": weight, "bias": layer.bias * factor})
    return made.requires_grad_(False)


class _Form(nn.Module):
    """What the forms share: the norm, four projections and the residual.

    ``tokens``: of rows of a matrix rather than of a map. ``scaled``: the factor C^-0.5 is in the
    queries' projection; of a ``PointwiseAttention``, whose projections stay as they are, it
    multiplies the queries.
    """

    def __init__(
        self, plain: Attention, queries: int | None, *, tokens: bool, scaled: bool = True
    ) -> None:
        super().__init__()
        layers = (plain.to_q, plain.to_k, plain.to_v, plain.to_out[0])
        factor = 1 / math.sqrt(plain.channels) if scaled else 1.0
        self.group_norm = plain.group_norm
        self.factor = factor if isinstance(plain, PointwiseAttention) else 1.0
        if isinstance(plain, PointwiseAttention):
            made = [_OnTokens(layer) if tokens else layer for layer in layers]
        else:
            make = _linear if tokens else _conv
            made = [make(layers[0], factor), *(make(layer) for layer in layers[1:])]
        self.to_q, self.to_k, self.to_v, self.to_out = made
        self.queries = queries

    def query(self, x: Tensor) -> Tensor:
        """The queries, scaled."""
        q: Tensor = self.to_q(x)
        return q if self.factor == 1.0 else q * self.factor

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
        super().__init__(plain, queries, tokens=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, S, C)
        keys, values = self.to_k(tokens).transpose(1, 2), self.to_v(tokens)

        def attend(q: Tensor) -> Tensor:
            return torch.softmax(q @ keys, -1) @ values

        mixed = self.to_out(self.in_turn(self.query(tokens), 1, attend, 1))
        return x + mixed.transpose(1, 2).reshape(x.shape)


class ChannelsFirstAttention(_Form):
    """1x1 convolutions and (B, C, S) matrices: matmul transposes inside, no transpose is left."""

    def __init__(self, plain: Attention, queries: int | None) -> None:
        super().__init__(plain, queries, tokens=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x)
        q, keys, values = (part(h).flatten(2) for part in (self.query, self.to_k, self.to_v))

        def attend(q: Tensor) -> Tensor:
            weights = torch.softmax(q.transpose(1, 2) @ keys, -1)  # (B, queries, S)
            return values @ weights.transpose(1, 2)

        return x + self.to_out(self.in_turn(q, 2, attend, 2).reshape(x.shape))


class SplitEinsumAttention(_Form):
    """Apple's form for the Neural Engine, (B, C, 1, S): softmax over keys on axis 1.

    https://github.com/apple/ml-ane-transformers
    """

    def __init__(self, plain: Attention, queries: int | None) -> None:
        super().__init__(plain, queries, tokens=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x).flatten(2)[:, :, None]  # (B, C, 1, S)
        q, keys, values = self.query(h), self.to_k(h).transpose(1, 3), self.to_v(h)

        def attend(q: Tensor) -> Tensor:
            weights = torch.softmax(torch.einsum("bchq,bkhc->bkhq", q, keys), 1)
            return torch.einsum("bkhq,bchk->bchq", weights, values)

        mixed = self.to_out(self.in_turn(q, 3, attend, 3))
        return x + mixed.reshape(x.shape)


class FusedAttention(_Form):
    """One operation of iOS 18, ``scaled_dot_product_attention``; (B, 1, S, C) around it."""

    def __init__(self, plain: Attention, queries: int | None) -> None:
        super().__init__(plain, queries, tokens=True, scaled=False)

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
