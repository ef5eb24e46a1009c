"""Cross-layer equalization: channel scales moved through a decoder that leave its function alone.

Dividing a channel by a positive number where it is produced and multiplying the weights that read
it by the same number changes nothing in real numbers: ReLU is positively homogeneous and nearest
upsampling copies (Nagel and others, https://arxiv.org/abs/1906.04721). A residual stream carries
its channels through all blocks of a stage, so all that write it are divided and all that read it
multiplied by one vector. In TAEF2's pool branch the GroupNorm stands in the way (it would undo a
scale before it); its affine is where channels of that branch are scaled.

The scales are those for which a model of the rounding errors (``noise``) predicts the least error
of the picture when inputs have 8 bits per tensor and weights 8 bits per output channel.
"""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fluxvae.compress.noise import SiteNoise
from fluxvae.models.tiny import Block

# Values are held against the last level as if they were this much larger: photos that were not
# seen reach further than those that were (measured: 0.6 dB on held-out photos).
MARGIN = 1.2
FLOOR = 0.05  # of the largest channel: for channels that were silent in calibration


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that must share one vector of scales.

    ``writers``: convolutions (rows and bias are divided) and GroupNorms (affine is divided);
    ``readers``: convolutions whose input channels are multiplied. All are module names.
    """

    name: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]


def channel_groups(decoder: nn.Sequential) -> tuple[ChannelGroup, ...]:
    """Every group of a tiny decoder: the stream of each stage and the inside of each block."""
    groups: list[ChannelGroup] = []
    writers: list[str] = []
    readers: list[str] = []
    for name, layer in decoder.named_children():
        if isinstance(layer, nn.Conv2d):
            if writers:
                groups.append(
                    ChannelGroup(f"stream-{writers[0]}", tuple(writers), (*readers, name))
                )
            writers, readers = [name], []
        elif isinstance(layer, Block):
            writers.append(f"{name}.conv.4")
            readers.append(f"{name}.conv.0")
            for index in (0, 2):
                inside = f"{name}.conv.{index}"
                groups.append(ChannelGroup(inside, (inside,), (f"{name}.conv.{index + 2}",)))
            if layer.pool is not None:
                norm = f"{name}.pool.1"
                groups.append(ChannelGroup(norm, (norm,), (f"{name}.pool.3",)))
                writers.append(f"{name}.pool.3")
                readers.append(f"{name}.pool.0")
    return tuple(groups)


def apply_scales(decoder: nn.Sequential, scales: Mapping[str, Tensor]) -> nn.Sequential:
    """A copy of ``decoder`` with each group's channels divided by its scales (C,), all positive.

    Groups not named keep theirs. Computed in float64 and rounded to the decoder's own dtype.
    """
    equal = copy.deepcopy(decoder)
    with torch.no_grad():
        for group in channel_groups(decoder):
            if group.name not in scales:
                continue
            scale = scales[group.name].double()
            for name in group.writers:
                module = equal.get_submodule(name)
                _scale_(module.weight, 1 / scale, axis=0)
                _scale_(module.bias, 1 / scale, axis=0)
            for name in group.readers:
                _scale_(equal.get_submodule(name).weight, scale, axis=1)
    return equal


def _scale_(parameter: object, scale: Tensor, axis: int) -> None:
    if isinstance(parameter, Tensor):
        shape = [1] * parameter.dim()
        shape[axis] = -1
        parameter.copy_((parameter.double() * scale.reshape(shape)).to(parameter.dtype))


def scaled_noise(
    decoder: nn.Sequential, noise: Mapping[str, SiteNoise], scales: Mapping[str, Tensor]
) -> dict[str, SiteNoise]:
    """What ``measure_noise`` gives for ``apply_scales(decoder, scales)``, without measuring."""
    ones = {name: torch.ones(()) for name in noise}
    written, read = dict(ones), dict(ones)
    for group in channel_groups(decoder):
        if group.name in scales:
            scale = scales[group.name].float()
            written |= dict.fromkeys(group.writers, scale[:, None, None, None])
            read |= dict.fromkeys(group.readers, scale)
    return {
        name: SiteNoise(
            one.values / read[name],
            one.gains * read[name].square(),
            one.weight_gains
            * written[name].square()
            / (
                read[name].square() if read[name].dim() == 0 else read[name].square()[:, None, None]
            ),
            one.low / read[name],
            one.high / read[name],
        )
        for name, one in noise.items()
    }


def choose_scales(
    decoder: nn.Sequential,
    noise: Mapping[str, SiteNoise],
    *,
    quantized: Collection[str],
    levels: int = 127,
    steps: int = 120,
    positions: int = 512,
) -> dict[str, Tensor]:
    """Scales of every group that a quantized convolution reads, with geometric mean 1.

    ``quantized`` names the convolutions in int8; ``levels`` counts the steps from 0 to the largest
    magnitude an input may have (127 symmetric, 255 with a zero point after ReLU).
    """
    scales = {}
    for group in channel_groups(decoder):
        readers = [name for name in group.readers if name in quantized]
        if readers:
            convs = [decoder.get_submodule(name) for name in readers]
            scales[group.name] = _balance(
                convs, [_thinned(noise[n], positions) for n in readers], levels, steps
            )
    return scales


def _balance(convs: list[nn.Module], noise: list[SiteNoise], levels: int, steps: int) -> Tensor:
    """Minimize the predicted error over log scales, together with all rounding steps (Adam)."""
    weights = [conv.weight.detach().float() for conv in convs]
    peaks = torch.stack([torch.maximum(n.high, -n.low) for n in noise]).amax(0)
    peaks = peaks.clamp(min=max(1e-6, FLOOR * float(peaks.max())))
    columns = torch.stack([w.abs().amax((0, 2, 3)) for w in weights]).amax(0).clamp(min=1e-9)
    log_scale = 0.5 * (peaks / columns).log()
    log_scale -= log_scale.mean()
    with torch.enable_grad():
        readers = [_Reader(w, n, log_scale, levels) for w, n in zip(weights, noise, strict=True)]
        log_scale.requires_grad_()
        parameters = [log_scale] + [p for r in readers for p in (r.log_step, r.log_weight_step)]
        optimizer = torch.optim.Adam(parameters, lr=0.05)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
            loss = torch.stack([r.error(log_scale) for r in readers]).sum().log()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = log_scale.detach().double()
    return (found - found.mean()).exp()


def predicted_error(conv: nn.Conv2d, noise: SiteNoise, levels: int = 127) -> float:
    """Mean squared error of the picture when this convolution alone is int8, at its best steps."""
    weight = conv.weight.detach().float()
    ones = torch.zeros(weight.shape[1])
    with torch.enable_grad():
        reader = _Reader(weight, _thinned(noise, 512), ones, levels)
        optimizer = torch.optim.Adam([reader.log_step, reader.log_weight_step], lr=0.05)
        for _ in range(40):
            loss = reader.error(ones).log()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(reader.error(ones).detach())


class _Reader:
    """The predicted error of one convolution in int8, as a function of its input's log scales."""

    def __init__(self, weight: Tensor, noise: SiteNoise, log_scale: Tensor, levels: int) -> None:
        self.weight, self.noise, self.levels = weight, noise, levels
        scale = log_scale.exp()
        peak = (torch.maximum(noise.high, -noise.low) / scale).amax()
        rows = (weight.abs() * scale[:, None, None]).amax((1, 2, 3)).clamp(min=1e-9)
        self.log_step = (peak / levels).log().requires_grad_()
        self.log_weight_step = (rows / 127).log().requires_grad_()

    def error(self, log_scale: Tensor) -> Tensor:
        """Mean squared error of the picture from rounding the input and the weights."""
        scale = log_scale.exp()
        of_input = _rounding(self.noise.values.abs() / scale, self.log_step.exp(), self.levels)
        of_input = (of_input * self.noise.gains).mean(0) @ scale.square()
        steps = self.log_weight_step.exp()[:, None, None, None]
        wide = scale[:, None, None]
        of_weight = _rounding(self.weight.abs() * wide, steps, 127)
        return of_input + (of_weight * self.noise.weight_gains / wide.square()).sum()


def _thinned(noise: SiteNoise, positions: int) -> SiteNoise:
    stride = max(1, len(noise.values) // positions)
    return replace(noise, values=noise.values[::stride], gains=noise.gains[::stride])


def _rounding(values: Tensor, step: Tensor, levels: int) -> Tensor:
    """Expected squared error of rounding magnitudes to multiples of ``step``, clipped at levels.

    A smooth model: a uniform error of variance ``step ** 2 / 12``, but never more than the value
    itself (0 is always a multiple), and the part beyond the last level.
    """
    uniform = step.square() / 12
    energy = values.square()
    beyond = (values * MARGIN - levels * step).clamp(min=0)
    return energy * uniform / (energy + uniform) + beyond.square()
