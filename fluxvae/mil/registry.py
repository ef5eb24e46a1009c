"""The table of operations the executor knows.

An operation is a plain function whose keyword names and defaults are MIL's; its annotations
say how the executor hands over each argument:

* ``Tensor``: a torch tensor (floats as float32, integers as int32, see ``numerics``);
* ``Tensors``: a tuple of tensors, for list arguments such as ``values`` of ``concat``;
* ``Ints``, ``Bools``: a tuple of Python numbers; ``int``, ``float``, ``bool``, ``str``: a scalar;
* any of them ``| None`` when MIL allows the argument to be absent;
* a parameter named ``out`` receives the declared type of the (first) output.

The function never changes its arguments and returns one contiguous tensor, or a tuple for several
outputs. A result that needs no rounding may share memory with an argument; any other may not, for
the executor rounds it in place. Floats may live on any device, integers and scalars on the CPU.
"""

import difflib
import inspect
import types
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from fluxvae.errors import UnsupportedOpError
from fluxvae.mil.program import OPSET_TARGETS, OPSETS, Function, Op, TensorType, Unsupported

Ints = tuple[int, ...]
Bools = tuple[bool, ...]
Tensors = tuple[Tensor, ...]
Run = Callable[..., Any]

HINT = "docs/ops.md lists what is"
TARGETS = tuple(OPSET_TARGETS[o] for o in OPSETS)


@dataclass(frozen=True)
class Parameter:
    """One argument: its kind (an annotation above) and whether it may be left out."""

    kind: Any
    required: bool


def _parameters(run: Run) -> dict[str, Parameter]:
    hints = get_type_hints(run)
    result = {}
    for name, parameter in inspect.signature(run).parameters.items():
        if name == "out":
            if hints[name] is not TensorType:
                raise ValueError("the parameter 'out' must be annotated TensorType")
            continue
        kind = hints[name]
        if get_origin(kind) in (Union, types.UnionType):
            (kind,) = (k for k in get_args(kind) if k is not type(None))
        if kind not in (Tensor, Tensors, Ints, Bools, int, float, bool, str):
            raise ValueError(f"parameter {name!r} has the unknown kind {kind}")
        result[name] = Parameter(kind, parameter.default is inspect.Parameter.empty)
    return result


@dataclass(frozen=True)
class OpSpec:
    """One operation of the table.

    ``exact``: the result holds only values of the arguments (or constants exact in fp16), so
    rounding it is not needed. ``in_place``: a variant of ``run`` that may overwrite its first
    argument and returns it (a cast to another type: a fresh tensor); used when that argument dies
    here and the result has its shape.
    """

    name: str
    since: str
    run: Run
    exact: bool
    in_place: Run | None
    parameters: dict[str, Parameter]
    summary: str

    @property
    def wants_out(self) -> bool:
        return "out" in inspect.signature(self.run).parameters


class Registry:
    """Operations by name. Built once at import of ``fluxvae.mil.ops``; read-only afterwards."""

    def __init__(self) -> None:
        self._specs: dict[str, OpSpec] = {}

    def op(
        self,
        name: str,
        *,
        since: str = "iOS15",
        exact: bool = False,
        in_place: Run | None = None,
        summary: str | None = None,
    ) -> Callable[[Run], Run]:
        """Decorator: enter a function into the table and return it unchanged.

        ``summary``: what it computes; without, the first line of the function's docstring.
        """
        if since not in TARGETS:
            raise ValueError(f"{name}: since={since!r} is none of {TARGETS}")

        def enter(run: Run) -> Run:
            if name in self._specs:
                raise ValueError(f"operation {name!r} is defined twice")
            text = summary or (inspect.getdoc(run) or "").partition("\n")[0]
            self._specs[name] = OpSpec(name, since, run, exact, in_place, _parameters(run), text)
            return run

        return enter

    def __iter__(self) -> Iterator[OpSpec]:
        return iter(sorted(self._specs.values(), key=lambda s: s.name))

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def __getitem__(self, name: str) -> OpSpec:
        return self._specs[name]

    def unsupported(self, function: Function) -> Unsupported | None:
        """What of a function cannot be run, if anything: every such operation, with its count."""
        if function.unsupported is not None:
            return function.unsupported
        counts: Counter[str] = Counter()
        first: dict[str, UnsupportedOpError] = {}
        for operation in function.every_op():
            try:
                self._check(operation, function.opset)
            except UnsupportedOpError as error:
                counts[operation.kind] += 1
                first.setdefault(operation.kind, error)
        if not counts:
            return None
        reason = str(next(iter(first.values())))
        if len(counts) > 1:
            listed = ", ".join(f"{kind} ({n})" for kind, n in counts.most_common())
            reason = f"{len(counts)} operations are not supported by the executor: {listed}; {HINT}"
        return Unsupported(dict(counts.most_common()), reason)

    def _check(self, operation: Op, opset: str) -> None:
        if operation.blocks:
            raise UnsupportedOpError(
                f"operation {operation.kind!r} at {operation.name!r} has nested blocks "
                f"(control flow), which the executor does not support; {HINT}"
            )
        if operation.kind == "const":
            return
        spec = self.lookup(operation.kind, opset, repr(operation.name))
        for name in (*operation.inputs, *operation.attributes):
            if name not in spec.parameters:
                raise UnsupportedOpError(
                    f"operation {spec.name!r} at {operation.name!r} has the argument {name!r}, "
                    "which the executor does not know"
                )

    def lookup(self, name: str, opset: str, where: str) -> OpSpec:
        """The operation for a program of ``opset``.

        Raises UnsupportedOpError naming the operation, the position and the nearest known name.
        """
        if opset not in OPSET_TARGETS:
            known = ", ".join(OPSETS)
            raise UnsupportedOpError(f"opset {opset!r} of {where} is unknown; known: {known}")
        spec = self._specs.get(name)
        if spec is None:
            near = difflib.get_close_matches(name, self._specs, 1)
            hint = f" the nearest known one is {near[0]!r};" if near else ""
            raise UnsupportedOpError(
                f"operation {name!r} at {where} is not supported by the executor;{hint} {HINT}"
            )
        if OPSETS.index(opset) < TARGETS.index(spec.since):
            raise UnsupportedOpError(
                f"operation {name!r} at {where} exists since {spec.since}, "
                f"but the program's opset is {OPSET_TARGETS[opset]}"
            )
        return spec

    def table(self) -> str:
        """The supported operations as a Markdown table (``docs/ops.md``)."""
        rows = ["| operation | since | rounding | what it computes |", "|---|---|---|---|"]
        for spec in self:
            rounding = "none needed" if spec.exact else "output"
            rows.append(f"| `{spec.name}` | {spec.since} | {rounding} | {spec.summary} |")
        return "\n".join(rows) + "\n"


REGISTRY = Registry()
op = REGISTRY.op
