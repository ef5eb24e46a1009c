"""The full KL autoencoders of FLUX.1 and FLUX.2, and FLUX.2's small decoder.

Architecture and names follow diffusers' ``AutoencoderKL`` and ``AutoencoderKLFlux2``
(``models/autoencoders/vae.py`` of https://github.com/huggingface/diffusers), so that
``load_state_dict(strict=True)`` is the loader.

Shapes: latent (B, C, H/8, W/8), image (B, 3, H, W) in about [-1, 1]. C is 16 for FLUX.1 and 32
for FLUX.2. The attention sees the whole map: a decoded part is not a part of the decoded whole.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxvae.networks.attention import EPS, Attention
from fluxvae.networks.catalog import KLForm
from fluxvae.networks.kl_keys import RESNETS
from fluxvae.networks.structure import Layer, Residual, Step, VAEInput, VAEOutput, row

_SILU = Layer("", F.silu)


class Resnet(nn.Module):
    """Two normalised 3x3 convolutions around a skip: (B, C_in, H, W) to (B, C_out, H, W)."""

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, before, EPS)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, after, EPS)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, after, 1) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h

    def steps(self, name: str) -> tuple[Step, ...]:
        """As ``structure.Described`` asks."""
        branch = (
            *row(self, name, "norm1"),
            _SILU,
            *row(self, name, "conv1", "norm2"),
            _SILU,
            *row(self, name, "conv2"),
        )
        return (Residual(branch, row(self, name, "conv_shortcut")),)


class Middle(nn.Module):
    """Residual block, attention, residual block, at latent resolution."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, groups)])
        self.resnets = nn.ModuleList([Resnet(channels, channels, groups) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))

    def steps(self, name: str) -> tuple[Step, ...]:
        """As ``structure.Described`` asks."""
        return row(self, name, "resnets.0", "attentions.0", "resnets.1")


class Upsample(nn.Module):
    """Nearest neighbours, twice as large, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resize = nn.Upsample(scale_factor=2.0)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.resize(x))

    def steps(self, name: str) -> tuple[Step, ...]:
        """As ``structure.Described`` asks."""
        return row(self, name, "resize", "conv")


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2, padded on the right and below only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pad(x))

    def steps(self, name: str) -> tuple[Step, ...]:
        """As ``structure.Described`` asks."""
        return row(self, name, "pad", "conv")


class UpBlock(nn.Module):
    """Three residual blocks, then (but for the last stage) an upsampler."""

    def __init__(self, before: int, after: int, groups: int, *, last: bool) -> None:
        super().__init__()
        self.resnets = _resnets(before, after, groups, RESNETS["decoder"])
        self.upsamplers = None if last else nn.ModuleList([Upsample(after)])

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.upsamplers is None else self.upsamplers[0](x)

    def steps(self, name: str) -> tuple[Step, ...]:
        """As ``structure.Described`` asks."""
        return row(self, name, "resnets", "upsamplers")


class DownBlock(nn.Module):
    """Two residual blocks, then (but for the last stage) a downsampler."""

    def __init__(self, before: int, after: int, groups: int, *, last: bool) -> None:
        super().__init__()
        self.resnets = _resnets(before, after, groups, RESNETS["encoder"])
        self.downsamplers = None if last else nn.ModuleList([Downsample(after)])

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.downsamplers is None else self.downsamplers[0](x)

    def steps(self, name: str) -> tuple[Step, ...]:
        """As ``structure.Described`` asks."""
        return row(self, name, "resnets", "downsamplers")


def _resnets(before: int, after: int, groups: int, count: int) -> nn.ModuleList:
    return nn.ModuleList([Resnet(before if i == 0 else after, after, groups) for i in range(count)])


class Statistics(nn.Module):
    """FLUX.2's batch-norm over the packed latent, as data: (4 C,) mean and variance.

    ``decoder input = x * sqrt(running_var + 1e-4) + running_mean`` of the sampler's packed latent;
    the plain decoder takes a latent that has been through this.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))


class Stem(nn.Module):
    """How a decoder begins: latent (B, C, h, w) to (B, widest, h, w)."""

    def __init__(self, decoder: "KLDecoder") -> None:
        super().__init__()
        self.post_quant_conv = decoder.post_quant_conv
        self.conv_in = decoder.conv_in

    def forward(self, z: Tensor) -> Tensor:
        return self.conv_in(z if self.post_quant_conv is None else self.post_quant_conv(z))


class Head(nn.Module):
    """How a decoder ends: (B, narrowest, H, W) to image (B, 3, H, W)."""

    def __init__(self, decoder: "KLDecoder") -> None:
        super().__init__()
        self.conv_norm_out = decoder.conv_norm_out
        self.conv_out = decoder.conv_out

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class KLDecoder(nn.Module):
    """Latent (B, C, h, w) in the VAE's own space to image (B, 3, 8h, 8w) in about [-1, 1].

    Names are diffusers' without the leading ``decoder.``; ``post_quant_conv`` and ``bn`` exist
    for FLUX.2 alone. ``bn`` takes no part in ``forward`` (see ``Statistics``), and None stands for
    a file that has no ``statistics``.
    """

    def __init__(self, channels: int, form: KLForm, *, statistics: bool = True) -> None:
        super().__init__()
        widths, groups = form.widths[::-1], form.groups
        self.post_quant_conv = nn.Conv2d(channels, channels, 1) if form.quant_convs else None
        self.bn = Statistics(4 * channels) if form.quant_convs and statistics else None
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups)
        steps = list(pairwise((widths[0], *widths)))
        self.up_blocks = nn.ModuleList(
            [UpBlock(*step, groups, last=i + 1 == len(steps)) for i, step in enumerate(steps)]
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv_in(z if self.post_quant_conv is None else self.post_quant_conv(z))
        x = self.mid_block(x)
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def vae_input(self) -> VAEInput:
        """As ``structure.TakesVAELatent`` asks."""
        return VAEInput("conv_in", "post_quant_conv" if self.post_quant_conv else None, self.bn)

    def stages(self) -> list[nn.Module]:
        """As ``structure.Row`` asks."""
        blocks = [b for b in self.up_blocks if isinstance(b, UpBlock)]
        stages = [stage for b in blocks for stage in (*b.resnets, *(b.upsamplers or ()))]
        return [Stem(self), self.mid_block, *stages, Head(self)]

    def steps(self, name: str) -> tuple[Step, ...]:
        """As ``structure.Described`` asks."""
        order = ("post_quant_conv", "conv_in", "mid_block", "up_blocks", "conv_norm_out")
        return (*row(self, name, *order), _SILU, *row(self, name, "conv_out"))


class ToSigned(nn.Module):
    """Image values in [0, 1] to [-1, 1]."""

    def forward(self, image: Tensor) -> Tensor:
        return image * 2 - 1


class Mean(nn.Module):
    """The mean of moments (B, 2 C, h, w): their first half. The other is the log variance."""

    def forward(self, moments: Tensor) -> Tensor:
        return moments.chunk(2, dim=1)[0]


class KLEncoder(nn.Module):
    """Image (B, 3, 8h, 8w) in [0, 1] to the mean latent (B, C, h, w) in the VAE's own space.

    diffusers' encoder takes [-1, 1]; the scaling is here, as every encoder of ours takes photos.
    Names are diffusers' without the leading ``encoder.``. ``bn`` is the decoder's (see
    ``KLDecoder``): it leads from this latent to the sampler's, and takes no part in ``forward``.
    """

    def __init__(self, channels: int, form: KLForm, *, statistics: bool = True) -> None:
        super().__init__()
        widths, groups = form.encoder_widths, form.groups
        self.signed = ToSigned()
        self.bn = Statistics(4 * channels) if form.quant_convs and statistics else None
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        steps = list(pairwise((widths[0], *widths)))
        self.down_blocks = nn.ModuleList(
            [DownBlock(*step, groups, last=i + 1 == len(steps)) for i, step in enumerate(steps)]
        )
        self.mid_block = Middle(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * channels, 3, padding=1)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1) if form.quant_convs else None
        self.mean = Mean()

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv_in(self.signed(image))
        for block in self.down_blocks:
            x = block(x)
        x = self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))
        return self.mean(x if self.quant_conv is None else self.quant_conv(x))

    def vae_output(self) -> VAEOutput:
        """As ``structure.GivesLatent`` asks."""
        quant = "quant_conv" if self.quant_conv else None
        return VAEOutput("conv_out", quant, "mean", self.bn)

    def steps(self, name: str) -> tuple[Step, ...]:
        """As ``structure.Described`` asks."""
        order = ("signed", "conv_in", "down_blocks", "mid_block", "conv_norm_out")
        return (*row(self, name, *order), _SILU, *row(self, name, "conv_out", "quant_conv", "mean"))
