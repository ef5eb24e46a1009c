"""A decoder taken apart: two halves, or a front that sees the whole map and an up part in tiles.

Every decoder is a row of stages. A part of the row is a decoder's part with the same parameters,
and the parts one after the other are the decoder itself: nothing is changed, only cut.

Tiles of the up part are exact where nothing in it sees the whole map (the tiny decoders: a pixel
depends on a window, ``reach``). A KL decoder's up part has GroupNorms, whose statistics have to
come from the whole map: ``Measuring`` gives them, ``Frozen`` takes them.
"""

import copy
import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxvae.convert.rewrite.latents import Fronted
from fluxvae.convert.rewrite.rescale import ScaledGroupNorm
from fluxvae.errors import ConvertError
from fluxvae.networks.kl import KLDecoder, UpBlock, Upsample

Norm = nn.GroupNorm | ScaledGroupNorm


class Entrance(nn.Module):
    """A KL decoder's way in: latent (B, C, h, w) to (B, widest, h, w)."""

    def __init__(self, decoder: KLDecoder) -> None:
        super().__init__()
        self.post_quant_conv = decoder.post_quant_conv
        self.conv_in = decoder.conv_in

    def forward(self, z: Tensor) -> Tensor:
        return self.conv_in(z if self.post_quant_conv is None else self.post_quant_conv(z))


class Exit(nn.Module):
    """A KL decoder's way out: (B, narrowest, H, W) to image (B, 3, H, W)."""

    def __init__(self, decoder: KLDecoder) -> None:
        super().__init__()
        self.conv_norm_out = decoder.conv_norm_out
        self.conv_out = decoder.conv_out

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def stages(decoder: nn.Module) -> list[nn.Module]:
    """The row of modules that a decoder is. Raises ConvertError for one that is no such row."""
    if isinstance(decoder, Fronted):
        return [decoder.front, *stages(decoder.decoder)]
    if isinstance(decoder, nn.Sequential):
        return list(decoder)
    if type(decoder) is not KLDecoder:
        raise ConvertError(f"{type(decoder).__name__} cannot be cut into parts: leave --chunks out")
    row: list[nn.Module] = [Entrance(decoder), decoder.mid_block]
    for block in decoder.up_blocks:
        assert isinstance(block, UpBlock)
        row += [*block.resnets, *(() if block.upsamplers is None else block.upsamplers)]
    return [*row, Exit(decoder)]


def halves(decoder: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """A decoder as two modules, one after the other, of about the same size.

    A KL decoder is cut before an upsampler, where the map is at its smallest for its depth; a tiny
    one at any module before its second upsampler. Of these places the one that leaves the weights
    most even is taken.
    """
    row = stages(decoder)
    weights = [sum(p.numel() for p in stage.parameters()) for stage in row]
    ups = [i for i, stage in enumerate(row) if isinstance(stage, Upsample | nn.Upsample)]
    places = range(1, ups[1] + 1) if isinstance(row[ups[0]], nn.Upsample) else ups
    cut = min(places, key=lambda i: abs(sum(weights[:i]) - sum(weights[i:])))
    return nn.Sequential(*row[:cut]), nn.Sequential(*row[cut:])


def front_and_up(decoder: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """What works at latent resolution and sees the whole map, and the rest, which comes in tiles.

    The front ends before the first upsampler. For a KL decoder that is after its first stage's
    residual blocks: one upsampler further down than its mid block, a tile has to know 7 latent
    pixels around it instead of 13, and six norms fewer need frozen statistics.
    """
    row = stages(decoder)
    cut = next(i for i, stage in enumerate(row) if isinstance(stage, Upsample | nn.Upsample))
    return nn.Sequential(*row[:cut]), nn.Sequential(*row[cut:])


def reach(up: nn.Module) -> int:
    """From how many input pixels away, each way, an output of ``up`` can depend on a value.

    Exact from the graph for rows of convolutions and nearest upsamplers; GroupNorms count as
    frozen. Shortcuts reach no further than the convolutions beside them.
    """
    scale, total = 1, Fraction(0)
    for module in up.modules():
        if isinstance(module, Upsample | nn.Upsample):  # comes before the convolution inside it
            scale *= 2
        elif isinstance(module, nn.Conv2d):
            total += Fraction(module.kernel_size[0] // 2, scale)
    return math.ceil(total)


class _Record:
    """Where the norms of one forward pass leave or find their statistics."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []
        self.given: Tensor | None = None


class _MeasuringNorm(nn.Module):
    """A GroupNorm that leaves its statistics: per group the mean and sqrt(variance + eps).

    The deviation and not its inverse: coremltools 9.0 makes ``1 / x`` MIL's ``inverse``, which adds
    1e-4 to x, and 130 dB become 97.
    """

    def __init__(self, norm: Norm, record: _Record) -> None:
        super().__init__()
        self.norm = norm
        self.record = record
        self.eps = norm.eps.reshape(1, -1, 1) if isinstance(norm.eps, Tensor) else norm.eps

    def forward(self, x: Tensor) -> Tensor:
        groups = x.reshape(x.shape[0], _groups(self.norm), -1)
        mean = groups.mean(2, keepdim=True)
        inner = groups - mean
        deviation = torch.sqrt((inner * inner).mean(2, keepdim=True) + self.eps)
        self.record.found.append(torch.cat([mean, deviation], 2))
        y = (inner / deviation).reshape(x.shape)
        return y * _planes(self.norm.weight) + _planes(self.norm.bias)


class _FrozenNorm(nn.Module):
    """A GroupNorm with statistics from elsewhere; three operations on the map."""

    def __init__(self, norm: Norm, record: _Record, index: int) -> None:
        super().__init__()
        self.norm = norm
        self.record = record
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        if self.record.given is None:
            raise ConvertError("frozen norms were run without statistics")
        known = self.record.given[:, self.index]  # (1, groups, 2)
        each = x.shape[1] // _groups(self.norm)
        spread = known[:, :, None].expand(-1, -1, each, -1).reshape(1, -1, 2)  # by channel
        mean, deviation = spread[:, :, 0, None, None], spread[:, :, 1, None, None]
        return (x - mean) * (_planes(self.norm.weight) / deviation) + _planes(self.norm.bias)


def _groups(norm: Norm) -> int:
    return norm.num_groups if isinstance(norm, nn.GroupNorm) else norm.groups


def _planes(values: Tensor) -> Tensor:
    return values[None, :, None, None]


class Measuring(nn.Module):
    """Features (1, C, h, w) to the statistics of every norm, (1, norms, groups, 2)."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self._record = _Record()
        self.up = _renormed(up, lambda norm, _: _MeasuringNorm(norm, self._record))

    def forward(self, features: Tensor) -> Tensor:
        self._record.found.clear()
        self.up(features)
        statistics = torch.stack(self._record.found, 1)
        self._record.found.clear()
        return statistics


class Frozen(nn.Module):
    """A tile of the features and statistics of the whole, to a tile of the image."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self._record = _Record()
        self.up = _renormed(up, lambda norm, index: _FrozenNorm(norm, self._record, index))

    def forward(self, features: Tensor, statistics: Tensor) -> Tensor:
        self._record.given = statistics
        image: Tensor = self.up(features)
        self._record.given = None
        return image


def count_norms(up: nn.Module) -> tuple[int, int]:
    """Number of GroupNorms in ``up`` and of groups in each; (0, 0) without any."""
    norms = [m for m in up.modules() if isinstance(m, Norm)]
    return (len(norms), _groups(norms[0])) if norms else (0, 0)


def _renormed(up: nn.Module, make: Callable[[Norm, int], nn.Module]) -> nn.Module:
    """A copy of ``up`` with other norms, numbered in the order they run; shares the parameters."""
    count = 0

    def rebuilt(module: nn.Module) -> nn.Module:
        nonlocal count
        if isinstance(module, Norm):
            count += 1
            return make(module, count - 1)
        twin = copy.copy(module)
        twin._modules = {
            key: None if child is None else rebuilt(child) for key, child in module._modules.items()
        }
        return twin

    return rebuilt(up).eval().requires_grad_(False)
