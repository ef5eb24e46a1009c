"""Every form as operations, against what coremltools itself serializes of the same values."""

import logging
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import types

from fluxvae.compress.forms import Activation, Palettized, Quantized
from fluxvae.compress.write.blobs import WeightWriter, pack
from fluxvae.compress.write.ops import activation_operations, weight_operations
from fluxvae.errors import CompressionError
from fluxvae.mil.blobs import DTYPES, BlobFile
from fluxvae.mil.program import TensorType, Variable
from tests.compress.packages import form

OPSETS = {"iOS15": "CoreML5", "iOS16": "CoreML6", "iOS17": "CoreML7", "iOS18": "CoreML8"}
NUMPY = {"float16": np.float16, "float32": np.float32}
OLD = ("pal1", "pal2", "pal4", "pal6", "pal8", "int8-tensor", "int8-channel")
NEW = (*OLD, "pal3", "pal4-scaled", "pal6-grouped:4", "pal3-grouped:2", "int4-channel",
       "int4-tensor", "int4-block:4", "int8-block:8")  # fmt: skip
NAME = "w"


def weight(shape: tuple[int, ...] = (12, 8, 3, 3)) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(3)).standard_normal(shape, np.float32)


def typed(array: np.ndarray, dtype: str) -> np.ndarray:
    """An array as coremltools marks elements of fewer than 8 bits."""
    return array.astype(types.nptype_from_builtin(types.string_to_builtin(dtype)))


def their_constant(made: Palettized | Quantized, old: bool, floats: type) -> Any:
    """The same form through coremltools' own builder."""
    if isinstance(made, Quantized):
        scale = made.scale.astype(floats)
        name = f"{NAME}_quantized"
        if not old:
            data = typed(made.data, made.dtype)
            return mb.constexpr_blockwise_shift_scale(data=data, scale=scale, name=name)
        scale = scale.reshape(() if scale.size == 1 else -1)
        return mb.constexpr_affine_dequantize(
            quantized_data=made.data,
            zero_point=np.zeros_like(scale, np.int8) if scale.ndim else np.int8(0),
            scale=scale if scale.ndim else floats(scale),
            axis=np.int32(0),
            name=name,
        )
    name = f"{NAME}_palettized"
    if old:
        return mb.constexpr_lut_to_dense(
            indices=pack(made.indices, made.bits),
            lut=made.lut[0].astype(floats),
            shape=np.array(made.indices.shape, np.uint32),
            name=name,
        )
    lut = made.lut.astype(floats).reshape(len(made.lut), 1, 1, 1, -1, 1)
    found = mb.constexpr_lut_to_dense(
        indices=typed(made.indices, f"uint{made.bits}"), lut=lut, name=name
    )
    if made.scale is None:
        return found
    scale = made.scale.astype(floats).reshape(-1, 1, 1, 1)
    return mb.constexpr_blockwise_shift_scale(data=found, scale=scale, name=f"{name}_pcs")


def serialized(program: Any, target: str) -> tuple[list[Any], Path]:
    """Operations of a builder program as coremltools writes them, and its weight file."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    model = ct.convert(
        program,
        convert_to="mlprogram",
        compute_precision=ct.precision.FLOAT32,  # as built
        minimum_deployment_target=getattr(ct.target, target),
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    function = model.get_spec().mlProgram.functions["main"]
    operations = list(function.block_specializations[OPSETS[target]].operations)
    return operations, Path(model.weights_dir) / "weight.bin"


def plain(operation: Any, weights: Path) -> dict[str, Any]:
    """An operation as data: blobs by type and bytes, whatever their place."""
    blobs = BlobFile(weights)

    def value(message: Any) -> tuple[str, object]:
        if message.WhichOneof("value") != "blobFileValue":
            return str(message), None
        assert message.blobFileValue.fileName == "@model_path/weights/weight.bin"
        dtype, size, start = blobs.record(message.blobFileValue.offset)
        return str(message.type), (dtype, blobs.data(start, size).tobytes())

    def argument(message: Any) -> list[object]:
        return [
            b.name if b.WhichOneof("binding") == "name" else value(b.value)
            for b in message.arguments
        ]

    return {
        "type": operation.type,
        "outputs": [str(o) for o in operation.outputs],
        "inputs": {k: argument(a) for k, a in operation.inputs.items()},
        "attributes": {k: value(v) for k, v in operation.attributes.items()},
    }


def ours(made: Palettized | Quantized, target: str, precision: str, folder: Path) -> list[Any]:
    path = folder / "ours.bin"
    store = WeightWriter(path, "@model_path/weights/weight.bin")
    operations = weight_operations(made, NAME, OPSETS[target], precision, store)
    store.value(np.zeros(16, np.float32), "fp32")  # so that there is a file
    store.close()
    return [plain(o, path) for o in operations]


@pytest.mark.parametrize("precision", NUMPY)
@pytest.mark.parametrize(
    ("target", "text"), [("iOS16", t) for t in OLD] + [("iOS18", t) for t in NEW]
)
def test_operations_equal_what_coremltools_writes(
    tmp_path: Path, target: str, text: str, precision: str
) -> None:
    made = form(weight(), text)
    floats = NUMPY[precision]
    kind = types.fp16 if precision == "float16" else types.fp32

    @mb.program(
        input_specs=[mb.TensorSpec(shape=(1, 8, 4, 4), dtype=kind)],
        opset_version=getattr(ct.target, target),
    )
    def program(x: Any) -> Any:
        return mb.conv(x=x, weight=their_constant(made, target != "iOS18", floats))

    found = ours(made, target, precision, tmp_path)
    theirs, weights = serialized(program, target)
    expected = [plain(o, weights) for o in theirs if o.type.startswith("constexpr_")]
    assert found == expected
    assert len(found) == (2 if "scaled" in text else 1)


@pytest.mark.parametrize("precision", NUMPY)
@pytest.mark.parametrize(
    "how", [Activation(0.25), Activation(0.375, -100), Activation(0.5, 7, "uint8")], ids=str
)
def test_activations_equal_what_coremltools_writes(
    tmp_path: Path, how: Activation, precision: str
) -> None:
    floats = NUMPY[precision]
    kind = types.fp16 if precision == "float16" else types.fp32
    integer = {"int8": np.int8, "uint8": np.uint8}[how.dtype]
    point = {"zero_point": integer(how.zero_point)} if how.zero_point else {}

    @mb.program(
        input_specs=[mb.TensorSpec(shape=(1, 8, 4, 4), dtype=kind)], opset_version=ct.target.iOS17
    )
    def program(x: Any) -> Any:
        scale = floats(how.scale)
        q = mb.quantize(input=x, scale=scale, output_dtype=how.dtype, name="quantize_0", **point)
        q = mb.dequantize(input=q, scale=scale, name="dequantize_0", **point)
        return mb.conv(x=q, weight=weight().astype(floats))

    path = tmp_path / "ours.bin"
    store = WeightWriter(path, "@model_path/weights/weight.bin")
    source = Variable("x", TensorType({"float16": "fp16"}.get(precision, "fp32"), (1, 8, 4, 4)))
    operations = activation_operations(how, source, 0, "CoreML7", store)
    store.value(np.zeros(16, np.float32), "fp32")
    store.close()
    found = [plain(o, path) for o in operations]
    theirs, weights = serialized(program, "iOS17")
    expected = [plain(o, weights) for o in theirs]
    names = {str(o["outputs"]) for o in found}
    expected = [o for o in expected if str(o["outputs"]) in names]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert [o["type"] for o in found if o["type"] != "const"] == ["quantize", "dequantize"]


def test_flexible_dimensions_stay_open(tmp_path: Path) -> None:
    store = WeightWriter(tmp_path / "w.bin", "w")
    source = Variable("x", TensorType("fp16", (1, 8, None, None)))
    *_, last = activation_operations(Activation(0.25), source, 0, "CoreML8", store)
    dimensions = [d.WhichOneof("dimension") for d in last.outputs[0].type.tensorType.dimensions]
    assert dimensions == ["constant", "constant", "unknown", "unknown"]


REFUSED = {
    "iOS15 int8-channel": "compressed weights need iOS16, the program is for iOS15",
    "iOS17 pal3": "palettes of 3 bits need iOS18: give --target iOS18, or 2 or 4 bits",
    "iOS17 pal4-scaled": "scales for channels of a palette need iOS18",
    "iOS17 pal4-grouped:4": "several tables need iOS18",
    "iOS17 int4-channel": "int4 weights need iOS18: give --target iOS18, or int8",
    "iOS17 int8-block:4": "need iOS18: give --target iOS18, or --granularity channel",
}


@pytest.mark.parametrize("asked", REFUSED)
def test_what_a_target_cannot_hold_is_refused(tmp_path: Path, asked: str) -> None:
    target, text = asked.split()
    with pytest.raises(CompressionError, match=REFUSED[asked]):
        ours(form(weight(), text), target, "float16", tmp_path)


def test_activations_before_ios17_are_refused(tmp_path: Path) -> None:
    store = WeightWriter(tmp_path / "w.bin", "w")
    source = Variable("x", TensorType("fp16", (1, 8, 4, 4)))
    with pytest.raises(CompressionError, match="8-bit activations need iOS17"):
        activation_operations(Activation(0.25), source, 0, "CoreML6", store)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_packing_equals_coremltools(bits: int) -> None:
    from coremltools.optimize._utils import pack_elements_into_bits

    indices = np.random.Generator(np.random.PCG64(bits)).integers(0, 2**bits, 77).astype(np.uint8)
    assert np.array_equal(pack(indices, bits), pack_elements_into_bits(indices, bits))


def test_every_type_of_blob_is_one_our_reader_names() -> None:
    from fluxvae.compress.write.blobs import BLOB_DTYPES

    assert set(BLOB_DTYPES) <= set(DTYPES.values())


@pytest.mark.parametrize("elements", [100, 10**6])  # fails when it is closed, and at once
def test_full_disk_is_an_os_error(elements: int) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system, the stand-in for a full disk")
    store = WeightWriter(full, "w")
    with pytest.raises(OSError, match="No space left"):  # noqa: PT012
        store.value(np.zeros(elements, np.float32), "fp32")
        store.close()
