"""Weights rounded one by one, with coremltools 9.0's arithmetic: no calibration, no bias moved.

The oracle is coremltools.optimize.coreml on a float16 package: integers and scales are equal; for
tables see ``kmeans``, which finds the error that its k-means finds or less.
"""

import numpy as np

from fluxvae.compress.forms import CompressedWeight, Palettized, Quantized, Scheme, to_float16
from fluxvae.compress.kmeans import kmeans
from fluxvae.errors import CompressionError

# coremltools' default weight_threshold: it leaves constants of fewer elements as they are.
SMALLEST = 2048


def plain_form(weight: np.ndarray, scheme: Scheme) -> CompressedWeight:
    """A form of a float32 weight (O, I, kh, kw), which is rounded to float16 first.

    Raises CompressionError where the weight is not finite.
    """
    with np.errstate(over="ignore"):
        half = weight.astype(np.float16)
    if not np.isfinite(half).all():
        raise CompressionError(
            "weights must be finite and within float16's range to be compressed; check them with "
            "fluxvae weights"
        )
    return _palettized(half, scheme) if scheme.kind == "palette" else _quantized(half, scheme)


def _palettized(weight: np.ndarray, scheme: Scheme) -> Palettized:
    """Tables of k-means centres. Scales are each output channel's largest magnitude.

    coremltools' enable_per_channel_scale makes a scale for each input channel and kernel position,
    which nearly doubles a 4-bit file; this is the form of coremltools.optimize.torch.
    """
    scale = None
    if scheme.scaled:
        scale = np.abs(weight).max(axis=(1, 2, 3))
        scale[scale == 0] = 1
        weight = weight / scale[:, None, None, None]
    tables = scheme.tables(len(weight))
    groups = [kmeans(part, 2**scheme.bits) for part in np.split(weight, tables)]
    lut = np.stack([padded_table(group.centres, scheme.bits) for group in groups])
    indices = np.concatenate([group.labels for group in groups]).astype(np.uint8)
    return Palettized(
        scheme.bits,
        indices,
        to_float16(lut),
        None if scale is None else scale.astype(np.float32),
    )


def padded_table(centres: np.ndarray, bits: int) -> np.ndarray:
    """Centres, the last one repeated until there are ``2 ** bits``."""
    return np.pad(centres, (0, 2**bits - len(centres)), mode="edge")


def _quantized(weight: np.ndarray, scheme: Scheme) -> Quantized:
    """Symmetric integers: the largest magnitude becomes 127 or 7; every step in float16.

    Where all weights under a scale are zero coremltools makes NaN of it; here it is 1.
    """
    channels, inputs, height, width = weight.shape
    largest = 2 ** (scheme.bits - 1) - 1
    blocks = scheme.blocks(inputs)
    parts = weight.reshape(channels, blocks, inputs // blocks, height, width)
    axes = (0, 1, 2, 3, 4) if scheme.granularity == "tensor" else (2, 3, 4)
    peak = np.abs(parts).max(axis=axes, keepdims=True)
    scale = (peak - -peak) / np.float16(2 * largest)
    scale[scale == 0] = 1
    data = np.clip(np.round(parts / scale), -largest, largest)
    shape = (*scale.shape[:2], 1, 1)
    return Quantized(
        scheme.kind,
        data.reshape(weight.shape).astype(np.int8),
        scale.reshape(shape).astype(np.float32),
    )
