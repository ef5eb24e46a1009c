"""Which latent a decoder takes: what lies between the sampler and the decoder, folded into it.

Every form equals, in real numbers, the arithmetic of ``fluxvae.data.spaces`` before the decoder.
A patch's numbers are in the order (channel, row, column), which is ``pixel_shuffle``'s own: FLUX's
rank-6 permutations are one operation each, and take no rank above 4.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxvae.convert.rewrite.replace import with_parts
from fluxvae.errors import WeightsError
from fluxvae.networks.kl_keys import NO_STATISTICS, STATISTICS_EPS
from fluxvae.networks.structure import TakesVAELatent, convolution, stages
from fluxvae.recipes.latents import FLUX1_SCALE, FLUX1_SHIFT, PATCH


class Unpack(nn.Module):
    """Patches (B, 4 C, h, w) to a map (B, C, 2 h, 2 w)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, PATCH)


class UnpackTokens(nn.Module):
    """Tokens (B, rows * columns, 4 C), row by row, to a map (B, C, 2 rows, 2 columns)."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, tokens: Tensor) -> Tensor:
        patches = tokens.transpose(1, 2).reshape(
            tokens.shape[0], tokens.shape[2], self.rows, self.columns
        )
        return F.pixel_shuffle(patches, PATCH)


class ToSampler(nn.Module):
    """FLUX.1's VAE latent to the sampler's: for a tiny decoder, whose clamp allows no fold."""

    def forward(self, z: Tensor) -> Tensor:
        return (z - FLUX1_SHIFT) * FLUX1_SCALE


class Fronted(nn.Module):
    """A decoder behind something else."""

    def __init__(self, front: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.front, self.decoder = front, decoder

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.decoder(self.front(latent))
        return image

    def stages(self) -> list[nn.Module]:
        """As ``networks.structure.Row`` asks."""
        return [self.front, *stages(self.decoder)]


def with_latents(
    decoder: nn.Module, variant: str, form: str, *, patches: tuple[int, int] | None = None
) -> nn.Module:
    """A copy of ``decoder`` that takes another form of latent; shares the other parameters.

    ``decoder`` is a KL decoder, or a tiny one (which takes the sampler's latent as it is).
    ``form``: ``vae``, ``sampler`` or ``packed``. ``patches``: rows and columns of FLUX.1's tokens.
    Its dtype is kept; the folds are computed in float64. Raises WeightsError where FLUX.2's
    batch-norm statistics are needed and the decoder has none.
    """
    if isinstance(decoder, TakesVAELatent):
        own = decoder.vae_input()
        if form == "vae":
            return decoder
        if own.quant is not None:
            return _denormalised(decoder, own.quant, own.statistics, packed=form == "packed")
        decoder = _rescaled_input(decoder, own.conv)
    elif form == "vae":
        return Fronted(ToSampler(), decoder)
    if form != "packed":
        return decoder
    if variant == "flux2":
        return Fronted(Unpack(), decoder)
    if patches is None:
        raise ValueError("tokens need the rows and columns of their patches")
    return Fronted(UnpackTokens(*patches), decoder)


def _conv(weight: Tensor, bias: Tensor, like: Tensor, stride: int = 1) -> nn.Conv2d:
    out, into, side, _ = weight.shape
    conv = nn.Conv2d(into, out, side, stride, dtype=like.dtype)
    conv.load_state_dict({"weight": weight.to(like.dtype), "bias": bias.to(like.dtype)})
    return conv


def _rescaled_input(decoder: nn.Module, name: str) -> nn.Module:
    """FLUX.1: ``x / scale + shift`` folded into the first convolution.

    Its zero padding was of the VAE's latent, so that the sampler's is padded with what stands for
    zero there: ``-shift * scale``.
    """
    conv = convolution(decoder, name)
    weight, bias = _parts(conv)
    folded = _conv(weight / FLUX1_SCALE, bias + FLUX1_SHIFT * weight.sum((1, 2, 3)), conv.weight)
    pad = nn.ConstantPad2d(1, -FLUX1_SHIFT * FLUX1_SCALE)
    return with_parts(decoder, {name: nn.Sequential(pad, folded)})


def _denormalised(
    decoder: nn.Module, name: str, statistics: nn.Module | None, *, packed: bool
) -> nn.Module:
    """FLUX.2: the inverse batch-norm folded into the 1x1 convolution ``name``.

    The statistics are of the packed latent, one mean and deviation for each of a patch's pixels. So
    the 1x1 convolution moves before the unpacking, where it has ``4 C`` channels, each output of
    position p reading inputs of position p alone. On an unpacked latent the same numbers are a
    convolution of 2 x 2 pixels with stride 2. ``conv_in`` could not absorb the means: its zero
    padding comes after them.
    """
    if statistics is None:
        raise WeightsError(NO_STATISTICS)
    quant = convolution(decoder, name)
    weight, bias = _parts(quant)
    out, channels = weight.shape[:2]
    mean = statistics.get_buffer("running_mean").double().reshape(channels, -1)  # (C, positions)
    deviation = (statistics.get_buffer("running_var").double() + STATISTICS_EPS).sqrt()
    deviation = deviation.reshape(channels, -1)
    positions = torch.eye(PATCH**2, dtype=torch.float64)
    matrix = weight[:, :, 0, 0]
    # (out, position of the output, channel, position of the input)
    spread = torch.einsum("oc,cp,pq->opcq", matrix, deviation, positions)
    shift = bias[:, None] + matrix @ mean  # (out, positions)
    form = (out * PATCH**2, -1, 1, 1) if packed else (out * PATCH**2, channels, PATCH, PATCH)
    conv = _conv(
        spread.reshape(form),
        shift.reshape(-1),
        quant.weight,
        1 if packed else PATCH,
    )
    return with_parts(decoder, {name: nn.Sequential(conv, Unpack())})


def _parts(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert conv.bias is not None
    return conv.weight.detach().double(), conv.bias.detach().double()
