"""coremltools' pass that makes a program float16, with a quick look at the weights.

Importing this imports coremltools and gives it the pass ``fluxvae::add_fp16_cast``.
"""

from typing import Any

import numpy as np
from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision
from coremltools.converters.mil.mil.passes.pass_registry import register_pass

NAME = "fluxvae::add_fp16_cast"
_LARGEST = 65504  # of float16


@register_pass(namespace="fluxvae")
class add_fp16_cast(FP16ComputePrecision):  # type: ignore[misc]  # noqa: N801 - a pass's name
    """``common::add_fp16_cast``, but for how it tells whether a weight fits.

    That of coremltools 9.0 makes five index arrays of 64 bits for each weight: 2.3 of the 20
    seconds of a KL decoder at 1024 px. We found no report of it; remove when it is fixed upstream.
    """

    @staticmethod
    def fp16_overflow(op: Any) -> bool:
        """Whether a constant input is beyond float16; coremltools' answer where that is not plain.

        Infinity (and what it takes for that, 1e38 and more) and NaN are for coremltools to judge.
        """
        given = (v for value in op.inputs.values()
                 for v in (value if isinstance(value, list | tuple) else (value,)))  # fmt: skip
        constants = (v.op.val.val for v in given if v.op is not None and v.op.op_type == "const"
                     and v.is_tensor_or_scalar_of(dtype="fp32"))  # fmt: skip
        if all(_fits(np.asarray(value)) for value in constants):
            return False
        return bool(FP16ComputePrecision.fp16_overflow(op))


def _fits(value: np.ndarray) -> bool:
    return not value.size or bool(value.min() >= -_LARGEST and value.max() <= _LARGEST)
