"""``convert``'s compression options: what they ask for, and what they refuse."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from fluxvae.artifact.record import read_record
from fluxvae.mil.package import read_package
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Compression
from tests.cli.run import Ran, run

Capture = pytest.CaptureFixture[str]
Convert = Callable[..., Ran]


@pytest.fixture
def convert(capsys: Capture, tmp_path: Path) -> Convert:
    """Run ``fluxvae convert`` on flux1's demo weights at 64 px, into a folder of the test."""

    def call(*arguments: str, weights: str = "demo") -> Ran:
        common = ("--variant", "flux1", "--weights", weights, "--size", "64")
        return run(capsys, "convert", *common, "--out", str(tmp_path / "out"), *arguments)

    return call


@pytest.fixture
def latents(tmp_path: Path) -> str:
    """A folder with one latent to calibrate with."""
    folder = tmp_path / "latents"
    folder.mkdir()
    latent = np.random.Generator(np.random.PCG64(0)).standard_normal((1, 16, 8, 8), np.float32)
    np.save(folder / "one.npy", latent)
    return str(folder)


@pytest.mark.parametrize(
    ("options", "reports"),
    [
        ("", ()),
        ("--palettize 4", ("coremltools/pull/2688", "coremltools/issues/2716")),
        ("--palettize 4 --target iOS16", ("coremltools/issues/2716",)),
        ("--palettize 6", ("coremltools/pull/2688",)),
        ("--palettize 6 --granularity grouped:16", ()),
        ("--mixed-bits 40dB", ("coremltools/pull/2688", "coremltools/issues/2716")),
        ("--quantize-weights int4", ("coreai-models/issues/279", "coreai-models/issues/205")),
        ("--quantize-weights int4 --granularity channel", ("coreai-models/issues/205",)),
        ("--quantize-weights int8", ()),
        ("--w8a8", ()),
    ],
)
def test_forms_that_others_report_about_are_noted_with_what_to_choose(
    convert: Convert, options: str, reports: tuple[str, ...]
) -> None:
    ran = convert(*options.split(), "--dry-run")
    assert ran.code == 0
    notes = [line for line in ran.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == len(reports)
    for note, report in zip(notes, reports, strict=True):
        assert f"(reported by others, not seen here: https://github.com/apple/{report})" in note
        assert "; choose --" in note


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--palettize 4 --w8a8", "--palettize and --w8a8 exclude each other"),
        ("--palettize 4 --mixed-bits 900KB", "exclude each other"),
        ("--palettize 3 --target iOS17", "iOS18"),
        ("--palettize 4 --granularity grouped:16 --target iOS17", "--granularity tensor"),
        ("--quantize-weights int4 --granularity block:32 --target macOS14", "iOS18"),
        ("--w8a8 --target iOS16", "iOS17"),
        ("--palettize 4 --granularity channel", "tensor, channel-scale or grouped:16"),
        ("--quantize-weights int8 --granularity block:32", "tensor or channel"),
        ("--palettize 4 --format neuralnetwork", "--format mlprogram"),
        ("--mixed-bits 40", "900KB or 40dB"),
        ("--mixed-bits 0dB", "900KB or 40dB"),
        ("--recipe best --palettize 4", "expected compensated, plain"),
        ("--recipe plain", "--palettize"),
        ("--granularity tensor", "--palettize"),
        ("--calibration photos", "--palettize"),
        ("--int8-share 0.9 --palettize 4", "--w8a8"),
        ("--activations symmetric", "--palettize"),
        ("--qat x.safetensors --mixed-bits 40dB", "--mixed-bits"),
        ("--qat x.safetensors --w8a8 --int8-share 0.9", "checkpoint"),
        ("--recipe missing.json", "cannot be read"),
        ("--recipe missing.json --palettize 4", "exclude each other"),
    ],
)
def test_contradictions_are_usage_errors(convert: Convert, options: str, words: str) -> None:
    ran = convert(*options.split())
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err.splitlines()[-1]
    assert len([line for line in ran.err.splitlines() if line.startswith("fluxvae: ")]) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--calibration EMPTY --palettize 4", "--calibration"),
        ("--calibration MISSING --palettize 4", "--calibration"),
        ("--calibration FILE --palettize 4", "--calibration"),
        ("--qat FILE --w8a8", "fluxvae qat"),
    ],
)
def test_missing_inputs_are_named(
    convert: Convert, tmp_path: Path, options: str, words: str
) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("no checkpoint")
    places = {name: str(tmp_path / name) for name in ("EMPTY", "MISSING", "FILE")}
    ran = convert(*(places.get(option, option) for option in options.split()))
    assert (ran.code, ran.out) == (1, ""), ran.err
    assert words in ran.err.splitlines()[-1]
    assert not list((tmp_path / "out").glob("*"))


def test_without_an_encoder_the_ways_out_are_named(convert: Convert, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    save_file(dict(load_weights("flux1", "random:0").tensors), alone)
    ran = convert("--palettize", "4", weights=str(alone))
    assert ran.code == 1
    for way in ("--encoder", "--calibration"):
        assert way in ran.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "expected", "name"),
    [
        (
            "--palettize 2 --recipe plain --granularity tensor",
            Compression("palette", bits=2, granularity="tensor", method="plain"),
            "pal2-tensor-plain",
        ),
        (
            "--quantize-weights int8 --recipe plain",
            Compression("int8", method="plain"),
            "int8-plain",
        ),
        (
            "--w8a8 --recipe plain --activations symmetric --calibration LATENTS",
            Compression("w8a8", method="plain", activations="symmetric"),
            "w8a8-plain-symmetric",
        ),
    ],
)
def test_what_is_asked_is_made(
    convert: Convert, latents: str, options: str, expected: Compression, name: str
) -> None:
    ran = convert(*options.replace("LATENTS", latents).split())
    assert ran.code == 0, ran.err
    path = Path(ran.out.strip())
    assert path.name == f"flux1_tiny_decoder_nchw_float16_hw64_{name}_demo.mlpackage"
    record = read_record(read_package(path))
    assert record is not None
    assert record.recipe.compression == expected
    assert "published" in ran.err.lower()  # what it buys on a device, by others' measurements


def test_a_palette_is_as_fine_as_its_target_allows_and_validates(convert: Convert) -> None:
    ran = convert("--palettize", "8", "--recipe", "plain", "--validate")
    assert ran.code == 0, ran.err
    record = read_record(read_package(Path(ran.out.strip())))
    assert record is not None
    assert record.recipe.deployment_target == "iOS18"
    assert record.recipe.granularity == "channel-scale"
    for photo in ("chelsea", "coffee"):
        assert f"{photo} at 64: ok" in ran.err


def test_an_allocation_is_saved_and_replayed(
    convert: Convert, latents: str, tmp_path: Path
) -> None:
    options = ("--calibration", latents)
    first = convert("--mixed-bits", "800KB", "--recipe", "plain", *options)
    assert first.code == 0, first.err
    made = Path(first.out.strip())
    saved = made.with_suffix(".allocation.json")
    saved.write_bytes(b"\xef\xbb\xbf" + saved.read_bytes())  # as Windows' editors save it
    again = tmp_path / "again.mlpackage"
    replayed = convert("--recipe", str(saved), *options, "--out", str(again))
    assert replayed.code == 0, replayed.err

    def weights(package: Path) -> bytes:
        return (package / "Data/com.apple.CoreML/weights/weight.bin").read_bytes()

    assert weights(again) == weights(made)
    assert 700_000 < len(weights(made)) <= 800_000
    record = read_record(read_package(made))
    assert record is not None
    assert record.compression["calibration"]["name"] == "latents"  # type: ignore[index]
