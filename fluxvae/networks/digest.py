"""The digest of parameter values, whatever file they came in."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal sha256 over names (sorted), shapes and little-endian float32 values.

    Each tensor contributes ``name shape\\n`` in UTF-8 (``3.conv.0.bias 64``, dimensions joined
    by ``x``) and then its values in C order. Values beyond float32 are rounded to it first.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().to("cpu", torch.float32).contiguous().numpy()
        shape = "x".join(str(size) for size in values.shape)
        digest.update(f"{name} {shape}\n".encode())
        digest.update(values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
