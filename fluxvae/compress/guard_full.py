"""Whether a saved package holds a full decoder's weights, told by the executor's own reader.

``guard`` walks the tiny decoders' convolutions in order; a KL decoder's order of operations is not
that of its modules, so here every stored weight must be found among the modules' and the reverse.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from torch import nn

from fluxvae.compress.forms import as_stored
from fluxvae.compress.guard import LAYERS, WAY_OUT, argument, expanded, same_bias
from fluxvae.errors import CompressionError
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Function, Program

_Key = tuple[tuple[int, ...], bytes]
_Found = dict[_Key, list[tuple[np.ndarray, np.ndarray | None]]]  # candidates: weight, bias
_Layer = tuple[str, np.ndarray, np.ndarray | None]  # name, weight, bias


def check_layers(
    package: Path, network: nn.Module | Mapping[str, nn.Module], precision: str
) -> None:
    """Compare every convolution and linear layer of a saved ``.mlpackage`` with ``network``'s.

    ``network`` is what was converted, in its final form; by function where they are of different
    parts. Values must be equal bit for bit once rounded to ``precision``. Raises CompressionError
    that names the first layer that was lost; ArtifactError when the package cannot be read.
    """
    program = read_package(package)
    for name in sorted(program.functions):
        own = network[name] if isinstance(network, Mapping) else network
        _check(name, _found(program, program.functions[name], precision), own, precision)


def _wanted(network: nn.Module, precision: str) -> Iterator[_Layer]:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bias = None if module.bias is None else as_stored(module.bias.numpy(), precision)
            yield name, as_stored(module.weight.numpy(), precision), bias


def _key(weight: np.ndarray) -> _Key:
    """What layers are sorted by before whole weights are compared: shape and first values."""
    return weight.shape, weight.ravel()[:64].tobytes()


def _found(program: Program, function: Function, precision: str) -> _Found:
    """The layers of a saved function, by ``_key`` of their weights."""
    stored = expanded(program, function)
    found: _Found = defaultdict(list)
    for op in function.ops:
        if op.kind in LAYERS and (weight := argument(op, "weight", stored)) is not None:
            bias = argument(op, "bias", stored)  # of a mixed program perhaps float32
            weight, bias = (
                None if values is None else as_stored(values, precision)
                for values in (weight, bias)
            )
            assert weight is not None
            found[_key(weight)].append((weight, bias))
    return found


def _check(function: str, found: _Found, network: nn.Module, precision: str) -> None:
    count, asked = sum(map(len, found.values())), 0
    for name, weight, bias in _wanted(network, precision):
        asked += 1
        rest = found.get(_key(weight), [])
        same = [i for i, (other, _) in enumerate(rest) if np.array_equal(other, weight)]
        place = next((i for i in same if same_bias(rest[i][1], bias)), None)
        if place is None:
            what = "bias" if same else "weight"
            raise CompressionError(
                f"the saved function {function!r} has no layer with the {what} of {name}: {WAY_OUT}"
            )
        rest.pop(place)
    if count != asked:
        raise CompressionError(
            f"the saved function {function!r} has {count} convolutions and linear layers; "
            f"{asked} were asked for: {WAY_OUT}"
        )
