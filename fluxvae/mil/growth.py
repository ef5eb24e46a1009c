"""Values that are too large to compute, refused before anything is allocated.

A damaged model can ask for terabytes with one number: a padding, a scale, a shape. Most operations
give no more elements than their arguments have; for the others there is a bound here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from fluxvae.errors import ArtifactError
from fluxvae.mil.program import Op

# 16 GiB in float32: a FLUX decoder at 4096 x 4096 pixels has no larger value (256 channels).
MAX_ELEMENTS = 2**32
Arguments = Mapping[str, Any]


def refuse_growth(operation: Op, arguments: Arguments) -> None:
    """Raise ArtifactError when the result could have more than MAX_ELEMENTS elements.

    ``arguments`` as the operation's function takes them.
    """
    refuse_large(operation, bound(operation.kind, arguments))


def bound(kind: str, arguments: Arguments) -> int:
    """At most so many elements has the result; 0 when no more than an argument.

    Also 0 for wrong arguments: those are left to the operation's function.
    """
    try:
        return _BOUNDS.get(kind, _broadcast)(arguments)
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return 0


def refuse_large(operation: Op, elements: int) -> None:
    """Raise ArtifactError for a value of more than MAX_ELEMENTS elements."""
    if elements > MAX_ELEMENTS:
        raise ArtifactError(
            f"operation {operation.kind!r} at {operation.name!r} asks for a value of {elements} "
            f"elements; the executor computes at most {MAX_ELEMENTS} "
            f"({MAX_ELEMENTS >> 28} GiB in float32) at once"
        )


def _combined(shapes: Sequence[tuple[int, ...]]) -> int:
    """Elements of the shape to which all are broadcast."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    return math.prod(map(max, zip(*padded, strict=True)))


def _broadcast(a: Arguments) -> int:
    found = [a.get(name) for name in ("x", "y", "cond", "a", "b")]
    shapes = [v.shape for v in found if isinstance(v, Tensor)]
    return _combined(shapes) if len(shapes) > 1 else 0


def _pad(a: Arguments) -> int:
    sides, shape = a["pad"], a["x"].shape
    axes = len(sides) // 2
    grown = [d + sum(sides[2 * i : 2 * i + 2]) for i, d in enumerate(shape[len(shape) - axes :])]
    return math.prod(shape[: len(shape) - axes]) * math.prod(grown)


def _scaled(a: Arguments) -> int:
    height, width = a.get("scale_factor_height", 1), a.get("scale_factor_width", 1)
    return int(a["x"].numel() * max(height, 1) * max(width, 1))


def _resized(a: Arguments) -> int:
    *lead, _, _ = a["x"].shape
    return math.prod(lead) * a.get("target_size_height", 1) * a.get("target_size_width", 1)


def _conv(a: Arguments) -> int:
    x, padded = a["x"].shape, _padded(a)
    steps = a.get("strides") or (1,) * len(padded)
    results = [-(-size // step) for size, step in zip(padded, steps, strict=True)]
    # the padded argument is a value too
    return max(x[0] * a["weight"].shape[0] * math.prod(results), _pool(a))


def _pool(a: Arguments) -> int:
    return math.prod(a["x"].shape[:2]) * math.prod(_padded(a))


def _padded(a: Arguments) -> list[int]:
    pads = a.get("pad") or ()
    return [d + sum(pads[2 * i : 2 * i + 2]) for i, d in enumerate(a["x"].shape[2:])]


def _conv_transpose(a: Arguments) -> int:
    x, weight = a["x"].shape, a["weight"].shape
    steps, spread = (a.get(k) or (1,) * (len(x) - 2) for k in ("strides", "dilations"))
    sizes = zip(x[2:], weight[2:], steps, spread, strict=True)
    results = [(d - 1) * step + (k - 1) * wide + 1 for d, k, step, wide in sizes]
    return x[0] * weight[1] * a.get("groups", 1) * math.prod(results)


def _matmul(a: Arguments) -> int:
    x, y = a["x"].shape, a["y"].shape
    rows, columns = x[-1 if a.get("transpose_x") else -2], y[-2 if a.get("transpose_y") else -1]
    return _combined([x[:-2], y[:-2]]) * rows * columns


def _gather(a: Arguments) -> int:
    x, axis = a["x"].shape, a.get("axis", 0)
    return math.prod(x) // max(1, x[axis]) * max(1, a["indices"].numel())


def _tile(a: Arguments) -> int:
    return int(a["x"].numel()) * math.prod(a["reps"])


def _range(a: Arguments) -> int:
    return math.ceil((a["end"] - a["start"]) / a["step"])


_BOUNDS: dict[str, Callable[[Arguments], int]] = {
    "pad": _pad,
    "upsample_nearest_neighbor": _scaled,
    "upsample_bilinear": _scaled,
    "resize_nearest_neighbor": _resized,
    "resize_bilinear": _resized,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "linear": lambda a: a["x"].numel() // max(1, a["x"].shape[-1]) * a["weight"].shape[0],
    "matmul": _matmul,
    "gather": _gather,
    "tile": _tile,
    "fill": lambda a: math.prod(a["shape"]),
    "range_1d": _range,
    "max_pool": _pool,
    "avg_pool": _pool,
    "l2_pool": _pool,
    "sliding_windows": lambda a: a["x"].numel() * a["size"],
    "one_hot": lambda a: a["indices"].numel() * a["one_hot_vector_size"],
}
