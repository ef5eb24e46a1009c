"""Weights of neural-network layers (``WeightParams``) as float32 arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fluxvae.errors import ArtifactError, UnsupportedOpError


def weights(message: Any, shape: Sequence[int], what: str, *, channel: int = 0) -> np.ndarray:
    """float32 values of a WeightParams, widened or dequantized, in ``shape``.

    ``channel`` is the axis that per-channel quantization scales belong to; ``what`` names the
    weights in errors. Raises ArtifactError when there are not as many values as ``shape`` wants.
    """
    shape = tuple(int(d) for d in shape)
    count = int(np.prod(shape, dtype=np.int64))
    if message.int8RawValue:
        raise UnsupportedOpError(f"{what} are quantized for int8 arithmetic; not supported")
    if message.rawValue:
        return _dequantized(message, shape, count, what, channel)
    if message.float16Value:
        values = _halves(message.float16Value, what).astype(np.float32)
    else:
        values = np.fromiter(message.floatValue, np.float32, len(message.floatValue))
    return sized(values, count, what).reshape(shape)


def _dequantized(
    message: Any, shape: tuple[int, ...], count: int, what: str, channel: int
) -> np.ndarray:
    quantization = message.quantization
    bits = quantization.numberOfBits
    if not 1 <= bits <= 8:
        raise ArtifactError(f"{what} are quantized to {bits} bits; expected 1 to 8")
    codes = sized(_codes(message.rawValue, bits, count), count, what).reshape(shape)
    if quantization.WhichOneof("QuantizationType") == "lookupTableQuantization":
        table = np.array(quantization.lookupTableQuantization.floatValue, np.float32)
        return sized(table, 1 << bits, f"the look-up table of {what}")[codes]
    linear = quantization.linearQuantization
    along = [1] * len(shape)
    along[channel] = -1
    scale = _per_channel(linear.scale, shape[channel], what).reshape(along)
    bias = _per_channel(linear.bias or [0.0], shape[channel], what).reshape(along)
    # in float64, as coremltools' own dequantization, then rounded once
    return (codes * scale + bias).astype(np.float32)


def _codes(raw: bytes, bits: int, count: int) -> np.ndarray:
    """Integers of ``bits`` bits, packed most significant bit first."""
    packed = np.frombuffer(raw, np.uint8)
    if bits == 8:
        return packed
    if packed.size != (count * bits + 7) // 8:
        return packed[:0]
    stream = np.unpackbits(packed)[: count * bits].reshape(count, bits)
    return stream @ (1 << np.arange(bits, dtype=np.uint8)[::-1])


def _per_channel(values: Any, channels: int, what: str) -> np.ndarray:
    if len(values) not in (1, channels):
        raise ArtifactError(f"{what} have {len(values)} scales; expected 1 or {channels}")
    return np.array(values, np.float64)


def _halves(raw: bytes, what: str) -> np.ndarray:
    if len(raw) % 2:
        raise ArtifactError(f"{what} are {len(raw)} bytes of 16-bit values; the model is damaged")
    return np.frombuffer(raw, "<f2")


def sized(values: np.ndarray, count: int, what: str) -> np.ndarray:
    """``values``, which must be ``count`` of them; raises ArtifactError naming ``what``."""
    if values.size != count:
        raise ArtifactError(
            f"{what} hold {values.size} values, expected {count}; the model is damaged"
        )
    return values
