"""Whether a saved package holds a full decoder's weights, told by the executor's own reader.

``guard`` walks the tiny decoders' convolutions in order; a KL decoder's order of operations is not
that of its modules, so here every stored weight must be found among the modules' and the reverse.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import nn

from fluxvae.compress.forms import as_stored
from fluxvae.compress.guard import LAYERS, WAY_OUT, argument, expanded, same_bias
from fluxvae.errors import CompressionError
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Function, Program

_Layer = tuple[str, np.ndarray, np.ndarray | None]  # name, weight, bias


def check_layers(package: Path, network: nn.Module, precision: str) -> None:
    """Compare every convolution and linear layer of a saved ``.mlpackage`` with ``network``'s.

    ``network`` is what was converted, in its final form. Values must be equal bit for bit once
    rounded to ``precision``; the last convolution may hold an image output's factor. Raises
    CompressionError that names the first layer that was lost; ArtifactError when the package cannot
    be read.
    """
    program = read_package(package)
    wanted = list(_wanted(network, precision))
    for name in sorted(program.functions):
        _check(program, program.functions[name], wanted, _factor(network), precision)


def _wanted(network: nn.Module, precision: str) -> Iterator[_Layer]:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bias = None if module.bias is None else as_stored(module.bias.numpy(), precision)
            yield name, as_stored(module.weight.numpy(), precision), bias


def _factor(network: nn.Module) -> float | None:
    """What an image output multiplies by, which coremltools moves into the last convolution."""
    factor = getattr(network, "factor", None)
    return factor if isinstance(factor, float) else None


def _check(
    program: Program,
    function: Function,
    wanted: list[_Layer],
    factor: float | None,
    precision: str,
) -> None:
    stored = expanded(program, function)
    found: dict[bytes, list[np.ndarray | None]] = defaultdict(list)
    count = 0
    for op in function.ops:
        if op.kind in LAYERS and (weight := argument(op, "weight", stored)) is not None:
            count += 1
            found[as_stored(weight, precision).tobytes()].append(argument(op, "bias", stored))
    if count != len(wanted):
        raise CompressionError(
            f"the saved function {function.name!r} has {count} convolutions and linear layers; "
            f"{len(wanted)} were asked for: {WAY_OUT}"
        )
    for name, weight, bias in wanted:
        rest = found.get(weight.tobytes(), [])
        place = next((i for i, other in enumerate(rest) if same_bias(other, bias)), None)
        if place is not None:
            rest.pop(place)
        elif not (name.endswith("conv_out") and _scaled(found, weight, factor, precision)):
            what = "bias" if rest else "weight"
            raise CompressionError(
                f"the saved function {function.name!r} has no layer with the {what} of {name}: "
                f"{WAY_OUT}"
            )


def _scaled(
    found: dict[bytes, list[np.ndarray | None]],
    weight: np.ndarray,
    factor: float | None,
    precision: str,
) -> bool:
    if factor is None:
        return False
    return bool(found.get(as_stored(weight * np.float32(factor), precision).tobytes()))
