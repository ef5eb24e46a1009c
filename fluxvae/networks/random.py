"""Random weights that behave like trained ones: for tests, and for timing without a download.

Reproducible bit for bit on every platform: the values come from PCG64's raw 64-bit stream, which
numpy promises never to change (NEP 19), and from exact operations on it; no logarithm or cosine
of some math library is involved.
"""

import math

import numpy as np
import torch
from torch import Tensor

from fluxvae.networks.catalog import PARTS, Decoder
from fluxvae.networks.kl_keys import STATISTICS, Shape
from fluxvae.networks.shapes import entry_shapes

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
    """Float32 parameters under upstream's names; the two parts of one seed are independent."""
    if entry.kl is not None:
        return _kl_tensors(entry, part, seed)
    shapes = entry_shapes(entry, part)
    key = [seed, PARTS.index(part), entry.contract.channels]
    stream = np.random.PCG64(np.random.SeedSequence(key))
    tensors = {name: _draw(part, name, shapes[name], stream) for name in sorted(shapes)}
    if part == "decoder":
        tensors["19.bias"] += 0.5
    return tensors


def _uniform(shape: Shape, stream: np.random.PCG64) -> Tensor:
    """Uniform in [-1, 1): the top 24 bits as a centred float32, exact."""
    raw = stream.random_raw(math.prod(shape))
    uniform = ((raw >> np.uint64(40)).astype(np.float32) - np.float32(2**23)) / np.float32(2**23)
    return torch.from_numpy(uniform.reshape(shape))


def _draw(part: str, name: str, shape: Shape, stream: np.random.PCG64) -> Tensor:
    values = _uniform(shape, stream)
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


# The same for the KL autoencoders, by the end of a weight's name. 2 is He et al. again; a branch's
# last convolution has a quarter, so that a dozen residuals do not pile up; q and k give logits of
# standard deviation 2.3, so that the attention attends; the ends give an image of standard
# deviation 0.5 around 0 and a latent of about unit variance.
_KL_GAINS = (
    ("conv2.weight", 0.5),
    ("to_q.weight", 2.3),
    ("to_k.weight", 2.3),
    ("to_v.weight", 1.0),
    ("to_out.0.weight", 1.0),
    ("conv_shortcut.weight", 1.0),
    ("quant_conv.weight", 1.0),
    ("conv_in.weight", 1.0),
)
_KL_GAIN_OUT = {"decoder": 0.6, "encoder": 2.6}
_KL_AFFINE = 0.2  # standard deviation of a GroupNorm's gain around 1, and of its shift


def _kl_tensors(entry: Decoder, part: str, seed: int) -> dict[str, Tensor]:
    """As ``random_tensors``. No affine is the identity, so that a lost one shows.

    The two parts of one seed have one VAE's batch-norm statistics: the first numbers of the
    decoder's.
    """
    shapes = entry_shapes(entry, part)
    streams = {
        part: np.random.PCG64(  # 1: not a tiny decoder's
            np.random.SeedSequence([seed, PARTS.index(part), entry.contract.channels, 1])
        )
        for part in PARTS
    }
    return {
        name: _draw_kl(part, name, shapes[name], streams["decoder" if name in STATISTICS else part])
        for name in sorted(shapes)
    }


def _draw_kl(part: str, name: str, shape: Shape, stream: np.random.PCG64) -> Tensor:
    values = _uniform(shape, stream)
    if name == "bn.running_var":
        return 1 + 0.5 * values
    if "norm" in name or name == "bn.running_mean":
        spread = _KL_AFFINE * math.sqrt(3) * values
        return 1 + spread if name.endswith("weight") else spread
    if len(shape) == 1:
        return _BIAS * values
    gain = next((g for end, g in _KL_GAINS if name.endswith(end)), _GAIN)
    if name == "conv_out.weight":
        gain = _KL_GAIN_OUT[part]
    return math.sqrt(3 * gain / math.prod(shape[1:])) * values
