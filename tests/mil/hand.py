"""Programs written by hand, operation by operation, without coremltools."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fluxvae.mil.program import (
    Constant,
    Feature,
    Function,
    Metadata,
    Op,
    Program,
    Ref,
    Signature,
    TensorType,
    Variable,
)

_TYPES = {"float16": "fp16", "float32": "fp32", "int32": "int32", "bool": "bool"}
Shape = tuple[int | None, ...]


def constant(value: Any) -> Constant:
    """An immediate constant; Python floats become fp32, integers int32."""
    if isinstance(value, str):
        return Constant(TensorType("string", ()), value)
    array = np.asarray(value)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    if array.dtype == np.int64:
        array = array.astype(np.int32)
    return Constant(TensorType(_TYPES[str(array.dtype)], array.shape), array)


def operation(
    kind: str,
    output: str | tuple[str, ...],
    shape: Shape,
    dtype: str = "fp32",
    /,
    **arguments: Any,
) -> Op:
    """``kind`` with its arguments: a string is a value's name, a list several of them.

    A ``Constant`` is taken as it is (strings too: ``constant("fp16")``); all else becomes one.
    """
    outputs = (output,) if isinstance(output, str) else output
    bound = {k: _bindings(v) for k, v in arguments.items()}
    kinds = tuple(Variable(name, TensorType(dtype, shape)) for name in outputs)
    return Op(kind, outputs[0], bound, kinds)


def _bindings(value: Any) -> tuple[Ref | Constant, ...]:
    if isinstance(value, list) and value and isinstance(value[0], str):
        return tuple(Ref(v) for v in value)
    if isinstance(value, str):
        return (Ref(value),)
    return (value if isinstance(value, Constant) else constant(value),)


def tensor(name: str, shape: tuple[int, ...], dtype: str = "fp32", **more: Any) -> Feature:
    """A multi-array feature."""
    return Feature(name, "tensor", dtype, shape, **more)


def program(
    inputs: Sequence[Feature],
    ops: Sequence[Op],
    outputs: Sequence[Feature],
    *,
    opset: str = "CoreML7",
    dtype: str | None = None,
) -> Program:
    """One function, ``main``. ``dtype``: of the program's inputs, where the features' differ."""
    function = Function(
        name="main",
        opset=opset,
        inputs=tuple(Variable(f.name, TensorType(dtype or f.dtype, f.shape)) for f in inputs),
        ops=tuple(ops),
        outputs=tuple(f.name for f in outputs),
    )
    signature = Signature(tuple(inputs), tuple(outputs))
    return Program(
        kind="mlprogram",
        specification=8,
        functions={"main": function},
        signatures={"main": signature},
        default_function="main",
        metadata=Metadata(),
        path=Path("hand.mlpackage"),
    )
