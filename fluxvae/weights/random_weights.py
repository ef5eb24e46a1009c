"""Random weights that behave like trained ones: for tests, and for timing without a download.

Reproducible bit for bit on every platform: the values come from PCG64's raw 64-bit stream, which
numpy promises never to change (NEP 19), and from exact operations on it; no logarithm or cosine
of some math library is involved.
"""

import math

import numpy as np
import torch
from torch import Tensor

from fluxvae.catalog import Decoder
from fluxvae.weights.keys import PARTS, Shape, entry_shapes

# Variance of an output over the mean square of an input, for each kind of convolution. 2 is
# He et al. 2015 (arXiv:1502.01852), which a ReLU halves again. The rest was set so that the
# blocks' standard deviations lie among real TAEF1's and TAEF2's (tests/test_weights.py).
_GAIN = 2.0
_GAIN_LAST_OF_BRANCH = 0.06  # damps the residual branches: ten of them follow one another
_GAIN_POOL_OUT = 0.1
_GAIN_OF_ENDS = {
    ("decoder", "1"): 1.0,
    ("decoder", "19"): 0.07,  # image of standard deviation 0.1 to 0.4 around mid-grey
    ("encoder", "0"): 2.0,
    ("encoder", "14"): 2.0,  # latent of about unit variance
}
_BIAS = 0.05  # half-width; not zero, so that a lost bias shows


def random_tensors(entry: Decoder, part: str, seed: int) -> dict[str, Tensor]:
    """Float32 parameters under taesd's names; the two parts of one seed are independent."""
    shapes = entry_shapes(entry, part)
    key = [seed, PARTS.index(part), entry.contract.channels]
    stream = np.random.PCG64(np.random.SeedSequence(key))
    tensors = {name: _draw(part, name, shapes[name], stream) for name in sorted(shapes)}
    if part == "decoder":
        tensors["19.bias"] += 0.5
    return tensors


def _draw(part: str, name: str, shape: Shape, stream: np.random.PCG64) -> Tensor:
    raw = stream.random_raw(math.prod(shape))
    # The top 24 bits as a centred float32: exact, uniform in [-1, 1).
    uniform = ((raw >> np.uint64(40)).astype(np.float32) - np.float32(2**23)) / np.float32(2**23)
    values = torch.from_numpy(uniform.reshape(shape))
    if name.endswith("pool.1.weight"):
        return 1 + _BIAS * values
    if name.endswith("bias"):
        return _BIAS * values
    fan_in = math.prod(shape[1:])
    return math.sqrt(3 * _gain(part, name) / fan_in) * values  # a uniform's variance is width²/3


def _gain(part: str, name: str) -> float:
    if name.endswith("conv.4.weight"):
        return _GAIN_LAST_OF_BRANCH
    if name.endswith("pool.3.weight"):
        return _GAIN_POOL_OUT
    return _GAIN_OF_ENDS.get((part, name.split(".")[0]), _GAIN)
