"""Recurrent networks over a sequence of shape (steps, batch, features).

In ``reverse`` direction the outputs come in the order they are computed, the last step first; the
backward half of a bidirectional network comes in the order of the input. Documentation and tests:
https://github.com/apple/coremltools/blob/9.0/coremltools/converters/mil/mil/ops/tests/iOS14/test_recurrent.py
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.registry import op

_Activation = Callable[[Tensor], Tensor]
# ``scaled_tanh`` is left out: its two constants are 1.71 and 2/3 in NeuralNetwork.proto, and 1
# and 1 in coremltools' tests.
_ACTIVATIONS: dict[str, _Activation] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "linear": lambda x: x,
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "sigmoid_hard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
}


@dataclass(frozen=True)
class _Weights:
    """One direction; rows of the matrices and ``bias`` hold the gates one after the other."""

    ih: Tensor
    hh: Tensor
    bias: Tensor | None = None
    peephole: Tensor | None = None


@op("lstm")
def lstm(
    *,
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    weight_ih_back: Tensor | None = None,
    weight_hh_back: Tensor | None = None,
    bias_back: Tensor | None = None,
    peephole_back: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Long short-term memory in one or both directions; gates in the order i, f, o, z.

    Returns the outputs (steps or 1, batch, directions x hidden), the last one, and the last cell
    state. ``clip`` limits the cell state.
    """
    ways = [(_Weights(weight_ih, weight_hh, bias, peephole), direction == "reverse")]
    if direction == "bidirectional":
        if weight_ih_back is None or weight_hh_back is None:
            raise ArtifactError("lstm in both directions lacks the weights of the backward one")
        ways.append((_Weights(weight_ih_back, weight_hh_back, bias_back, peephole_back), True))
    elif direction not in ("forward", "reverse"):
        raise UnsupportedOpError(f"lstm with direction {direction!r} is not supported")
    names = (recurrent_activation, cell_activation, activation)
    functions = tuple(_activation(name) for name in names)
    outputs, hidden, cells = [], [], []
    for (weights, back), h, c in zip(
        ways, _halves(initial_h, len(ways)), _halves(initial_c, len(ways)), strict=True
    ):
        steps, c = _lstm(x.flip(0) if back else x, h, c, weights, functions, clip)
        hidden.append(steps[-1])
        cells.append(c)
        outputs.append(steps.flip(0) if back and len(ways) == 2 else steps)
    last = torch.cat(hidden, -1)
    return torch.cat(outputs, -1) if output_sequence else last[None], last, torch.cat(cells, -1)


def _lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weights: _Weights,
    functions: tuple[_Activation, ...],
    clip: float | None,
) -> tuple[Tensor, Tensor]:
    """Output of every step, in the order of ``x``, and the last cell state.

    Equations: ``LSTMParams`` and its layers in NeuralNetwork.proto, peepholes included.
    """
    gate, block, squash = functions
    peep_i, peep_f, peep_o = (
        weights.peephole.chunk(3) if weights.peephole is not None else (None, None, None)
    )
    steps = []
    for given in _projected(x, weights, gates=4):
        i, f, o, z = (given + h @ weights.hh.mT).chunk(4, -1)
        i, f = gate(_peep(i, peep_i, c)), gate(_peep(f, peep_f, c))
        c = f * c + i * block(z)
        if clip is not None:
            c = c.clamp(-clip, clip)
        h = gate(_peep(o, peep_o, c)) * squash(c)
        steps.append(h)
    return torch.stack(steps), c


@op("rnn")
def rnn(
    *,
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Tensor, Tensor]:
    """`h = activation(weight_ih x + weight_hh h + bias)`; returns the outputs and the last one."""
    if direction not in ("forward", "reverse"):
        raise UnsupportedOpError(f"rnn with direction {direction!r} is not supported")
    function, h, steps = _activation(activation), initial_h, []
    weights = _Weights(weight_ih, weight_hh, bias)
    for given in _projected(x.flip(0) if direction == "reverse" else x, weights, gates=1):
        h = function(given + h @ weight_hh.mT)
        steps.append(h)
    return torch.stack(steps if output_sequence else steps[-1:]), h


def _projected(x: Tensor, weights: _Weights, *, gates: int) -> Tensor:
    """What the input adds to every gate, of shape (steps, batch, gates x hidden)."""
    hidden = weights.hh.shape[-1]
    fits = weights.hh.shape == (gates * hidden, hidden) and weights.ih.shape[0] == gates * hidden
    if x.dim() != 3 or not x.shape[0] or not fits:
        raise ArtifactError(
            f"recurrent weights of {list(weights.ih.shape)} and {list(weights.hh.shape)} do not "
            f"fit an input of {list(x.shape)}"
        )
    result = x @ weights.ih.mT
    return result if weights.bias is None else result + weights.bias


def _peep(value: Tensor, peephole: Tensor | None, c: Tensor) -> Tensor:
    return value if peephole is None else value + peephole * c


def _halves(state: Tensor, count: int) -> tuple[Tensor, ...]:
    """The state of each direction."""
    if state.shape[-1] % count:
        raise ArtifactError(f"a state of {state.shape[-1]} values for two directions")
    return state.chunk(count, -1)


def _activation(name: str) -> _Activation:
    if name.lower() not in _ACTIVATIONS:
        raise UnsupportedOpError(f"the activation {name!r} of a recurrent operation")
    return _ACTIVATIONS[name.lower()]
