"""Commands without an artifact take the newest of ``coreml_out/``, and say so."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxvae.networks.weights import load_weights
from fluxvae.records.roundtrip import Roundtrip
from fluxvae.schema import load
from tests.artifacts import recipe, save
from tests.cli.run import run
from tests.fake_harness import FakeHarness, report
from tests.test_harness import DRIFT

Capture = pytest.CaptureFixture[str]
Artifact = Callable[..., Path]
COMMANDS = (
    *("validate", "validate-swift", "roundtrip", "inspect", "bench", "decode", "drift", "plan"),
)
MONDAY = 1_700_000_000  # any time that is past


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``coreml_out`` in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coreml_out").mkdir()
    return tmp_path / "coreml_out"


def place(artifact: Path, path: Path, made: int) -> Path:
    """A copy of a package whose files were written ``made`` seconds after Monday."""
    shutil.copytree(artifact, path)
    for file in (f for f in path.rglob("*") if f.is_file()):
        os.utime(file, (MONDAY + made, MONDAY + made))
    return path


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHarness:
    """A harness that answers ``drift``."""
    fake = FakeHarness(tmp_path, (0, report("drift", drift=DRIFT), ""))
    monkeypatch.setenv("FLUXVAE_HARNESS", str(fake.program))
    return fake


def test_with_nothing_there_every_command_names_the_one_to_run_first(
    folder: Path, capsys: Capture, demo_package: Path
) -> None:
    (folder / ".fluxvae-1").mkdir()
    shutil.copytree(demo_package, folder / "roundtrip" / "artifacts" / demo_package.name)
    for command in (*COMMANDS, "decode latents.npy"):
        ran = run(capsys, *command.split())
        assert (ran.code, ran.out) == (2, ""), command
        assert ran.err == (
            "fluxvae: no artifact in coreml_out/: run `fluxvae convert --variant flux2` first, or "
            "name an artifact\n"
        )


def test_artifact_whose_files_were_written_last_is_taken_and_said(
    folder: Path, capsys: Capture, demo_package: Path, demo_artifact: Artifact
) -> None:
    place(demo_package, folder / "z.mlpackage", 1)
    newest = place(demo_artifact("flux1"), folder / "a.mlpackage", 2)
    os.utime(folder / "z.mlpackage")  # the folder's own time, as looking into it may set it
    ran = run(capsys, "inspect", "--json")
    assert ran.code == 0
    assert ran.json["path"] == "coreml_out/a.mlpackage"
    assert ran.err == (
        "taking the newest artifact, coreml_out/a.mlpackage: flux1, tiny decoder, weights demo, "
        "size 64\n"
    )
    shutil.rmtree(newest)
    assert run(capsys, "inspect", "--json").json["path"] == "coreml_out/z.mlpackage"


def test_hidden_damaged_and_foreign_models_are_passed_over(
    folder: Path, capsys: Capture, demo_package: Path, shared: Path
) -> None:
    place(demo_package, folder / "ours.mlpackage", 1)
    place(demo_package, folder / ".fluxvae-ours.mlpackage", 5)
    place(demo_package, folder / "cut.mlpackage", 4)
    (folder / "cut.mlpackage" / "Manifest.json").unlink()
    shutil.copytree(shared / "golden" / "add_model.mlmodelc", folder / "foreign.mlmodelc")
    (folder / "nothing.mlmodel").symlink_to(folder / "gone")
    ran = run(capsys, "inspect", "--json")
    assert ran.json["path"] == "coreml_out/ours.mlpackage"
    foreign, cut, taken = ran.err.splitlines()
    assert foreign.startswith("passing over coreml_out/foreign.mlmodelc: foreign.mlmodelc was not ")
    assert cut.startswith("passing over coreml_out/cut.mlpackage: cut.mlpackage is not an .mlp")
    assert taken.startswith("taking the newest artifact, coreml_out/ours.mlpackage")


def test_model_is_compiled_once_where_it_has_to_be(
    folder: Path, capsys: Capture, demo_package: Path, harness: FakeHarness
) -> None:
    place(demo_package, folder / "m.mlpackage", 1)
    for words in ("compiled it as", "taking what was compiled from it,"):
        ran = run(capsys, "drift", "--repeats", "3")
        assert ran.code == 0
        assert ran.err.splitlines()[-1] == f"{words} coreml_out/m.mlmodelc"
        assert harness.calls[-1][0][1] == "coreml_out/m.mlmodelc"
    shutil.rmtree(folder / "m.mlpackage")  # a compiled model alone is an artifact too
    assert run(capsys, "drift", "--repeats", "3").code == 0
    assert harness.calls[-1][0][1] == "coreml_out/m.mlmodelc"


def test_path_that_may_keep_a_model_off_the_neural_engine_is_noted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    demo_package: Path,
    harness: FakeHarness,
) -> None:
    link = "https://github.com/apple/ml-stable-diffusion/issues/136"
    convert = ("convert", "--variant", "flux2", "--weights", "demo", "--dry-run")
    usual = (*convert, "--out", str(tmp_path / "models"))
    assert link not in run(capsys, *usual).err
    folder = tmp_path / "modèles"
    assert link in run(capsys, *convert, "--out", str(folder)).err
    ran = run(capsys, "compile", str(demo_package), "--compiler", "portable", "--out", str(folder))
    compiled = Path(ran.out.strip())
    assert link in ran.err
    assert link in run(capsys, "drift", str(compiled), "--repeats", "3").err
    monkeypatch.chdir(folder)
    assert link in run(capsys, "drift", compiled.name, "--repeats", "3").err


@pytest.mark.parametrize("change", ["program", "weights"])
def test_compiled_model_of_another_conversion_is_neither_taken_nor_replaced(
    folder: Path, capsys: Capture, demo_package: Path, harness: FakeHarness, change: str
) -> None:
    package = place(demo_package, folder / "m.mlpackage", 1)
    assert run(capsys, "compile", str(package), "--compiler", "portable").code == 0
    before = {f: f.read_bytes() for f in (folder / "m.mlmodelc").rglob("*") if f.is_file()}
    inside = package / "Data" / "com.apple.CoreML"
    if change == "program":
        other = save(load_weights("flux2", "random"), recipe("flux2"), folder.parent / "other")
        shutil.rmtree(package)
        place(other, package, 2)
    else:
        weights = bytearray((inside / "weights" / "weight.bin").read_bytes())
        weights[-1] ^= 1
        (inside / "weights" / "weight.bin").write_bytes(weights)
    ran = run(capsys, "drift", "--repeats", "3")
    assert ran.code == 0
    assert "m.mlmodelc was compiled from another conversion: compiling again" in ran.err
    used = Path(harness.calls[-1][0][1])
    assert used.name == "m.mlmodelc"
    assert "fluxvae-compiled-" in used.parent.name
    assert not used.exists()  # it was for this run only
    assert {f: f.read_bytes() for f in (folder / "m.mlmodelc").rglob("*") if f.is_file()} == before


def test_validate_swift_after_convert_compiles_exports_and_judges_by_the_forms_limits(
    folder: Path, capsys: Capture, harness_program: Path
) -> None:
    wanted = ("--variant", "flux2", "--weights", "demo", "--size", "64")
    form = ("--palettize", "4", "--recipe", "plain")
    made = Path(run(capsys, "convert", *wanted, *form).out.strip())
    ran = run(capsys, "validate-swift", "--harness", str(harness_program), "--json")
    assert ran.code == 0, ran.err
    assert ran.json["artifact"] == str(made.with_suffix(".mlmodelc"))
    cases = [each["validation"]["case"] for each in ran.json["reports"]]
    assert cases == ["chelsea", "normal"]


@pytest.mark.parametrize("names", [(), ("ARTIFACT",), ("LATENTS",)])
def test_decode_takes_the_newest_artifact_and_the_photos_for_what_is_not_named(
    folder: Path, capsys: Capture, demo_package: Path, demo_latents: Path, names: tuple[str, ...]
) -> None:
    place(demo_package, folder / "m.mlpackage", 1)
    files = {"ARTIFACT": str(demo_package), "LATENTS": str(demo_latents)}
    assert run(capsys, "decode", *files.values(), "--out", "named.safetensors").code == 0
    given = [files[name] for name in names]
    ran = run(capsys, "decode", *given, "--out", "found.safetensors", "--json")
    assert ran.code == 0
    assert [one["name"] for one in ran.json["decoded"]] == ["chelsea", "coffee"]
    assert Path("found.safetensors").read_bytes() == Path("named.safetensors").read_bytes()
    assert ("taking the newest artifact" in ran.err) == ("ARTIFACT" not in names)
    assert ("encoding photos" in ran.err) == ("LATENTS" not in names)


def test_decode_has_photos_for_every_size(
    folder: Path, capsys: Capture, demo_artifact: Artifact
) -> None:
    several = demo_artifact("flux1", "64,128", shapes="multifunction")
    place(several, folder / "m.mlpackage", 1)
    assert run(capsys, "decode").code == 0
    found = {path.name for path in Path("images").iterdir()}
    assert found == {f"{p}-{s}.png" for p in ("chelsea", "coffee") for s in (64, 128)}


def test_round_trip_is_of_the_newest_artifact_its_weights_and_size(
    folder: Path, capsys: Capture, demo_package: Path, demo_artifact: Artifact
) -> None:
    place(demo_artifact("flux2", "64x96", latents="packed"), folder / "packed.mlpackage", 2)
    place(demo_package, folder / "plain.mlpackage", 1)
    Path("images").mkdir()
    assert run(capsys, "decode", str(demo_package)).code == 0  # two pictures to send through
    arguments = ("roundtrip", "--variants", "fp16", "--images", "images", "--workers", "1")
    ran = run(capsys, *arguments)
    assert ran.code == 0, ran.err
    assert "measuring it as packed, at 64x96, beside the other variants" in ran.err
    record = load(Roundtrip, folder / "roundtrip" / "record.json")
    assert (record.family, record.size, record.weights) == ("flux2", "64x96", "demo")
    assert [v.label for v in record.variants] == ["fp32", "fp16", "packed"]
    plain, packed = ([r.loss["psnr"] for r in record.results if r.variant == name]
                     for name in ("fp16", "packed"))  # fmt: skip
    assert packed == pytest.approx(plain, abs=0.5)  # dB: the same decoder behind other latents
    shutil.rmtree(folder / "packed.mlpackage")
    ran = run(capsys, *arguments, "--out", "other")  # the newest is now what fp16 would be
    assert "measuring it as fp16" in ran.err
    assert "converting" not in ran.err
    found = load(Roundtrip, Path("other/record.json")).variants
    assert [(v.label, v.artifact) for v in found[1:]] == [("fp16", "plain.mlpackage")]


def test_round_trip_of_what_is_not_its_kind_says_what_to_pass(
    folder: Path, capsys: Capture, demo_package: Path
) -> None:
    place(demo_package, folder / "m.mlpackage", 1)
    for options, code, words in (
        (("--size", "72"), 2, "m.mlpackage decodes 64, not 72: pass --size, or another artifact"),
        (("--weights", "random"), 1, "are not the artifact's own"),
        (("--variants", "int8,other/M.mlpackage"), 2, "variant 'M' is given twice"),
    ):
        ran = run(capsys, "roundtrip", "--variants", "pal4-plain", *options)
        assert (ran.code, ran.out) == (code, ""), options
        assert words in ran.err


def test_weights_of_a_file_have_to_be_named(folder: Path, capsys: Capture, tmp_path: Path) -> None:
    from fluxvae import demo

    source = Path(demo.__file__).parent / "flux2_demo_decoder.safetensors"
    file = tmp_path / "mine.safetensors"
    shutil.copyfile(source, file)
    made = save(load_weights("flux2", str(file)), recipe("flux2"), tmp_path / "made")
    place(made, folder / "m.mlpackage", 1)
    for command in ("validate", "roundtrip"):
        ran = run(capsys, command)
        assert (ran.code, ran.out) == (1, "")
        assert "converted from the file 'mine.safetensors'" in ran.err
        assert "pass it again with --weights PATH" in ran.err
    ran = run(capsys, "decode")
    assert ran.code == 1
    assert "'mine.safetensors', and what encoder belongs to that is not known here: pass LAT" in (
        ran.err
    )
