"""Declared types against what a program computes.

Core ML plans kernels and memory by the types a program declares, and refuses a program whose types
do not follow from its operations. The executor would run without them: it compares them instead.
A dimension of ``None`` is free.
"""

import math
from collections.abc import Iterable, Mapping

from torch import Tensor

from fluxvae.errors import ArtifactError
from fluxvae.mil.growth import refuse_large
from fluxvae.mil.numerics import storage_dtype
from fluxvae.mil.program import FLOATS, Constant, Op, Ref, TensorType


def check_declared(operation: Op, types: Mapping[str, TensorType]) -> None:
    """Raise ArtifactError when an operation's outputs cannot be of their declared types.

    ``types``: of every value defined before. A floating-point result has the element type of ``x``,
    or of another argument; what else follows from shapes is compared when it is computed.
    """
    wanted = _float_types(operation, types)
    for variable in operation.outputs:
        declared = variable.type
        if operation.kind == "const":
            constant = operation.attributes.get("val")
            if constant is not None and constant.type != declared:
                raise _mismatch(operation, variable.name, declared, str(constant.type))
        elif wanted and declared.dtype in FLOATS and declared.dtype not in wanted:
            raise _mismatch(operation, variable.name, declared, " or ".join(sorted(wanted)))
        refuse_large(operation, math.prod(d or 1 for d in declared.shape))


def _float_types(operation: Op, types: Mapping[str, TensorType]) -> set[str]:
    """Element types that floating-point results of an operation may have; none: any."""
    if operation.kind in ("const", "constexpr_cast"):
        return set()
    arguments = dict(operation.inputs) | {k: (v,) for k, v in operation.attributes.items()}
    if operation.kind == "cast":
        (target,) = arguments.get("dtype") or (None,)
        return {str(target.data)} if isinstance(target, Constant) else set()

    def floats(bindings: Iterable[Ref | Constant]) -> set[str]:
        found = (types.get(b.name) if isinstance(b, Ref) else b.type for b in bindings)
        return {t.dtype for t in found if t is not None} & FLOATS

    return floats(arguments.get("x", ())) or floats(b for a in arguments.values() for b in a)


def check_value(operation: Op, name: str, declared: TensorType, value: Tensor) -> None:
    """Raise ArtifactError unless a computed value is of its declared shape and kind of number."""
    shape = declared.shape
    if value.shape != shape and (
        len(value.shape) != len(shape)
        or any(d is not None and d != s for d, s in zip(shape, value.shape, strict=True))
    ):
        raise _mismatch(operation, name, declared, f"{list(value.shape)}")
    if value.dtype != storage_dtype(declared.dtype):
        kind = str(value.dtype).removeprefix("torch.")
        raise _mismatch(operation, name, declared, f"{kind}{list(value.shape)}")


def _mismatch(operation: Op, name: str, declared: TensorType, computed: str) -> ArtifactError:
    return ArtifactError(
        f"operation {operation.kind!r} at {operation.name!r} declares {name!r} as {declared}, "
        f"but computes {computed}; the model is damaged"
    )
