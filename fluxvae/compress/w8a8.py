"""Int8 weights and 8-bit activations after training: W8A8 without a Mac.

``compensated``: channels are equalized, the convolutions that are worst in int8 for their
arithmetic stay float within the share that the recipe leaves, ranges are those that show least, and
each convolution is then refitted to the inputs that the ones before it really give.
``plain``: what coremltools does with all statistics at hand: ranges that just hold the extremes,
weights rounded to nearest, every convolution.

Ranges are of kinds: ``symmetric`` (int8, zero at 0, as coremltools' ``linear_symmetric``) and
``zero-point`` (uint8, 255 steps over the range, which after a ReLU starts at 0; the type that
coremltools' torch quantizer writes after a ReLU). ``minmax`` is coremltools' arithmetic;
``least_error`` gives up rare extremes for finer steps where that shows less in the picture.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from fluxvae.compress.equalize import (
    MARGIN,
    apply_scales,
    choose_scales,
    predicted_error,
    scaled_noise,
)
from fluxvae.compress.fake import rounded
from fluxvae.compress.forms import Activation, CompressedDecoder, Scheme, to_float16
from fluxvae.compress.gptq import compensated
from fluxvae.compress.layerwise import Problem, Solution, compress_layerwise
from fluxvae.compress.nearest import plain_form
from fluxvae.compress.noise import SiteNoise, measure_noise
from fluxvae.compress.plain import Log
from fluxvae.compress.sensitivity import WINDOW, middle
from fluxvae.data.calibration import Calibration
from fluxvae.errors import CompressionError
from fluxvae.networks.structure import Site, conv_sites, convolution, input_scale, watch
from fluxvae.recipes.compression import Compression

INT8 = Scheme("int8", 8, "channel")
LEAST_STEP = float(np.finfo(np.float16).tiny)
# Of the extremes. Photos that were not seen reach past those that were; see ``least_error``.
FRACTIONS = tuple(float(f) for f in np.geomspace(0.3, 1.3, 23))


@dataclass(frozen=True)
class Effort:
    """How much is looked at. The defaults take minutes on two cores; less serves for tests.

    ``samples`` of each convolution's input, ``steps`` of descent on channel scales, ``positions``
    of each layer's fit.
    """

    samples: int = 8192
    steps: int = 200
    positions: int = 40_000


def quantize_w8a8(
    decoder: nn.Module,
    compression: Compression,
    precision: str,
    calibration: Calibration,
    log: Log = lambda _: None,
    *,
    effort: Effort = Effort(),
    keep: Collection[str] = (),
) -> CompressedDecoder:
    """``decoder`` (float32) with int8 convolutions; those to ``keep`` stay float.

    At least ``compression.int8_share`` of the multiply-accumulates are int8 (all with ``plain``).
    ``precision`` is the program's, to which int8 weights expand. ``log`` gets a line per stage.
    ``notes`` hold the share, the convolutions that stay float and the calibration's digest.
    Deterministic on one machine. Raises CompressionError when there are no latents.
    """
    if not calibration.latents:
        raise CompressionError(
            "W8A8 needs calibration latents, got none: give photos or latent files"
        )
    if compression.method == "plain":
        made = _plain(decoder, compression, calibration.latents, keep)
    else:
        made = _compensated(decoder, compression, precision, calibration.latents, effort, log, keep)
    sites = conv_sites(decoder)
    notes = {
        "int8_share": int8_share(sites, made.weights),
        "float": [site.name for site in sites if site.name not in made.weights],
        "calibration": {"name": calibration.name, "digest": calibration.digest},
    }
    return replace(made, notes=notes)


def int8_share(sites: Sequence[Site], quantized: Mapping[str, object]) -> float:
    """The part of the multiply-accumulates that quantized convolutions do."""
    done = sum(site.macs for site in sites if site.name in quantized)
    return done / sum(site.macs for site in sites)


def _plain(
    decoder: nn.Module,
    compression: Compression,
    latents: Sequence[np.ndarray],
    keep: Collection[str],
) -> CompressedDecoder:
    activations = {
        name: minmax(low, high, compression.activations)
        for name, (low, high) in input_extremes(decoder, latents).items()
        if name not in keep
    }
    weights = {
        name: plain_form(convolution(decoder, name).weight.detach().numpy(), INT8)
        for name in activations
    }
    return CompressedDecoder(decoder, weights, activations)


def _compensated(
    decoder: nn.Module,
    compression: Compression,
    precision: str,
    latents: Sequence[np.ndarray],
    effort: Effort,
    log: Log,
    keep: Collection[str],
) -> CompressedDecoder:
    kind, side = compression.activations, WINDOW * input_scale(decoder)
    sites = conv_sites(decoder)
    log(f"W8A8: measuring what rounding shows, on {len(latents)} latents")
    noise = measure_noise(
        decoder, [middle(latent, side) for latent in latents], positions=effort.samples
    )
    log("W8A8: choosing what stays float")
    every = [site.name for site in sites if site.name not in keep]
    scales = choose_scales(decoder, noise, quantized=every, kind=kind, steps=effort.steps // 3)
    errors = _errors(decoder, noise, scales, kind)
    chosen = choose_int8(sites, errors, compression.int8_share, keep)
    log(f"W8A8: equalizing the channels of {len(chosen)} convolutions")
    scales = choose_scales(decoder, noise, quantized=chosen, kind=kind, steps=effort.steps)
    equal = apply_scales(decoder, scales)
    noise = scaled_noise(decoder, noise, scales)
    activations = {name: least_error(noise[name], kind, margin=MARGIN) for name in chosen}
    log("W8A8: fitting weights layer by layer")
    return _fitted(equal, activations, precision, latents, effort)


def choose_int8(
    sites: Sequence[Site],
    errors: Mapping[str, float],
    share: float,
    keep: Collection[str] = (),
) -> tuple[str, ...]:
    """The convolutions to make int8: the least sum of ``errors`` with ``share`` of the arithmetic.

    Those to ``keep`` are none of them, and count as float. Exact, by dynamic programming over the
    multiply-accumulates that stay float.
    """
    budget = int((1 - share) * sum(site.macs for site in sites) + 1e-6)
    budget -= sum(site.macs for site in sites if site.name in keep)
    sites = [site for site in sites if site.name not in keep]
    best: dict[int, tuple[float, frozenset[str]]] = {0: (0.0, frozenset())}
    for site in sites:
        for used, (saved, names) in sorted(best.items(), reverse=True):
            total = used + site.macs
            candidate = saved + errors[site.name]
            if total <= budget and candidate > best.get(total, (-1.0, frozenset()))[0]:
                best[total] = (candidate, names | {site.name})
    _, kept = max(best.values(), key=lambda found: (found[0], -len(found[1])))
    return tuple(site.name for site in sites if site.name not in kept)


def _errors(
    decoder: nn.Module,
    noise: Mapping[str, SiteNoise],
    scales: Mapping[str, Tensor],
    kind: str,
) -> dict[str, float]:
    """Each convolution's predicted mean squared error of the picture, were it in int8."""
    equal, scaled = apply_scales(decoder, scales), scaled_noise(decoder, noise, scales)
    return {name: predicted_error(equal, name, one, kind) for name, one in scaled.items()}


def _fitted(
    decoder: nn.Module,
    activations: Mapping[str, Activation],
    precision: str,
    latents: Sequence[np.ndarray],
    effort: Effort,
) -> CompressedDecoder:
    def solve(problem: Problem) -> Solution:
        if problem.site.name not in activations:
            return Solution(problem.weight, None)
        return compensated(problem, INT8, precision)

    def quantize_input(site: Site, x: Tensor) -> Tensor:
        activation = activations.get(site.name)
        return x if activation is None else rounded(x, activation)

    fitted = compress_layerwise(
        decoder, latents, solve, quantize_input=quantize_input, positions=effort.positions
    )
    return replace(fitted, activations=activations)


def input_extremes(
    decoder: nn.Module, latents: Sequence[np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Least and largest value of each convolution's input over all latents, by site name.

    ``latents`` float32 (1, C, h, w). All samples count; coremltools 9.0's own calibration
    (``_update_tensor_range``) forgets all but the last.
    """
    found: dict[str, tuple[float, float]] = {}

    def note(name: str, values: Tensor) -> None:
        low, high = found.get(name, (float("inf"), float("-inf")))
        least, largest = torch.aminmax(values)
        found[name] = (min(low, float(least)), max(high, float(largest)))

    inputs = [(site.name, partial(note, site.name)) for site in conv_sites(decoder)]
    watch(decoder, map(torch.from_numpy, latents), inputs=inputs)
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
    point. ``margin`` above 1: values are compared with the range's ends as if they were that much
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


def _shown(values: Tensor, gains: Tensor, activation: Activation, margin: float) -> float:
    inside = rounded(values, activation)  # and in place from here on: it is what costs
    if margin == 1:
        return float(inside.sub_(values).square_().mean(0) @ gains)
    low, high = rounded(torch.tensor([-1e30, 1e30]), activation).tolist()
    half = activation.scale / 2
    beyond = values * margin
    beyond.sub_(beyond.clamp(low - half, high + half)).square_()
    inside.sub_(values.clamp(low, high)).square_()
    return float(inside.add_(beyond).mean(0) @ gains)


def _step(value: float) -> float:
    """Exact in float16 and never less than its least normal number."""
    return max(LEAST_STEP, float(to_float16(np.array([value]))[0]))
