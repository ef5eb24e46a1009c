"""Compiled models: read like packages, run to the same bits, and refused in words."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.bundle import NEURAL_NETWORK, PIPELINE, CompiledData, pack_data, parse_data
from fluxvae.mil.compiler import compile_program
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Feature, Program
from tests.artifacts import SMALL, TWO
from tests.mil.case import Case
from tests.mil.cases_weights import WEIGHTS
from tests.mil.golden import PAIRS, pair, samples
from tests.mil.programs import save
from tests.mil.same import assert_same_function, assert_same_program

Artifact = Callable[..., Path]

# Sizes that other modules convert too.
# The decoder of flux1 alone where coremltools' own compression runs: its default passes spoil
# GroupNorm in float16.
FORMS: dict[str, dict[str, Any]] = {
    "fp16": {},
    "fp32": {"precision": "float32"},
    "fp32-io": {"variant": "flux2", "sizes": SMALL, "io_precision": "float32"},
    "nhwc": {"variant": "flux2", "sizes": SMALL, "layout": "nhwc"},
    "image": {"output": "image"},
    "enumerated": {"sizes": "64,128", "shapes": "enumerated"},
    "multifunction": {"sizes": "64,128", "shapes": "multifunction"},
    "groupnorm": {"variant": "flux2"},
    "groupnorm-enumerated": {"variant": "flux2", "sizes": TWO, "shapes": "enumerated"},
}
RUN = ("fp16", "multifunction", "groupnorm")  # an equal program gives equal bits


def compiled(package: Path, folder: Path) -> Path:
    return compile_program(package, folder).path


def noise(feature: Feature, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape, np.float32)


def assert_runs_alike(one: Program, other: Program) -> None:
    """Every function at every size it declares gives the same bits in both."""
    for name, signature in one.signatures.items():
        (latent,) = signature.inputs
        sessions = (Session(one, name), Session(other, name))
        for shape in latent.shapes or (latent.shape,):
            feed = {latent.name: noise(latent, shape)}
            results = [s.run(feed) for s in sessions]
            for output, value in results[0].items():
                twin = results[1][output]
                assert np.isfinite(value).all()
                assert value.std() > 0
                assert (value.dtype, value.shape) == (twin.dtype, twin.shape)
                assert value.tobytes() == twin.tobytes(), (name, shape, output)


@pytest.mark.parametrize("form", FORMS)
def test_compiled_decoder_is_the_same_program_and_gives_the_same_bits(
    demo_artifact: Artifact, tmp_path: Path, form: str
) -> None:
    package = demo_artifact(**{"variant": "flux1", **FORMS[form]})
    source, bundle = read_package(package), read_package(compiled(package, tmp_path))
    assert_same_program(source, bundle)
    if form in RUN:
        assert_runs_alike(source, bundle)


def compress(package: Path, target: Path, method: str) -> Path:
    """The package with its weights compressed by coremltools."""
    import coremltools as ct
    import coremltools.optimize.coreml as optimize

    model = ct.models.MLModel(str(package), skip_model_load=True)
    if method == "palettized":  # uniform: the other modes need scikit-learn or minutes
        config = optimize.OpPalettizerConfig(mode="uniform", nbits=4)
        made = optimize.palettize_weights(model, optimize.OptimizationConfig(config))
    else:
        config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8")
        made = optimize.linear_quantize_weights(model, optimize.OptimizationConfig(config))
    made.save(str(target))
    return target


LUT = "constexpr_lut_to_dense"
INT8 = {"iOS16": "constexpr_affine_dequantize", "iOS18": "constexpr_blockwise_shift_scale"}


@pytest.mark.parametrize("system", INT8)
@pytest.mark.parametrize("method", ["palettized", "int8"])
def test_compiled_decoder_with_compressed_weights_gives_the_same_bits(
    demo_artifact: Artifact, tmp_path: Path, method: str, system: str
) -> None:
    package = demo_artifact("flux1", target=system)
    small = compress(package, tmp_path / "small.mlpackage", method)
    source, bundle = read_package(small), read_package(compiled(small, tmp_path))
    kinds = [op.kind for op in bundle.function().ops]
    # every convolution's weight but the last one's, which is too small for coremltools
    assert kinds.count(INT8[system] if method == "int8" else LUT) == 34
    assert_same_program(source, bundle)
    assert_runs_alike(source, bundle)


@pytest.mark.parametrize("case", WEIGHTS, ids=str)
def test_every_form_of_compressed_weight_gives_the_same_bits(case: Case, tmp_path: Path) -> None:
    package, inputs = save(case, case.dtypes[-1], tmp_path)
    if case.id == "uint4-offset" and case.op == "constexpr_blockwise_shift_scale":
        # its offsets are too few for a weight file; Apple's spelling of such is not known
        with pytest.raises(ArtifactError, match="uint4 numbers outside its weight file"):
            compiled(package, tmp_path)
        return
    source, bundle = read_package(package), read_package(compiled(package, tmp_path))
    assert_same_program(source, bundle)
    expected, result = Session(source).run(inputs), Session(bundle).run(inputs)
    for name, value in expected.items():
        assert (value.dtype, value.tobytes()) == (result[name].dtype, result[name].tobytes())


@pytest.mark.parametrize("name", PAIRS)
def test_apples_compiled_model_is_the_program_of_its_package(
    shared: Path, tmp_path: Path, name: str
) -> None:
    source, bundle = (read_package(p) for p in pair(shared, name, tmp_path))
    if name != "silero_palette2":  # its weights are not there: compare what is written out
        source, bundle = without_blobs(source), without_blobs(bundle)
    assert_same_function(source.function(), bundle.function())
    assert (source.specification, source.signatures) == (bundle.specification, bundle.signatures)
    assert source.metadata == bundle.metadata


def without_blobs(program: Program) -> Program:
    """The program with each weight replaced by its place in the file."""
    from dataclasses import replace

    function = program.function()
    ops = tuple(
        replace(
            op,
            attributes={
                k: c if c.blob is None else replace(c, blob=None, data=f"blob {c.blob.offset}")
                for k, c in op.attributes.items()
            },
        )
        for op in function.ops
    )
    return replace(program, functions={function.name: replace(function, ops=ops)})


def test_apples_ranged_model_reads_with_its_ranges(shared: Path) -> None:
    path = samples(shared) / "fluidaudio" / "TransposeEncoder.mlmodelc"
    program = read_package(path)
    (feature,) = program.signatures["main"].inputs
    assert feature.ranges == ((1, 1), (1, 2048), (1, 2048))
    x = np.arange(6, dtype=np.float16).reshape(1, 2, 3)
    assert np.array_equal(Session(program).run({"x": x})["var_4"], x.transpose(0, 2, 1))


def test_apples_bundle_of_a_recurrent_network_computes_the_bits_of_its_source(
    shared: Path, tmp_path: Path
) -> None:
    source, bundle = pair(shared, "silero_palette2", tmp_path)
    sessions = [Session(read_package(path)) for path in (source, bundle)]
    inputs = {
        f.name: np.random.default_rng(i).normal(0, 0.1, f.shape).astype(np.float32)
        for i, f in enumerate(sessions[0].signature.inputs)
    }
    first, second = (session.run(inputs) for session in sessions)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert np.isfinite(value).all()
        assert np.array_equal(value, second[name])


def test_apples_add_model_multiplies(shared: Path) -> None:
    samples(shared)
    program = read_package(shared / "golden" / "add_model.mlmodelc")
    x = np.arange(10, dtype=np.float16)[None]
    assert np.array_equal(Session(program).run({"x": x, "y": x})["var_3"], x * x)


@pytest.fixture
def bundle(demo_artifact: Artifact, tmp_path: Path) -> Path:
    return compiled(demo_artifact("flux1"), tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.mil", "it has no model.mil"),
        ("coremldata.bin", "it has no coremldata.bin"),
        ("weights/weight.bin", "weight.bin cannot be read"),
    ],
)
def test_missing_file_is_named(bundle: Path, name: str, message: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(ArtifactError, match=message):
        read_package(bundle)


@pytest.mark.parametrize("name", ["metadata.json", "analytics"])
def test_what_is_for_people_may_be_missing(bundle: Path, name: str) -> None:
    path = bundle / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert read_package(bundle).default_function == "main"


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_text_is_refused_with_file_and_line(bundle: Path, part: float) -> None:
    text = (bundle / "model.mil").read_bytes()
    (bundle / "model.mil").write_bytes(text[: int(len(text) * part)])
    with pytest.raises(ArtifactError, match=r"mlmodelc/model\.mil is damaged at line \d+: "):
        read_package(bundle)


def test_text_that_is_no_text_is_refused(bundle: Path) -> None:
    (bundle / "model.mil").write_bytes(b"program(1.0)\n\xff\xfe")
    with pytest.raises(ArtifactError, match=r"model\.mil is damaged"):
        read_package(bundle)


def test_every_truncation_of_the_description_is_refused() -> None:
    content = pack_data(CompiledData(5, 7, b"description"))
    assert parse_data(content, "m") == CompiledData(5, 7, b"description", 1)
    for length in range(len(content) - 16):
        with pytest.raises(ArtifactError, match="truncated"):
            parse_data(content[:length], "m")


def test_description_of_nonsense_is_refused(bundle: Path) -> None:
    (bundle / "coremldata.bin").write_bytes(pack_data(CompiledData(5, 7, b"\x0a\xff\xff\xff")))
    with pytest.raises(ArtifactError, match="the description is damaged"):
        read_package(bundle)


@pytest.mark.parametrize(
    ("kind", "message"), [(NEURAL_NETWORK, "a neural network"), (PIPELINE, "a pipeline")]
)
def test_other_compiled_kinds_are_named(bundle: Path, kind: int, message: str) -> None:
    file = bundle / "coremldata.bin"
    file.write_bytes(kind.to_bytes(4, "little") + file.read_bytes()[4:])
    with pytest.raises(ArtifactError, match=f"holds {message}; only compiled ML Programs"):
        read_package(bundle)


@pytest.mark.parametrize("name", ["coremldata.bin", "model.mil", "weights/weight.bin"])
def test_git_lfs_pointer_is_named_with_the_way_out(bundle: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 575\n"
    (bundle / name).write_text(pointer, "utf-8")
    with pytest.raises(ArtifactError, match=rf"{name} is a Git LFS pointer, .* `git lfs pull`"):
        Session(read_package(bundle))


def test_text_with_a_byte_order_mark_is_read(bundle: Path) -> None:
    file = bundle / "model.mil"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_package(bundle).default_function == "main"


@pytest.mark.parametrize(
    "value",
    [
        'list<list<string, 1>, 1>([["a"]])',
        'list<string, 1>(BLOBFILE(path = tensor<string, []>("@model_path/weights/weight.bin"), '
        "offset = tensor<uint64, []>(64)))",
    ],
)
def test_list_of_more_than_strings_is_refused(bundle: Path, value: str) -> None:
    file = bundle / "model.mil"
    text = file.read_text("utf-8")
    found = text.index("= const()[") + len("= const()[")
    file.write_text(f"{text[:found]}more = {value}, {text[found:]}", "utf-8")
    with pytest.raises(ArtifactError, match="a list holds more than single strings"):
        read_package(bundle)


@pytest.mark.parametrize(
    ("found", "replacement", "message"),
    [
        ("<ios16>", "<ios99>", "written for opset 'ios99'; known: ios15, ios16"),
        ("@model_path/weights", "@model_path/../weights", "points outside itself"),
        ("offset = tensor<uint64, []>(64)", "offset = tensor<uint64, []>(65)", "no blob record"),
        ("tensor<fp16, [1, 16, 8, 8]> latent", "tensor<fp16, [1, 16, 8, 8]> other", "'other'"),
        ("tensor<fp16, [1, 16, 8, 8]> latent", "state<tensor<fp16, [1]>> latent", "as state"),
    ],
)
def test_program_that_does_not_fit_is_refused(
    bundle: Path, found: str, replacement: str, message: str
) -> None:
    file = bundle / "model.mil"
    text = file.read_text()
    assert found in text
    file.write_text(text.replace(found, replacement, 1))
    with pytest.raises(ArtifactError, match=message):
        Session(read_package(bundle))


def test_value_defined_twice_is_refused(bundle: Path) -> None:
    file = bundle / "model.mil"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:10], lines[9], *lines[10:]]))
    with pytest.raises(ArtifactError, match=r"defines .* twice"):
        read_package(bundle)


def test_compiled_neural_network_is_refused_with_the_file_to_give(tmp_path: Path) -> None:
    folder = tmp_path / "network.mlmodelc"
    folder.mkdir()
    (folder / "model.espresso.net").write_text("{}")
    with pytest.raises(UnsupportedOpError, match=r"network\.mlmodelc is a compiled neural network"):
        read_package(folder)
