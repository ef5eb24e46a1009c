"""Whether two programs, read from different files, are the same bit for bit."""

import numpy as np

from fluxvae.mil.program import Argument, Constant, Function, Op, Program, Ref


def assert_same_program(one: Program, other: Program) -> None:
    """Functions, signatures and metadata; where the files lie does not matter."""
    assert (one.kind, one.specification) == (other.kind, other.specification)
    assert one.default_function == other.default_function
    assert one.signatures == other.signatures
    assert one.metadata == other.metadata
    assert list(one.functions) == list(other.functions)
    for name, function in one.functions.items():
        assert_same_function(function, other.functions[name])


def assert_same_function(one: Function, other: Function) -> None:
    """Parameters in any order: a compiled text sorts them by name."""
    assert (one.name, one.opset, one.outputs) == (other.name, other.opset, other.outputs)
    assert sorted(one.inputs, key=str) == sorted(other.inputs, key=str)
    assert len(one.ops) == len(other.ops)
    for op, twin in zip(one.ops, other.ops, strict=True):
        _assert_same_op(op, twin)


def _assert_same_op(one: Op, other: Op) -> None:
    assert (one.kind, one.name, one.outputs) == (other.kind, other.name, other.outputs)
    assert set(one.inputs) == set(other.inputs), one.name
    assert set(one.attributes) == set(other.attributes), one.name
    for key, arguments in one.inputs.items():
        for argument, twin in zip(arguments, other.inputs[key], strict=True):
            _assert_same_argument(argument, twin, f"{one.name}.{key}")
    for key, constant in one.attributes.items():
        _assert_same_argument(constant, other.attributes[key], f"{one.name}[{key}]")


def _assert_same_argument(one: Argument, other: Argument, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, Ref) or isinstance(other, Ref):
        assert one == other, where
        return
    assert one.type == other.type, where
    assert (one.blob is None) == (other.blob is None), where
    assert one.blob is None or one.blob.offset == other.blob.offset, where  # type: ignore[union-attr]
    assert _bits(one) == _bits(other), where


def _bits(constant: Constant) -> object:
    value = constant.value()
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    return array.dtype.str, array.shape, array.tobytes()
