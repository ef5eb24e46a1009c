"""One-operation programs, built with coremltools' own builder."""

import logging
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.mil.case import Case, SubByte

os.environ["TQDM_DISABLE"] = "1"
logging.getLogger("coremltools").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="coremltools")

import coremltools as ct  # noqa: E402
from coremltools.converters.mil.mil import (  # noqa: E402
    Builder,
    Function,
    Operation,
    Program,
    Var,
    types,
)
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry  # noqa: E402

TARGETS = {name: getattr(ct.target, name) for name in ("iOS15", "iOS16", "iOS17", "iOS18", "iOS26")}


# They return a mask and values.
SPARSE = ("constexpr_lut_to_sparse", "constexpr_sparse_blockwise_shift_scale")


def op_classes(name: str) -> dict[str, type[Operation]]:
    """The classes of an operation by the target that introduced each, oldest first."""
    found: dict[type[Operation], str] = {}
    for target, cls in SSAOpRegistry.core_ops[name].items():
        found.setdefault(cls, "iOS15" if target.name in ("iOS13", "iOS14") else target.name)
    return {target: cls for cls, target in found.items()}


def mil_type(array: np.ndarray) -> str:
    """MIL's name for the element type of an array."""
    return types.builtin_to_string(types.numpy_type_to_builtin_type(array.dtype))


def var_type(var: Var) -> tuple[str, tuple[int, ...]]:
    """Element type and shape that coremltools inferred for a value."""
    return types.builtin_to_string(var.dtype), tuple(int(d) for d in var.shape)


def build(case: Case, arguments: Mapping[str, Any], *, constant: bool) -> Operation:
    """The case's operation in a function of its target.

    ``constant``: every argument is a constant, so that coremltools evaluates the operation while
    it builds; otherwise run-time arguments are placeholders.
    """
    function, _ = _function(case, arguments, constant=constant)
    (found,) = (o for o in function.operations if o.op_type == case.op)
    return found


def expected_values(case: Case, dtype: str) -> list[np.ndarray]:
    """coremltools' value of the operation: of constexpr in ``dtype``, else evaluated in float32.

    Evaluated in fp16 numpy would round inside the operation; the executor rounds its result.
    """
    arguments = case.arguments(dtype)
    if hasattr(op_classes(case.op)[_newest(case)], "materialized_val_inference"):
        values = build(case, arguments, constant=True).materialized_val_inference()
    else:
        wide = {k: _widened(v) for k, v in arguments.items()}
        outputs = build(case, wide, constant=True).outputs
        values = tuple(v.val for v in outputs)
        assert all(v is not None for v in values), f"coremltools has no value for {case}"
    return [np.asarray(v) for v in (values if isinstance(values, tuple) else (values,))]


def save(
    case: Case, dtype: str, folder: Path, *, then: str | None = None
) -> tuple[Path, dict[str, np.ndarray]]:
    """A saved .mlpackage of the case, and the inputs to run it with.

    ``then``: an operation of one argument that is applied to each output.

    Outputs are called ``out_0``, ``out_1``, ... What a model cannot take or return is adapted:
    scalar arguments become constants; bool and small integers are cast to int32; the two outputs
    of a sparse weight, a mask and values, are made dense; a result that depends on no input is
    added, in fp32, to an input of zeros.
    """
    arguments = case.arguments(dtype)
    function, inputs = _function(case, arguments, constant=False, returnable=True, then=then)
    program = Program()
    program.add_function("main", function)
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=TARGETS[_runtime_target(case)],
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    path = Path(tempfile.mkdtemp(dir=folder)) / "op.mlpackage"
    model.save(str(path))
    return path, inputs


def _newest(case: Case) -> str:
    order = list(TARGETS)
    usable = [t for t in op_classes(case.op) if order.index(t) <= order.index(case.target)]
    return usable[-1]


def _runtime_target(case: Case) -> str:
    """fp16 inputs and outputs exist since iOS16."""
    return max(case.target, "iOS16")


def _widened(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_widened(v) for v in value)
    if isinstance(value, np.ndarray | np.generic) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value


def _native(value: Any) -> Any:
    if isinstance(value, SubByte):
        return value.values.astype(types.nptype_from_builtin(types.string_to_builtin(value.dtype)))
    return value


def _function(
    case: Case,
    arguments: Mapping[str, Any],
    *,
    constant: bool,
    returnable: bool = False,
    then: str | None = None,
) -> tuple[Function, dict[str, np.ndarray]]:
    feeds: dict[str, np.ndarray] = {}
    if not constant:
        for name in case.tensors:
            value = arguments[name]
            if isinstance(value, tuple):
                feeds |= {f"{name}_{i}": v for i, v in enumerate(value)}
            elif value.ndim or not returnable:
                feeds[name] = value
    inputs = {
        k: Builder.placeholder(v.shape, types.numpy_type_to_builtin_type(v.dtype), True)
        for k, v in feeds.items()
    }
    if returnable and not feeds:
        # A sparse weight has the shape of its mask, the first output.
        shape = build(case, arguments, constant=True).outputs[0].shape
        feeds["zero"] = np.zeros(shape, np.float32)
        inputs["zero"] = Builder.placeholder(shape)
    function = Function(inputs, opset_version=TARGETS[case.target])
    with function:
        call = {}
        for name, value in arguments.items():
            if isinstance(value, tuple) and isinstance(value[0], np.ndarray):
                many = [function.inputs.get(f"{name}_{i}", v) for i, v in enumerate(value)]
                call[name] = [v if isinstance(v, Var) else Builder.const(val=v) for v in many]
            else:
                call[name] = function.inputs.get(name, _native(value))
        results = getattr(Builder, case.op)(**call)
        outputs = list(results) if isinstance(results, list | tuple) else [results]
        if then is not None:
            outputs = [getattr(Builder, then)(x=v) for v in outputs]
        if returnable:
            if case.op in SPARSE:
                mask, values = outputs
                outputs = [Builder.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)]
            outputs = [_returnable(v, i, function) for i, v in enumerate(outputs)]
        function.set_outputs(outputs)
    return function, feeds


def _returnable(var: Var, index: int, function: Function) -> Var:
    name = f"out_{index}"
    dtype = types.builtin_to_string(var.dtype)
    if "zero" in function.inputs:
        wide = Builder.cast(x=var, dtype="fp32") if dtype != "fp32" else var
        return Builder.add(x=function.inputs["zero"], y=wide, name=name)
    if dtype in ("fp32", "fp16", "int32"):
        return Builder.identity(x=var, name=name)
    return Builder.cast(x=var, dtype="int32", name=name)
