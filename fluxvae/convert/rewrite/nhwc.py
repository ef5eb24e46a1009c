"""A decoder whose activations are NHWC throughout.

Core ML's convolution, upsampling and group normalisation want channels second, so each of these
modules gets a permutation before and after it; everything elementwise runs on NHWC as it is.
State-dict names stay upstream's.
"""

import copy

from torch import Tensor, nn

_CHANNELS_SECOND = (nn.Conv2d, nn.Upsample, nn.GroupNorm)


class ChannelsLast(nn.Module):
    """Runs an NCHW module on NHWC values: (B, H, W, C) to (B, H', W', C')."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def nhwc_inside(network: nn.Module) -> nn.Module:
    """A copy of ``network`` that takes, computes and returns NHWC. Shares the parameters."""
    if isinstance(network, _CHANNELS_SECOND):
        return ChannelsLast(network)
    twin = copy.copy(network)
    twin._modules = {
        name: None if child is None else nhwc_inside(child)
        for name, child in network._modules.items()
    }
    return twin
