"""A decoder with smaller weights and float arithmetic: the entry point for every weight-only kind."""

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from fluxvae.compress.compensate import compensated
from fluxvae.compress.forms import CompressedDecoder, dense
from fluxvae.compress.layerwise import Problem, Solution, compress_layerwise
from fluxvae.compress.plain import SMALLEST, plain_form
from fluxvae.compress.schemes import INTEGER_BITS, Scheme
from fluxvae.compress.sites import Site, conv_sites
from fluxvae.recipes.compression import Compression


def one_scheme(compression: Compression, granularity: str) -> Scheme:
    """The scheme of every convolution of a compression that is not mixed."""
    bits = compression.bits or INTEGER_BITS[compression.kind]
    return Scheme(compression.kind, bits, granularity)


def plain_decoder(decoder: nn.Sequential, scheme: Scheme, precision: str) -> CompressedDecoder:
    """Each weight for itself, as coremltools does; those below its threshold stay float."""
    made = copy.deepcopy(decoder)
    convolutions = dict(made.named_modules())
    forms = {}
    for site in conv_sites(made):
        convolution = convolutions[site.name]
        assert isinstance(convolution, nn.Conv2d)
        if convolution.weight.numel() < SMALLEST:
            continue
        form = plain_form(convolution.weight.detach().numpy(), scheme)
        forms[site.name] = form
        with torch.no_grad():
            convolution.weight.copy_(torch.from_numpy(dense(form, precision)))
    return CompressedDecoder(made, forms, notes={"method": "plain"})


def compensated_decoder(
    decoder: nn.Sequential,
    schemes: Mapping[str, Scheme],
    precision: str,
    latents: tuple[np.ndarray, ...],
    log: Callable[[str], None] = lambda _line: None,
) -> CompressedDecoder:
    """Each convolution by its scheme (by module name), one after another; see ``layerwise``."""

    def solve(problem: Problem) -> Solution:
        site: Site = problem.site
        solution = compensated(problem, schemes[site.name], precision)
        log(f"{site.name}: {schemes[site.name].bits} bits")
        return solution

    walked = compress_layerwise(decoder, latents, solve)
    return CompressedDecoder(walked.decoder, walked.weights, notes={"method": "compensated"})
