"""Runs one function of a Program on torch.

A Session plans once (looks every operation up, converts constants, folds weight decompression,
finds where each value dies) and then runs the plan for any number of inputs. Values are freed
at their last use, and an operation may overwrite an argument that dies there.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fluxvae.errors import ArtifactError, LatentError, UnsupportedOpError
from fluxvae.mil import ops as ops  # fills the registry
from fluxvae.mil.arguments import convert
from fluxvae.mil.declared import check_declared, check_value
from fluxvae.mil.features import accept, give
from fluxvae.mil.growth import refuse_growth
from fluxvae.mil.interface import check_wiring
from fluxvae.mil.numerics import Rounder, storage_dtype, to_tensor
from fluxvae.mil.program import Constant, Feature, Op, Program, Ref, TensorType
from fluxvae.mil.registry import REGISTRY, OpSpec

OnOp = Callable[[Op, Mapping[str, Tensor]], None]
# What torch and numpy raise for arguments of a damaged model.
_FAILURES = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Step:
    """One planned operation. ``fixed`` holds converted constants, ``wired`` names values."""

    op: Op
    spec: OpSpec
    fixed: Mapping[str, Any]
    wired: Mapping[str, tuple[Any, ...]]
    first: str | None  # parameter that an in-place variant overwrites
    dying: tuple[str, ...]

    def constants(self) -> Iterator[Tensor]:
        """Every constant tensor this step hands to its operation."""
        for value in (*self.fixed.values(), *self.wired.values()):
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Tensor):
                    yield item


class Session:
    """An executable function of a program.

    ``device`` is a torch device for the floats (integers stay on the CPU, where shapes are
    computed); on ``meta`` the program runs without values, for its shapes alone.
    Raises UnsupportedOpError, naming every operation that the table lacks; that happens here,
    before anything is computed.
    """

    def __init__(
        self, program: Program, function: str | None = None, *, device: str = "cpu"
    ) -> None:
        self.program = program
        self._device = torch.device(device)
        self.function = program.function(function)
        self.signature = program.signatures[self.function.name]
        self._refuse_unsupported()
        check_wiring(self.function, self.signature)
        self._rounder = Rounder()
        self._constants: dict[str, Any] = {}
        self._last_use = _last_uses(self.function.ops, self.function.outputs)
        self._steps = self._plan()

    def run(
        self, inputs: Mapping[str, np.ndarray], *, on_op: OnOp | None = None
    ) -> dict[str, np.ndarray]:
        """Outputs by name, in the dtype the description declares.

        ``inputs``: one array for each declared input, of a declared shape; floats are rounded to
        the declared dtype first. An image is uint8 (height, width, 3) in RGB order; as an output it
        was rounded to nearest and clamped. A classifier gives its scores in the order of the
        labels, and the best label. ``on_op(op, outputs)`` is called after every operation
        with its outputs (float32 tensors that hold rounded values; copy what you keep).
        Raises LatentError for missing, extra or wrongly shaped inputs.
        """
        values = self._bind(inputs)
        for operation, outputs in self._iterate(values):
            if on_op is not None:
                on_op(operation, outputs)
        return {f.name: self._export(f, values) for f in self.signature.outputs}

    def iterate(self, inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[Op, dict[str, Tensor]]]:
        """Yield each operation with its outputs, in program order: ``run`` step by step.

        Two sessions advanced in turn can be compared without holding every intermediate.
        """
        yield from self._iterate(self._bind(inputs))

    def _iterate(self, values: dict[str, Tensor]) -> Iterator[tuple[Op, dict[str, Tensor]]]:
        holders = Counter(_storage(v) for v in values.values())
        # Results can be views of constants (a reshape): those must never be overwritten.
        holders.update(_storage(t) for step in self._steps for t in step.constants())
        for step in self._steps:
            with torch.no_grad():
                self._run_step(step, values, holders)
            yield step.op, {v.name: values[v.name] for v in step.op.outputs}
            for variable in step.op.outputs:
                if variable.name not in self._last_use:  # never read: drop at once
                    holders[_storage(values.pop(variable.name))] -= 1

    def _refuse_unsupported(self) -> None:
        unsupported = REGISTRY.unsupported(self.function)
        reason = unsupported.reason if unsupported else self.signature.unsupported()
        if reason:
            raise UnsupportedOpError(reason)
        for variable in self.function.inputs:
            storage_dtype(variable.type.dtype)

    def _plan(self) -> list[Step]:
        steps = []
        known = {v.name: v.type for v in self.function.inputs}
        # Every operation is looked up before any constant is read or anything is computed.
        specs = [self._lookup(o) for o in self.function.ops]
        for index, (operation, spec) in enumerate(zip(self.function.ops, specs, strict=True)):
            check_declared(operation, known)
            known.update((v.name, v.type) for v in operation.outputs)
            if spec is None:
                self._enter_const(operation)
                continue
            step = self._step(operation, spec, index)
            if not step.wired and not step.spec.name.startswith("range_"):
                with torch.no_grad():  # weight decompression: once, not every run
                    for variable, value in zip(
                        operation.outputs, self._call(step, {}), strict=True
                    ):
                        self._constants[variable.name] = self._round(
                            value, variable.type, spec, True
                        )
            else:
                steps.append(step)
        # The steps hold what they need; raw operands of decompressed weights can go.
        self._constants = {n: v for n, v in self._constants.items() if n in self.function.outputs}
        return steps

    def _lookup(self, operation: Op) -> OpSpec | None:
        if operation.kind == "const":
            return None
        return REGISTRY.lookup(operation.kind, self.function.opset, repr(operation.name))

    def _enter_const(self, operation: Op) -> None:
        constant = operation.attributes.get("val")
        if constant is None or len(operation.outputs) != 1:
            what = "value" if constant is None else "single output"
            raise ArtifactError(f"the constant {operation.name!r} has no {what}")
        self._constants[operation.outputs[0].name] = self._materialise(constant)

    def _step(self, operation: Op, spec: OpSpec, index: int) -> Step:
        arguments: dict[str, tuple[Any, ...]] = dict(operation.inputs)
        arguments.update({k: (v,) for k, v in operation.attributes.items()})
        fixed: dict[str, Any] = {}
        wired: dict[str, tuple[Any, ...]] = {}
        for name, bindings in arguments.items():
            resolved = tuple(self._resolve(b) for b in bindings)
            if any(isinstance(r, Ref) for r in resolved):
                wired[name] = resolved
            else:
                fixed[name] = convert(spec.parameters[name], resolved, name, operation)
        for name, parameter in spec.parameters.items():
            if parameter.required and name not in arguments:
                raise ArtifactError(
                    f"operation {spec.name!r} at {operation.name!r} lacks its argument {name!r}"
                )
        if spec.wants_out:
            fixed["out"] = operation.outputs[0].type
        first = next(iter(spec.parameters), None) if spec.in_place else None
        dying = tuple(n for n in set(operation.refs()) if self._last_use.get(n) == index)
        return Step(operation, spec, fixed, wired, first if first in wired else None, dying)

    def _resolve(self, binding: Ref | Constant) -> Any:
        if isinstance(binding, Constant):
            return self._materialise(binding)
        return self._constants.get(binding.name, binding)

    def _materialise(self, constant: Constant) -> Any:
        value = constant.value()
        return self._tensor(value, constant.type.dtype) if isinstance(value, np.ndarray) else value

    def _tensor(self, array: np.ndarray, dtype: str) -> Tensor:
        meta = self._device.type == "meta" and storage_dtype(dtype).is_floating_point
        if meta and array.ndim:
            return torch.empty(array.shape, dtype=storage_dtype(dtype), device="meta")
        value = to_tensor(array, dtype)
        # Scalars stay too: torch mixes a zero-dimensional CPU value with any device.
        return value.to(self._device) if value.is_floating_point() and value.dim() else value

    def _run_step(
        self,
        step: Step,
        values: dict[str, Tensor],
        holders: Counter[int],
    ) -> None:
        overwrite = self._may_overwrite(step, values, holders)
        results = self._call(step, values, in_place=overwrite)
        for name in step.dying:
            gone = values.pop(name, None)
            if gone is not None:
                holders[_storage(gone)] -= 1
        for variable, result in zip(step.op.outputs, results, strict=True):
            # A result that shares memory with a live value must not be rounded in place.
            shared = holders[_storage(result)] > 0
            rounded = self._round(result, variable.type, step.spec, shared)
            values[variable.name] = rounded
            holders[_storage(rounded)] += 1

    def _may_overwrite(
        self, step: Step, values: Mapping[str, Tensor], holders: Counter[int]
    ) -> bool:
        """The first argument dies here, nothing else shares its memory, and the result fits."""
        if step.first is None:
            return False
        binding = step.wired[step.first][0]
        if not isinstance(binding, Ref) or binding.name not in step.dying:
            return False
        target = values[binding.name]
        if (
            sum(name == binding.name for name in step.op.refs()) != 1
            or holders[_storage(target)] != 1
        ):
            return False
        others = [v for k, v in step.fixed.items() if isinstance(v, Tensor)]
        others += [
            values[b.name]
            for k, bindings in step.wired.items()
            if k != step.first
            for b in bindings
            if isinstance(b, Ref)
        ]
        return all(o.dtype == target.dtype and _broadcasts(o.shape, target.shape) for o in others)

    def _call(
        self, step: Step, values: Mapping[str, Tensor], *, in_place: bool = False
    ) -> tuple[Tensor, ...]:
        arguments = dict(step.fixed)
        for name, bindings in step.wired.items():
            found = tuple(values[b.name] if isinstance(b, Ref) else b for b in bindings)
            arguments[name] = convert(step.spec.parameters[name], found, name, step.op)
        refuse_growth(step.op, arguments)
        run = step.spec.in_place if in_place and step.spec.in_place else step.spec.run
        try:
            result = run(**arguments)
        except _FAILURES as error:
            shapes = ", ".join(
                f"{k}{list(v.shape)}" for k, v in arguments.items() if isinstance(v, Tensor)
            )
            raise ArtifactError(
                f"operation {step.spec.name!r} at {step.op.name!r} failed on {shapes}: {error}"
            ) from error
        results = result if isinstance(result, tuple) else (result,)
        if len(results) != len(step.op.outputs):
            raise ArtifactError(
                f"operation {step.spec.name!r} at {step.op.name!r} gives {len(results)} values, "
                f"the program names {len(step.op.outputs)}"
            )
        for variable, value in zip(step.op.outputs, results, strict=True):
            check_value(step.op, variable.name, variable.type, value)
        return results

    def _round(self, value: Tensor, declared: TensorType, spec: OpSpec, shared: bool) -> Tensor:
        if declared.dtype != "fp16" or spec.exact:
            return value
        return self._rounder.round_(value.clone() if shared else value)

    def _bind(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        features = {f.name: f for f in self.signature.inputs}
        if set(inputs) != set(features):
            raise LatentError(
                f"the model wants the inputs {sorted(features)}, got {sorted(inputs)}"
            )
        types = {v.name: v.type for v in self.function.inputs}
        bound = {}
        for name, feature in features.items():
            array = accept(feature, np.asarray(inputs[name]))
            value = self._tensor(array, types[name].dtype)
            # An fp16 feature hands the program fp16 values even where the program widens them.
            if "fp16" in (feature.dtype, types[name].dtype):
                self._rounder.round_(value)
            bound[name] = value
        return bound

    def _export(self, feature: Feature, values: Mapping[str, Tensor]) -> np.ndarray:
        value = values.get(feature.name, self._constants.get(feature.name))
        if value is None:
            raise ArtifactError(
                f"the program does not return the described output {feature.name!r}"
            )
        array = value.cpu().numpy()
        try:
            return give(feature, array)
        except _FAILURES as error:
            raise ArtifactError(
                f"the output {feature.name!r} of shape {list(array.shape)} is not what the model "
                f"describes: {feature.dtype} {feature.kind} ({error})"
            ) from error


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    """Whether a value of ``shape`` can be combined with one of ``to`` without changing ``to``."""
    return len(shape) <= len(to) and all(
        s in (1, t) for s, t in zip(reversed(shape), reversed(to), strict=False)
    )


def _storage(value: Tensor) -> int:
    # not data_ptr(): values on the meta device have none
    return value.untyped_storage()._cdata


def _last_uses(operations: tuple[Op, ...], outputs: tuple[str, ...]) -> dict[str, int]:
    """For each value, the index of the operation that reads it last (outputs: never)."""
    last = {name: i for i, o in enumerate(operations) for name in o.refs()}
    return last | dict.fromkeys(outputs, len(operations))
