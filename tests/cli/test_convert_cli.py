"""``fluxvae convert`` as a user meets it."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxvae.artifact.record import read_record
from fluxvae.mil.package import read_package
from tests import warm
from tests.cli.run import run
from tests.packages import tree

Capture = pytest.CaptureFixture[str]
DEMO = ("convert", "--variant", "flux1", "--weights", "demo", "--size", "64")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default output is relative; and coremltools is noisy only when first imported."""
    monkeypatch.chdir(tmp_path)


def test_path_is_printed_and_progress_goes_to_stderr(tmp_path: Path, capsys: Capture) -> None:
    ran = run(capsys, *DEMO)
    path = "coreml_out/flux1_tiny_decoder_nchw_float16_hw64_demo.mlpackage"
    assert (ran.code, ran.out) == (0, f"{path}\n")
    assert ran.err.splitlines() == [
        "loading demo weights of flux1",
        f"converting {Path(path).name}",
    ]
    assert (tmp_path / path / "Manifest.json").is_file()


def test_json_is_one_object_with_the_path(capsys: Capture, tmp_path: Path) -> None:
    ran = run(capsys, *DEMO, "--out", "here", "--json", "--precision", "float32")
    assert ran.code == 0
    path = "here/flux1_tiny_decoder_nchw_float32_hw64_demo.mlpackage"
    assert ran.json["path"] == path
    assert ran.json["dry_run"] is False
    assert ran.json["recipe"]["precision"] == "float32"
    record = read_record(read_package(Path(path)))
    assert record is not None
    assert record.recipe.to_dict() == ran.json["recipe"]


def test_verbose_noise_never_reaches_stdout(capsys: Capture) -> None:
    ran = run(capsys, *DEMO, "--out", "x.mlpackage", "--json", "-v")
    assert ran.code == 0
    assert ran.json["path"] == "x.mlpackage"
    assert len(ran.err.splitlines()) > 2  # coremltools' own, asked for


def test_dry_run_writes_nothing_and_loads_nothing(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fluxvae.networks.weights.load_weights", None
    )  # any use would be a TypeError
    ran = run(capsys, "convert", "--variant", "flux2", "--dry-run", "--size", "768,1024")
    name = "flux2_tiny_decoder_nchw_float16_hw768-1024_multifunction.mlpackage"
    assert (ran.code, ran.out) == (0, f"would write coreml_out/{name} for iOS18 and newer\n")
    ran = run(capsys, "convert", "--variant", "flux2", "--dry-run", "--json", "--format",
              "neuralnetwork")  # fmt: skip
    assert ran.json["path"] == "coreml_out/flux2_tiny_decoder_nchw_float32_hw1024.mlmodel"
    assert ran.json["dry_run"] is True
    assert tree(tmp_path) == {}


def test_dry_run_names_a_path_that_is_taken(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "x.mlpackage").mkdir()
    ran = run(capsys, *DEMO, "--dry-run", "--out", "x.mlpackage")
    assert (ran.code, ran.out) == (0, "would write x.mlpackage for iOS16 and newer\n")


def test_enumerated_shapes_are_warned_of_once(capsys: Capture) -> None:
    arguments = [*DEMO[:-1], "64,128", "--dry-run"]
    ran = run(capsys, *arguments, "--shapes", "enumerated")
    assert ran.err.count("note: enumerated shapes are risky on device") == 1
    assert "multifunction" in ran.err
    ran = run(capsys, *arguments)
    assert ran.err == ""


def test_mac_names_of_targets_are_taken(capsys: Capture) -> None:
    ran = run(capsys, *DEMO, "--dry-run", "--json", "--target", "macos15")
    assert ran.json["recipe"]["target"] == "iOS18"
    assert ran.json["path"].endswith("_hw64_iOS18_demo.mlpackage")


def test_validation_table_goes_to_stderr_and_the_path_to_stdout(capsys: Capture) -> None:
    ran = run(capsys, *DEMO, "--validate", "--json")
    assert ran.code == 0
    assert list(ran.json) == ["path", "recipe", "dry_run"]
    for case in ("chelsea", "coffee", "normal", "saturated", "constant", "zero"):
        assert f"\n{case} " in ran.err
    assert "hw64_demo.mlpackage: PASS (the reference executor)" in ran.err


def test_artifact_that_fails_is_not_saved(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxvae.validation.validate import Limit

    # the demo decoder reaches 77 dB on photos and noise: nothing reaches 200
    monkeypatch.setattr("fluxvae.validation.validate.limit_for", lambda *_: Limit("psnr_db", 200.0))
    ran = run(capsys, *DEMO, "--validate")
    assert (ran.code, ran.out) == (3, "")
    last = ran.err.splitlines()[-1]
    assert last.startswith("fluxvae: flux1_tiny_decoder_nchw_float16_hw64_demo.mlpackage failed")
    assert "(chelsea at 64, coffee at 64, normal at 64, " in last
    assert last.endswith("and was not saved")
    assert tree(tmp_path) == {}


def test_existing_output_is_replaced_only_when_asked(
    capsys: Capture, tmp_path: Path, demo_artifact: Callable[..., Path]
) -> None:
    (tmp_path / "x.mlpackage").mkdir()
    (tmp_path / "x.mlpackage" / "old").touch()
    ran = run(capsys, *DEMO, "--out", "x.mlpackage")
    assert ran.code == 1
    assert ran.err == (
        "fluxvae: x.mlpackage exists already: pass --overwrite, or another path with --out\n"
    )
    ran = run(capsys, *DEMO, "--out", "x.mlpackage", "--overwrite")
    assert ran.code == 0
    assert not (tmp_path / "x.mlpackage" / "old").exists()
    made, known = (
        read_record(read_package(p)) for p in (Path("x.mlpackage"), demo_artifact("flux1"))
    )
    assert made == known


def test_random_weights_convert_and_say_so(capsys: Capture) -> None:
    ran = run(capsys, "convert", "--variant", "flux1", "--weights", "random:3", "--size", "64")
    assert ran.code == 0
    record = read_record(read_package(Path(ran.out.strip())))
    assert record is not None
    assert (record.source.kind, record.source.name) == ("random", "random:3")
    assert ran.out.endswith("_random.mlpackage\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--size", "100"), "size 100 is not possible"),
        (("--size", "64,128", "--shapes", "fixed"), "several sizes need --shapes"),
        (("--nhwc-model", "--layout", "nchw"), "use it with --layout nhwc"),
        (("--target", "iOS15"), "float16 input needs iOS16"),
        (("--format", "neuralnetwork", "--precision", "float16"), "use --precision float32"),
        (("--out", "x.mlmodel"), "is saved as .mlpackage: expected such a name, got x.mlmodel"),
    ],
)
def test_contradictions_are_one_line_and_exit_code_two(
    capsys: Capture, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    ran = run(capsys, *DEMO, *options, "--json")
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("fluxvae: ")
    assert words in line
    assert tree(tmp_path) == {}


def test_unknown_option_is_explained_by_click(capsys: Capture) -> None:
    ran = run(capsys, *DEMO, "--precison", "float32")
    assert ran.code == 2
    assert "--precison" in ran.err.splitlines()[-1]
    ran = run(capsys, "convert")
    assert ran.code == 2
    assert "Missing option '--variant'" in ran.err


def test_json_of_every_command_is_strict() -> None:
    from fluxvae.cli.options import print_json

    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            print_json({"x": value})


def test_what_a_killed_conversion_left_goes_with_the_next(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    process = warm.start("-m", "fluxvae", *DEMO, "--out", str(out))
    while not list(out.glob(".fluxvae-*/*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert list(out.glob(".fluxvae-*/*"))
    ran = run(capsys, *DEMO, "--out", str(out))
    assert ran.code == 0, ran.err
    assert [path.name for path in out.iterdir()] == [Path(ran.out.strip()).name]
