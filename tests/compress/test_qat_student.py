"""What can be trained starts as what it was made from, and its gradients are the chain rule's."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fluxvae.compress.fake import FakeQuantConv2d, simulate
from fluxvae.compress.forms import CompressedDecoder, Palettized, Quantized, to_float16
from fluxvae.compress.qat.student import (
    LearnedTableConv2d,
    Rates,
    learning_rates,
    make_compressed,
    make_student,
)
from fluxvae.errors import CompressionError
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import load_weights
from tests.compress.qat_starts import minmax, noise_latents, tables


@pytest.fixture(scope="module")
def decoder() -> nn.Sequential:
    return build_decoder(load_weights("flux2", "demo"))


@pytest.fixture(scope="module", params=["int8", "tables", "grouped tables"])
def start(request: pytest.FixtureRequest, decoder: nn.Sequential) -> CompressedDecoder:
    if request.param == "int8":
        return minmax(decoder, noise_latents(32, 6))
    if request.param == "tables":
        return tables(decoder, 3)
    return tables(decoder, 2, groups=4, scaled=False)


def test_starts_as_what_it_was_made_from(start: CompressedDecoder) -> None:
    """The student's output is the simulated package's, and exporting gives the forms back."""
    student = make_student(start)
    latent = torch.from_numpy(noise_latents(32, 6)[1])
    with torch.no_grad():
        # Sums in another order are the only difference: 2e-6 of pictures near 1 was measured.
        difference = (student(latent) - simulate(start, "float32")(latent)).abs().max()
    assert float(difference) < 2e-5
    back = make_compressed(student, start)
    assert back.activations == dict(start.activations)
    for name, form in start.weights.items():
        again = back.weights[name]
        if isinstance(form, Quantized) and isinstance(again, Quantized):
            assert np.array_equal(form.data, again.data)
        elif isinstance(form, Palettized) and isinstance(again, Palettized):
            assert np.array_equal(form.lut, again.lut)
        else:
            pytest.fail(f"{name} changed its form")
        assert (form.scale is None) == (again.scale is None)
        # exp(log(scale)) may land one float16 step beside a scale: 2 ** -11 of it.
        if form.scale is not None and again.scale is not None:
            assert np.allclose(form.scale, again.scale, rtol=2**-11, atol=0)


def test_everything_learns(start: CompressedDecoder) -> None:
    student = make_student(start)
    latent = torch.from_numpy(noise_latents(32, 6)[0])
    student(latent).square().mean().backward()
    silent = [n for n, p in student.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_tables_gradient_is_the_sum_over_its_weights() -> None:
    random = np.random.Generator(np.random.PCG64(2))
    indices = random.integers(0, 4, (6, 3, 3, 3)).astype(np.uint8)
    lut = to_float16(random.normal(size=(2, 4)))
    scale = to_float16(random.normal(size=6))  # negative ones too
    conv = nn.Conv2d(3, 6, 3, padding=1)
    learned = LearnedTableConv2d(conv, Palettized(2, indices, lut, scale))
    x = torch.from_numpy(random.normal(size=(2, 3, 5, 5)).astype(np.float32))
    learned(x).square().sum().backward()

    values = np.stack([lut[o // 3][indices[o]] for o in range(6)])
    weight = torch.from_numpy(values * scale[:, None, None, None]).double().requires_grad_()
    output = F.conv2d(x.double(), weight, conv.bias.detach().double(), padding=1)
    output.square().sum().backward()
    wanted = np.zeros((2, 4))
    wanted_scale = np.zeros(6)
    for o in range(6):
        np.add.at(wanted[o // 3], indices[o].ravel(), (weight.grad[o].numpy() * scale[o]).ravel())
        # of the logarithm: d/dlog(s) = s d/ds
        wanted_scale[o] = (weight.grad[o].numpy() * values[o]).sum() * scale[o]
    assert np.allclose(learned.lut.grad, wanted, rtol=1e-4, atol=1e-4)
    assert np.allclose(learned.log_table_scale.grad, wanted_scale, rtol=1e-4, atol=1e-4)


def test_rates_by_what_is_learned(decoder: nn.Sequential) -> None:
    rates = Rates(weight=1, scale=2, bias=3, table=4)
    found = learning_rates(make_student(minmax(decoder, noise_latents(32, 6))), rates)
    assert found["3.conv.0.weight"] == found["19.weight"] == 1  # rounded and not
    assert found["3.conv.0.log_weight_scale"] == found["3.conv.0.log_activation_scale"] == 2
    assert found["3.conv.0.bias"] == found["3.pool.1.weight"] == 3
    student = make_student(tables(decoder, 3))
    table = student.get_submodule("3.conv.0").get_parameter("lut")
    wanted = 4 * float(table.detach().square().mean().sqrt())
    assert learning_rates(student, rates)["3.conv.0.lut"] == pytest.approx(wanted)


def test_the_start_is_not_touched(decoder: nn.Sequential) -> None:
    start = minmax(decoder, noise_latents(32, 6))
    before = {n: v.clone() for n, v in start.decoder.state_dict().items()}
    student = make_student(start)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.01)
    made = make_compressed(student, start)
    assert all(torch.equal(v, before[n]) for n, v in start.decoder.state_dict().items())
    bias = made.decoder.get_submodule("3.conv.0").bias
    assert torch.allclose(bias, before["3.conv.0.bias"] + 0.01)
    assert isinstance(student.get_submodule("3.conv.0"), FakeQuantConv2d)


def test_forms_without_a_trainer_are_refused(decoder: nn.Sequential) -> None:
    start = minmax(decoder, noise_latents(32, 6))
    weights_only = CompressedDecoder(start.decoder, start.weights)
    with pytest.raises(CompressionError, match="expected int8 weights with rounded inputs"):
        make_student(weights_only)
    inputs_only = CompressedDecoder(start.decoder, {}, start.activations)
    with pytest.raises(CompressionError, match="rounds its input but not its weights"):
        make_student(inputs_only)
