"""A decoder taken apart: two halves, or a front that sees the whole map and an up part in tiles.

Every decoder is a row of stages. A part of the row is a decoder's part with the same parameters,
and the parts one after the other are the decoder itself: nothing is changed, only cut.

Tiles of the up part are exact where nothing in it sees the whole map (the tiny decoders: a pixel
depends on a window, ``structure.receptive_field``). A KL decoder's up part has GroupNorms, whose
statistics have to come from the whole map: ``Measuring`` gives them, ``Frozen`` takes them.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fluxvae.convert.rewrite.replace import replaced
from fluxvae.convert.rewrite.rescale import ScaledGroupNorm
from fluxvae.errors import ConvertError
from fluxvae.networks.structure import stages, upsamplers

Norm = nn.GroupNorm | ScaledGroupNorm


def halves(decoder: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """A decoder as two modules, one after the other, of about the same size.

    Where upsamplers have weights, the cut is before one of them, where the map is at its smallest
    for its depth; else (in the tiny decoders) before any module up to the second. Of these the one
    that leaves the weights most even is taken.
    """
    row = stages(decoder)
    weights = [sum(p.numel() for p in stage.parameters()) for stage in row]
    ups = upsamplers(row)
    allowed = ups if weights[ups[0]] else range(1, ups[1] + 1)
    cut = min(allowed, key=lambda i: abs(sum(weights[:i]) - sum(weights[i:])))
    return nn.Sequential(*row[:cut]), nn.Sequential(*row[cut:])


def front_and_up(decoder: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """What works at latent resolution and sees the whole map, and the rest, which comes in tiles.

    The front ends before the first upsampler. For a KL decoder that is after its first stage's
    residual blocks: one upsampler further down than its mid block, a tile has to know 7 latent
    pixels around it instead of 13, and six norms fewer need frozen statistics.
    """
    row = stages(decoder)
    cut = upsamplers(row)[0]
    return nn.Sequential(*row[:cut]), nn.Sequential(*row[cut:])


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
    numbers = itertools.count()

    def renormed(module: nn.Module) -> nn.Module | None:
        return make(module, next(numbers)) if isinstance(module, Norm) else None

    return replaced(up, renormed)
