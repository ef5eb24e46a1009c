"""The convolutions of a decoder in the order they run: names, roles, shares of the arithmetic."""

from dataclasses import dataclass

from torch import nn

from fluxvae.networks.tiny import Block


@dataclass(frozen=True)
class Site:
    """One convolution. ``name`` is its module name (``"3.conv.0"``).

    ``role``: ``in`` (first), ``out`` (last), ``up`` (after an upsampling), ``pool`` (TAEF2's
    branch), ``block`` (inside a block) or ``block-end`` (its output is added to the skip path).
    ``scale`` is the map's side over the latent's: 1, 2, 4 or 8. ``macs`` are multiply-accumulates
    for each latent pixel.
    """

    name: str
    role: str
    scale: int
    macs: int
    shape: tuple[int, int, int, int]  # of the weight: (O, I, kh, kw)


def conv_sites(decoder: nn.Sequential) -> tuple[Site, ...]:
    """Every convolution of a tiny decoder, in execution order."""
    sites: list[Site] = []
    scale = 1
    convolutions = [
        name for name, layer in decoder.named_children() if isinstance(layer, nn.Conv2d)
    ]
    for name, layer in decoder.named_children():
        if isinstance(layer, nn.Upsample):
            scale *= 2
        elif isinstance(layer, nn.Conv2d):
            role = {convolutions[0]: "in", convolutions[-1]: "out"}.get(name, "up")
            sites.append(_site(name, role, scale, layer))
        elif isinstance(layer, Block):
            if layer.pool is not None:
                parts = [(f"{name}.pool.0", layer.pool[0]), (f"{name}.pool.3", layer.pool[3])]
                sites += [_site(part, "pool", scale, conv) for part, conv in parts]
            for index, role in ((0, "block"), (2, "block"), (4, "block-end")):
                sites.append(_site(f"{name}.conv.{index}", role, scale, layer.conv[index]))
    return tuple(sites)


def _site(name: str, role: str, scale: int, conv: nn.Module) -> Site:
    assert isinstance(conv, nn.Conv2d)
    out, into, height, width = conv.weight.shape
    return Site(
        name, role, scale, out * into * height * width * scale**2, (out, into, height, width)
    )
