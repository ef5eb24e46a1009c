"""Elementwise operations: activations, arithmetic, comparison, logic and casts.

Where torch has an in-place form it is entered too: on a 1x64x768x768 map the memory of a fresh
result costs ten times more than the arithmetic.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxvae.errors import UnsupportedOpError
from fluxvae.mil.numerics import epsilon_for, storage_dtype
from fluxvae.mil.program import TensorType
from fluxvae.mil.registry import op

_Unary = Callable[[Tensor], Tensor]
_Binary = Callable[[Tensor, Tensor], Tensor]


def _unary(name: str, function: _Unary, write: _Unary, summary: str) -> None:
    @op(name, exact=name in _EXACT, in_place=lambda x: write(x), summary=summary)
    def run(*, x: Tensor) -> Tensor:
        return function(x)


def _binary(name: str, function: _Binary, write: _Binary | None, summary: str) -> None:
    in_place = (lambda x, y: write(x, y)) if write else None

    @op(name, exact=name in _EXACT, in_place=in_place, summary=summary)
    def run(*, x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)


def _floats(divide: _Binary) -> _Binary:
    def checked(x: Tensor, y: Tensor) -> Tensor:
        if not x.is_floating_point():
            raise UnsupportedOpError("real_div of integers is not supported: MIL leaves it open")
        return divide(x, y)

    return checked


_UNARY: dict[str, tuple[_Unary, _Unary, str]] = {
    "tanh": (torch.tanh, torch.tanh_, "Hyperbolic tangent."),
    "silu": (F.silu, lambda x: F.silu(x, inplace=True), "`x * sigmoid(x)`."),
    "sigmoid": (torch.sigmoid, torch.sigmoid_, "`1 / (1 + exp(-x))`."),
    "erf": (torch.erf, torch.erf_, "Gauss error function."),
    "exp": (torch.exp, torch.exp_, "Exponential."),
    "exp2": (torch.exp2, torch.exp2_, "`2 ** x`."),
    "sin": (torch.sin, torch.sin_, "Sine."),
    "cos": (torch.cos, torch.cos_, "Cosine."),
    "tan": (torch.tan, torch.tan_, "Tangent."),
    "asin": (torch.asin, torch.asin_, "Inverse sine."),
    "acos": (torch.acos, torch.acos_, "Inverse cosine."),
    "atan": (torch.atan, torch.atan_, "Inverse tangent."),
    "sinh": (torch.sinh, torch.sinh_, "Hyperbolic sine."),
    "cosh": (torch.cosh, torch.cosh_, "Hyperbolic cosine."),
    "atanh": (torch.atanh, torch.atanh_, "Inverse hyperbolic tangent."),
    "sqrt": (torch.sqrt, torch.sqrt_, "Square root."),
    "square": (torch.square, torch.square_, "`x * x`."),
    "relu": (torch.relu, torch.relu_, "`max(x, 0)`."),
    "relu6": (F.relu6, lambda x: x.clamp_(0, 6), "`min(max(x, 0), 6)`."),
    "abs": (torch.abs, torch.abs_, "Absolute value."),
    "floor": (torch.floor, torch.floor_, "Largest integer not above x."),
    "ceil": (torch.ceil, torch.ceil_, "Smallest integer not below x."),
    "round": (torch.round, torch.round_, "Nearest integer, halves to even."),
    "sign": (torch.sign, lambda x: x.sign_(), "-1, 0 or 1."),
}
_BINARY: dict[str, tuple[_Binary, _Binary | None, str]] = {
    "add": (torch.add, Tensor.add_, "`x + y`."),
    "sub": (torch.sub, Tensor.sub_, "`x - y`."),
    "mul": (torch.mul, Tensor.mul_, "`x * y`."),
    "real_div": (_floats(torch.div), _floats(Tensor.div_), "`x / y`, floats only."),
    "floor_div": (
        torch.floor_divide,
        Tensor.floor_divide_,
        "`x / y` rounded towards minus infinity.",
    ),
    "mod": (torch.remainder, Tensor.remainder_, "Remainder with the sign of y, as Python's `%`."),
    "pow": (torch.pow, Tensor.pow_, "`x ** y`."),
    "maximum": (torch.maximum, lambda x, y: torch.maximum(x, y, out=x), "Larger value."),
    "minimum": (torch.minimum, lambda x, y: torch.minimum(x, y, out=x), "Smaller value."),
    "equal": (torch.eq, None, "`x == y`, as bool."),
    "not_equal": (torch.ne, None, "`x != y`, as bool."),
    "greater": (torch.gt, None, "`x > y`, as bool."),
    "greater_equal": (torch.ge, None, "`x >= y`, as bool."),
    "less": (torch.lt, None, "`x < y`, as bool."),
    "less_equal": (torch.le, None, "`x <= y`, as bool."),
    "logical_and": (torch.logical_and, None, "`x and y` of bools."),
    "logical_or": (torch.logical_or, None, "`x or y` of bools."),
    "logical_xor": (torch.logical_xor, None, "`x xor y` of bools."),
}
# Of both tables: those whose result holds only values of the arguments, or whole or true ones.
_EXACT = {
    "relu", "relu6", "abs", "floor", "ceil", "round", "sign", "maximum", "minimum",
    "equal", "not_equal", "greater", "greater_equal", "less", "less_equal",
    "logical_and", "logical_or", "logical_xor",
}  # fmt: skip
for _name, _one in _UNARY.items():
    _unary(_name, *_one)
for _name, _two in _BINARY.items():
    _binary(_name, *_two)


@op("logical_not", exact=True)
def logical_not(*, x: Tensor) -> Tensor:
    """`not x` of bools."""
    return torch.logical_not(x)


@op("select", exact=True)
def select(*, cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`a` where `cond` is true, else `b`."""
    return torch.where(cond.to(a.device), a, b)


@op("clip", exact=True, in_place=lambda x, alpha, beta: x.clamp_(alpha, beta))
def clip(*, x: Tensor, alpha: float, beta: float) -> Tensor:
    """Limits x to `[alpha, beta]`."""
    return x.clamp(alpha, beta)


@op("clamped_relu", in_place=lambda x, alpha, beta: F.leaky_relu_(x, alpha).clamp_(max=beta))
def clamped_relu(*, x: Tensor, alpha: float, beta: float) -> Tensor:
    """`min(beta, x)` where x >= 0, `min(beta, alpha * x)` below."""
    return F.leaky_relu(x, alpha).clamp_(max=beta)


@op("leaky_relu", in_place=lambda x, alpha: F.leaky_relu_(x, alpha))
def leaky_relu(*, x: Tensor, alpha: float) -> Tensor:
    """`x` where x >= 0, `alpha * x` below."""
    return F.leaky_relu(x, alpha)


@op("elu")
def elu(*, x: Tensor, alpha: float) -> Tensor:
    """`x` where x > 0, `alpha * (exp(x) - 1)` below."""
    return F.elu(x, alpha)


@op("prelu")
def prelu(*, x: Tensor, alpha: Tensor) -> Tensor:
    """`x` where x >= 0, `alpha * x` below; one alpha for each channel, which is axis 1."""
    return F.prelu(x, alpha)


@op("linear_activation")
def linear_activation(*, x: Tensor, alpha: float, beta: float) -> Tensor:
    """`alpha * x + beta`."""
    return alpha * x + beta


@op("scaled_tanh")
def scaled_tanh(*, x: Tensor, alpha: float, beta: float) -> Tensor:
    """`alpha * tanh(beta * x)`."""
    return (beta * x).tanh_().mul_(alpha)


@op("sigmoid_hard")
def sigmoid_hard(*, x: Tensor, alpha: float, beta: float) -> Tensor:
    """`alpha * x + beta`, limited to 0..1."""
    return (alpha * x + beta).clamp_(0, 1)


@op("softplus_parametric")
def softplus_parametric(*, x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """`alpha * log(1 + exp(beta * x))`; one alpha and beta for each channel, which is axis 1."""
    shape = (-1, *(1,) * (x.dim() - 2))
    return F.softplus(x * beta.reshape(shape)) * alpha.reshape(shape)


@op("softsign")
def softsign(*, x: Tensor) -> Tensor:
    """`x / (1 + |x|)`."""
    return x / (1 + x.abs())


@op("threshold", exact=True)
def threshold(*, x: Tensor, alpha: float) -> Tensor:
    """`max(x, alpha)`."""
    return x.clamp(min=alpha)


@op("thresholded_relu", exact=True)
def thresholded_relu(*, x: Tensor, alpha: float) -> Tensor:
    """`x` where x >= alpha, else 0."""
    return torch.where(x >= alpha, x, torch.zeros_like(x))


@op("softplus")
def softplus(*, x: Tensor) -> Tensor:
    """`log(1 + exp(x))`."""
    return F.softplus(x)


@op("gelu")
def gelu(*, x: Tensor, mode: str = "EXACT") -> Tensor:
    """Gaussian error linear unit: exact, with tanh, or `x * sigmoid(1.702 x)`."""
    if mode == "EXACT":
        return F.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return (x * 1.702).sigmoid_().mul_(x)
    raise UnsupportedOpError(f"gelu with mode {mode!r} is not supported")


@op("log")
def log(*, x: Tensor, out: TensorType, epsilon: float | None = None) -> Tensor:
    """`log(x + epsilon)`; epsilon is 1e-45 unless given (0 in fp16, which cannot hold it)."""
    return (x + epsilon_for(epsilon, 1e-45, out.dtype)).log_()


@op("rsqrt")
def rsqrt(*, x: Tensor, out: TensorType, epsilon: float | None = None) -> Tensor:
    """`1 / sqrt(x + epsilon)`; epsilon is 1e-12 unless given (0 in fp16)."""
    return (x + epsilon_for(epsilon, 1e-12, out.dtype)).rsqrt_()


@op("inverse")
def inverse(*, x: Tensor, out: TensorType, epsilon: float | None = None) -> Tensor:
    """`1 / (x + epsilon)`; epsilon is 1e-4 unless given, in the type of the result."""
    return (x + epsilon_for(epsilon, 1e-4, out.dtype)).reciprocal_()


_NARROW = {"int8": torch.int8, "uint8": torch.uint8, "int16": torch.int16}


def _cast(*, x: Tensor, dtype: str) -> Tensor:
    target = storage_dtype(dtype)
    if target != torch.int32:
        return x.to(target)
    if x.is_floating_point():
        x = x.trunc()  # numpy's astype: towards zero
    x = x.to(torch.int32)
    if dtype == "uint16":
        return x & 0xFFFF
    return x.to(_NARROW[dtype]).to(torch.int32) if dtype in _NARROW else x


@op("cast", in_place=_cast)
def cast(*, x: Tensor, dtype: str) -> Tensor:
    """Converts the element type; floats to integers towards zero, integers wrap around."""
    result = _cast(x=x, dtype=dtype)
    # The executor rounds results in place: an fp16 result must not be the argument itself.
    return result.clone() if result is x and dtype == "fp16" else result
