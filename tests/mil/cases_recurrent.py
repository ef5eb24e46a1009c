"""Cases of recurrent operations, which coremltools cannot evaluate.

Oracle: torch.nn.LSTM and torch.nn.RNN in float64, their gates reordered from i, f, z, o to MIL's
i, f, o, z; what torch lacks (peepholes, a limit of the cell, other activations) is written out.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.mil.case import Case, Oracle, normal

STEPS, BATCH, INPUTS, HIDDEN = 5, 2, 3, 4
X = normal(STEPS, BATCH, INPUTS)
H = normal(BATCH, HIDDEN, seed=1)
C = normal(BATCH, HIDDEN, seed=2)
H2 = normal(BATCH, 2 * HIDDEN, seed=1)
C2 = normal(BATCH, 2 * HIDDEN, seed=2)


def _weights(gates: int, suffix: str = "", seed: int = 0) -> dict[str, np.ndarray]:
    return {
        f"weight_ih{suffix}": normal(gates * HIDDEN, INPUTS, seed=seed),
        f"weight_hh{suffix}": normal(gates * HIDDEN, HIDDEN, seed=seed + 1),
        f"bias{suffix}": normal(gates * HIDDEN, seed=seed + 2),
    }


LSTM, LSTM_BACK = _weights(4), _weights(4, "_back", seed=7)
RNN = _weights(1)
PEEPHOLE = {"peephole": normal(3 * HIDDEN)}


def _torch_order(values: Tensor) -> Tensor:
    """Gates i, f, o, z to torch's i, f, z, o."""
    i, f, o, z = values.chunk(4)
    return torch.cat([i, f, z, o])


def _load(cell: nn.LSTM | nn.RNN, suffix: str, ih: Tensor, hh: Tensor, bias: Tensor) -> None:
    order = _torch_order if isinstance(cell, nn.LSTM) else lambda values: values
    with torch.no_grad():
        getattr(cell, f"weight_ih_l0{suffix}").copy_(order(ih))
        getattr(cell, f"weight_hh_l0{suffix}").copy_(order(hh))
        getattr(cell, f"bias_ih_l0{suffix}").copy_(order(bias))
        getattr(cell, f"bias_hh_l0{suffix}").zero_()


def _per_direction(state: Tensor) -> Tensor:
    return torch.stack(state.split(HIDDEN, -1))


def _lstm(
    x: Tensor, initial_h: Tensor, initial_c: Tensor, direction: str = "forward",
    output_sequence: bool = False, **weights: Any,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    both = direction == "bidirectional"
    cell = nn.LSTM(INPUTS, HIDDEN, bidirectional=both).double()
    zeros = torch.zeros(4 * HIDDEN)
    _load(cell, "", weights["weight_ih"], weights["weight_hh"], weights.get("bias", zeros))
    if both:
        bias = weights.get("bias_back", zeros)
        _load(cell, "_reverse", weights["weight_ih_back"], weights["weight_hh_back"], bias)
    with torch.no_grad():
        start = (_per_direction(initial_h), _per_direction(initial_c))
        y, (h, c) = cell(x.flip(0) if direction == "reverse" else x, start)
    last = torch.cat(list(h), -1)
    return y if output_sequence else last[None], last, torch.cat(list(c), -1)


def _rnn(
    x: Tensor, initial_h: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor,
    direction: str = "forward", output_sequence: bool = False, activation: str = "tanh",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    cell = nn.RNN(INPUTS, HIDDEN, nonlinearity=activation).double()
    _load(cell, "", weight_ih, weight_hh, bias)
    with torch.no_grad():
        y, h = cell(x.flip(0) if direction == "reverse" else x, initial_h[None])
    return (y if output_sequence else y[-1:]), h[0]


_FUNCTIONS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "linear": lambda x: x,
    "hard_sigmoid": lambda x: torch.clip(x / 5 + 0.5, 0, 1),
}


def _by_hand(
    x: Tensor, initial_h: Tensor, initial_c: Tensor, weight_ih: Tensor, weight_hh: Tensor,
    bias: Tensor, peephole: Tensor | None = None, recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh", activation: str = "tanh", clip: float = 1e9,
    output_sequence: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The equations of UniDirectionalLSTMLayerParams in NeuralNetwork.proto, gate by gate."""
    f, g, squash = (_FUNCTIONS[n] for n in (recurrent_activation, cell_activation, activation))
    rows = {gate: slice(n * HIDDEN, (n + 1) * HIDDEN) for n, gate in enumerate("ifoz")}
    peeps = torch.zeros(3 * HIDDEN).double() if peephole is None else peephole
    h, c, outputs = initial_h, initial_c, []

    def gate(name: str, x_t: Tensor, h: Tensor) -> Tensor:
        r = rows[name]
        return x_t @ weight_ih[r].T + h @ weight_hh[r].T + bias[r]

    for x_t in x:
        i = f(gate("i", x_t, h) + peeps[rows["i"]] * c)
        forget = f(gate("f", x_t, h) + peeps[rows["f"]] * c)
        c = (forget * c + i * g(gate("z", x_t, h))).clip(-float(clip), float(clip))
        h = f(gate("o", x_t, h) + peeps[rows["o"]] * c) * squash(c)
        outputs.append(h)
    return (torch.stack(outputs) if output_sequence else h[None]), h, c


def lstm(id: str, oracle: Oracle = _lstm, **constants: Any) -> Case:
    both = constants.get("direction") == "bidirectional"
    state = {"initial_h": H2 if both else H, "initial_c": C2 if both else C}
    return Case("lstm", id, {"x": X, **state}, {**LSTM, **constants}, oracle)


def rnn(id: str, **constants: Any) -> Case:
    return Case("rnn", id, {"x": X, "initial_h": H}, {**RNN, **constants}, _rnn)


_BOTH = {"direction": "bidirectional", **LSTM_BACK}
_SEQUENCE = {"output_sequence": True}
RECURRENT = (
    lstm("last"),
    lstm("sequence", **_SEQUENCE),
    lstm("reverse", direction="reverse"),
    lstm("reverse-sequence", direction="reverse", **_SEQUENCE),
    lstm("both", **_BOTH),
    lstm("both-sequence", **_BOTH, **_SEQUENCE),
    lstm("peephole", _by_hand, **PEEPHOLE, **_SEQUENCE),
    lstm("clip", _by_hand, clip=0.25, **PEEPHOLE, **_SEQUENCE),
    lstm("activations", _by_hand, recurrent_activation="hard_sigmoid", cell_activation="linear",
         activation="relu", **_SEQUENCE),
    lstm("upper-case", lambda recurrent_activation, **more: _lstm(**more),
         recurrent_activation="SIGMOID"),
    Case("lstm", "ios15", {"x": X, "initial_h": H, "initial_c": C},
         {k: v for k, v in LSTM.items() if k != "bias"}, _lstm, dtypes=("fp32",), target="iOS15"),
    rnn("last"),
    rnn("sequence", **_SEQUENCE),
    rnn("reverse", direction="reverse", **_SEQUENCE),
    rnn("relu", activation="relu"),
)  # fmt: skip
