"""Stored weights against what was stored, and against coremltools' own dequantization."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.layers.weights import weights
from fluxvae.mil.package import read_package
from fluxvae.mil.protobuf import message_module
from tests.mil.networks import normal, save_network

CONV, UP = normal(6, 4, 3, 3, seed=1), normal(4, 6, 2, 2, seed=2)
MATRIX, BIAS = normal(7, 24, seed=3), normal(6, seed=4)


def message(**fields: Any) -> Any:
    return message_module("NeuralNetwork_pb2").WeightParams(**fields)


def network(b: Any) -> None:
    """A convolution, a transposed one and a matrix: every axis that scales can belong to."""
    b.add_convolution(
        "conv", 4, 6, 3, 3, 1, 1, "valid", 1, CONV.transpose(2, 3, 1, 0), BIAS, True,
        input_name="x", output_name="a",
    )  # fmt: skip
    b.add_convolution(
        "up", 4, 6, 2, 2, 2, 2, "valid", 1, UP.transpose(2, 3, 0, 1), None, False,
        is_deconv=True, input_name="x", output_name="b",
    )  # fmt: skip
    b.add_inner_product("fc", MATRIX, None, 24, 7, False, "v", "c")


def stored(path: Path) -> dict[str, np.ndarray]:
    """Weights and biases by operation, as the executor gets them."""
    found = {}
    for op in read_package(path).function().ops:
        for name in ("weight", "bias"):
            for constant in op.inputs.get(name, ()):
                found[f"{op.kind}.{name}"] = constant.value()
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "plain.mlmodel"
    return save_network(path, network, {"x": (1, 4, 8, 8), "v": (5, 24)}, ("a", "b", "c"))


def quantized(path: Path, bits: int, mode: str) -> Path:
    """The model with coremltools' quantization."""
    return _quantized(path, path.with_name(f"{mode}{bits}.mlmodel"), bits, mode)


def dequantized(path: Path) -> Path:
    """The model with its weights dequantized by coremltools."""
    return _quantized(path, path.with_name(f"{path.stem}-back.mlmodel"), 8, "dequantization")


def _quantized(path: Path, result: Path, bits: int, mode: str) -> Path:
    import coremltools as ct
    from coremltools.models.neural_network.quantization_utils import quantize_weights

    model = ct.models.MLModel(str(path), skip_model_load=True)
    quantize_weights(model, bits, mode).save(str(result))
    return result


def test_float32_weights_are_what_was_stored(plain: Path) -> None:
    found = stored(plain)
    np.testing.assert_array_equal(found["conv.weight"], CONV.astype(np.float32))
    np.testing.assert_array_equal(found["conv.bias"], BIAS.astype(np.float32))
    np.testing.assert_array_equal(found["conv_transpose.weight"], UP.astype(np.float32))
    np.testing.assert_array_equal(found["linear.weight"], MATRIX.astype(np.float32))


def test_half_precision_weights_widen_exactly(plain: Path) -> None:
    found = stored(quantized(plain, 16, "linear"))
    np.testing.assert_array_equal(found["conv.weight"], CONV.astype(np.float16))
    np.testing.assert_array_equal(found["linear.weight"], MATRIX.astype(np.float16))


@pytest.mark.parametrize("mode", ["linear", "linear_lut"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_quantized_weights_are_coremltools_dequantized_ones(
    plain: Path, bits: int, mode: str
) -> None:
    small = quantized(plain, bits, mode)
    found, expected = stored(small), stored(dequantized(small))
    assert set(found) == set(expected)
    assert set(found) == {"conv.weight", "conv.bias", "conv_transpose.weight", "linear.weight"}
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], values)
    assert len(np.unique(found["linear.weight"][0])) <= 1 << bits  # it was quantized


def test_symmetric_quantization_is_read_too(plain: Path) -> None:
    small = quantized(plain, 8, "linear_symmetric")
    found, expected = stored(small), stored(dequantized(small))
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_missing_values_are_refused_with_both_counts() -> None:
    with pytest.raises(ArtifactError, match="biases hold 3 values, expected 4"):
        weights(message(floatValue=[1, 2, 3]), (4,), "biases")


def test_odd_half_precision_bytes_are_refused() -> None:
    with pytest.raises(ArtifactError, match="3 bytes of 16-bit"):
        weights(message(float16Value=b"abc"), (2,), "biases")


@pytest.mark.parametrize("bits", [4, 8])
def test_short_quantized_bytes_are_refused(bits: int) -> None:
    quantization = {"numberOfBits": bits, "linearQuantization": {"scale": [1], "bias": [0]}}
    with pytest.raises(ArtifactError, match="expected 16"):
        weights(message(rawValue=b"abc", quantization=quantization), (4, 4), "weights")


def test_short_lookup_table_is_refused() -> None:
    quantization = {"numberOfBits": 2, "lookupTableQuantization": {"floatValue": [1, 2, 3]}}
    with pytest.raises(ArtifactError, match="table of weights hold 3 values, expected 4"):
        weights(message(rawValue=b"a", quantization=quantization), (4,), "weights")


def test_scales_for_other_channels_are_refused() -> None:
    quantization = {"numberOfBits": 8, "linearQuantization": {"scale": [1, 2], "bias": [0, 0]}}
    with pytest.raises(ArtifactError, match="2 scales; expected 1 or 4"):
        weights(message(rawValue=b"abcd", quantization=quantization), (4, 1), "weights")


def test_impossible_bit_count_is_refused() -> None:
    quantization = {"numberOfBits": 12, "linearQuantization": {"scale": [1]}}
    with pytest.raises(ArtifactError, match="12 bits"):
        weights(message(rawValue=b"abcd", quantization=quantization), (2,), "weights")


def test_weights_for_int8_arithmetic_are_refused() -> None:
    with pytest.raises(UnsupportedOpError, match="int8"):
        weights(message(int8RawValue=b"abcd"), (4,), "weights")
