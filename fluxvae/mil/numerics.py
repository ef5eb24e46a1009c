"""The dtype policy: what a value of each MIL type is on torch, and where it is rounded.

Every float is held as float32, so that sums inside an operation stay wide; after an operation
whose declared output is fp16, the result is rounded to fp16 (round to nearest even, overflow
to infinity) and widened again. That is the model public measurements of the Neural Engine
suggest: fp16 between layers, a wide register inside one. torch's own fp16 kernels are not used:
they round elsewhere and are about 200 times slower on a CPU.
"""

import numpy as np
import torch
from torch import Tensor

from fluxvae.errors import UnsupportedOpError
from fluxvae.mil.program import BITS, FLOATS


def storage_dtype(dtype: str) -> torch.dtype:
    """torch dtype that holds values of a MIL element type."""
    if dtype in ("fp16", "fp32"):
        return torch.float32
    if dtype == "bool":
        return torch.bool
    if dtype in ("uint32", "int64"):
        return torch.int64
    if dtype in BITS and dtype not in FLOATS and dtype != "uint64":
        return torch.int32
    raise UnsupportedOpError(f"values of type {dtype} are not supported by the executor")


def to_tensor(array: np.ndarray, dtype: str) -> Tensor:
    """A constant or an input as a torch tensor in its storage dtype (always a copy)."""
    wide = array.astype(str(storage_dtype(dtype)).removeprefix("torch."))  # owns its memory
    return torch.from_numpy(np.ascontiguousarray(wide)).reshape(array.shape)


def epsilon_for(given: float | None, default: float, dtype: str) -> float:
    """A small constant as given, or MIL's default rounded to ``dtype`` (fp16 or fp32).

    coremltools writes defaults into a model in the type of the operation: ``nptype(default)``.
    """
    if given is not None:
        return given
    return float(np.float16(default) if dtype == "fp16" else np.float32(default))


class Rounder:
    """Rounds tensors to fp16 in place through one scratch buffer that it keeps.

    A fresh 16-bit temporary for every operation costs more than the rounding itself: the
    allocator returns large blocks to the system and each page is faulted in again.
    """

    def __init__(self) -> None:
        self._scratch = torch.empty(0, dtype=torch.float16)

    def round_(self, values: Tensor) -> Tensor:
        """Round float32 ``values`` to fp16 in place and return them."""
        if values.numel() > self._scratch.numel() or values.device != self._scratch.device:
            self._scratch = torch.empty(values.numel(), dtype=torch.float16, device=values.device)
        if not values.is_contiguous():
            return values.copy_(values.half())
        half = self._scratch[: values.numel()].view(values.shape)
        half.copy_(values)
        return values.copy_(half)
