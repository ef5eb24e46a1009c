"""Rounding one convolution's weights to int8 so that its output, not each weight, is nearest.

The error of weights V against the wished-for W is ``(V - W) G (V - W)^T`` for each output channel
(``layerwise.Problem``). ``compensated`` rounds column by column and lets the columns still to come
take up the error (Frantar and others, GPTQ, https://arxiv.org/abs/2210.17323), then revisits each
weight while that helps (coordinate descent). Output channels do not touch each other.
"""

import numpy as np
import torch
from torch import Tensor

from fluxvae.compress.forms import Quantized, to_float16
from fluxvae.compress.layerwise import Problem

LEVELS = 127
SHRINK = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8)  # scales tried, over the one that clips nothing
SWEEPS = 4


def plain(weight: Tensor) -> Quantized:
    """Nearest int8 with one scale per output channel, largest magnitude / 127: coremltools'."""
    scale = _scales(weight.flatten(1))
    data = (weight.flatten(1) / scale).round().clamp(-LEVELS, LEVELS)
    return _form(data.reshape(weight.shape), scale)


def compensated(problem: Problem, *, damping: float = 1e-4) -> Quantized:
    """int8 weights per output channel for ``problem``, of least output error among scales tried."""
    wanted = problem.weight.flatten(1).double()
    gram = problem.gram.double()
    gram = gram + damping * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(
        len(gram), dtype=torch.float64
    )
    order = gram.diagonal().argsort(descending=True)
    wanted, gram = wanted[:, order], gram[order][:, order]
    factor = torch.linalg.cholesky(torch.linalg.inv(gram), upper=True)
    full = _scales(wanted)
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for shrink in SHRINK:
        scale = _exact(full * shrink)
        data = _descend(_feed_forward(wanted, factor, scale), wanted, gram, scale)
        gap = data * scale - wanted
        error = ((gap @ gram) * gap).sum(1)
        if best is None:
            best = (error, data, scale)
        else:
            better = (error < best[0])[:, None]
            best = (
                torch.minimum(error, best[0]),
                torch.where(better, data, best[1]),
                torch.where(better, scale, best[2]),
            )
    assert best is not None
    _, data, scale = best
    back = torch.empty_like(data)
    back[:, order] = data
    return _form(back.reshape(problem.weight.shape), scale)


def _feed_forward(wanted: Tensor, factor: Tensor, scale: Tensor) -> Tensor:
    """GPTQ: integers (O, K), each column's error spread over those after it."""
    left = wanted.clone()
    data = torch.empty_like(wanted)
    for k in range(wanted.shape[1]):
        column = left[:, k]
        data[:, k] = (column / scale[:, 0]).round().clamp(-LEVELS, LEVELS)
        miss = (column - data[:, k] * scale[:, 0]) / factor[k, k]
        left[:, k + 1 :] -= torch.outer(miss, factor[k, k + 1 :])
    return data


def _descend(data: Tensor, wanted: Tensor, gram: Tensor, scale: Tensor) -> Tensor:
    """Set each weight in turn to its best integer given all others; a few sweeps."""
    scale = scale[:, 0]
    slope = (data * scale[:, None] - wanted) @ gram
    for _ in range(SWEEPS):
        changed = False
        for k in range(data.shape[1]):
            ideal = data[:, k] - slope[:, k] / (gram[k, k] * scale)
            step = ideal.round().clamp(-LEVELS, LEVELS) - data[:, k]
            if bool(step.any()):
                changed = True
                data[:, k] += step
                slope += torch.outer(step * scale, gram[k])
        if not changed:
            break
    return data


def _scales(rows: Tensor) -> Tensor:
    """(O, 1): the largest magnitude of each row over 127, exact in float16."""
    return _exact(rows.abs().amax(1, keepdim=True) / LEVELS)


def _exact(scale: Tensor) -> Tensor:
    least = float(np.finfo(np.float16).tiny)
    return torch.from_numpy(to_float16(scale.float().numpy())).clamp_min(least).to(scale.dtype)


def _form(data: Tensor, scale: Tensor) -> Quantized:
    return Quantized(
        "int8", data.numpy().astype(np.int8), scale.float().reshape(-1, 1, 1, 1).numpy()
    )
