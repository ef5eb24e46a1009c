"""TAEF1 and TAEF2: the tiny autoencoders of FLUX.1 and FLUX.2.

Architecture and names follow ``taesd.py`` of https://github.com/madebyollin/taesd (MIT):
each network is one Sequential, so ``load_state_dict(strict=True)`` is the loader.

Shapes: latent (B, C, H/8, W/8), image (B, 3, H, W) in about [0, 1] (photos overshoot by up
to 0.1 on either side; clamp only when making pixels). C is 16 for TAEF1 and 32 for TAEF2.
TAEF2's blocks at latent resolution add a GroupNorm branch (``pool``), which sees the whole map.
"""

import torch
from torch import Tensor, nn

from fluxvae.networks.structure import Residual, Step, row

WIDTH = 64


class LatentClamp(nn.Module):
    """Soft limit of a latent to (-3, 3): ``3 tanh(x / 3)``."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _conv3(channels_in: int, channels_out: int, *, bias: bool = True, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=bias)


def _pool_branch(channels: int) -> nn.Sequential:
    wide = 4 * channels
    return nn.Sequential(
        nn.Conv2d(channels, wide, 1, bias=False),
        nn.GroupNorm(4, wide),
        nn.ReLU(),
        nn.Conv2d(wide, channels, 1, bias=False),
    )


class Block(nn.Module):
    """Three 3x3 convolutions around an identity skip; shape (B, C, H, W) is kept."""

    def __init__(self, channels: int = WIDTH, *, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv3(channels, channels),
            nn.ReLU(),
            _conv3(channels, channels),
            nn.ReLU(),
            _conv3(channels, channels),
        )
        self.fuse = nn.ReLU()
        self.pool = _pool_branch(channels) if pool else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return self.fuse(self.conv(x) + x)

    def steps(self, name: str) -> tuple[Step, ...]:
        """As ``structure.Described`` asks."""
        pool = () if self.pool is None else (Residual(row(self, name, "pool"), role="pool"),)
        return (*pool, Residual(row(self, name, "conv")), *row(self, name, "fuse"))


def tiny_decoder(latent_channels: int, *, pool: bool) -> nn.Sequential:
    """Latent (B, latent_channels, h, w) to image (B, 3, 8h, 8w); state-dict keys as in taesd.

    ``pool`` adds the GroupNorm branch of TAEF2 to the three blocks at latent resolution.
    """
    layers: list[nn.Module] = [
        LatentClamp(),
        _conv3(latent_channels, WIDTH),  # (B, 64, h, w)
        nn.ReLU(),
    ]
    for stage in range(3):
        layers += [Block(pool=pool and stage == 0) for _ in range(3)]
        layers += [
            nn.Upsample(scale_factor=2),  # (B, 64, 2h, 2w), then 4h, then 8h
            _conv3(WIDTH, WIDTH, bias=False),
        ]
    layers += [Block(), _conv3(WIDTH, 3)]  # (B, 3, 8h, 8w)
    return nn.Sequential(*layers)


def tiny_encoder(latent_channels: int, *, pool: bool) -> nn.Sequential:
    """Image (B, 3, 8h, 8w) in [0, 1] to latent (B, latent_channels, h, w)."""
    layers: list[nn.Module] = [_conv3(3, WIDTH), Block()]  # (B, 64, 8h, 8w)
    for stage in range(3):
        layers.append(_conv3(WIDTH, WIDTH, stride=2, bias=False))  # 4h, then 2h, then h
        layers += [Block(pool=pool and stage == 2) for _ in range(3)]
    layers.append(_conv3(WIDTH, latent_channels))  # (B, latent_channels, h, w)
    return nn.Sequential(*layers)
