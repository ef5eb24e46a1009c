"""What each number of bits costs each convolution, in bytes and in error of the picture."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from fluxvae.compress.forms import Scheme
from fluxvae.compress.kmeans import kmeans
from fluxvae.compress.noise import measure_noise
from fluxvae.networks.structure import Site, conv_sites, convolution, input_scale

WINDOW = 16  # of latent pixels a side: gains are measured on this middle of each latent
BLOB = 64  # bytes: blobs of a weight file start at multiples of it, each after a record of its size


@dataclass(frozen=True)
class Option:
    """One scheme for one convolution. ``bytes`` in a weight file, padding and records included.

    ``error``: the mean squared error of the picture when this convolution alone is rounded to the
    nearest entries; measured gains times squared rounding errors.
    """

    scheme: Scheme
    bytes: int
    error: float


def measure_options(
    decoder: nn.Module,
    granularity: str,
    choices: Sequence[int],
    precision: str,
    latents: Sequence[np.ndarray],
) -> dict[str, tuple[Option, ...]]:
    """Palettes of each number of bits in ``choices`` for every convolution, by module name.

    ``latents`` float32 (1, C, h, w). The gains are ``noise.measure_noise``'s.
    """
    side = WINDOW * input_scale(decoder)
    gains = measure_noise(decoder, [middle(latent, side) for latent in latents])
    found: dict[str, tuple[Option, ...]] = {}
    for site in conv_sites(decoder):
        rows = (
            convolution(decoder, site.name)
            .weight.detach()
            .double()
            .numpy()
            .reshape(site.shape[0], -1)
        )
        gain = gains[site.name].weight_gains.double().numpy().reshape(rows.shape)
        schemes = [Scheme("palette", bits, granularity) for bits in choices]
        found[site.name] = tuple(
            Option(scheme, blob_bytes(site, scheme, precision), _error(rows, gain, scheme))
            for scheme in schemes
        )
    return found


def other_bytes(
    decoder: nn.Module,
    precision: str,
    keep: Collection[str] = (),
    folded: Sequence[nn.Conv2d] = (),
) -> int:
    """Bytes of a weight file beside the compressed weights, as an upper bound.

    Weights of the ``folded`` convolutions, which stand for those to ``keep``; biases and affine
    parameters of norms, for each of which coremltools also stores a mean and a variance; the file's
    header.
    """
    width = 2 if precision == "float16" else 4
    total = BLOB
    for conv in folded:
        total += _blob(conv.weight.numel() * width)
    modules = [module for name, module in decoder.named_modules() if name not in keep]
    for module in (*modules, *folded):
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            total += _blob(module.bias.numel() * width)
        elif isinstance(module, nn.GroupNorm):
            total += 4 * _blob(module.num_channels * width)
    return total


def blob_bytes(site: Site, scheme: Scheme, precision: str) -> int:
    """Bytes of a palette's blobs: indices, tables and scales, each with its record and padding."""
    channels, inputs, height, width = site.shape
    float_bytes = 2 if precision == "float16" else 4
    indices = (channels * inputs * height * width * scheme.bits + 7) // 8
    tables = scheme.tables(channels) * 2**scheme.bits * float_bytes
    total = _blob(indices) + _blob(tables)
    return total + (_blob(channels * float_bytes) if scheme.scaled else 0)


def middle(latent: np.ndarray, side: int) -> np.ndarray:
    """The middle of a latent (1, C, h, w), at most ``side`` a side."""
    top, left = (max(0, length - side) // 2 for length in latent.shape[2:])
    return np.ascontiguousarray(latent[:, :, top : top + side, left : left + side])


def best_within(
    options: Mapping[str, Sequence[Option]], budgets: Sequence[int]
) -> list[dict[str, Option] | None]:
    """For each budget in bytes the options of least summed error; None where nothing fits.

    Exact: dynamic programming over bytes in steps of a blob's alignment.
    """
    names = list(options)
    size = max(max(budgets), 0) // BLOB + 1
    best = np.zeros(size)
    choices = np.zeros((len(names), size), np.intp)
    for row, name in enumerate(names):
        candidates = np.full((len(options[name]), size), np.inf)
        for column, option in enumerate(options[name]):
            shift = -(-option.bytes // BLOB)
            if shift < size:
                candidates[column, shift:] = best[: size - shift] + option.error
        choices[row] = candidates.argmin(axis=0)
        best = candidates.min(axis=0)
    return [_traced(options, names, best, choices, budget // BLOB) for budget in budgets]


def _traced(
    options: Mapping[str, Sequence[Option]],
    names: Sequence[str],
    best: np.ndarray,
    choices: np.ndarray,
    position: int,
) -> dict[str, Option] | None:
    if position < 0 or not np.isfinite(best[position]):
        return None
    chosen: dict[str, Option] = {}
    for row in range(len(names) - 1, -1, -1):
        option = options[names[row]][choices[row, position]]
        chosen[names[row]] = option
        position -= -(-option.bytes // BLOB)
    return {name: chosen[name] for name in names}


def _error(rows: np.ndarray, gain: np.ndarray, scheme: Scheme) -> float:
    scale = np.ones((len(rows), 1))
    if scheme.scaled:
        scale = np.sqrt((rows**2).mean(axis=1, keepdims=True))
        scale[scale == 0] = 1
    clusters = kmeans(rows / scale, 2**scheme.bits, proved=False)
    return float((gain * (rows - clusters.centres[clusters.labels] * scale) ** 2).sum())


def _blob(size: int) -> int:
    return BLOB + -(-size // BLOB) * BLOB
