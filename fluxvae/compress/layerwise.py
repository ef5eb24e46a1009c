"""One convolution after another, each solved for the inputs the compressed decoder really has.

A pass carries two runs over the calibration latents side by side: the float32 reference, and the
decoder compressed so far. At each convolution it asks ``solve`` for weights that reproduce the
reference's output from the compressed run's input, so that every layer compensates the errors of
the earlier ones (Frantar et al., "Optimal Brain Compression", 2022, there with the reference's own
inputs; here with the compressed decoder's). Where the output is added to a skip path, the target
also holds what the skip path has lost.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxvae.compress.forms import CompressedDecoder, CompressedWeight
from fluxvae.errors import CompressionError
from fluxvae.networks.structure import Layer, Residual, Site, Step, conv_sites, convolution, steps

DAMPING = 0.01  # of the Gram matrix's mean diagonal
LARGEST_MAP = 2**21  # values of a map after an upsampling: 8 MB


@dataclass(frozen=True)
class Problem:
    """One convolution, ready to be solved as least squares. K is I * kh * kw.

    ``weight`` float32 (O, I, kh, kw): what best reproduces the target from the compressed
    decoder's own inputs (least squares, damped towards ``original``), not rounded; ``original``:
    the decoder's weight. ``gram`` float64 (K, K): mean product of the unfolded inputs of the
    compressed decoder (after ``quantize_input``), about their mean where the convolution has a
    bias, as the bias takes up the mean. The error of weights V to be made small is
    ``trace((V - weight) gram (V - weight)^T)`` over rows (O, K). ``inputs_mean`` float64 (K,) and
    ``target_mean`` float64 (O,).
    """

    site: Site
    original: Tensor
    weight: Tensor
    has_bias: bool
    gram: Tensor
    inputs_mean: Tensor
    target_mean: Tensor

    def bias_for(self, weight: Tensor) -> Tensor | None:
        """The bias (O,) that fits ``weight`` (O, I, kh, kw) best; None where there is none."""
        if not self.has_bias:
            return None
        rows = weight.reshape(weight.shape[0], -1).double()
        return (self.target_mean - rows @ self.inputs_mean).float()


@dataclass(frozen=True)
class Solution:
    """``weight`` float32 (O, I, kh, kw) as the form expands; ``form`` None: stays float."""

    weight: Tensor
    form: CompressedWeight | None


Pair = tuple[Tensor, Tensor]  # a map (1, C, h, w) of the reference and of the compressed run


@torch.no_grad()
def compress_layerwise(
    decoder: nn.Module,
    latents: Iterable[np.ndarray],
    solve: Callable[[Problem], Solution],
    *,
    quantize_input: Callable[[Site, Tensor], Tensor] | None = None,
    positions: int = 40_000,
    window: int = 128,
    damping: float = DAMPING,
) -> CompressedDecoder:
    """A copy of the decoder, every convolution solved in execution order, with their forms.

    ``latents``: what the network takes, float32 (1, C, h, w), sizes may differ. ``quantize_input``
    rounds each convolution's input in the compressed run. About ``positions`` output positions of
    all latents together make up each problem, drawn evenly with a fixed seed. After each upsampling
    maps are cut to ``window`` pixels a side and to ``LARGEST_MAP`` values, both runs alike: that
    bounds time and memory (16 latents: under 1 GB for a tiny network, 2.5 GB for a KL one). Raises
    CompressionError when there are no latents.
    """
    pairs = [(torch.from_numpy(np.ascontiguousarray(z)).float(),) * 2 for z in latents]
    if not pairs:
        raise CompressionError(
            "error-compensated compression needs calibration latents, got none: give some, or use "
            "the plain method"
        )
    made = copy.deepcopy(decoder)
    sites = conv_sites(made)
    run = _LayerwisePass(
        {site.name: site for site in sites},
        {site.name: convolution(made, site.name) for site in sites},
        solve,
        quantize_input or (lambda _site, x: x),
        positions,
        window,
        damping,
    )
    run.row(steps(made), pairs)
    return CompressedDecoder(made, run.forms)


@dataclass
class _LayerwisePass:
    """What the steps share. The decoder's weights are changed in place."""

    sites: Mapping[str, Site]
    convs: Mapping[str, nn.Conv2d]
    solve: Callable[[Problem], Solution]
    quantize_input: Callable[[Site, Tensor], Tensor]
    positions: int
    window: int
    damping: float
    forms: dict[str, CompressedWeight] = field(default_factory=dict)

    def row(
        self, row: Sequence[Step], pairs: list[Pair], skip: Sequence[Pair] | None = None
    ) -> list[Pair]:
        """The outputs of both runs; the last step's are to be added to ``skip``."""
        for step in row:
            if isinstance(step, Residual):
                pairs = self._residual(step, pairs)
            elif isinstance(step.run, nn.Conv2d):
                added = skip if step is row[-1] else None
                pairs = self._conv(step.name, step.run, pairs, added)
            elif step.parts:
                added = skip if step is row[-1] else None
                pairs = self._parts(step, pairs, added)
            elif isinstance(step.run, nn.Linear):
                raise CompressionError(f"layer {step.name}: no rule for layers without a kernel")
            else:
                pairs = [(step.run(a), step.run(b)) for a, b in pairs]
                if isinstance(step.run, nn.Upsample):
                    pairs = _cut(pairs, self.window)
        return pairs

    def _residual(self, step: Residual, pairs: list[Pair]) -> list[Pair]:
        """The branch's output plus its input, for both runs."""
        skip = self.row(step.shortcut, pairs)
        branch = self.row(step.branch, pairs, skip)
        return [(a + s, b + t) for (a, b), (s, t) in zip(branch, skip, strict=True)]

    def _conv(
        self, name: str, conv: nn.Conv2d, pairs: list[Pair], skip: Sequence[Pair] | None
    ) -> list[Pair]:
        """Solve one convolution; the outputs of both runs."""
        references = [conv(reference) for reference, _ in pairs]
        inputs = [self.quantize_input(self.sites[name], x) for _, x in pairs]
        self._solve(name, conv, inputs, _with_losses(references, skip))
        return [(y, conv(x)) for y, x in zip(references, inputs, strict=True)]

    def _parts(self, step: Layer, pairs: list[Pair], skip: Sequence[Pair] | None) -> list[Pair]:
        """Solve the convolutions inside a step, one after the other; the last makes its output.

        Each is seen at work: the step is run up to the end for each, as what lies between them is
        its own affair.
        """
        outputs, made = self._seen(step, [reference for reference, _ in pairs], quantized=False)
        for name in step.parts:
            found = self._seen(step, [x for _, x in pairs], quantized=True)[1]
            references = [y for _, y in made[name]]
            losses = skip if name == step.parts[-1] else None
            inputs = [x for x, _ in found[name]]
            self._solve(name, self.convs[name], inputs, _with_losses(references, losses))
        compressed = self._seen(step, [x for _, x in pairs], quantized=True)[0]
        return list(zip(outputs, compressed, strict=True))

    def _seen(
        self, step: Layer, maps: Sequence[Tensor], *, quantized: bool
    ) -> tuple[list[Tensor], dict[str, list[Pair]]]:
        """Outputs of a step, and what goes into and comes out of each of its convolutions."""
        seen: dict[str, list[Pair]] = {name: [] for name in step.parts}
        hooks = []
        for name in step.parts:

            def before(_: nn.Module, x: tuple[Tensor], name: str = name) -> tuple[Tensor]:
                return (self.quantize_input(self.sites[name], x[0]),) if quantized else x

            def after(_: nn.Module, x: tuple[Tensor], y: Tensor, name: str = name) -> None:
                seen[name].append((x[0], y))

            hooks.append(self.convs[name].register_forward_pre_hook(before))
            hooks.append(self.convs[name].register_forward_hook(after))
        try:
            return [step.run(x) for x in maps], seen
        finally:
            for hook in hooks:
                hook.remove()

    def _solve(
        self, name: str, conv: nn.Conv2d, inputs: Sequence[Tensor], targets: Sequence[Tensor]
    ) -> None:
        """Solve one convolution and leave the solution in the decoder."""
        moments = _gather(conv, inputs, targets, self.positions)
        problem = _problem(self.sites[name], conv, moments, self.damping)
        solution = self.solve(problem)
        conv.weight.copy_(solution.weight)
        bias = problem.bias_for(conv.weight)
        if conv.bias is not None and bias is not None:
            conv.bias.copy_(bias)
        if solution.form is not None:
            self.forms[name] = solution.form


def _with_losses(references: Sequence[Tensor], skip: Sequence[Pair] | None) -> Sequence[Tensor]:
    """What an output must be for the sum with the skip path to come out right."""
    if skip is None:
        return references
    return [y + s - t for y, (s, t) in zip(references, skip, strict=True)]


@dataclass(frozen=True)
class _Moments:
    """Sums over positions in float64: of X, of the error E of the present weight, X X^T, E X^T."""

    count: int
    inputs: Tensor  # (K,)
    errors: Tensor  # (O,)
    gram: Tensor  # (K, K)
    cross: Tensor  # (O, K)

    def __add__(self, other: "_Moments") -> "_Moments":
        return _Moments(
            self.count + other.count,
            self.inputs + other.inputs,
            self.errors + other.errors,
            self.gram + other.gram,
            self.cross + other.cross,
        )


def _gather(
    conv: nn.Conv2d, inputs: Sequence[Tensor], targets: Sequence[Tensor], positions: int
) -> _Moments:
    """Moments over a share of the positions of every map."""
    rows = conv.weight.reshape(conv.weight.shape[0], -1)
    generator = np.random.Generator(np.random.PCG64(0))
    per_map = max(1, -(-positions // len(inputs)))
    total: _Moments | None = None
    for x, target in zip(inputs, targets, strict=True):
        height, width = target.shape[-2:]
        chosen = np.arange(height * width)
        if per_map < len(chosen):
            chosen = np.sort(generator.permutation(height * width)[:per_map])
        where = torch.from_numpy(chosen)
        patches = _patches(x, conv, where, width)
        wanted = target[0].flatten(1)[:, where]
        missing = wanted - rows @ patches
        if conv.bias is not None:
            missing = missing - conv.bias[:, None]
        part = _Moments(
            len(chosen),
            patches.sum(1, dtype=torch.float64),
            missing.sum(1, dtype=torch.float64),
            (patches @ patches.T).double(),
            (missing @ patches.T).double(),
        )
        total = part if total is None else total + part
    assert total is not None
    return total


def _patches(x: Tensor, conv: nn.Conv2d, where: Tensor, width: int) -> Tensor:
    """Unfolded input (I * kh * kw, positions) of a convolution, at flat positions of its output,
    which has ``width`` columns.
    """
    (kh, kw), (down, right) = conv.kernel_size, conv.stride
    assert isinstance(conv.padding, tuple)
    top, left = conv.padding
    padded = F.pad(x[0], (left, left, top, top))
    row = padded.shape[2]
    first = where // width * down * row + where % width * right  # of each window
    taps = torch.tensor([dy * row + dx for dy in range(kh) for dx in range(kw)])
    places = (taps[:, None] + first).flatten()
    # One index over the flat map takes a third of the time of pairs of rows and columns.
    return padded.flatten(1).index_select(1, places).reshape(-1, len(where))


def _problem(site: Site, conv: nn.Conv2d, moments: _Moments, damping: float) -> Problem:
    """The damped least squares solution and its normal matrix."""
    count = moments.count
    inputs, errors = moments.inputs / count, moments.errors / count
    gram, cross = moments.gram / count, moments.cross / count
    if conv.bias is not None:
        gram = gram - torch.outer(inputs, inputs)
        cross = cross - torch.outer(errors, inputs)
    damped = gram + damping * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(
        len(gram), dtype=torch.float64
    )
    original = conv.weight.detach().clone()
    step = torch.linalg.solve(damped, cross.T).T.reshape(original.shape)
    rows = original.flatten(1).double()
    bias = 0 if conv.bias is None else conv.bias.double()
    return Problem(
        site=site,
        original=original,
        weight=(original.double() + step).float(),
        has_bias=conv.bias is not None,
        gram=gram,
        inputs_mean=inputs,
        target_mean=errors + rows @ inputs + bias,
    )


def _cut(pairs: Sequence[Pair], window: int) -> list[Pair]:
    """The middle of each map, at most ``window`` a side and LARGEST_MAP values, of both runs."""
    result = []
    for a, b in pairs:
        window = min(window, math.isqrt(LARGEST_MAP // a.shape[1]))
        top, left = (max(0, side - window) // 2 for side in a.shape[-2:])
        where = (..., slice(top, top + window), slice(left, left + window))
        result.append((a[where].clone(), b[where].clone()))
    return result
