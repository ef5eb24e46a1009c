"""Int8 weights and 8-bit activations after training: W8A8 without a Mac.

``compensated``: channels are equalized, the convolutions that are worst in int8 for their
arithmetic stay float within the share that the recipe leaves, ranges are those that show least, and
each convolution is then refitted to the inputs that the ones before it really give.
``plain``: what coremltools does with all statistics at hand: ranges that just hold the extremes,
weights rounded to nearest, every convolution.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from fluxvae.compress.compensate import compensated
from fluxvae.compress.equalize import (
    MARGIN,
    apply_scales,
    choose_scales,
    predicted_error,
    scaled_noise,
)
from fluxvae.compress.fake import rounded
from fluxvae.compress.forms import Activation, CompressedDecoder
from fluxvae.compress.layerwise import Problem, Solution, compress_layerwise
from fluxvae.compress.nearest import plain_form
from fluxvae.compress.noise import SiteNoise, measure_noise
from fluxvae.compress.ranges import input_extremes, least_error_ranges, minmax
from fluxvae.compress.schemes import Scheme
from fluxvae.compress.sites import Site, conv_sites
from fluxvae.data.calibration import Calibration
from fluxvae.errors import CompressionError
from fluxvae.recipes.compression import Compression

Log = Callable[[str], object]

INT8 = Scheme("int8", 8, "channel")
WINDOW = 16  # of latent pixels a side: errors are probed on this middle of each latent


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
    decoder: nn.Sequential,
    compression: Compression,
    precision: str,
    calibration: Calibration,
    log: Log = lambda _: None,
    *,
    effort: Effort = Effort(),
) -> CompressedDecoder:
    """``decoder`` (a tiny decoder, float32) with int8 convolutions.

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
        made = _plain(decoder, compression, calibration.latents)
    else:
        made = _compensated(decoder, compression, precision, calibration.latents, effort, log)
    sites = conv_sites(decoder)
    notes = {
        "int8_share": int8_share(sites, made.weights),
        "float": [site.name for site in sites if site.name not in made.weights],
        "calibration": {"name": calibration.name, "digest": calibration.digest},
    }
    return CompressedDecoder(made.decoder, made.weights, made.activations, notes)


def int8_share(sites: Sequence[Site], quantized: Mapping[str, object]) -> float:
    """The part of the multiply-accumulates that quantized convolutions do."""
    done = sum(site.macs for site in sites if site.name in quantized)
    return done / sum(site.macs for site in sites)


def _plain(
    decoder: nn.Sequential, compression: Compression, latents: Sequence[np.ndarray]
) -> CompressedDecoder:
    activations = {
        name: minmax(low, high, compression.activations)
        for name, (low, high) in input_extremes(decoder, latents).items()
    }
    weights = {
        name: plain_form(_conv(decoder, name).weight.detach().numpy(), INT8) for name in activations
    }
    return CompressedDecoder(decoder, weights, activations)


def _compensated(
    decoder: nn.Sequential,
    compression: Compression,
    precision: str,
    latents: Sequence[np.ndarray],
    effort: Effort,
    log: Log,
) -> CompressedDecoder:
    kind = compression.activations
    sites = conv_sites(decoder)
    log(f"W8A8: measuring what rounding shows, on {len(latents)} latents")
    noise = measure_noise(
        decoder, [_middle(latent) for latent in latents], positions=effort.samples
    )
    log("W8A8: choosing what stays float")
    every = [site.name for site in sites]
    scales = choose_scales(decoder, noise, quantized=every, kind=kind, steps=effort.steps // 3)
    errors = _errors(decoder, noise, scales, kind)
    chosen = choose_int8(sites, errors, compression.int8_share)
    log(f"W8A8: equalizing the channels of {len(chosen)} convolutions")
    scales = choose_scales(decoder, noise, quantized=chosen, kind=kind, steps=effort.steps)
    equal = apply_scales(decoder, scales)
    noise = scaled_noise(decoder, noise, scales)
    activations = least_error_ranges(noise, chosen, kind, margin=MARGIN)
    log("W8A8: fitting weights layer by layer")
    return _walked(equal, activations, precision, latents, effort)


def choose_int8(
    sites: Sequence[Site], errors: Mapping[str, float], share: float
) -> tuple[str, ...]:
    """The convolutions to make int8: the least sum of ``errors`` with ``share`` of the arithmetic.

    Exact, by dynamic programming over the multiply-accumulates that stay float.
    """
    budget = int((1 - share) * sum(site.macs for site in sites) + 1e-6)
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
    decoder: nn.Sequential,
    noise: Mapping[str, SiteNoise],
    scales: Mapping[str, Tensor],
    kind: str,
) -> dict[str, float]:
    """Each convolution's predicted mean squared error of the picture, were it in int8."""
    equal, scaled = apply_scales(decoder, scales), scaled_noise(decoder, noise, scales)
    return {name: predicted_error(equal, name, one, kind) for name, one in scaled.items()}


def _walked(
    decoder: nn.Sequential,
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

    walked = compress_layerwise(
        decoder, latents, solve, quantize_input=quantize_input, positions=effort.positions
    )
    return CompressedDecoder(walked.decoder, walked.weights, activations)


def _middle(latent: np.ndarray) -> np.ndarray:
    top, left = (max(0, side - WINDOW) // 2 for side in latent.shape[2:])
    return np.ascontiguousarray(latent[:, :, top : top + WINDOW, left : left + WINDOW])


def _conv(decoder: nn.Sequential, name: str) -> nn.Conv2d:
    conv = decoder.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    return conv
