"""The walk over a decoder's convolutions: what it hands to a solver, and what it leaves behind."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fluxvae.compress.layerwise import Problem, Solution, compress_layerwise
from fluxvae.errors import CompressionError
from fluxvae.networks.build import build_decoder
from fluxvae.networks.structure import Site, conv_sites
from fluxvae.networks.weights import load_weights
from tests.compress.simple import added_error


def decoder(variant: str) -> nn.Sequential:
    return build_decoder(load_weights(variant, "random"))


def latents(variant: str, *sides: int) -> list[np.ndarray]:
    channels = {"flux1": 16, "flux2": 32}[variant]
    generator = np.random.Generator(np.random.PCG64(1))
    return [generator.standard_normal((1, channels, s, s + 1), np.float32) for s in sides]


def keep(problem: Problem) -> Solution:
    return Solution(problem.weight, None)


def coarse(problem: Problem) -> Solution:
    step = problem.weight.abs().max() / 20
    return Solution((problem.weight / step).round() * step, None)


@pytest.mark.parametrize("variant", ["flux1", "flux2"])
def test_nothing_is_changed_where_nothing_is_rounded(variant: str) -> None:
    """Least squares then asks for the decoder's own weights; every convolution is visited."""
    module = decoder(variant)
    before = {name: t.clone() for name, t in module.state_dict().items()}
    seen: list[Site] = []

    def solve(problem: Problem) -> Solution:
        seen.append(problem.site)
        return keep(problem)

    fitted = compress_layerwise(module, latents(variant, 6, 4), solve)
    assert tuple(seen) == conv_sites(module)
    for name, tensor in fitted.decoder.state_dict().items():
        assert torch.allclose(tensor, before[name], atol=2e-5), name
        assert torch.equal(module.state_dict()[name], before[name]), "the argument was changed"


def test_the_second_block_end_makes_up_for_what_the_skip_path_lost() -> None:
    """Target, Gram matrix and bias against torch's own unfold and lstsq in float64."""
    module = decoder("flux1")
    z = latents("flux1", 7)
    caught: list[Problem] = []

    def solve(problem: Problem) -> Solution:
        if problem.site.name == "4.conv.4":
            caught.append(problem)
        return coarse(problem)

    fitted = compress_layerwise(module, z, solve, positions=10**9, damping=1e-12)
    problem = caught[0]
    x, y = (net[:4](torch.from_numpy(z[0])) for net in (fitted.decoder, module))
    inner = fitted.decoder[4].conv[:4](x)
    target = module[4].conv(y) + y - x
    rows = F.unfold(inner.double(), 3, padding=1)[0].T
    centred = rows - rows.mean(0)
    gram = centred.T @ centred / len(rows)
    assert torch.allclose(problem.gram, gram, rtol=1e-4, atol=1e-6 * float(gram.max()))
    found, bias = problem.weight, problem.bias_for(problem.weight)
    assert bias is not None

    def loss(weight: torch.Tensor, offset: torch.Tensor) -> float:
        made = F.conv2d(inner.double(), weight.double(), offset.double(), padding=1)
        return float(((made - target.double()) ** 2).mean())

    best = loss(found, bias)
    assert best < loss(problem.original, problem.bias_for(problem.original))  # type: ignore[arg-type]
    rounded = coarse(problem).weight
    added = loss(rounded, problem.bias_for(rounded)) - best  # type: ignore[arg-type]
    assert added == pytest.approx(added_error(problem, rounded), rel=1e-3)


def test_inputs_are_rounded_before_the_moments_are_taken() -> None:
    module = decoder("flux2")
    grams: list[torch.Tensor] = []

    def solve(problem: Problem) -> Solution:
        grams.append(problem.gram)
        return keep(problem)

    asked: list[str] = []

    def zero(site: Site, x: torch.Tensor) -> torch.Tensor:
        asked.append(site.name)
        return torch.zeros_like(x)

    compress_layerwise(module, latents("flux2", 4), solve, quantize_input=zero)
    assert all(float(gram.abs().max()) == 0 for gram in grams)
    assert asked == [site.name for site in conv_sites(module)]


def test_the_same_call_gives_the_same_weights() -> None:
    runs = [
        compress_layerwise(decoder("flux1"), latents("flux1", 6), coarse, positions=30, window=20)
        for _ in range(2)
    ]
    first, second = (run.decoder.state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_no_latents_are_refused() -> None:
    with pytest.raises(CompressionError, match="plain method"):
        compress_layerwise(decoder("flux1"), [], keep)
