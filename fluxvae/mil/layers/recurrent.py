"""Recurrent layers on values (sequence, batch, channels, 1, 1)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fluxvae.mil.layers.graph import Layer, Shape, Translate
from fluxvae.mil.program import Ref

# Stated by the format for a limit of the cell state that is not set, or set to 0
CELL_LIMIT = 50.0
# The format limits what goes into a gate to -50..50, which these activations do not notice.
_GATES = {"sigmoid": "sigmoid", "tanh": "tanh", "sigmoidHard": "hard_sigmoid"}
_OUTPUTS = _GATES | {"ReLU": "relu", "linear": "linear"}
# MIL's order of the gates: input, forget, output, block input
_ORDER = ("inputGate", "forgetGate", "outputGate", "blockInput")


def _one_way(layer: Layer) -> None:
    p = layer.params
    arguments = _weights(layer, p.weightParams, "")
    _lstm(layer, p.activations, arguments, "reverse" if p.reverseInput else "forward")


def _both_ways(layer: Layer) -> None:
    p = layer.params
    forward, backward = p.weightParams
    arguments = _weights(layer, forward, "") | _weights(layer, backward, "_back")
    if list(p.activationsForwardLSTM) != list(p.activationsBackwardLSTM):
        raise layer.unsupported("other activations in the backward direction")
    _lstm(layer, p.activationsForwardLSTM, arguments, "bidirectional")


def _lstm(
    layer: Layer, activations: Sequence[Any], arguments: dict[str, Any], direction: str
) -> None:
    """Inputs: x and, for each direction, its last output and cell state; the outputs likewise."""
    p, ways = layer.params, 2 if direction == "bidirectional" else 1
    if p.params.coupledInputAndForgetGate:
        raise layer.unsupported("coupled gates")
    x, *states = layer.inputs
    steps, batch, inputs, *flat = layer.shape(x)
    if flat != [1, 1] or inputs not in (None, int(p.inputVectorSize)):
        raise layer.damaged(f"has an input of {list(layer.shape(x))}")
    if len(states) not in (0, 2 * ways) or len(layer.outputs) not in (1, 1 + 2 * ways):
        raise layer.damaged(f"has {len(layer.inputs)} inputs and {len(layer.outputs)} outputs")
    if batch is None:
        raise layer.unsupported("a batch that is known at run time only")
    hidden = int(p.outputVectorSize)
    sequence = layer.emit("squeeze", (steps, batch, inputs), x=x, axes=(3, 4))
    out: Shape = (steps if p.params.sequenceOutput else 1, batch, ways * hidden)
    gate, block, squash = activations
    y, h, c = layer.emit_several(
        "lstm",
        (out, (batch, ways * hidden), (batch, ways * hidden)),
        x=sequence,
        initial_h=_initial(layer, states[0::2], batch, ways * hidden),
        initial_c=_initial(layer, states[1::2], batch, ways * hidden),
        direction=direction,
        output_sequence=bool(p.params.sequenceOutput),
        recurrent_activation=_activation(layer, gate, _GATES),
        cell_activation=_activation(layer, block, _GATES),
        activation=_activation(layer, squash, _OUTPUTS),
        clip=float(p.params.cellClipThreshold) or CELL_LIMIT,
        **arguments,
    )
    first, *rest = layer.outputs
    layer.write(first, "expand_dims", (*out, 1, 1), x=y, axes=(3, 4))
    for number, name in enumerate(rest):
        state: Any = c if number % 2 else h
        if ways == 2:
            half = slice(number // 2 * hidden, (number // 2 + 1) * hidden)
            state = layer.emit(
                "slice_by_index", (batch, hidden), x=state, begin=(0, half.start),
                end=(0, half.stop), begin_mask=(True, False), end_mask=(True, False),
            )  # fmt: skip
        layer.write(name, "expand_dims", (1, batch, hidden, 1, 1), x=state, axes=(0, 3, 4))


def _initial(layer: Layer, states: Sequence[Ref], batch: int, size: int) -> Any:
    """The states of all directions beside each other, (batch, size); zeros unless given."""
    if not states:
        return np.zeros((batch, size), np.float32)
    each = size // len(states)
    flat = tuple(
        layer.emit("reshape", (batch, each), x=state, shape=(batch, each)) for state in states
    )
    return flat[0] if len(flat) == 1 else layer.emit("concat", (batch, size), values=flat, axis=1)


def _weights(layer: Layer, message: Any, suffix: str) -> dict[str, Any]:
    """One direction's arguments of MIL's ``lstm``."""
    p = layer.params
    inputs, hidden = int(p.inputVectorSize), int(p.outputVectorSize)

    def stacked(what: str, gates: Sequence[str], *shape: int) -> np.ndarray:
        parts = [layer.weights(getattr(message, g + what), shape, what) for g in gates]
        return np.concatenate(parts)

    found = {
        "weight_ih": stacked("WeightMatrix", _ORDER, hidden, inputs),
        "weight_hh": stacked("RecursionMatrix", _ORDER, hidden, hidden),
    }
    bias = np.zeros(4 * hidden, np.float32)
    if p.params.hasBiasVectors:
        bias = stacked("BiasVector", _ORDER, hidden)
    if p.params.forgetBias:
        bias[hidden : 2 * hidden] += 1
    if p.params.hasPeepholeVectors:
        found["peephole"] = stacked("PeepholeVector", _ORDER[:3], hidden)
    return {name + suffix: value for name, value in (found | {"bias": bias}).items()}


def _activation(layer: Layer, message: Any, known: dict[str, str]) -> str:
    kind = message.WhichOneof("NonlinearityType")
    if kind not in known:
        raise layer.unsupported(f"the activation {kind}")
    return known[kind]


TABLE: dict[str, Translate] = {
    "biDirectionalLSTM": _both_ways,
    "uniDirectionalLSTM": _one_way,
}
