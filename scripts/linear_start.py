"""A closed-form and then linear start for the demo pairs, embedded in the tiny architectures.

Principal components of 8 x 8 patches are the best linear code of their size, and the tiny
networks can compute them exactly: strided convolutions gather patches, the blocks pass
non-negative values on, and a signed value travels as its positive and negative part. The decoder
starts as the best chain of its own convolutions without the blocks, which is quick to fit. Before
anything else is trained this is at 28.0 dB for flux2 (mean of the demo card's photos), where two
hours of training from random weights had come to 26.7.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fluxvae.networks.tiny import WIDTH, Block

PATCH = 8
LATENT_STD = 0.6  # of every channel over the training crops; small, for the decoder's soft clamp
SIGNED = WIDTH // 2  # signed values that fit into the width, a positive and a negative part each


def patch_components(crops: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Mean (192,) and components (192, channels), scaled so that latents have LATENT_STD.

    ``crops`` is (N, 3, H, W). A patch is ordered (colour, row, column), as ``F.unfold`` gives it.
    """
    patches = F.unfold(crops, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1).double()
    mean = patches.mean(0)
    variances, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    return mean, vectors[:, -channels:] / variances[-channels:].sqrt() * LATENT_STD


class LinearDecoder(nn.Module):
    """The decoder's chain of convolutions alone: (B, C, h, w) to (B, 3, 8h, 8w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, SIGNED, 3, padding=1)
        self.up = nn.ModuleList(nn.Conv2d(SIGNED, SIGNED, 3, padding=1, bias=False) for _ in "123")
        self.last = nn.Conv2d(SIGNED, 3, 3, padding=1)
        with torch.no_grad():
            for layer in (self.first, *self.up):
                nn.init.normal_(layer.weight, std=0.3 / math.sqrt(9 * layer.in_channels))
                layer.weight[:, :, 1, 1] += nn.init.orthogonal_(layer.weight[:, :, 1, 1].clone())
            self.last.weight.mul_(0.3)
            self.last.bias.fill_(0.5)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.first(3 * torch.tanh(latent / 3))
        for layer in self.up:
            x = layer(F.interpolate(x, scale_factor=2))
        image: Tensor = self.last(x)
        return image


@torch.no_grad()
def embed_encoder(encoder: nn.Sequential, mean: Tensor, components: Tensor) -> None:
    """Set ``encoder`` (a tiny encoder, randomly initialised) to the patch code, exactly.

    Spare channels keep their random filters: the residual branches, which start at zero, may
    learn from them.
    """
    silence_branches(encoder)
    first, last = encoder[0], encoder[-1]
    down = [layer for layer in encoder if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)]
    _identity(first.weight, 3)
    first.bias[:3] = 0
    for depth, layer in enumerate(down[:2]):  # (c, y, x) of the half patch to (c, 2, 2)
        _gather(layer.weight, 3 * 4**depth)
    channels = components.shape[1]
    code = _patch_order(components).reshape(channels, 48, 2, 2).float()
    down[2].weight[: 2 * channels] = 0
    down[2].weight[:channels, :48, 1:, 1:] = code
    down[2].weight[channels : 2 * channels, :48, 1:, 1:] = -code
    last.weight.zero_()
    for k in range(channels):
        last.weight[k, k, 1, 1], last.weight[k, k + channels, 1, 1] = 1, -1
    last.bias.copy_(-(mean @ components).float())


def _identity(weight: Tensor, count: int) -> None:
    weight[:count] = 0
    for k in range(count):
        weight[k, k, 1, 1] = 1


def _gather(weight: Tensor, count: int) -> None:
    """Output channel 4 c + 2 y + x is pixel (y, x) of the 2 x 2 cell of input channel c."""
    weight[: 4 * count] = 0
    for c in range(count):
        for place in range(4):
            weight[4 * c + place, c, 1 + place // 2, 1 + place % 2] = 1


def _patch_order(components: Tensor) -> Tensor:
    """(192, C) in (colour, row, column) order to (C, 48 gathered channels, 2, 2)."""
    # row = 4 y2 + 2 y1 + y0: y0 is gathered first, y1 second, y2 by the third convolution
    bits = components.T.reshape(-1, 3, 2, 2, 2, 2, 2, 2)  # C, colour, y2, y1, y0, x2, x1, x0
    return bits.permute(0, 1, 4, 7, 3, 6, 2, 5).reshape(-1, 48, 2, 2)


@torch.no_grad()
def embed_decoder(decoder: nn.Sequential, linear: LinearDecoder) -> None:
    """Set ``decoder`` (a tiny decoder, randomly initialised) to ``linear``, exactly."""
    silence_branches(decoder)
    convolutions = [layer for layer in decoder if isinstance(layer, nn.Conv2d)]
    first, up, last = convolutions[0], convolutions[1:-1], convolutions[-1]
    first.weight.copy_(torch.cat([linear.first.weight, -linear.first.weight]))
    first.bias.copy_(torch.cat([linear.first.bias, -linear.first.bias]))
    for layer, chain in zip(up, linear.up, strict=True):
        row = torch.cat([chain.weight, -chain.weight], 1)
        layer.weight.copy_(torch.cat([row, -row]))
    last.weight.copy_(torch.cat([linear.last.weight, -linear.last.weight], 1))
    last.bias.copy_(linear.last.bias)


@torch.no_grad()
def silence_branches(network: nn.Sequential) -> None:
    """Let every block pass non-negative values on unchanged."""
    for module in network.modules():
        if isinstance(module, Block):
            module.conv[4].weight.zero_()
            module.conv[4].bias.zero_()
            if module.pool is not None:
                module.pool[3].weight.zero_()
