"""Arguments as a program has them (tensors, text) to what an operation's function declares."""

from typing import Any

from torch import Tensor

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.program import Op
from fluxvae.mil.registry import Bools, Ints, Parameter, Tensors


def convert(parameter: Parameter, found: tuple[Any, ...], name: str, where: Op) -> Any:
    """Arguments as found (tensors, strings) to the kind the operation's function declares."""
    if parameter.kind == Tensors and all(isinstance(value, Tensor) for value in found):
        return found
    if len(found) != 1:
        raise ArtifactError(f"argument {name!r} of {where.name!r} has {len(found)} values, not one")
    value = found[0]
    if isinstance(value, Tensor) and value.is_meta and parameter.kind is not Tensor:
        raise UnsupportedOpError(f"{where.name!r} needs the value of {name!r}, not its shape alone")
    if parameter.kind is str:
        return str(value)
    if not isinstance(value, Tensor) or parameter.kind == Tensors:
        raise ArtifactError(f"argument {name!r} of {where.name!r} is text; expected numbers")
    if parameter.kind is Tensor:
        return value
    if parameter.kind in (Ints, Bools):
        cast = int if parameter.kind == Ints else bool
        return tuple(_number(cast, v, name, where) for v in value.reshape(-1).tolist())
    if value.numel() != 1:
        raise ArtifactError(
            f"argument {name!r} of {where.name!r} has {value.numel()} elements, not one"
        )
    return _number(parameter.kind, value.item(), name, where)


def _number(cast: Any, value: float, name: str, where: Op) -> Any:
    try:
        return cast(value)
    except (ValueError, OverflowError) as error:  # an integer of NaN or infinity
        raise ArtifactError(f"argument {name!r} of {where.name!r} is {value}") from error
