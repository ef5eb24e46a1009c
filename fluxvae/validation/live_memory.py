"""How much memory a function's values take at once, if it runs in the program's order.

A model, not a device's figure: every value lives from the operation that makes it to the last one
that reads it; views (reshapes) are free; nothing is computed in place and nothing is fused; weights
do not count. It bounds from above what an engine of any skill needs, and compares two programs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fluxvae.mil.program import BITS, Function, Op

# Operations whose output has the bytes of its input in the same order.
_VIEWS = ("reshape", "expand_dims", "squeeze", "identity", "flatten2d")


@dataclass(frozen=True)
class LivePeak:
    """The most bytes that are alive at once, and the operation (1-based, of all) where."""

    bytes: int
    op: str
    kind: str
    index: int


def peak_live(function: Function, shapes: Mapping[str, tuple[int | None, ...]]) -> LivePeak:
    """The peak over the function's operations. ``shapes``: of every value, all sizes known."""
    ops = [op for op in function.ops if not _is_weight(op)]
    sizes = {v.name: _bytes(v.type.dtype, shapes[v.name]) for v in function.inputs}
    owner = {name: name for name in sizes}  # a view belongs to the value it looks at
    for op in ops:
        source = next((owner[n] for n in op.refs() if n in owner), None)
        for variable in op.outputs:
            if op.kind in _VIEWS and source is not None:
                owner[variable.name] = source
            else:
                owner[variable.name] = variable.name
                sizes[variable.name] = _bytes(variable.type.dtype, shapes[variable.name])
    last = dict.fromkeys(sizes, 0)
    for index, op in enumerate(ops):
        for name in (*op.refs(), *(v.name for v in op.outputs)):
            if name in owner:
                last[owner[name]] = index
    for name in function.outputs:
        if name in owner:  # a damaged program can name what nothing computes
            last[owner[name]] = len(ops)
    return _walk(ops, [v.name for v in function.inputs], owner, sizes, last)


def _walk(
    ops: list[Op],
    inputs: list[str],
    owner: Mapping[str, str],
    sizes: Mapping[str, int],
    last: Mapping[str, int],
) -> LivePeak:
    alive = set(inputs)
    peak = LivePeak(0, "", "", 0)
    for index, op in enumerate(ops):
        alive |= {owner[v.name] for v in op.outputs}
        total = sum(sizes[name] for name in alive)
        if total > peak.bytes:
            peak = LivePeak(total, op.name, op.kind, index + 1)
        alive = {name for name in alive if last[name] > index}
    return peak


def _is_weight(op: Op) -> bool:
    return op.kind == "const" or op.kind.startswith("constexpr_")


def _bytes(dtype: str, shape: tuple[int | None, ...]) -> int:
    return math.ceil(math.prod(d or 0 for d in shape) * BITS.get(dtype, 8) / 8)
