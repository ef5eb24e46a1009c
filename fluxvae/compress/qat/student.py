"""A compressed decoder as something that can be trained, and back.

int8 convolutions with rounded inputs become ``FakeQuantConv2d`` (weights, biases and all scales
learn), palettized ones ``LearnedTableConv2d`` (the table's values, the scales and biases learn; the
indices stay). Whatever is not compressed trains as it is.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fluxvae.compress.fake import ConvLike, FakeQuantConv2d, float16_exact
from fluxvae.compress.forms import Activation, CompressedDecoder, Palettized, Quantized, dense
from fluxvae.errors import CompressionError


@dataclass(frozen=True)
class Rates:
    """Learning rates of Adam by what is learned, before warm-up and decay.

    ``scale`` is for logarithms of scales, ``bias`` for biases and the GroupNorm's gains, ``table``
    is relative to the table's root mean square. A plain start has ranges and biases to repair: in
    120 steps on TAEF1 (2 crops of 96 px) these rates gain 0.6 dB on held-out photos, a tenth of
    ``scale`` and a hundredth of ``bias`` lose 0.2; three times ``weight`` is no better.
    """

    weight: float = 1e-5
    scale: float = 3e-3
    bias: float = 1e-3
    table: float = 1e-3


class LearnedTableConv2d(ConvLike):
    """A convolution whose weights are entries of a table that learns; its indices are fixed.

    ``lut`` float32 (groups, 2 ** bits) and ``log_table_scale`` float32 (O,), absent where the form
    has no scales, are the parameters beside the bias. Forward uses the values that ``form()`` will
    hold, exact in float16; gradients go straight through that rounding.
    """

    def __init__(self, like: nn.Conv2d, form: Palettized) -> None:
        super().__init__(like, bias=like.bias is not None)
        del self.weight
        if self.bias is not None and like.bias is not None:
            self.bias = nn.Parameter(like.bias.detach().clone())
        self.bits, self.indices = form.bits, form.indices
        self.lut = nn.Parameter(torch.from_numpy(form.lut.copy()))
        groups, values = form.lut.shape
        rows = form.indices.reshape(groups, -1).astype(np.int64)
        flat = rows + values * np.arange(groups)[:, None]
        self.register_buffer("places", torch.from_numpy(flat.reshape(form.indices.shape)))
        signs = np.ones(form.indices.shape[0], np.float32)
        self.log_table_scale: nn.Parameter | None = None
        if form.scale is not None:
            size = np.maximum(np.abs(form.scale), np.finfo(np.float16).tiny)
            signs = np.sign(form.scale).astype(np.float32)
            self.log_table_scale = nn.Parameter(torch.from_numpy(size).log())
        self.register_buffer("signs", torch.from_numpy(signs))

    def table(self) -> Tensor:
        """(groups, 2 ** bits), held exactly by float16; differentiable."""
        return float16_exact(self.lut)

    def table_scale(self) -> Tensor | None:
        """(O,), held exactly by float16; differentiable."""
        if self.log_table_scale is None:
            return None
        return float16_exact(self.log_table_scale.exp()) * self.get_buffer("signs")

    def form(self) -> Palettized:
        """What the convolution's weight is stored as now."""
        scale = self.table_scale()
        return Palettized(
            self.bits,
            self.indices,
            self.table().detach().cpu().numpy(),
            None if scale is None else scale.detach().cpu().numpy(),
        )

    def forward(self, x: Tensor) -> Tensor:
        # Indexing, not take_along_dim: its gradient is deterministic on CUDA as well.
        weight = self.table().reshape(-1)[self.get_buffer("places")]
        scale = self.table_scale()
        if scale is not None:
            weight = weight * scale.reshape(-1, 1, 1, 1)
        return self._conv_forward(x, weight, self.bias)


def make_student(compressed: CompressedDecoder) -> nn.Module:
    """A fresh trainable decoder that computes what ``compressed`` means.

    Raises CompressionError for forms that cannot be trained: int8 weights with float inputs,
    tables with rounded inputs, int4.
    """
    student = copy.deepcopy(compressed.decoder).requires_grad_(True)
    for name, form in compressed.weights.items():
        conv = student.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        activation = compressed.activations.get(name)
        if isinstance(form, Quantized) and activation is not None:
            student.set_submodule(name, FakeQuantConv2d.from_forms(conv, form, activation))
        elif isinstance(form, Palettized) and activation is None:
            student.set_submodule(name, LearnedTableConv2d(conv, form))
        else:
            raise CompressionError(
                f"{name} cannot be trained: expected int8 weights with rounded inputs (--w8a8) "
                "or a table with float inputs (--palettize)"
            )
    extra = sorted(set(compressed.activations) - set(compressed.weights))
    if extra:
        raise CompressionError(
            f"{extra[0]} rounds its input but not its weights: cannot be trained"
        )
    return student


def make_compressed(student: nn.Module, start: CompressedDecoder) -> CompressedDecoder:
    """What the student has become, in the forms of ``start``; shares nothing with either."""
    decoder = copy.deepcopy(start.decoder).cpu()
    weights: dict[str, Palettized | Quantized] = {}
    activations: dict[str, Activation] = {}
    learned = dict(student.named_parameters())
    with torch.no_grad():
        for name, module in student.named_modules():
            if isinstance(module, FakeQuantConv2d):
                weights[name], activations[name] = module.forms()
            elif isinstance(module, LearnedTableConv2d):
                weights[name] = module.form()
        for name, parameter in decoder.named_parameters():
            owner = name.rpartition(".")[0]
            if owner in weights and name.endswith(".weight"):
                parameter.copy_(torch.from_numpy(dense(weights[owner], "float32")))
            else:
                parameter.copy_(learned[name].detach())
    return CompressedDecoder(decoder.requires_grad_(False), weights, activations, dict(start.notes))


def learning_rates(student: nn.Module, rates: Rates) -> dict[str, float]:
    """The rate of each parameter by its name."""
    return {name: _rate(name, value, rates) for name, value in student.named_parameters()}


def _rate(name: str, value: Tensor, rates: Rates) -> float:
    kind = name.rpartition(".")[2]
    if kind.startswith("log_"):
        return rates.scale
    if kind == "lut":
        return rates.table * float(value.detach().square().mean().sqrt())
    return rates.weight if value.dim() == 4 else rates.bias
