"""What one test case of an operation is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class SubByte:
    """A constant of a type numpy lacks (``uint4``, ``int4``, ...), one element to a byte."""

    dtype: str
    values: np.ndarray


# float64 arguments of the case, by name -> expected result(s)
Oracle = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """One use of one operation.

    ``tensors`` are arguments known at run time, ``constants`` those fixed in the program. Arrays
    of float64 and Python floats take the type of the case (fp32, fp16); arrays of any other type
    keep it. Without an ``oracle`` the expected values are coremltools' own.

    ``tolerance`` is the allowed difference in fp32, relative to the largest expected value. In
    fp16 one step is allowed on top: two numbers that differ in the last bits of float32 can be
    rounded to neighbouring fp16 numbers. ``None``: bit for bit in both.
    """

    op: str
    id: str
    tensors: Mapping[str, Any]
    constants: Mapping[str, Any] = field(default_factory=dict)
    oracle: Oracle | None = None
    dtypes: tuple[str, ...] = ("fp32", "fp16")
    target: str = "iOS17"
    tolerance: float | None = 1e-6

    def __str__(self) -> str:
        return f"{self.op}-{self.id}"

    def arguments(self, dtype: str) -> dict[str, Any]:
        """Tensors and constants with their floats in ``dtype``."""
        return {k: typed(v, dtype) for k, v in (self.tensors | self.constants).items()}


def typed(value: Any, dtype: str) -> Any:
    """``value`` with float64 arrays and Python floats in ``dtype``."""
    numpy_type = {"fp16": np.float16, "fp32": np.float32}.get(dtype)
    if isinstance(value, tuple) and value and isinstance(value[0], np.ndarray):
        return tuple(typed(v, dtype) for v in value)
    if numpy_type and isinstance(value, float):
        return numpy_type(value)
    if numpy_type and isinstance(value, np.ndarray) and value.dtype == np.float64:
        return value.astype(numpy_type)
    return value


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers, always the same for a shape and seed."""
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def positive(*shape: int) -> np.ndarray:
    """Numbers in [0.5, 2)."""
    return np.random.default_rng(shape).uniform(0.5, 2, shape)


def integers(low: int, high: int, *shape: int, dtype: str = "int32") -> np.ndarray:
    """Integers in [low, high)."""
    return np.random.default_rng((abs(low), high, *shape)).integers(low, high, shape).astype(dtype)


def ints(*values: int) -> np.ndarray:
    """An int32 vector."""
    return np.array(values, np.int32)


def from_numpy(expected: Any) -> Tensor:
    """A numpy result as a tensor."""
    return torch.from_numpy(np.array(expected))
