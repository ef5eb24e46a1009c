"""Input and output forms around a network: NHWC tensors, and images of 0..255.

Of a decoder whose activations are NHWC throughout Core ML's convolution, upsampling and group
normalisation still want channels second, so each of these modules gets a permutation before and
after it; everything elementwise runs on NHWC as it is. State-dict names stay upstream's.
"""

import torch
from torch import Tensor, nn

from fluxvae.convert.rewrite.replace import replaced

_CHANNELS_SECOND = (nn.Conv2d, nn.Upsample, nn.GroupNorm)


class NHWCInterface(nn.Module):
    """(B, h, w, C) to (B, H, W, C') around an NCHW network: two transposes.

    With ``planar`` the output stays NCHW, as image outputs and tokens are.
    """

    def __init__(self, decoder: nn.Module, *, planar: bool = False) -> None:
        super().__init__()
        self.decoder, self.planar = decoder, planar

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.decoder(latent.permute(0, 3, 1, 2))
        return image if self.planar else image.permute(0, 2, 3, 1)


class NHWCOutput(nn.Module):
    """NCHW output to NHWC, of what does not take NHWC itself (tokens, features, images)."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, *inputs: Tensor) -> Tensor:
        image: Tensor = self.part(*inputs)
        return image.permute(0, 2, 3, 1)


class PlanarOutput(nn.Module):
    """Image (B, H, W, 3) of an NHWC decoder to (B, 3, H, W): image outputs are planar."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.decoder(latent)
        return image.permute(0, 3, 1, 2)


class PixelInput(nn.Module):
    """Scales an 8-bit RGB image (B, 3, H, W) from [0, 255] to the encoder's [0, 1].

    ``nhwc``: for an encoder that takes NHWC, as image inputs are planar.
    """

    def __init__(self, encoder: nn.Module, *, nhwc: bool = False) -> None:
        super().__init__()
        self.encoder, self.nhwc = encoder, nhwc

    def forward(self, levels: Tensor) -> Tensor:
        image = levels * (1 / 255)
        latent: Tensor = self.encoder(image.permute(0, 2, 3, 1) if self.nhwc else image)
        return latent


class PixelOutput(nn.Module):
    """Scales an image from [low, high] to [0, 255] and clamps it, for an RGB image output.

    Core ML converts to 8 bits itself and allows no scale on an image output, so the scaling has
    to be in the graph.
    """

    def __init__(self, decoder: nn.Module, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.decoder = decoder
        self.factor = 255.0 / (high - low)
        self.shift = -low * self.factor

    def forward(self, latent: Tensor) -> Tensor:
        levels = self.decoder(latent) * self.factor
        if self.shift:
            levels = levels + self.shift
        return torch.clamp(levels, 0.0, 255.0)


class ChannelsLast(nn.Module):
    """Runs an NCHW module on NHWC values: (B, H, W, C) to (B, H', W', C')."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def nhwc_inside(network: nn.Module) -> nn.Module:
    """A copy of ``network`` that takes, computes and returns NHWC. Shares the parameters."""
    return replaced(
        network, lambda part: ChannelsLast(part) if isinstance(part, _CHANNELS_SECOND) else None
    )
