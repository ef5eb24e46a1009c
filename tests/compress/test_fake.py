"""The torch twin of a compressed decoder, held against the executor's own operations."""

import numpy as np
import pytest
import torch
from torch import nn

from fluxvae.compress.fake import FakeQuantConv2d, rounded, simulate
from fluxvae.compress.forms import Activation, CompressedDecoder, Palettized, Quantized, dense
from fluxvae.errors import CompressionError
from fluxvae.mil.ops.constexpr import dequantize, quantize
from fluxvae.networks.structure import conv_sites
from fluxvae.networks.tiny import tiny_decoder

ACTIVATIONS = [
    Activation(0.03125),
    Activation(0.0123291015625, 3, "int8"),
    Activation(0.0123291015625, -128, "int8"),
    Activation(2.0, 0, "uint8"),
    Activation(0.25, 77, "uint8"),
]


def ties_and_noise() -> torch.Tensor:
    """Values on rounding ties, beyond every range, and at random."""
    ties = torch.arange(-600, 600) * 0.125
    noise = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 3
    return torch.cat([ties, noise, torch.tensor([1e4, -1e4, 0.0])])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_rounding_is_the_executors(activation: Activation) -> None:
    x = ties_and_noise()
    scale, zero = torch.tensor(activation.scale), torch.tensor(activation.zero_point)
    whole = quantize(input=x, scale=scale, output_dtype=activation.dtype, zero_point=zero)
    expected = dequantize(input=whole, scale=scale, zero_point=zero)
    assert torch.equal(expected, rounded(x, activation))


def int8_form(conv: nn.Conv2d) -> Quantized:
    weight = conv.weight.detach().numpy()
    peak = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    scale = (peak / 127).astype(np.float16).astype(np.float32)
    data = np.clip(np.round(weight / scale), -127, 127)
    return Quantized("int8", data.astype(np.int8), scale)


def a_decoder() -> nn.Sequential:
    torch.manual_seed(1)
    return tiny_decoder(4, pool=True).eval().requires_grad_(False)


def test_simulate_keeps_names_structure_and_the_original() -> None:
    decoder = a_decoder()
    before = {k: v.clone() for k, v in decoder.state_dict().items()}
    conv = decoder.get_submodule("3.conv.2")
    assert isinstance(conv, nn.Conv2d)
    form = int8_form(conv)
    twin = simulate(CompressedDecoder(decoder, {"3.conv.2": form}), "float32")
    assert conv_sites(twin) == conv_sites(decoder)
    assert twin.state_dict().keys() == before.keys()
    changed = {k for k, v in twin.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"3.conv.2.weight"}
    assert np.array_equal(
        dense(form, "float32"), twin.get_submodule("3.conv.2").weight.detach().numpy()
    )
    assert all(torch.equal(v, before[k]) for k, v in decoder.state_dict().items())


def test_simulate_of_nothing_is_the_decoder() -> None:
    decoder = a_decoder()
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(decoder(latent), simulate(CompressedDecoder(decoder, {}), "float32")(latent))


def test_only_the_convolutions_input_is_rounded() -> None:
    """A block's skip path carries the unrounded stream."""
    decoder = a_decoder()
    coarse = Activation(4.0)
    twin = simulate(CompressedDecoder(decoder, {}, {"18.conv.0": coarse}), "float32")
    x = torch.rand(1, 64, 4, 4, generator=torch.Generator().manual_seed(3))
    block = decoder[18]
    expected = block.fuse(block.conv(rounded(x, coarse)) + x)
    assert torch.equal(expected, twin[18](x))


def test_float16_rounds_the_weights_that_stay() -> None:
    twin = simulate(CompressedDecoder(a_decoder(), {}), "float16")
    assert all(torch.equal(p, p.half().float()) for p in twin.parameters())


def test_a_form_of_another_shape_is_refused() -> None:
    decoder = a_decoder()
    form = Palettized(1, np.zeros((64, 64, 1, 1), np.uint8), np.ones((1, 2), np.float32))
    with pytest.raises(CompressionError, match=r"3\.conv\.0"):
        simulate(CompressedDecoder(decoder, {"3.conv.0": form}), "float32")


def trainable(activation: Activation) -> tuple[nn.Conv2d, Quantized, FakeQuantConv2d]:
    torch.manual_seed(4)
    conv = nn.Conv2d(6, 5, 3, padding=1)
    form = int8_form(conv)
    return conv, form, FakeQuantConv2d.from_forms(conv, form, activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_trainable_form_starts_and_ends_at_the_forms(activation: Activation) -> None:
    conv, form, made = trainable(activation)
    weight, again = made.forms()
    assert np.array_equal(form.data, weight.data)
    assert np.array_equal(form.scale, weight.scale)
    assert again == activation
    x = torch.randn(2, 6, 7, 7, generator=torch.Generator().manual_seed(5))
    decoder = nn.Sequential(conv)
    twin = simulate(CompressedDecoder(decoder, {"0": form}, {"0": activation}), "float32")
    torch.testing.assert_close(made(x), twin(x), rtol=0, atol=1e-6)


def test_weights_inside_their_interval_are_kept() -> None:
    conv, form, made = trainable(Activation(0.03125))
    assert torch.allclose(conv.weight, made.weight, atol=1e-7)
    form.data[0, 0, 0, 0] += 1  # as error compensation would
    moved = FakeQuantConv2d.from_forms(conv, form, Activation(0.03125))
    expected = form.data[0, 0, 0, 0] * form.scale[0, 0, 0, 0]
    assert float(moved.weight.detach()[0, 0, 0, 0]) == pytest.approx(expected, rel=1e-6)


def test_gradients_of_scales_follow_the_loss() -> None:
    """Gradient descent on the scales alone finds better ones than a poor start (twice too wide)."""
    conv, form, _ = trainable(Activation(0.125))
    x = torch.rand(4, 6, 16, 16, generator=torch.Generator().manual_seed(6))
    wide = Quantized(
        "int8", np.clip(np.round(form.data / 8), -127, 127).astype(np.int8), form.scale * 8
    )
    made = FakeQuantConv2d.from_forms(conv, wide, Activation(0.125, 0, "uint8"))
    with torch.no_grad():
        made.weight.copy_(conv.weight)
        target = conv(x)
    optimizer = torch.optim.Adam([made.log_weight_scale, made.log_activation_scale], lr=0.05)
    losses = []
    for _ in range(60):
        loss = (made(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 10  # measured: 40 times less


def test_gradient_stops_where_clipped() -> None:
    _, _, made = trainable(Activation(0.0078125, 0, "uint8"))  # 0 to 1.99
    x = torch.tensor([-1.0, 0.5, 1.5, 5.0]).reshape(1, 1, 2, 2).repeat(1, 6, 1, 1).requires_grad_()
    made(x).sum().backward()
    assert x.grad is not None
    reached = x.grad[0, 0].flatten() != 0
    assert reached.tolist() == [False, True, True, False]


def test_scales_stay_in_float16() -> None:
    _, _, made = trainable(Activation(0.03125))
    with torch.no_grad():
        made.log_weight_scale.fill_(-40.0)
        made.log_activation_scale.fill_(-40.0)
    weight, activation = made.forms()
    assert activation.scale == float(torch.finfo(torch.float16).tiny)
    assert (weight.scale == activation.scale).all()


def test_training_takes_int8_per_channel() -> None:
    conv, form, _ = trainable(Activation(0.03125))
    per_tensor = Quantized("int8", form.data, form.scale[:1])
    with pytest.raises(CompressionError, match="per output channel"):
        FakeQuantConv2d.from_forms(conv, per_tensor, Activation(0.03125))
