"""The torch twin of a compressed decoder, and the convolution that learns its own rounding.

``simulate`` computes what the executor computes on the written package, in float32: weights as
``dense`` expands them, inputs of quantized convolutions rounded as ``quantize`` and ``dequantize``
round them. ``FakeQuantConv2d`` is the same convolution with scales as parameters, for training.
Both are ``nn.Conv2d``, so ``conv_sites`` reads a simulated decoder like any other.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from fluxvae.compress.forms import (
    INTEGER_RANGES,
    Activation,
    CompressedDecoder,
    Quantized,
    as_stored,
    dense,
)
from fluxvae.errors import CompressionError

_FLOAT16 = torch.finfo(torch.float16)


def simulate(compressed: CompressedDecoder, precision: str) -> nn.Module:
    """A fresh decoder that computes what the written package computes, in float32.

    Module names are those of ``compressed.decoder``. ``precision`` ``float16`` rounds weights and
    biases to what a float16 program stores; sums stay float32 (a float16 program's own rounding
    is 60 dB and more below the picture, far below that of 8 bits). Raises CompressionError
    when a form does not fit its convolution.
    """
    decoder = copy.deepcopy(compressed.decoder)
    for name, conv in list(decoder.named_modules()):
        if not isinstance(conv, nn.Conv2d):
            continue
        form = compressed.weights.get(name)
        if form is None:
            weight = _stored(conv.weight, precision)
        else:
            weight = torch.from_numpy(dense(form, precision))
        if weight.shape != conv.weight.shape:
            raise CompressionError(
                f"the form of {name} has the shape {tuple(weight.shape)}, "
                f"its convolution {tuple(conv.weight.shape)}"
            )
        bias = None if conv.bias is None else _stored(conv.bias, precision)
        decoder.set_submodule(
            name, RoundedConv2d(conv, weight, bias, compressed.activations.get(name))
        )
    return decoder.eval().requires_grad_(False)


def _stored(values: Tensor, precision: str) -> Tensor:
    return torch.from_numpy(as_stored(values.detach().numpy(), precision))


def integers(x: Tensor, activation: Activation) -> Tensor:
    """``clip(round(x / scale) + zero_point)``, half to even, as float32: the executor's order."""
    low, high = INTEGER_RANGES[activation.dtype]
    return (x / activation.scale).round_().add_(activation.zero_point).clamp_(low, high)


def rounded(x: Tensor, activation: Activation) -> Tensor:
    """``x`` through ``quantize`` and ``dequantize``; float32, any shape."""
    return integers(x, activation).sub_(activation.zero_point).mul_(activation.scale)


class ConvLike(nn.Conv2d):
    """A new convolution of another's channels, kernel, stride and padding."""

    def __init__(self, like: nn.Conv2d, *, bias: bool, device: str | None = None) -> None:
        super().__init__(
            like.in_channels,
            like.out_channels,
            like.kernel_size,  # type: ignore[arg-type]
            like.stride,  # type: ignore[arg-type]
            padding=like.padding,  # type: ignore[arg-type]
            bias=bias,
            device=device,
        )


class RoundedConv2d(ConvLike):
    """A convolution whose input is first rounded to 8 bits, where ``activation`` is given."""

    def __init__(
        self, like: nn.Conv2d, weight: Tensor, bias: Tensor | None, activation: Activation | None
    ) -> None:
        super().__init__(like, bias=bias is not None, device="meta")
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.activation is None else rounded(x, self.activation))


class FakeQuantConv2d(ConvLike):
    """A convolution in int8 that can be trained: weights, bias and all scales are parameters.

    Forward rounds the input and the weights exactly as the forms of ``forms()`` will; gradients go
    straight through the rounding, and stop where a value is clipped. Scales are kept as logarithms,
    so that one learning rate suits all of them and none can turn negative; their gradient is
    that of learned step sizes (LSQ, https://arxiv.org/abs/1902.08153, equation 3). The activation's
    zero point and type stay as they are: after a ReLU the least value is exactly 0.

    ``weight`` (O, I, kh, kw) is the unrounded weight, ``log_weight_scale`` (O,) and
    ``log_activation_scale`` () the scales, all float32.
    """

    log_weight_scale: nn.Parameter
    log_activation_scale: nn.Parameter

    def __init__(self, like: nn.Conv2d, scale: Tensor, activation: Activation) -> None:
        super().__init__(like, bias=like.bias is not None)
        with torch.no_grad():
            self.weight.copy_(like.weight)
            if self.bias is not None and like.bias is not None:
                self.bias.copy_(like.bias)
        self.log_weight_scale = nn.Parameter(scale.detach().reshape(-1).float().log())
        self.log_activation_scale = nn.Parameter(torch.tensor(activation.scale).log())
        self.zero_point = activation.zero_point
        self.dtype_name = activation.dtype

    @classmethod
    def from_forms(
        cls, conv: nn.Conv2d, form: Quantized, activation: Activation
    ) -> "FakeQuantConv2d":
        """Start from forms found after training: rounds to exactly ``form.data``.

        ``conv`` gives the bias and, inside each weight's rounding interval, the unrounded weights;
        those outside it (error compensation moved them) start at their rounded values.
        Raises CompressionError for anything but int8 with one scale for each output channel.
        """
        if form.dtype != "int8" or form.scale.size != form.data.shape[0]:
            raise CompressionError("training takes int8 weights with a scale per output channel")
        scale = torch.from_numpy(form.scale.copy()).reshape(-1)
        made = cls(conv, scale, activation)
        steps = made.weight.detach() / made.weight_scale()
        data = torch.from_numpy(form.data.astype(np.float32))
        kept = torch.where(_to_int8(steps) == data, steps, data)
        with torch.no_grad():
            made.weight.copy_(kept * made.weight_scale())
        return made

    def forms(self) -> tuple[Quantized, Activation]:
        """What the convolution rounds to now."""
        scale = self.weight_scale().detach()
        data = _to_int8(self.weight.detach() / scale)
        quantized = Quantized("int8", data.cpu().numpy().astype(np.int8), scale.cpu().numpy())
        step = float(self.activation_scale().detach())
        return quantized, Activation(step, self.zero_point, self.dtype_name)

    def weight_scale(self) -> Tensor:
        """(O, 1, 1, 1), held exactly by float16; differentiable."""
        return self._scale(self.log_weight_scale).reshape(-1, 1, 1, 1)

    def activation_scale(self) -> Tensor:
        """(), held exactly by float16; differentiable."""
        return self._scale(self.log_activation_scale)

    @staticmethod
    def _scale(logarithm: Tensor) -> Tensor:
        return float16_exact(logarithm.exp(), least=_FLOAT16.tiny)

    def forward(self, x: Tensor) -> Tensor:
        low, high = INTEGER_RANGES[self.dtype_name]
        zero = self.zero_point
        x = _StraightThrough.apply(x, self.activation_scale(), low - zero, high - zero)
        weight = _StraightThrough.apply(self.weight, self.weight_scale(), *INTEGER_RANGES["int8"])
        return self._conv_forward(x, weight, self.bias)


def _to_int8(steps: Tensor) -> Tensor:
    return steps.round().clamp(*INTEGER_RANGES["int8"])


def float16_exact(values: Tensor, *, least: float = -_FLOAT16.max) -> Tensor:
    """The nearest finite float16 values, ``least`` or more, with the gradient of ``values``."""
    exact = values.detach().half().float().clamp(least, _FLOAT16.max)
    return exact + (values - values.detach())


class _StraightThrough(torch.autograd.Function):
    """``scale * clip(round(x / scale), low, high)``; ``low`` and ``high`` before the zero point.

    Differentiable in ``x`` (1 where not clipped, else 0) and ``scale`` (LSQ's: ``round(v) - v``
    for ``v = x / scale`` where not clipped, else the bound it was clipped to).
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:  # type: ignore[no-untyped-def]
        steps = x / scale
        whole = steps.round().clamp_(low, high)
        ctx.save_for_backward(steps, whole, scale)
        ctx.bounds = (low, high)
        return whole * scale

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[no-untyped-def]
        steps, whole, scale = ctx.saved_tensors
        low, high = ctx.bounds
        # Values in the outermost half step round inwards; only beyond it were they clipped.
        inside = (steps >= low - 0.5) & (steps <= high + 0.5)
        slope = whole - steps * inside
        grad_scale = (grad * slope).sum_to_size(scale.shape)
        return grad * inside, grad_scale, None, None
