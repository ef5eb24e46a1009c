"""Narrow KL decoders for the tests: diffusers' plan with few channels, and lively weights."""

import torch
from torch import nn

from fluxvae.catalog import KLForm
from fluxvae.models.kl import KLDecoder

CHANNELS = {"flux1": 16, "flux2": 32}
NARROW = (32, 32, 64, 64)


def narrow_form(variant: str, widths: tuple[int, ...] = NARROW) -> KLForm:
    """The variant's plan at other widths."""
    return KLForm(widths, widths, quant_convs=variant == "flux2")


def randomise(network: nn.Module, seed: int = 0) -> None:
    """Weights that keep activations like a trained decoder's, and no affine that is the identity.

    An image of standard deviation about 0.5; q and k give logits that attend.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(value: torch.Tensor, spread: float) -> torch.Tensor:
        return spread * torch.randn(value.shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name == "bn.running_var":
                value.copy_(draw(value, 0.4).exp())
            elif "norm" in name or name == "bn.running_mean":
                value.copy_(draw(value, 0.2) + name.endswith("weight"))
            elif value.dim() == 1:
                value.copy_(draw(value, 0.05))
            else:
                gain = 0.5 if name.endswith("conv2.weight") else 2.0
                gain = 0.6 if name.startswith("conv_out") else gain
                value.copy_(draw(value, (gain / value[0].numel()) ** 0.5))


def kl_decoder(variant: str = "flux1", widths: tuple[int, ...] = NARROW) -> KLDecoder:
    """A narrow KL decoder in float64, randomised."""
    network = KLDecoder(CHANNELS[variant], narrow_form(variant, widths)).double()
    randomise(network)
    return network.eval().requires_grad_(False)


def heat(decoder: KLDecoder, latent: torch.Tensor, hot: float, channel: int = 5) -> None:
    """Make one channel of the residual stream reach ``hot`` on ``latent``, through every stage.

    ``conv_in`` makes it, each upsampler and shortcut hands it on, and no other channel hears of it
    but through the norms.
    """
    with torch.no_grad():
        decoder.conv_in.weight[channel] *= 10  # well above what the branches add
        before = latent if decoder.post_quant_conv is None else decoder.post_quant_conv(latent)
        factor = hot / decoder.conv_in(before)[:, channel].abs().max()
        decoder.conv_in.weight[channel] *= factor
        decoder.conv_in.bias[channel] *= factor
        for name, module in decoder.named_modules():
            if name.endswith(("upsamplers.0.conv", "conv_shortcut")):
                middle = module.kernel_size[0] // 2
                module.weight[:, channel] = 0
                module.weight[channel] = 0
                module.weight[channel, channel, middle, middle] = 1
