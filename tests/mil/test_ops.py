"""Every operation against coremltools' declarations and evaluation, or torch in float64."""

import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fluxvae.mil.executor import Session
from fluxvae.mil.numerics import storage_dtype, to_tensor
from fluxvae.mil.package import read_package
from fluxvae.mil.program import TensorType
from fluxvae.mil.registry import REGISTRY, Bools, Ints, OpSpec
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
every_run = pytest.mark.parametrize(("case", "dtype"), RUNS)


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


def call(spec: OpSpec, arguments: Mapping[str, Any], out: TensorType) -> tuple[Tensor, ...]:
    """The operation's results on the arguments of a case."""
    converted = {k: convert(_kind(spec, k), v) for k, v in arguments.items()}
    result = spec.run(**converted, **({"out": out} if spec.wants_out else {}))
    return result if isinstance(result, tuple) else (result,)


def _kind(spec: OpSpec, name: str) -> Any:
    return spec.parameters[name].kind


def declared(case: Case, dtype: str) -> list[TensorType]:
    """Types of the results as coremltools infers them."""
    operation = build(case, case.arguments(dtype), constant=not case.tensors)
    return [TensorType(*var_type(v)) for v in operation.outputs]


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


@pytest.mark.parametrize("spec", list(REGISTRY), ids=lambda s: s.name)
def test_every_operation_has_a_case(spec: OpSpec) -> None:
    assert [c for c in CASES if c.op == spec.name]


def test_case_names_are_unique() -> None:
    names = [str(c) for c in CASES]
    assert len(names) == len(set(names))


@every_run
def test_result_has_the_type_coremltools_infers(case: Case, dtype: str) -> None:
    types = declared(case, dtype)
    results = call(REGISTRY[case.op], case.arguments(dtype), types[0])
    assert [tuple(r.shape) for r in results] == [t.shape for t in types]
    assert [r.dtype for r in results] == [storage_dtype(t.dtype) for t in types]


@every_run
def test_result_has_the_value_of_the_oracle(case: Case, dtype: str) -> None:
    types = declared(case, dtype)
    results = call(REGISTRY[case.op], case.arguments(dtype), types[0])
    oracle = expected(case, dtype)
    assert len(results) == len(oracle)
    for got, want, declared_type in zip(results, oracle, types, strict=True):
        assert_close(got.numpy(), want, case, declared_type.dtype)


@every_run
def test_operation_leaves_its_arguments_alone(case: Case, dtype: str) -> None:
    spec = REGISTRY[case.op]
    kept = {k: convert(_kind(spec, k), v) for k, v in case.arguments(dtype).items()}
    before = {k: _copy(v) for k, v in kept.items()}
    spec.run(**kept, **({"out": declared(case, dtype)[0]} if spec.wants_out else {}))
    for name, value in before.items():
        if isinstance(value, str):
            continue
        torch.testing.assert_close(kept[name], value, rtol=0, atol=0, equal_nan=True)


@every_run
def test_results_are_contiguous(case: Case, dtype: str) -> None:
    """Reductions of strided tensors are 10 times slower and less accurate."""
    for result in call(REGISTRY[case.op], case.arguments(dtype), declared(case, dtype)[0]):
        assert result.is_contiguous()


ROUNDED = [p for p in RUNS if not REGISTRY[p.values[0].op].exact]


@pytest.mark.parametrize(("case", "dtype"), ROUNDED)
def test_result_that_will_be_rounded_shares_no_memory(case: Case, dtype: str) -> None:
    """The executor rounds fp16 results in place; an argument may be needed again."""
    spec, types = REGISTRY[case.op], declared(case, dtype)
    kept = {k: convert(_kind(spec, k), v) for k, v in case.arguments(dtype).items()}
    results = spec.run(**kept, **({"out": types[0]} if spec.wants_out else {}))
    tensors = [t for v in kept.values() for t in (v if isinstance(v, tuple) else (v,))]
    used = {t.untyped_storage().data_ptr() for t in tensors if isinstance(t, Tensor)}
    for result, declared_type in zip(
        results if isinstance(results, tuple) else (results,), types, strict=True
    ):
        if declared_type.dtype == "fp16":
            assert result.untyped_storage().data_ptr() not in used


def _copy(value: Any) -> Any:
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
        return tuple(v.clone() for v in value)
    return value.clone() if isinstance(value, Tensor) else value


def _to_meta(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_to_meta(v) for v in value)
    floats = isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0
    return value.to("meta") if floats else value


@pytest.mark.parametrize("case", CASES, ids=str)
def test_floats_may_live_on_another_device(case: Case) -> None:
    """Integers and scalars stay on the CPU; results of floats go where the floats are."""
    spec, types = REGISTRY[case.op], declared(case, case.dtypes[0])
    arguments = {
        k: _to_meta(convert(_kind(spec, k), v)) for k, v in case.arguments(case.dtypes[0]).items()
    }
    results = spec.run(**arguments, **({"out": types[0]} if spec.wants_out else {}))
    results = results if isinstance(results, tuple) else (results,)
    assert [tuple(r.shape) for r in results] == [t.shape for t in types]
    if any(isinstance(v, Tensor) and v.is_meta for v in arguments.values()):
        assert all(r.is_meta for r in results if r.is_floating_point())


EXACT = [p for p in RUNS if REGISTRY[p.values[0].op].exact and p.values[1] == "fp16"]
IN_PLACE = [
    p
    for p in RUNS
    # The executor does not overwrite an argument that is smaller than the result.
    if REGISTRY[p.values[0].op].in_place and p.values[0].id != "left-is-smaller"
]


@pytest.mark.parametrize(("case", "dtype"), EXACT)
def test_exact_operation_needs_no_rounding(case: Case, dtype: str) -> None:
    for result in call(REGISTRY[case.op], case.arguments(dtype), declared(case, dtype)[0]):
        if result.is_floating_point():
            assert torch.equal(result, result.half().float())


@pytest.mark.parametrize(("case", "dtype"), IN_PLACE)
def test_variant_in_place_gives_the_same_bits(case: Case, dtype: str) -> None:
    spec = REGISTRY[case.op]
    arguments = {k: convert(_kind(spec, k), v) for k, v in case.arguments(dtype).items()}
    plain = spec.run(**arguments)
    first = arguments[next(iter(spec.parameters))]
    overwritten = spec.in_place(**arguments)  # type: ignore[misc]
    assert torch.equal(plain, overwritten)
    if case.op != "cast":  # a cast to another type has to be a fresh tensor
        assert overwritten is first


@pytest.fixture(scope="module")
def cheap_collections() -> Iterator[None]:
    """ct.convert collects garbage each time: 0.35 s over everything that is imported by now."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("cheap_collections")
@every_run
def test_saved_program_gives_the_value_of_the_oracle(
    case: Case, dtype: str, tmp_path: Path
) -> None:
    path, inputs = save(case, dtype, tmp_path)
    results = Session(read_package(path)).run(inputs)
    types, oracle = declared(case, dtype), expected(case, dtype)
    if case.op in SPARSE:
        mask, values = oracle
        dense = np.zeros(mask.shape, values.dtype)
        dense[mask != 0] = values
        types, oracle = types[1:], [dense]
    assert list(results) == [f"out_{i}" for i in range(len(oracle))]
    for got, want, declared_type in zip(results.values(), oracle, types, strict=True):
        if declared_type.dtype == "fp16":  # also where the program widened it to return it
            np.testing.assert_array_equal(got, got.astype(np.float16))
        assert_close(got, want, case, declared_type.dtype)


def test_view_of_a_constant_is_not_overwritten(tmp_path: Path) -> None:
    """square may work in place, but not on a reshaped constant: the second run would differ."""
    case = Case("reshape", "constant", {"shape": ints(2, 3)}, {"x": np.arange(-3.0, 3)})
    path, inputs = save(case, "fp32", tmp_path, then="square")
    session = Session(read_package(path))
    want = np.array([[9, 4, 1], [0, 1, 4]], np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(session.run(inputs)["out_0"], want)


@pytest.mark.parametrize("spec", list(REGISTRY), ids=lambda s: s.name)
def test_parameters_are_those_of_coremltools(spec: OpSpec) -> None:
    versions = [c.input_spec.input_types for c in op_classes(spec.name).values()]
    assert set(spec.parameters) == {n for v in versions for n in v}
    always = {n for n in spec.parameters if all(n in v and not v[n].optional for v in versions)}
    assert {n for n, p in spec.parameters.items() if p.required} == always


@pytest.mark.parametrize("spec", list(REGISTRY), ids=lambda s: s.name)
def test_operation_exists_since_the_target_coremltools_says(spec: OpSpec) -> None:
    assert spec.since == next(iter(op_classes(spec.name)))


@every_run
def test_defaults_are_those_of_coremltools(case: Case, dtype: str) -> None:
    """A result with coremltools' defaults spelled out equals the one with ours."""
    operation = build(case, case.arguments(dtype), constant=not case.tensors)
    defaults = {
        k: v for k, v in operation.default_inputs().items() if k not in case.arguments(dtype)
    }
    spec, types = REGISTRY[case.op], declared(case, dtype)
    spelled = case.arguments(dtype) | {k: v for k, v in defaults.items() if v is not None}
    plain = call(spec, case.arguments(dtype), types[0])
    for ours, theirs in zip(plain, call(spec, spelled, types[0]), strict=True):
        assert torch.equal(ours, theirs)
