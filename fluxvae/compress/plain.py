"""Smaller weights and float arithmetic: a decoder by a recipe, plain or compensated.

Plain means each weight for itself, as coremltools does it.
"""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fluxvae.compress.forms import INTEGER_BITS, CompressedDecoder, Scheme, dense
from fluxvae.compress.gptq import compensated
from fluxvae.compress.layerwise import Problem, Solution, compress_layerwise
from fluxvae.compress.nearest import SMALLEST, plain_form
from fluxvae.data.calibration import Calibration
from fluxvae.errors import CompressionError
from fluxvae.networks.structure import conv_sites, convolution
from fluxvae.recipes.compression import Compression

Log = Callable[[str], object]


def compress_weights(
    decoder: nn.Module,
    compression: Compression,
    granularity: str,
    precision: str,
    calibration: Calibration | None,
    log: Log = lambda _line: None,
    *,
    keep: Collection[str] = (),
) -> CompressedDecoder:
    """Palettes, int8 or int4 for every convolution but those to ``keep`` (mixed bits: ``mixed``).

    ``granularity`` is the compression's, resolved for the target; ``precision`` the program's, to
    which products of tables and scales are rounded. Deterministic on one machine. Raises
    CompressionError for another kind, weights that are not finite, and without latents where the
    method looks at some.
    """
    if compression.kind not in ("palette", *INTEGER_BITS):
        raise CompressionError(
            f"{compression.label()} is not one form for all weights: expected palettes, int8 or "
            "int4"
        )
    bits = compression.bits or INTEGER_BITS[compression.kind]
    scheme = Scheme(compression.kind, bits, granularity)
    schemes = {site.name: scheme for site in conv_sites(decoder) if site.name not in keep}
    if compression.method == "plain":
        return by_schemes(decoder, schemes, "plain", precision)
    seen = required(compression, calibration)
    made = by_schemes(decoder, schemes, "compensated", precision, seen.latents, log)
    notes = {**made.notes, "calibration": {"name": seen.name, "digest": seen.digest}}
    return replace(made, notes=notes)


def required(compression: Compression, calibration: Calibration | None) -> Calibration:
    """The calibration. Raises CompressionError when there is none."""
    if calibration is None:
        raise CompressionError(
            f"{compression.label()} is found by looking at latents: pass calibration latents, or "
            "use the plain method"
        )
    return calibration


def by_schemes(
    decoder: nn.Module,
    schemes: Mapping[str, Scheme],
    method: str,
    precision: str,
    latents: Sequence[np.ndarray] = (),
    log: Log = lambda _line: None,
) -> CompressedDecoder:
    """Each convolution by its scheme (by module name; those without one stay float), found by a
    recipe's ``method``.

    ``plain`` looks at no latents, and few weights stay float, as coremltools'; the other method
    solves one convolution after another (see ``layerwise``).
    """
    if method == "plain":
        return _plain(decoder, schemes, precision)
    order = [site.name for site in conv_sites(decoder)]

    def solve(problem: Problem) -> Solution:
        number = order.index(problem.site.name) + 1
        if number % 10 == 0 or number == len(order):
            log(f"fitting weights: convolution {number} of {len(order)}")
        if problem.site.name not in schemes:
            return Solution(problem.weight, None)
        return compensated(problem, schemes[problem.site.name], precision)

    fitted = compress_layerwise(decoder, latents, solve)
    return replace(fitted, notes={"method": method})


def _plain(decoder: nn.Module, schemes: Mapping[str, Scheme], precision: str) -> CompressedDecoder:
    made = copy.deepcopy(decoder)
    forms = {}
    for site in conv_sites(made):
        weight = convolution(made, site.name).weight
        if weight.numel() < SMALLEST or site.name not in schemes:
            continue
        form = plain_form(weight.detach().numpy(), schemes[site.name])
        forms[site.name] = form
        with torch.no_grad():
            weight.copy_(torch.from_numpy(dense(form, precision)))
    return CompressedDecoder(made, forms, notes={"method": "plain"})
