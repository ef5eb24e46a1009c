"""Every operation against coremltools' declarations and evaluation, or torch in float64."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fluxvae.mil import ops as ops
from fluxvae.mil.executor import Session
from fluxvae.mil.numerics import storage_dtype, to_tensor
from fluxvae.mil.package import read_package
from fluxvae.mil.program import TensorType
from fluxvae.mil.registry import REGISTRY, Bools, Ints
from tests.mil.case import Case, SubByte, ints
from tests.mil.cases import CASES
from tests.mil.programs import (
    SPARSE,
    build,
    expected_values,
    mil_type,
    op_classes,
    save,
    var_type,
)

RUNS = [pytest.param(c, d, id=f"{c}-{d}") for c in CASES for d in c.dtypes]
# coremltools compares the length of a range with a limit of its own, in fp16
pytestmark = pytest.mark.filterwarnings(
    "ignore:overflow encountered in cast:RuntimeWarning:"
    "coremltools.converters.mil.mil.ops.defs.iOS15.tensor_operation"
)
Arguments = Mapping[str, Any]
Results = tuple[Tensor, ...]


def convert(kind: Any, value: Any) -> Any:
    """An argument of a case as the operation's annotation wants it."""
    if isinstance(value, tuple):
        return tuple(convert(kind, v) for v in value)
    if isinstance(value, SubByte):
        return to_tensor(value.values, value.dtype)
    if kind in (Ints, Bools):
        return tuple(np.asarray(value).tolist())
    if kind in (int, float, bool, str):
        return kind(value)
    array = np.asarray(value)
    return to_tensor(array, mil_type(array))


class Trial:
    """A case in one type: the operation, and what coremltools and the oracle say of it."""

    def __init__(self, case: Case, dtype: str) -> None:
        self.case, self.dtype = case, dtype
        self.spec = REGISTRY[case.op]
        self.arguments = case.arguments(dtype)
        operation = build(case, self.arguments, constant=not case.tensors)
        self.types = [TensorType(*var_type(v)) for v in operation.outputs]
        self.defaults = {
            k: v
            for k, v in operation.default_inputs().items()
            if k not in self.arguments and v is not None
        }

    @cached_property
    def oracle(self) -> list[np.ndarray]:
        """The values to expect."""
        return expected(self.case, self.dtype)

    def converted(self, **more: Any) -> dict[str, Any]:
        """Fresh arguments as the operation takes them; ``more`` as coremltools spells them."""
        parameters = self.spec.parameters
        return {k: convert(parameters[k].kind, v) for k, v in (self.arguments | more).items()}

    def call(self, arguments: Arguments) -> Results:
        """The operation's results, always as a tuple."""
        out = {"out": self.types[0]} if self.spec.wants_out else {}
        result = self.spec.run(**arguments, **out)
        return result if isinstance(result, tuple) else (result,)


def expected(case: Case, dtype: str) -> list[np.ndarray]:
    """Oracle's values in float64 (or coremltools' own type)."""
    if case.oracle is None:
        return expected_values(case, dtype)
    wide = {k: _float64(v) for k, v in case.arguments(dtype).items()}
    values = case.oracle(**wide)
    return [v.numpy() for v in (values if isinstance(values, tuple) else (values,))]


def _float64(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_float64(v) for v in value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value, np.float64))
    return value


def assert_close(got: np.ndarray, want: np.ndarray, case: Case, dtype: str) -> None:
    """Equal, or within the case's tolerance and one fp16 step."""
    assert got.shape == want.shape
    if dtype == "fp16":
        got, want = got.astype(np.float16), want.astype(np.float16)
    if case.tolerance is None or not np.issubdtype(got.dtype, np.floating):
        np.testing.assert_array_equal(got, want.astype(got.dtype))
        return
    finite = np.abs(want[np.isfinite(want)].astype(np.float64))
    allowed = case.tolerance * max(finite.max(initial=0), 1e-30)
    step = np.spacing(np.abs(want)).astype(np.float64) if dtype == "fp16" else 0
    same = got == want  # infinities
    error = np.where(same, 0, np.abs(got.astype(np.float64) - want.astype(np.float64)))
    excess = (error - step).max(initial=0)
    assert excess <= allowed, f"off by {excess:.3g}, allowed {allowed:.3g}"


@pytest.mark.parametrize(("case", "dtype"), RUNS)
def test_operation_keeps_mils_contract_alone_and_in_a_saved_program(
    case: Case, dtype: str, tmp_path: Path
) -> None:
    """Each property is a function below, which a failure's traceback names."""
    trial = Trial(case, dtype)
    arguments = trial.converted()
    before = {k: _copy(v) for k, v in arguments.items()}
    results = trial.call(arguments)
    assert_operation_left_its_arguments_alone(arguments, before)
    assert_results_have_the_types_coremltools_infers(results, trial)
    assert_results_have_the_values_of_the_oracle(results, trial)
    assert_results_are_contiguous(results)
    assert_results_that_will_be_rounded_share_no_memory(results, arguments, trial)
    assert_exact_results_need_no_rounding(results, trial)
    assert_defaults_are_those_of_coremltools(results, trial)
    assert_variant_in_place_gives_the_same_bits(results, trial)
    if dtype == case.dtypes[0]:
        assert_floats_may_live_on_another_device(trial)
    assert_saved_program_gives_the_values_of_the_oracle(trial, tmp_path)


def assert_operation_left_its_arguments_alone(arguments: Arguments, before: Arguments) -> None:
    for name, value in before.items():
        if not isinstance(value, str):
            torch.testing.assert_close(arguments[name], value, rtol=0, atol=0, equal_nan=True)


def assert_results_have_the_types_coremltools_infers(results: Results, trial: Trial) -> None:
    assert [tuple(r.shape) for r in results] == [t.shape for t in trial.types]
    assert [r.dtype for r in results] == [storage_dtype(t.dtype) for t in trial.types]


def assert_results_have_the_values_of_the_oracle(results: Results, trial: Trial) -> None:
    assert_values([r.numpy() for r in results], trial.oracle, trial.types, trial.case)


def assert_values(
    results: Sequence[np.ndarray],
    oracle: Sequence[np.ndarray],
    types: Sequence[TensorType],
    case: Case,
) -> None:
    for got, want, declared in zip(results, oracle, types, strict=True):
        assert_close(got, want, case, declared.dtype)


def assert_results_are_contiguous(results: Results) -> None:
    """Reductions of strided tensors are 10 times slower and less accurate."""
    assert all(r.is_contiguous() for r in results)


def assert_results_that_will_be_rounded_share_no_memory(
    results: Results, arguments: Arguments, trial: Trial
) -> None:
    """The executor rounds fp16 results in place; an argument may be needed again."""
    if trial.spec.exact:
        return
    tensors = [t for v in arguments.values() for t in (v if isinstance(v, tuple) else (v,))]
    used = {t.untyped_storage().data_ptr() for t in tensors if isinstance(t, Tensor)}
    for result, declared in zip(results, trial.types, strict=True):
        if declared.dtype == "fp16":
            assert result.untyped_storage().data_ptr() not in used


def assert_exact_results_need_no_rounding(results: Results, trial: Trial) -> None:
    if trial.spec.exact and trial.dtype == "fp16":
        for result in results:
            if result.is_floating_point():
                assert torch.equal(result, result.half().float())


def assert_defaults_are_those_of_coremltools(results: Results, trial: Trial) -> None:
    """A result with coremltools' defaults spelled out equals the one with ours."""
    spelled = trial.call(trial.converted(**trial.defaults))
    for ours, theirs in zip(results, spelled, strict=True):
        assert torch.equal(ours, theirs)


def assert_variant_in_place_gives_the_same_bits(results: Results, trial: Trial) -> None:
    # The executor does not overwrite an argument that is smaller than the result.
    if trial.spec.in_place is None or trial.case.id == "left-is-smaller":
        return
    arguments = trial.converted()
    first = arguments[next(iter(trial.spec.parameters))]
    overwritten = trial.spec.in_place(**arguments)
    assert torch.equal(results[0], overwritten)
    if trial.case.op != "cast":  # a cast to another type has to be a fresh tensor
        assert overwritten is first


def assert_floats_may_live_on_another_device(trial: Trial) -> None:
    """Integers and scalars stay on the CPU; results of floats go where the floats are."""
    arguments = {k: _to_meta(v) for k, v in trial.converted().items()}
    results = trial.call(arguments)
    assert [tuple(r.shape) for r in results] == [t.shape for t in trial.types]
    if any(isinstance(v, Tensor) and v.is_meta for v in arguments.values()):
        assert all(r.is_meta for r in results if r.is_floating_point())


def assert_saved_program_gives_the_values_of_the_oracle(trial: Trial, folder: Path) -> None:
    path, inputs = save(trial.case, trial.dtype, folder)
    results = Session(read_package(path)).run(inputs)
    types, oracle = trial.types, trial.oracle
    if trial.case.op in SPARSE:
        mask, values = oracle
        dense = np.zeros(mask.shape, values.dtype)
        dense[mask != 0] = values
        types, oracle = types[1:], [dense]
    assert list(results) == [f"out_{i}" for i in range(len(oracle))]
    for got, declared in zip(results.values(), types, strict=True):
        if declared.dtype == "fp16":  # also where the program widened it to return it
            np.testing.assert_array_equal(got, got.astype(np.float16))
    assert_values(list(results.values()), oracle, types, trial.case)


def _copy(value: Any) -> Any:
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
        return tuple(v.clone() for v in value)
    return value.clone() if isinstance(value, Tensor) else value


def _to_meta(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_to_meta(v) for v in value)
    floats = isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0
    return value.to("meta") if floats else value


def test_view_of_a_constant_is_not_overwritten(tmp_path: Path) -> None:
    """square may work in place, but not on a reshaped constant: the second run would differ."""
    case = Case("reshape", "constant", {"shape": ints(2, 3)}, {"x": np.arange(-3.0, 3)})
    path, inputs = save(case, "fp32", tmp_path, then="square")
    session = Session(read_package(path))
    want = np.array([[9, 4, 1], [0, 1, 4]], np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(session.run(inputs)["out_0"], want)


def test_every_operation_has_a_case() -> None:
    assert {spec.name for spec in REGISTRY} == {case.op for case in CASES}


def test_case_names_are_unique() -> None:
    names = [str(c) for c in CASES]
    assert len(names) == len(set(names))


def test_parameters_are_those_of_coremltools() -> None:
    theirs = {}
    for spec in REGISTRY:
        versions = [c.input_spec.input_types for c in op_classes(spec.name).values()]
        names = {n for v in versions for n in v}
        theirs[spec.name] = {n: all(n in v and not v[n].optional for v in versions) for n in names}
    ours = {s.name: {n: p.required for n, p in s.parameters.items()} for s in REGISTRY}
    assert ours == theirs


def test_operations_exist_since_the_target_coremltools_says() -> None:
    theirs = {spec.name: next(iter(op_classes(spec.name))) for spec in REGISTRY}
    assert {spec.name: spec.since for spec in REGISTRY} == theirs
