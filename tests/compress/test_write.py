"""Whole packages: coremltools types and expands them, our executor runs them."""

import logging
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fluxvae.compress.forms import Activation, CompressedDecoder, dense
from fluxvae.compress.guard import check_weights
from fluxvae.compress.write import write_compressed
from fluxvae.errors import CompressionError
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Program
from fluxvae.recipes import Recipe, parse_sizes
from tests.compress.packages import (
    LATENT,
    SITES,
    Bases,
    compressed_as,
    cycled,
    form,
    image_of,
    latent,
    small_decoder,
    weight_of,
)
from tests.compress.simple import stored_bytes
from tests.conversion_cache import write_model
from tests.packages import MODEL, WEIGHTS, edited

OLD = cycled("pal1", "pal2", "int8-channel", "pal4", "", "pal6", "int8-tensor", "pal8")
NEW = cycled(
    *("pal3", "pal4-scaled", "int4-block:4", "pal6-grouped:4", "", "int8-channel"),
    *("pal2-scaled", "int4-channel", "pal8-scaled", "int4-tensor", "pal1-scaled"),
)
W8A8 = cycled("int8-channel")
# The pool branch averages over the map; its inputs and the others' are of about this size.
ROUNDING = {
    site: Activation(0.03125, (0, -128, 9)[i % 3]) if i % 4 else Activation(0.03125, 128, "uint8")
    for i, site in enumerate(SITES[:-1])
}


def run(package: Path, function: str | None = None, side: int = 8) -> np.ndarray:
    (image,) = Session(read_package(package), function).run({"latent": latent(side)}).values()
    return image


def coremltools_program(package: Path) -> Any:
    """The program as coremltools' own importer rebuilds it; it infers every type again."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    logging.getLogger("coremltools").setLevel(logging.ERROR)
    model = ct.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    return load(spec, spec.specificationVersion, model.weights_dir)


def convolutions(program: Program) -> Iterator[list[Any]]:
    for function in program.functions.values():
        yield [op for op in function.ops if op.kind == "conv"]


def blobs(package: Path) -> tuple[int, int]:
    """Blobs that the weight file says it holds, and places that the program reads."""
    (held,) = struct.unpack("<I", (package / WEIGHTS).read_bytes()[:4])
    program = read_package(package)
    read = {
        c.blob.offset
        for f in program.functions.values()
        for op in f.ops
        for c in op.constants()
        if c.blob is not None
    }
    return held, len(read)


CASES: dict[str, tuple[str, str, dict[str, str], dict[str, Activation]]] = {
    "iOS16 float16": ("iOS16", "float16", OLD, {}),
    "iOS17 float32": ("iOS17", "float32", OLD, ROUNDING),
    "iOS18 float16": ("iOS18", "float16", NEW, {}),
    "iOS18 float16 w8a8": ("iOS18", "float16", W8A8, ROUNDING),
    "iOS18 float32": ("iOS18", "float32", NEW, {}),
    "iOS18 float32 w8a8": ("iOS18", "float32", W8A8, ROUNDING),
}


def written(case: str, bases: Bases, folder: Path) -> tuple[CompressedDecoder, Path]:
    """A case's decoder and its package."""
    target, precision, forms, activations = CASES[case]
    compressed = compressed_as(small_decoder(), forms, activations)
    return compressed, bases.written(compressed, folder, target, precision)


@pytest.mark.parametrize("case", CASES)
def test_coremltools_types_the_program_and_expands_the_same_weights(
    bases: Bases, tmp_path: Path, case: str
) -> None:
    _, precision, forms, activations = CASES[case]
    compressed, package = written(case, bases, tmp_path)
    function = coremltools_program(package).functions["main"]
    found = [op for op in function.operations if op.op_type == "conv"]
    assert len(found) == len(SITES)
    for op, site in zip(found, SITES, strict=True):
        maker = op.weight.op
        if site not in forms:
            assert maker.op_type == "const"
            continue
        expanded = maker.materialized_val_inference()
        assert str(expanded.dtype) == precision
        wanted = dense(compressed.weights[site], precision)
        assert np.array_equal(expanded.astype(np.float32), wanted), site
        assert (op.x.op.op_type == "dequantize") == (site in activations)


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c][1] == "float32"])
def test_executor_computes_what_torch_does_with_the_dense_weights(
    bases: Bases, tmp_path: Path, case: str
) -> None:
    compressed, package = written(case, bases, tmp_path)
    check_weights(package, compressed, "float32")
    expected = image_of(compressed, latent())
    assert np.abs(run(package) - expected).max() < 1e-5
    # and the forms matter: the plain decoder gives something else
    assert (
        np.abs(image_of(CompressedDecoder(small_decoder(), {}), latent()) - expected).max() > 1e-3
    )


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c][1] == "float16"])
def test_float16_is_torchs_image_but_for_rounding(bases: Bases, tmp_path: Path, case: str) -> None:
    compressed, package = written(case, bases, tmp_path)
    check_weights(package, compressed, "float16")
    difference = np.abs(run(package).astype(np.float32) - image_of(compressed, latent()))
    # measured: 4e-5, and 2.3e-3 where values fall to the next of the 8-bit levels, 0.03 apart
    assert difference.mean() < (4e-3 if compressed.activations else 1e-4)


FORMS: dict[str, dict[str, Any]] = {
    "nhwc-model": {"layout": "nhwc", "nhwc_model": True},
    "nhwc-image": {"layout": "nhwc", "output": "image"},
    "enumerated": {"sizes": "64,128", "shapes": "enumerated"},
    "multifunction": {"sizes": "64,128", "shapes": "multifunction"},
}


@pytest.mark.parametrize("kind", FORMS)
def test_every_form_of_package_can_be_compressed(bases: Bases, tmp_path: Path, kind: str) -> None:
    compressed = compressed_as(small_decoder(), NEW, ROUNDING)
    package = bases.written(compressed, tmp_path, "iOS18", "float32", **FORMS[kind])
    check_weights(package, compressed, "float32")
    coremltools_program(package)
    held, read = blobs(package)
    assert held == read
    program = read_package(package)
    for function in program.functions:
        session = Session(program, function)
        for shape in session.signature.inputs[0].shapes or (session.signature.inputs[0].shape,):
            last = "nhwc" in kind
            given = latent(shape[1] if last else shape[2])
            (image,) = session.run(
                {"latent": given.transpose(0, 2, 3, 1) if last else given}
            ).values()
            expected = image_of(compressed, given)
            if kind == "nhwc-image":
                levels = np.clip(expected[0] * 255, 0, 255).transpose(1, 2, 0)
                assert np.abs(image - levels).max() < 0.501  # rounded to the nearest level
            else:
                assert (
                    np.abs((image.transpose(0, 3, 1, 2) if last else image) - expected).max() < 1e-5
                )


def test_functions_share_their_blobs(bases: Bases, tmp_path: Path) -> None:
    compressed = compressed_as(small_decoder(), NEW, ROUNDING)
    several, single = (
        bases.written(compressed, tmp_path / str(len(how)), "iOS18", "float32", **how)
        for how in (FORMS["multifunction"], {})
    )
    assert (several / WEIGHTS).stat().st_size == (single / WEIGHTS).stat().st_size
    # and the guard looks at each of them
    with edited(several) as model:
        function = model.mlProgram.functions["hw64"]
        operations = function.block_specializations[function.opset].operations
        del next(o for o in operations if o.type == "conv").inputs["bias"]
    with pytest.raises(CompressionError, match=r"bias of convolution 1 .* function 'hw64'"):
        check_weights(several, compressed, "float32")


def test_weight_file_holds_what_the_forms_take_and_nothing_else(
    bases: Bases, tmp_path: Path
) -> None:
    decoder = small_decoder()
    compressed = compressed_as(decoder, NEW)
    package = bases.written(compressed, tmp_path, "iOS18", "float16")
    held, read = blobs(package)
    assert held == read
    plain = bases.base("iOS18", "float16")
    saved = sum(
        2 * f.indices.size - stored_bytes(f, "float16")
        if hasattr(f, "indices")
        else 2 * f.data.size - stored_bytes(f, "float16")
        for f in compressed.weights.values()
    )
    before, after = ((p / WEIGHTS).stat().st_size for p in (plain, package))
    # each blob has a record of 64 bytes and starts at a multiple of 64; at most 3 blobs for a form
    assert abs((before - saved) - after) < 3 * 128 * len(compressed.weights)


def test_what_is_not_compressed_stays_as_it_was(bases: Bases, tmp_path: Path) -> None:
    compressed = compressed_as(small_decoder(), {"5": "pal4"})
    package = bases.written(compressed, tmp_path, "iOS18", "float16")
    before = {op.name: op for op in read_package(bases.base("iOS18", "float16")).function().ops}
    after = read_package(package).function().ops
    assert [op.kind for op in after if op.name not in before] == ["constexpr_lut_to_dense"]
    (gone,) = set(before) - {op.name for op in after}
    assert before[gone].kind == "const"
    for op in after:
        if op.kind == "const":
            old = before[op.name].attributes["val"]
            new = op.attributes["val"]
            assert new.type == old.type
            assert np.array_equal(new.value(), old.value())


def test_the_same_call_gives_the_same_bytes(bases: Bases, tmp_path: Path) -> None:
    compressed = compressed_as(small_decoder(), NEW, ROUNDING)
    one, two = (bases.written(compressed, tmp_path / n, "iOS18", "float16") for n in "ab")
    for file in (MODEL, WEIGHTS):
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_weights_that_the_converter_merged_get_forms_of_their_own(tmp_path: Path) -> None:
    decoder = small_decoder()
    for layer in (7, 9):  # now as 5, and coremltools keeps one constant for the three
        decoder[layer].load_state_dict(decoder[5].state_dict())
    package = tmp_path / "merged.mlpackage"
    write_model(decoder, Recipe("flux2", sizes=parse_sizes("64"), target="iOS18"), LATENT, package)
    read = {op.inputs["weight"][0] for c in convolutions(read_package(package)) for op in c[6:9]}
    assert len(read) == 1
    compressed = compressed_as(decoder, {"5": "pal4", "7": "int8-channel"})
    write_compressed(package, compressed, "float16")
    check_weights(package, compressed, "float16")
    coremltools_program(package)


def test_forms_with_weights_of_another_decoder_are_refused(bases: Bases, tmp_path: Path) -> None:
    other = compressed_as(small_decoder(1), {"5": "pal4"})
    with pytest.raises(CompressionError, match="holds another weight than 1 of the decoder"):
        bases.written(other, tmp_path, "iOS18", "float16")


def test_two_convolutions_of_one_shape_exchanged_are_refused(bases: Bases, tmp_path: Path) -> None:
    decoder = small_decoder()
    five, seven = (decoder[i].weight.clone() for i in (5, 7))
    decoder[5].weight, decoder[7].weight = torch.nn.Parameter(seven), torch.nn.Parameter(five)
    with pytest.raises(CompressionError, match="holds another weight than 5 of the decoder"):
        bases.written(CompressedDecoder(decoder, {}), tmp_path, "iOS18", "float16")


def test_other_precision_is_refused(bases: Bases, tmp_path: Path) -> None:
    compressed = compressed_as(small_decoder(), {"5": "pal4"})
    package = Path(shutil.copytree(bases.base("iOS18", "float16"), tmp_path / "a.mlpackage"))
    with pytest.raises(CompressionError, match="is stored as fp16; expected fp32"):
        write_compressed(package, compressed, "float32")


def test_forms_for_what_is_no_convolution_are_refused(bases: Bases, tmp_path: Path) -> None:
    decoder = small_decoder()
    unknown = CompressedDecoder(decoder, {"4.conv": form(weight_of(decoder, "5"), "pal4")})
    with pytest.raises(CompressionError, match=r"'4\.conv', which is not a convolution"):
        bases.written(unknown, tmp_path / "a", "iOS18", "float16")
    rounding = CompressedDecoder(decoder, {}, {"4": Activation(0.25)})
    with pytest.raises(CompressionError, match="activation of '4', which is not a convolution"):
        bases.written(rounding, tmp_path / "b", "iOS18", "float16")
    shape = CompressedDecoder(decoder, {"5": form(weight_of(decoder, "1"), "pal4")})
    with pytest.raises(CompressionError, match="the form of convolution 5 is of shape"):
        bases.written(shape, tmp_path / "c", "iOS18", "float16")


def test_compressing_twice_is_refused(bases: Bases, tmp_path: Path) -> None:
    compressed = compressed_as(small_decoder(), {"5": "pal4"})
    package = bases.written(compressed, tmp_path, "iOS18", "float16")
    with pytest.raises(CompressionError, match="is not a constant: compress a package that"):
        write_compressed(package, compressed, "float16")


def test_neural_networks_are_refused(tmp_path: Path) -> None:
    from coremltools.models import datatypes
    from coremltools.models.neural_network import NeuralNetworkBuilder
    from coremltools.models.utils import save_spec

    array = datatypes.Array(1, 3, 4, 4)
    builder = NeuralNetworkBuilder(
        [("latent", array)], [("image", array)], disable_rank5_shape_mapping=True
    )
    builder.add_activation("relu", "RELU", "latent", "image")
    save_spec(builder.spec, str(tmp_path / "a.mlmodel"))
    with pytest.raises(CompressionError, match="is a neural network"):
        write_compressed(tmp_path / "a.mlmodel", CompressedDecoder(small_decoder(), {}), "float32")
