"""Ranges of 8-bit activations, from what calibration latents put into each convolution.

``minmax`` is coremltools' arithmetic; ``least_error`` gives up rare extremes for finer steps where
that shows less in the picture. Kinds: ``symmetric`` (int8, zero at 0, as coremltools'
``linear_symmetric``) and ``zero-point`` (uint8, 255 steps over the range, which after a ReLU starts
at 0; the type that coremltools' torch quantizer writes after a ReLU).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fluxvae.compress.fake import rounded
from fluxvae.compress.forms import Activation, to_float16
from fluxvae.compress.noise import SiteNoise
from fluxvae.compress.sites import conv_sites

LEAST_STEP = float(np.finfo(np.float16).tiny)
# Of the extremes. Photos that were not seen reach past those that were; see ``least_error``.
FRACTIONS = tuple(float(f) for f in np.geomspace(0.3, 1.3, 23))


def input_extremes(
    decoder: nn.Sequential, latents: Sequence[np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Least and largest value of each convolution's input over all latents, by site name.

    ``latents`` float32 (1, C, h, w). All samples count; coremltools 9.0's own calibration
    (``_update_tensor_range``) forgets all but the last.
    """
    found: dict[str, tuple[float, float]] = {}

    def watch(name: str):  # type: ignore[no-untyped-def]
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            low, high = found.get(name, (float("inf"), float("-inf")))
            least, largest = torch.aminmax(args[0])
            found[name] = (min(low, float(least)), max(high, float(largest)))

        return hook

    handles = [
        decoder.get_submodule(site.name).register_forward_pre_hook(watch(site.name))
        for site in conv_sites(decoder)
    ]
    try:
        with torch.no_grad():
            for latent in latents:
                decoder(torch.from_numpy(latent))
    finally:
        for handle in handles:
            handle.remove()
    return found


def minmax(low: float, high: float, kind: str) -> Activation:
    """The Activation that just holds ``low`` to ``high`` (and 0, which padding needs exactly)."""
    if kind == "symmetric":
        return Activation(_step(max(-low, high) / 127))
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return Activation(LEAST_STEP, 0, "uint8")
    zero_point = round(-255 * low / (high - low))  # with the step as it is before rounding
    return Activation(_step((high - low) / 255), min(255, max(0, zero_point)), "uint8")


def least_error(noise: SiteNoise, kind: str, *, margin: float = 1.0) -> Activation:
    """The Activation whose rounding shows least in the picture (squared errors times gains).

    Ranges between 0.3 and 1.3 times the extremes are tried, both ends apart where there is a zero
    point. ``margin`` above 1: values are held against the range's ends as if they were that much
    larger, for photos that reach further than calibration did.
    """
    values, gains = noise.values, noise.gains.mean(0)
    low, high = min(0.0, float(noise.low.min())), max(0.0, float(noise.high.max()))
    lows = FRACTIONS if kind == "zero-point" and low < 0 else (1.0,)
    tried = {
        minmax(low * f, high * g, kind) if len(lows) > 1 else minmax(low * g, high * g, kind): None
        for f in lows
        for g in FRACTIONS
    }
    return min(tried, key=lambda a: _shown(values, gains, a, margin))


def least_error_ranges(
    noise: Mapping[str, SiteNoise], names: Sequence[str], kind: str, *, margin: float = 1.0
) -> dict[str, Activation]:
    """``least_error`` of each named site."""
    return {name: least_error(noise[name], kind, margin=margin) for name in names}


def _shown(values: Tensor, gains: Tensor, activation: Activation, margin: float) -> float:
    inside = rounded(values, activation)
    if margin == 1:
        return float((inside - values).square().mean(0) @ gains)
    ends = rounded(torch.tensor([-1e30, 1e30]), activation)
    step = activation.scale
    wide = values * margin
    beyond = (wide - wide.clamp(float(ends[0]) - step / 2, float(ends[1]) + step / 2)).square()
    held = values.clamp(float(ends[0]), float(ends[1]))
    return float(((inside - held).square() + beyond).mean(0) @ gains)


def _step(value: float) -> float:
    """Exact in float16 and never less than its least normal number."""
    return max(LEAST_STEP, float(to_float16(np.array([value]))[0]))
