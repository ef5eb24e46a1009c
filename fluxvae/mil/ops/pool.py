"""Pooling over one, two or three spatial dimensions.

The windows are laid out here, not by torch: MIL pads each side by its own amount and may round
the number of windows up, and then a window can begin before the input or end after it.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.ops.conv import Pads, window_pads
from fluxvae.mil.registry import Ints, op

_Pool = Callable[[Tensor, list[int], list[int]], Tensor]


@op("avg_pool")
def avg_pool(
    *,
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """Mean of each window; padding counts as zeros or, excluded, not at all.

    What ``ceil_mode`` adds after the padding never counts, as in PyTorch.
    """
    steps, pads, reach = _windows(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    counted = [(0, 0)] * len(pads) if exclude_padding_from_average else pads
    total = _pooled(x, kernel_sizes, steps, reach, 0.0, _sum)
    for axis, (size, kernel, step) in enumerate(zip(x.shape[2:], kernel_sizes, steps, strict=True)):
        low, high = -counted[axis][0], size + counted[axis][1]
        first = torch.arange(total.shape[axis + 2]) * step - pads[axis][0]
        count = (first + kernel).clamp(max=high) - first.clamp(min=low)
        total /= count.to(total.device, torch.float32).reshape(-1, *(1,) * (x.dim() - axis - 3))
    return total


def _enter(name: str, pooled: Callable[..., Tensor], summary: str, *, exact: bool) -> None:
    @op(name, exact=exact, summary=summary)
    def run(
        *,
        x: Tensor,
        kernel_sizes: Ints,
        pad_type: str,
        strides: Ints | None = None,
        pad: Ints | None = None,
        ceil_mode: bool = False,
    ) -> Tensor:
        steps, _, reach = _windows(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
        return pooled(x, kernel_sizes, steps, reach)


def _windows(
    x: Tensor, kernel: Ints, strides: Ints | None, kind: str, pad: Ints | None, ceil_mode: bool
) -> tuple[Ints, Pads, Pads]:
    """Strides; the padding before and after each spatial dimension; and how far windows reach.

    The reach is the padding, but with ``ceil_mode`` up to the end of the last window, which may
    also be before that of the input. Raises ArtifactError when the windows do not fit the input.
    """
    sizes = tuple(x.shape[2:])
    steps = strides or (1,) * len(sizes)
    if not 1 <= len(sizes) <= 3 or not len(sizes) == len(kernel) == len(steps):
        raise ArtifactError(
            f"windows of {list(kernel)} with strides {list(steps)} on a tensor of rank {x.dim()}"
        )
    if min(*kernel, *steps) < 1:
        raise ArtifactError(f"windows of {list(kernel)} with strides {list(steps)}; 1 is the least")
    pads = window_pads("pooling", kind, pad, sizes, list(kernel), steps)
    if any(not 0 <= side < k for pair, k in zip(pads, kernel, strict=True) for side in pair):
        raise ArtifactError(
            f"padding {pads} for windows of {list(kernel)}: a window would lie in it entirely"
        )
    if any(size + sum(p) < k for size, p, k in zip(sizes, pads, kernel, strict=True)):
        raise ArtifactError(
            f"windows of {list(kernel)} do not fit {list(sizes)} elements padded by {pads}"
        )
    if not ceil_mode:
        return steps, pads, pads
    if len(sizes) > 2 or kind.startswith("same") or any(before != after for before, after in pads):
        raise UnsupportedOpError(
            "pooling with ceil_mode is for one or two dimensions and symmetric padding"
        )
    layout = zip(sizes, pads, kernel, steps, strict=True)
    return steps, pads, [(p[0], _past_the_end(size, p[0], k, step)) for size, p, k, step in layout]


def _past_the_end(size: int, pad: int, kernel: int, step: int) -> int:
    """Elements from the end of an axis to that of its last window, with ``ceil_mode``.

    The number of windows follows the documentation of ``avg_pool``.
    """
    count = -(-(size + 2 * pad - kernel) // step) + 1
    if (count - 1) * step >= size + pad:
        if not pad:
            raise UnsupportedOpError(
                f"ceil_mode lays a window of {kernel} outside {size} elements, by strides of {step}"
            )
        count -= 1
    return (count - 1) * step + kernel - size - pad


def _pooled(
    x: Tensor, kernel: Ints, steps: Ints, reach: Pads, filler: float, function: _Pool
) -> Tensor:
    if any(side for pair in reach for side in pair):
        x = F.pad(x, [side for pair in reversed(reach) for side in pair], value=filler)
    if x.dim() > 3:
        return function(x, list(kernel), list(steps))
    return function(x.unsqueeze(2), [1, *kernel], [1, *steps]).squeeze(2)  # as a row of an image


def _max(x: Tensor, kernel: list[int], steps: list[int]) -> Tensor:
    return (F.max_pool3d if x.dim() == 5 else F.max_pool2d)(x, kernel, steps)


def _sum(x: Tensor, kernel: list[int], steps: list[int]) -> Tensor:
    pool = F.avg_pool3d if x.dim() == 5 else F.avg_pool2d
    return pool(x, kernel, steps, divisor_override=1)


def _l2(x: Tensor, kernel: Ints, steps: Ints, reach: Pads) -> Tensor:
    return _pooled(x.square(), kernel, steps, reach, 0.0, _sum).sqrt_()


def _largest(x: Tensor, kernel: Ints, steps: Ints, reach: Pads) -> Tensor:
    return _pooled(x, kernel, steps, reach, -math.inf, _max)


_enter("max_pool", _largest, "Largest value in each window; padding never wins.", exact=True)
_enter("l2_pool", _l2, "Root of the sum of squares in each window.", exact=False)
