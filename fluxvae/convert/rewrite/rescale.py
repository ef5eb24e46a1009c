"""A KL decoder whose residual stream fits float16: powers of two folded through it, exactly.

GroupNorm does not see the scale of a group: ``GN(h; eps) = GN(h / s; eps / s^2)``. So a group of
channels of the residual stream may be carried divided by s, if what writes the stream
(convolutions, the attention's output) divides by s, what reads it without a norm (upsamplers,
shortcuts) multiplies, and every norm on it takes ``eps / s^2`` for that group. The same holds
inside a residual block, from its first convolution to its second norm. Powers of two change no
digit of a weight.

float16 needs it for GroupNorm's squares above all: they overflow from a distance of 256 from the
mean on. The variance is infinite then, the group zero, and the image finite and wrong.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fluxvae.convert.rewrite.replace import with_parts
from fluxvae.networks import structure
from fluxvae.networks.structure import Stream, TakesVAELatent

LARGEST = 64.0  # of a group of the stream, once rescaled: its squares stay below 2^14
Exponents = dict[str, tuple[int, ...]]  # stream -> the power of two each group is divided by


def streams(decoder: nn.Module) -> tuple[Stream, ...]:
    """Every stream from the first 3x3 convolution on, each named after what writes it first.

    Not those that a norm writes: they are small.
    """
    quant = decoder.vae_input().quant if isinstance(decoder, TakesVAELatent) else None
    return tuple(
        stream
        for stream in structure.streams(decoder)
        if (stream.norms or stream.readers)
        and stream.name != quant
        and not isinstance(decoder.get_submodule(stream.name), nn.GroupNorm)
    )


class ScaledGroupNorm(nn.Module):
    """GroupNorm with an epsilon of its own for each group, in the operations of Core ML's."""

    eps: Tensor

    def __init__(self, plain: nn.GroupNorm, divided_by: Tensor) -> None:
        super().__init__()
        self.groups = plain.num_groups
        eps = (plain.eps / divided_by.double() ** 2).to(plain.weight.dtype)
        self.register_buffer("eps", eps[None, :, None, None, None])
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, x: Tensor) -> Tensor:
        parts = x.reshape(x.shape[0], self.groups, -1, *x.shape[2:])
        axes = (2, 3, 4)
        variance = parts.var(axes, correction=0, keepdim=True)
        centred = parts - parts.mean(axes, keepdim=True)
        normal = (centred / torch.sqrt(variance + self.eps)).reshape(x.shape)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


def choose_exponents(decoder: nn.Module, latents: Iterable[Tensor]) -> Exponents:
    """For each stream with a group above ``LARGEST``: the least powers that bring it there.

    ``latents``: (1, C, h, w) in the decoder's own space, what it is to be safe for. Streams that
    fit as they are do not appear.
    """
    peaks = group_peaks(decoder, latents)
    exponents = {}
    for name, peak in peaks.items():
        powers = tuple(_power(value) for value in peak.tolist())
        if any(powers):
            exponents[name] = powers
    return exponents


def _power(peak: float) -> int:
    return max(0, math.ceil(math.log2(peak / LARGEST))) if peak > 0 else 0


def group_peaks(decoder: nn.Module, latents: Iterable[Tensor]) -> dict[str, Tensor]:
    """Largest magnitude in each group (G,) of each stream, over all its values and all latents."""
    groups = next(m.num_groups for m in decoder.modules() if isinstance(m, nn.GroupNorm))
    peaks: dict[str, Tensor] = {}

    def note(stream: str, value: Tensor) -> None:
        map_ = value.transpose(1, -1) if value.dim() == 3 else value  # tokens: channels last
        peak = map_.detach().abs().reshape(len(map_), groups, -1).amax((0, 2))
        peaks[stream] = torch.maximum(peaks[stream], peak) if stream in peaks else peak

    inputs, outputs = [], []
    for stream in streams(decoder):
        noted = partial(note, stream.name)
        inputs += [(name, noted) for name in (*stream.norms, *stream.readers)]
        outputs += [(name, noted) for name in stream.writers]
    structure.watch(decoder, latents, inputs=inputs, outputs=outputs)
    return peaks


def rescaled(decoder: nn.Module, exponents: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A copy of ``decoder`` with these streams divided by powers of two; equal in real numbers.

    The attention is left in its plain form: ``with_attention`` and ``with_latents`` come after.
    """
    by_group = {name: 2.0 ** torch.tensor(powers).double() for name, powers in exponents.items()}
    parts = structure.divided(decoder, streams(decoder), by_group)
    for stream in streams(decoder):
        for name in stream.norms if stream.name in by_group else ():
            norm = decoder.get_submodule(name)
            assert isinstance(norm, nn.GroupNorm)
            parts[name] = ScaledGroupNorm(norm, by_group[stream.name])
    return with_parts(decoder, parts)


@dataclass(frozen=True)
class PeakMagnitude:
    """The largest magnitude of the values of one layer of a torch decoder.

    ``square``: the squares that a GroupNorm sums, which no module gives; ``value``: an output.
    """

    layer: str
    kind: str
    largest: float


def peak_magnitudes(decoder: nn.Module, latents: Iterable[Tensor]) -> tuple[PeakMagnitude, ...]:
    """The largest magnitudes of any decoder's layers over all latents, largest first."""
    found: dict[tuple[str, str], float] = {}

    def note(layer: str, kind: str, value: Tensor) -> None:
        key = (layer, kind)
        found[key] = max(found.get(key, 0.0), _largest(value))

    def square(layer: str, norm: nn.GroupNorm, value: Tensor) -> None:
        parts = value.detach().reshape(len(value), norm.num_groups, -1)
        note(layer, "square", (parts - parts.mean(2, keepdim=True)).square())

    sums = set(structure.residual_blocks(decoder))
    inputs, outputs = [], []
    for name, module in decoder.named_modules():
        if isinstance(module, nn.GroupNorm):
            inputs.append((name, partial(square, name, module)))
        if name in sums or isinstance(module, nn.Conv2d | nn.Linear | nn.GroupNorm):
            outputs.append((name, partial(note, name, "value")))
    structure.watch(decoder, latents, inputs=inputs, outputs=outputs)
    rows = (PeakMagnitude(layer, kind, largest) for (layer, kind), largest in found.items())
    return tuple(sorted(rows, key=lambda row: -row.largest))


def _largest(value: Tensor) -> float:
    largest = float(value.detach().abs().max())
    return math.inf if math.isnan(largest) else largest
