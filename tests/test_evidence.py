"""What ``inspect`` says of compressed packages, and the same packages compiled."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxvae.compress.forms import Activation, CompressedDecoder
from fluxvae.compress.write import write_compressed
from fluxvae.device.compile import compile_model
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_decoder
from fluxvae.networks.structure import conv_sites
from fluxvae.networks.weights import load_weights
from fluxvae.validation.inspect import inspect_model, quantization_evidence
from tests.cli.run import run
from tests.compress.packages import compressed_as
from tests.packages import copy_of, edited

Capture = pytest.CaptureFixture[str]
FP16 = ("1", "17", "19")  # first, last, and the widest convolution after an upsampling
SCALE = Activation(0.03125, -128)


@pytest.fixture(scope="module")
def decoder() -> Any:
    return build_decoder(load_weights("flux2", "demo"))


@pytest.fixture(scope="module")
def packages(
    demo_artifact: Any, decoder: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One demo decoder: as it is, with palettes, with int8 weights, and in W8A8."""
    plain = demo_artifact(target="iOS17")
    sites = [site.name for site in conv_sites(decoder)]
    inner = [name for name in sites if name not in FP16]
    made = {
        "palette": compressed_as(decoder, dict.fromkeys(sites, "pal4")),
        "int8": compressed_as(decoder, dict.fromkeys(inner, "int8-channel")),
        "w8a8": compressed_as(
            decoder, dict.fromkeys(inner, "int8-channel"), dict.fromkeys(inner, SCALE)
        ),
        "activations": CompressedDecoder(decoder, {}, dict.fromkeys(inner, SCALE)),
    }
    folder = tmp_path_factory.mktemp("evidence")
    found = {"plain": plain}
    for name, compressed in made.items():
        found[name] = Path(shutil.copytree(plain, folder / f"{name}.mlpackage"))
        write_compressed(found[name], compressed, "float16")
    return found


def test_words_and_counts(packages: dict[str, Path]) -> None:
    evidence = {name: quantization_evidence(read_package(p)) for name, p in packages.items()}
    assert {name: e.classification for name, e in evidence.items()} == {
        "plain": "not compressed",
        "palette": "weights only",
        "int8": "weights only",
        "w8a8": "weights and activations",
        "activations": "activations only",
    }
    assert dict(evidence["plain"].weights) == {"fp16": 41}
    assert dict(evidence["palette"].weights) == {"4-bit palette": 41}
    assert dict(evidence["palette"].constexpr) == {"constexpr_lut_to_dense": 41}
    assert dict(evidence["int8"].weights) == {"int8": 38, "fp16": 3}
    full = evidence["w8a8"]
    assert dict(full.constexpr) == {"constexpr_affine_dequantize": 38}
    assert (full.quantize, full.dequantize, full.convs) == (38, 38, 41)
    assert dict(full.consumers) == {"conv": 38}
    assert (full.quantized_convs, full.paired, full.quantized_adds) == (38, 38, ())
    assert {n: e.int8_macs > 0 for n, e in evidence.items()} == {
        "plain": False, "palette": False, "int8": False, "w8a8": True, "activations": False
    }  # fmt: skip


def test_share_of_arithmetic_is_that_of_the_decoders_own_convolutions(
    packages: dict[str, Path], decoder: Any
) -> None:
    macs = {site.name: site.macs for site in conv_sites(decoder)}
    # the pool branches' convolutions are of the latent's size too
    expected = 1 - sum(macs[name] for name in FP16) / sum(macs.values())
    found = quantization_evidence(read_package(packages["w8a8"])).int8_macs
    assert found == pytest.approx(expected, rel=1e-12)


def test_inspection_carries_it_for_every_function(packages: dict[str, Path]) -> None:
    (function,) = inspect_model(packages["w8a8"]).functions
    assert function.evidence == quantization_evidence(read_package(packages["w8a8"]))
    # weights that are expanded are no maps
    assert [s.map for s in function.stages] == ["8x8", "16x16", "32x32", "64x64"]


def _operations(model: Any) -> Any:
    function = model.mlProgram.functions["main"]
    return function.block_specializations[function.opset].operations


def test_quantized_skip_path_and_missing_pairs_are_told(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    package = copy_of(packages["w8a8"], tmp_path)
    with edited(package) as model:
        operations = list(_operations(model))
        made = {o.outputs[0].name: o for o in operations}
        convs = [o for o in operations if o.type == "conv"]
        # an add that reads what was rounded for a convolution before it
        add = next(o for o in operations[operations.index(convs[5]) :] if o.type == "add")
        add.inputs["y"].CopyFrom(convs[5].inputs["x"])
        # and a dequantize that scales by something else than its quantize
        dequantize = made[convs[20].inputs["x"].arguments[0].name]
        scale = made[dequantize.inputs["scale"].arguments[0].name]
        scale.attributes["val"].immediateValue.tensor.bytes.values = np.float16(0.5).tobytes()
    evidence = quantization_evidence(read_package(package))
    assert evidence.quantized_adds == (add.outputs[0].name,)
    assert dict(evidence.consumers) == {"conv": 38, "add": 1}
    assert evidence.paired == 38 - 2  # the shared one, and the one of two scales


@pytest.mark.parametrize("name", ["palette", "w8a8"])
def test_compiled_without_xcode_it_gives_the_same_image(
    packages: dict[str, Path], tmp_path: Path, name: str
) -> None:
    package = packages[name]
    compiled = compile_model(package, tmp_path / "out.mlmodelc", compiler="portable")
    latent = np.random.Generator(np.random.PCG64(1)).standard_normal((1, 32, 8, 8), np.float32)
    programs = [read_package(path) for path in (package, compiled)]
    images = [Session(program).run({"latent": latent})["image"] for program in programs]
    assert np.array_equal(*images)
    assert images[0].std() > 0.01
    one, two = (quantization_evidence(program) for program in programs)
    assert one == two


def test_report_says_it_in_words(packages: dict[str, Path], capsys: Capture) -> None:
    ran = run(capsys, "inspect", str(packages["w8a8"]))
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    for line in (
        "  compression: weights and activations",
        "    weights stored as: int8 38, fp16 3",
        "    expanded when loaded by: constexpr_affine_dequantize 38",
        "    quantize 38, dequantize 38",
        "    dequantized values are read by: conv 38",
        "    convolutions with 8-bit inputs: 38 of 41; "
        "their own quantize and dequantize directly before: 38",
        "    skip paths quantized: none",
    ):
        assert line in lines
    assert any("with 8-bit weights and activations: 8" in line for line in lines)
    ours = lines[lines.index("  compression: weights and activations") : lines.index("metadata")]
    assert max(map(len, ours)) <= 100
    ran = run(capsys, "inspect", str(packages["plain"]))
    assert "  compression: not compressed" in ran.out.splitlines()


def test_json_has_it(packages: dict[str, Path], capsys: Capture) -> None:
    (function,) = run(capsys, "inspect", str(packages["palette"]), "--json").json["functions"]
    evidence = function["evidence"]
    assert evidence["classification"] == "weights only"
    assert evidence["weights"] == {"4-bit palette": 41}
    assert evidence["int8_macs"] == 0
