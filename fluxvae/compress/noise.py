"""What a small error inside a decoder does to its picture, measured once by random probes.

For an error of variance ``e`` at one value of a convolution's input, the mean squared error of the
picture is ``e`` times a gain: the squared norm of that column of the Jacobian over the number of
output values. A random sign for each output value, carried back through the network, gives a
gradient whose square is that gain in expectation (Hutchinson's estimator,
https://doi.org/10.1080/03610919008812866). The same holds for an error of a weight. Errors of
rounding are nearly independent of each other, so gains add.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fluxvae.networks.structure import Site, conv_sites, convolution


@dataclass(frozen=True)
class SiteNoise:
    """One convolution's input and how much an error there or in its weight shows.

    ``values`` (P, I): its input at P random positions of the calibration's maps; ``gains`` (P, I):
    the mean squared error of the picture for an error of variance 1 at every position of the
    channel, as estimated at this one (their mean over P is the channel's gain). ``weight_gains``
    (O, I, kh, kw): the same for an error of variance 1 in that weight. ``low``, ``high`` (I,): the
    extremes over all positions. All float32.
    """

    values: Tensor
    gains: Tensor
    weight_gains: Tensor
    low: Tensor
    high: Tensor


def measure_noise(
    decoder: nn.Module, latents: Sequence[np.ndarray], *, positions: int = 4096, seed: int = 0
) -> dict[str, SiteNoise]:
    """Gains of every convolution of ``decoder``, by site name.

    ``latents`` float32 (1, C, h, w); ``positions`` is the number kept for each site over all
    latents. About three decodes of each latent's cost. The same call gives the same numbers on one
    machine.
    """
    generator = torch.Generator().manual_seed(seed)
    sites = conv_sites(decoder)
    each = max(1, positions // len(latents))
    parts: dict[str, list[tuple[Tensor, ...]]] = {site.name: [] for site in sites}
    for latent in latents:
        for site, *part in _probe(decoder, sites, torch.from_numpy(latent), each, generator):
            parts[site.name].append(tuple(part))
    return {name: _collect(found) for name, found in parts.items()}


def _collect(parts: Sequence[tuple[Tensor, ...]]) -> SiteNoise:
    values, gains, weights, low, high = zip(*parts, strict=True)
    return SiteNoise(
        torch.cat(values),
        torch.cat(gains),
        torch.stack(weights).mean(0),
        torch.stack(low).amin(0),
        torch.stack(high).amax(0),
    )


def _probe(
    decoder: nn.Module,
    sites: Sequence[Site],
    latent: Tensor,
    each: int,
    generator: torch.Generator,
) -> Iterator[tuple]:
    """For each site: itself, values, gains, weight gains and extremes of one latent."""
    with torch.enable_grad(), _tapped(decoder, sites) as taps:
        picture = decoder(latent)
        signs = torch.randint(0, 2, picture.shape, generator=generator).float() * 2 - 1
        weights = [convolution(decoder, site.name).weight for site in sites]
        slopes = torch.autograd.grad(
            picture, [taps[site.name] for site in sites] + weights, grad_outputs=signs
        )
    inputs, of_weights = slopes[: len(sites)], slopes[len(sites) :]
    for site, slope, of_weight in zip(sites, inputs, of_weights, strict=True):
        value = taps[site.name].detach()
        size = value.shape[2] * value.shape[3]
        keep = torch.randint(0, size, (each,), generator=generator)
        rows = value[0].flatten(1)[:, keep].T.contiguous()
        gains = slope[0].flatten(1)[:, keep].T.square() * (size / picture.numel())
        flat = value[0].flatten(1)
        yield (
            site, rows, gains, of_weight.square() / picture.numel(), flat.amin(1), flat.amax(1),
        )  # fmt: skip


@contextmanager
def _tapped(decoder: nn.Module, sites: Sequence[Site]) -> Iterator[Mapping[str, Tensor]]:
    """Give each convolution a copy of its input that collects the gradient of this path alone."""
    taps: dict[str, Tensor] = {}

    def tap(name: str):  # type: ignore[no-untyped-def]
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            copy = args[0].clone()  # not the input itself: that one also feeds the skip path
            if not copy.requires_grad:
                copy.requires_grad_()
            taps[name] = copy
            return (copy,)

        return hook

    handles = [convolution(decoder, s.name).register_forward_pre_hook(tap(s.name)) for s in sites]
    convs = [convolution(decoder, site.name) for site in sites]
    before = [conv.weight.requires_grad for conv in convs]
    try:
        for conv in convs:
            conv.weight.requires_grad_(True)
        yield taps
    finally:
        for handle in handles:
            handle.remove()
        for conv, flag in zip(convs, before, strict=True):
            conv.weight.requires_grad_(flag)
