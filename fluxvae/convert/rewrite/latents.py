"""Which latent a network takes or gives: what lies between it and the sampler, folded into it.

Every form equals, in real numbers, the arithmetic of ``fluxvae.data.spaces`` before the decoder or
after the encoder.
A patch's numbers are in the order (channel, row, column), which is ``pixel_shuffle``'s own: FLUX's
rank-6 permutations are one operation each, and take no rank above 4.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxvae.convert.rewrite.replace import with_parts
from fluxvae.errors import WeightsError
from fluxvae.networks.kl_keys import NO_STATISTICS, STATISTICS_EPS
from fluxvae.networks.structure import GivesVAELatent, TakesVAELatent, convolution, stages
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


class PackTokens(nn.Module):
    """Patches (B, 4 C, rows, columns) to tokens (B, rows * columns, 4 C), row by row."""

    def forward(self, patches: Tensor) -> Tensor:
        return patches.flatten(2).transpose(1, 2)


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


def with_encoded_latents(encoder: nn.Module, variant: str, form: str) -> nn.Module:
    """A copy of ``encoder`` that gives another form of latent; shares the other parameters.

    All that follows its last 3x3 convolution (the 1x1 convolution, dropping the log variance, scale
    and shift or batch norm, packing) is folded into that one, in float64; its dtype is kept.
    ``form``: ``vae``, ``sampler`` or ``packed``. Raises WeightsError as ``with_latents``.
    """
    own = "vae" if isinstance(encoder, GivesVAELatent) else "sampler"
    if own == form == "sampler":
        return encoder
    name, weight, bias, statistics = _last_convolution(encoder)
    channels, like = len(weight), convolution(encoder, name).weight
    factor = torch.ones(channels, PATCH**2, dtype=torch.float64)
    shift = torch.zeros_like(factor)
    if (own == "vae") != (form == "vae"):
        factor, shift = _affine(variant, channels, own, statistics)
    if form != "packed" and (factor == factor[:, :1]).all() and (shift == shift[:, :1]).all():
        scale = factor[:, 0]
        last: nn.Module = _conv(
            weight * scale[:, None, None, None], bias * scale + shift[:, 0], like, padding=1
        )
    else:
        tokens = form == "packed" and variant == "flux1"
        after = PackTokens() if tokens else Unpack() if form != "packed" else nn.Identity()
        last = nn.Sequential(_patched(weight, bias, factor, shift, like), after)
    parts = {name: last}
    if isinstance(encoder, GivesVAELatent):
        end = encoder.vae_output()
        parts |= {part: nn.Identity() for part in (end.quant, end.mean) if part is not None}
    return with_parts(encoder, parts)


def folded_layers(network: nn.Module, variant: str, part: str, form: str) -> tuple[nn.Conv2d, ...]:
    """The convolutions that stand for those of ``folded_sites``."""
    if part == "encoder":
        made = with_encoded_latents(network, variant, form)
    else:
        made = with_latents(network, variant, form, patches=(1, 1))
    own = set(network.modules())
    return tuple(m for m in made.modules() if isinstance(m, nn.Conv2d) and m not in own)


def folded_sites(network: nn.Module, part: str, form: str) -> frozenset[str]:
    """Names of the convolutions that ``with_latents`` and ``with_encoded_latents`` replace."""
    if isinstance(network, GivesVAELatent):
        end = network.vae_output()
        return frozenset(name for name in (end.conv, end.quant) if name is not None)
    if isinstance(network, TakesVAELatent):
        own = network.vae_input()
        return frozenset(() if form == "vae" else (own.quant or own.conv,))
    if part == "decoder" or form == "sampler":
        return frozenset()
    return frozenset({_last_name(network)})


def _last_name(encoder: nn.Module) -> str:
    return list(dict(encoder.named_children()))[-1]


def _last_convolution(encoder: nn.Module) -> tuple[str, Tensor, Tensor, nn.Module | None]:
    """Name, weight and bias of a 3x3 convolution that gives the network's own latent, in float64,
    and FLUX.2's statistics.
    """
    if not isinstance(encoder, GivesVAELatent):
        name = _last_name(encoder)
        return name, *_parts(convolution(encoder, name)), None
    end = encoder.vae_output()
    weight, bias = _parts(convolution(encoder, end.conv))
    if end.quant is not None:
        matrix, offset = _parts(convolution(encoder, end.quant))
        weight = torch.einsum("om,mihw->oihw", matrix[:, :, 0, 0], weight)
        bias = matrix[:, :, 0, 0] @ bias + offset
    half = len(weight) // 2  # the mean; the other half is the log variance
    return end.conv, weight[:half], bias[:half], end.statistics


def _affine(
    variant: str, channels: int, own: str, statistics: nn.Module | None
) -> tuple[Tensor, Tensor]:
    """Factor and shift (C, 4) by position in a patch, from the ``own`` space to the other one."""
    whole = torch.ones(channels, PATCH**2, dtype=torch.float64)
    if variant == "flux1" and own == "vae":
        return whole * FLUX1_SCALE, whole * (-FLUX1_SHIFT * FLUX1_SCALE)
    if variant == "flux1":
        return whole / FLUX1_SCALE, whole * FLUX1_SHIFT
    mean, deviation = _by_position(statistics, channels)
    return 1 / deviation, -mean / deviation


def _patched(
    weight: Tensor, bias: Tensor, factor: Tensor, shift: Tensor, like: Tensor
) -> nn.Conv2d:
    """A 3x3 convolution, packing and an affine of each packed channel as one convolution.

    The four pixels of a patch read windows of 3 x 3 that lie one pixel apart: 4 x 4 with stride 2.
    """
    channels, into = weight.shape[:2]
    wide = weight.new_zeros(channels, PATCH**2, into, 3 + 1, 3 + 1)
    for position in range(PATCH**2):
        row, column = divmod(position, PATCH)
        scaled = weight * factor[:, position, None, None, None]
        wide[:, position, :, row : row + 3, column : column + 3] = scaled
    return _conv(
        wide.reshape(-1, into, 4, 4), (bias[:, None] * factor + shift).reshape(-1), like, PATCH, 1
    )


def _by_position(statistics: nn.Module | None, channels: int) -> tuple[Tensor, Tensor]:
    """FLUX.2's mean and deviation (C, 4), by position in a patch, float64."""
    if statistics is None:
        raise WeightsError(NO_STATISTICS)
    mean = statistics.get_buffer("running_mean").double().reshape(channels, -1)
    deviation = (statistics.get_buffer("running_var").double() + STATISTICS_EPS).sqrt()
    return mean, deviation.reshape(channels, -1)


def _conv(
    weight: Tensor, bias: Tensor, like: Tensor, stride: int = 1, padding: int = 0
) -> nn.Conv2d:
    out, into, side, _ = weight.shape
    conv = nn.Conv2d(into, out, side, stride, padding, dtype=like.dtype)
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
    quant = convolution(decoder, name)
    weight, bias = _parts(quant)
    out, channels = weight.shape[:2]
    mean, deviation = _by_position(statistics, channels)
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
