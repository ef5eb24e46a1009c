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
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from fluxvae.compress.noise import SiteNoise
from fluxvae.networks.structure import Stream, convolution, divided, streams

# Values are compared with the last level as if they were this much larger: photos that were not
# seen reach further than those that were (measured: 0.6 dB on held-out photos).
MARGIN = 1.2
# Of the error that weights rounded to nearest would show: compensated ones show about that part.
WEIGHT_ERROR = 0.3
RATE = 0.05  # of Adam, on logarithms
FLOOR = 0.05  # of the largest channel: for channels that were silent in calibration


def channel_groups(decoder: nn.Module) -> tuple[Stream, ...]:
    """The streams whose channels can be scaled: of each stage and inside each block."""
    return tuple(s for s in streams(decoder) if s.writers and s.readers and not s.norms)


def apply_scales(decoder: nn.Module, scales: Mapping[str, Tensor]) -> nn.Module:
    """A copy of ``decoder`` with each group's channels divided by its scales (C,), all positive.

    Groups not named keep theirs. Computed in float64 and rounded to the decoder's own dtype.
    """
    equal = copy.deepcopy(decoder)
    for name, layer in divided(decoder, channel_groups(decoder), scales).items():
        equal.set_submodule(name, layer)
    return equal


def scaled_noise(
    decoder: nn.Module, noise: Mapping[str, SiteNoise], scales: Mapping[str, Tensor]
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
    decoder: nn.Module,
    noise: Mapping[str, SiteNoise],
    *,
    quantized: Collection[str],
    kind: str,
    steps: int = 200,
) -> dict[str, Tensor]:
    """Scales of every group that a quantized convolution reads, with geometric mean 1.

    ``quantized`` names the convolutions in int8; ``kind`` is that of their inputs (``ranges``);
    ``steps`` of gradient descent on the predicted error for each group. 200 are within 0.1 dB of
    what more would find.
    """
    scales = {}
    for group in channel_groups(decoder):
        readers = {name: noise[name] for name in group.readers if name in quantized}
        if readers:
            weights = [_weight(decoder, name) for name in readers]
            scales[group.name] = _balance(weights, list(readers.values()), kind, steps)
    return scales


def predicted_error(
    decoder: nn.Module, name: str, noise: SiteNoise, kind: str, *, steps: int = 60
) -> float:
    """Mean squared error of the picture with this convolution alone in int8, at its best steps."""
    weight = _weight(decoder, name)
    same = torch.zeros(weight.shape[1])
    with torch.enable_grad():
        reader = _Reader(weight, noise, same, kind)
        _descend([reader.log_ends, reader.log_weight_step], lambda: reader.error(same), steps)
        return float(reader.error(same).detach())


def _balance(weights: list[Tensor], noise: list[SiteNoise], kind: str, steps: int) -> Tensor:
    """Minimize the predicted error over log scales, together with all ranges and weight steps."""
    peaks = torch.stack([torch.maximum(n.high, -n.low) for n in noise]).amax(0)
    peaks = peaks.clamp(min=max(1e-6, FLOOR * float(peaks.max())))
    columns = torch.stack([w.abs().amax((0, 2, 3)) for w in weights]).amax(0).clamp(min=1e-9)
    log_scale = 0.5 * (peaks / columns).log()
    log_scale -= log_scale.mean()
    with torch.enable_grad():
        readers = [_Reader(w, n, log_scale, kind) for w, n in zip(weights, noise, strict=True)]
        parameters = [p for r in readers for p in (r.log_ends, r.log_weight_step)]
        _descend(
            [log_scale.requires_grad_(), *parameters],
            lambda: torch.stack([r.error(log_scale) for r in readers]).sum(),
            steps,
        )
    found = log_scale.detach().double()
    return (found - found.mean()).exp()


def _descend(parameters: list[Tensor], error: Callable[[], Tensor], steps: int) -> None:
    """Adam on the logarithm of ``error``, the rate falling to zero."""
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
        optimizer.zero_grad()
        error().log().backward()
        optimizer.step()


class _Reader:
    """The predicted error of one convolution in int8, as a function of its input's log scales."""

    def __init__(self, weight: Tensor, noise: SiteNoise, log_scale: Tensor, kind: str) -> None:
        self.weight, self.weight_gains = weight, WEIGHT_ERROR * noise.weight_gains
        self.values, self.gains = _summary(noise)
        scale = log_scale.detach().exp()
        high, low = float((noise.high / scale).max()), float((-noise.low / scale).max())
        self.two_sided = kind == "zero-point" and low > 1e-3 * high
        ends = [high, low] if self.two_sided else [max(high, low)]
        self.levels = 255 if kind == "zero-point" else 127
        rows = (weight.abs() * scale[:, None, None]).amax((1, 2, 3)).clamp(min=1e-9)
        self.log_ends = torch.tensor(ends).clamp(min=1e-6).log().requires_grad_()
        self.log_weight_step = (rows / 127).log().requires_grad_()

    def error(self, log_scale: Tensor) -> Tensor:
        """Mean squared error of the picture from rounding the input and the weights."""
        scale = log_scale.exp()
        ends = self.log_ends.exp()
        values = self.values / scale
        step = ends.sum() / self.levels
        if self.two_sided:
            beyond = _beyond(values, ends[0]) + _beyond(-values, ends[1])
        else:
            beyond = _beyond(values.abs(), ends[0])
        of_input = ((_rounding(values, step) + beyond) * self.gains).sum(0) @ scale.square()
        wide = scale[:, None, None]
        weight_step = self.log_weight_step.exp()[:, None, None, None]
        weight = self.weight * wide
        clipped = (weight.abs() - 127 * weight_step).clamp(min=0).square()
        of_weight = (_rounding(weight, weight_step) + clipped) * self.weight_gains / wide.square()
        return of_input + of_weight.sum()


def _rounding(values: Tensor, step: Tensor) -> Tensor:
    """Expected squared error of rounding to multiples of ``step``, in a smooth model.

    A uniform error of variance ``step ** 2 / 12``, but never more than the value itself: 0 is
    always a multiple.
    """
    uniform = step.square() / 12
    energy = values.square()
    return energy * uniform / (energy + uniform)


def _beyond(values: Tensor, end: Tensor) -> Tensor:
    return (MARGIN * values - end).clamp(min=0).square()


def _summary(noise: SiteNoise, *, groups: int = 96, tails: int = 32) -> tuple[Tensor, Tensor]:
    """Fewer values (R, I) and gains (R, I, summing to the channel's) that predict the same.

    Each channel's values in order: the ``tails`` least and largest as they are, those between in
    ``groups`` of equal count, each at its root mean square.
    """
    values, order = noise.values.sort(0)
    gains = noise.gains.gather(0, order) / len(values)
    if len(values) <= groups + 2 * tails:
        return values, gains
    parts = [values[:tails], values[-tails:]], [gains[:tails], gains[-tails:]]
    middle = values[tails:-tails].tensor_split(groups), gains[tails:-tails].tensor_split(groups)
    means = [v.square().mean(0, keepdim=True).sqrt() * v.mean(0).sign() for v in middle[0]]
    sums = [g.sum(0, keepdim=True) for g in middle[1]]
    return torch.cat(parts[0] + means), torch.cat(parts[1] + sums)


def _weight(decoder: nn.Module, name: str) -> Tensor:
    return convolution(decoder, name).weight.detach().float()
