"""``fluxvae export-io`` and ``validate-swift`` as a user meets them."""

from pathlib import Path

import numpy as np
import pytest

from fluxvae.device.bundle import read_bundle
from tests.artifacts import normal_latent
from tests.cli.run import run
from tests.fake_harness import FakeHarness, report, validation
from tests.test_harness import GPU_FAILED

Capture = pytest.CaptureFixture[str]
DEMO = ["export-io", "--variant", "flux2", "--weights", "demo", "--size", "64"]


def test_folder_is_named_on_stdout_and_progress_on_stderr(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "io"
    ran = run(capsys, *DEMO, "--layout", "nhwc", "--out", str(out))
    assert (ran.code, ran.out) == (0, f"{out}\n")
    assert ran.err == "loading demo weights of flux2\ncomputing normal at 64 in float64\n"
    assert read_bundle(out).input.shape == (1, 8, 8, 32)
    again = run(capsys, *DEMO, "--out", str(out))
    assert again.code == 1
    assert "exists already: pass --overwrite" in again.err
    ran = run(capsys, *DEMO, "--case", "coffee", "--overwrite", "--out", str(out), "--json")
    assert ran.json["manifest"]["source"]["photo"] == "coffee"


def test_own_latent_is_taken_from_a_file_by_name(tmp_path: Path, capsys: Capture) -> None:
    from safetensors.numpy import save_file

    from fluxvae.recipes import Size

    file, out = tmp_path / "mine.safetensors", str(tmp_path / "io")
    one, two = (normal_latent(32, Size(64, 64), seed=s) for s in (1, 2))
    save_file({"one": one, "two": two, "wide": normal_latent(32, Size(64, 96))}, file)
    ran = run(capsys, *DEMO, "--latents", str(file), "--out", out)
    assert ran.code == 1
    assert "has 2 latents for --size 64, expected one: it holds one [1, 32, 8, 8], two" in ran.err
    ran = run(capsys, *DEMO, "--latents", str(file), "--case", "two", "--out", out)
    assert ran.code == 0
    bundle = read_bundle(Path(out))
    assert np.array_equal(bundle.input, two)
    assert bundle.manifest.source["kind"] == "file"
    assert bundle.manifest.limits["float16"].bound == 60.0  # validate's for a user's latent


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["--size", "64,96"], 2, "has one size"),
        (["--case", "mona-lisa"], 2, "unknown case 'mona-lisa'"),
        (["--seed", "-1"], 2, "--seed"),
        (["--latents", "none.npy"], 1, "none.npy does not exist"),
    ],
)
def test_what_cannot_be_exported_is_said(
    tmp_path: Path, capsys: Capture, arguments: list[str], code: int, why: str
) -> None:
    ran = run(capsys, *DEMO, *arguments, "--out", str(tmp_path / "io"))
    assert (ran.code, ran.out) == (code, "")
    assert why in ran.err
    assert list(tmp_path.iterdir()) == []


def test_validate_swift_refuses_what_the_harness_cannot_judge(
    tmp_path: Path, capsys: Capture, demo_package: Path
) -> None:
    program = str(
        FakeHarness(tmp_path, (0, report("validate", validation=validation()), "")).program
    )
    for arguments, code, why in (
        ([str(demo_package)], 1, f"run fluxvae compile {demo_package}"),
        ([str(tmp_path / "no.mlmodelc")], 1, "does not exist"),
        ([str(demo_package), "--io", "x", "--size", "64"], 2, "--io brings latent and image"),
    ):
        ran = run(capsys, "validate-swift", *arguments, "--harness", program)
        assert (ran.code, ran.out) == (code, "")
        assert why in ran.err


def test_failed_verdict_is_exit_code_3_with_the_harness_numbers(
    tmp_path: Path, capsys: Capture, demo_package: Path
) -> None:
    from fluxvae.device.compile import compile_model

    model = compile_model(demo_package, tmp_path / "m.mlmodelc", compiler="portable")
    failed = report("validate", validation=validation("fail"))
    fake = FakeHarness(tmp_path, (3, failed, ""))
    noise = ("--case", "normal")
    ran = run(capsys, "validate-swift", str(model), "--harness", str(fake.program), *noise)
    assert ran.code == 3
    assert "FAIL at [0, 1, 2, 3]" in ran.out
    assert "note: noise only" in ran.out
    assert ran.out.splitlines()[-1].startswith("m.mlmodelc: FAIL")
    ((arguments, _),) = fake.calls
    assert arguments[:2] == ["validate", str(model)]
    assert arguments[2] == "--io"
    assert not Path(arguments[3]).exists()  # the exported bundle has gone
    ran = run(capsys, "validate-swift", str(model), "--harness", str(fake.program), "--json")
    assert ran.code == 3
    assert ran.json["verdict"] == "fail"
    assert ran.json["reports"][0]["validation"]["limit"]["metric"] == "psnr_db"
    for arguments, why in (
        (["--size", "96"], "64 in function main"),
        (["--function", "x"], "64 in"),
    ):
        ran = run(capsys, "validate-swift", str(model), "--harness", str(fake.program), *arguments)
        assert ran.code == 2
        assert why in ran.err


def test_compute_units_that_fail_are_code_1_unless_a_limit_is_missed(
    tmp_path: Path, capsys: Capture, demo_package: Path
) -> None:
    from fluxvae.device.compile import compile_model

    model = compile_model(demo_package, tmp_path / "m.mlmodelc", compiler="portable")
    for verdict, code in (("pass", 1), ("fail", 3)):
        half = report("validate", validation=validation(verdict), failures=GPU_FAILED)
        half["validation"]["verdict"] = "fail"
        fake = FakeHarness(tmp_path, (code, half, "error: validate on cpuAndGPU: no GPU\n"))
        asked = ("validate-swift", str(model), "--case", "normal", "--compute-units", "each")
        ran = run(capsys, *asked, "--harness", str(fake.program))
        assert ran.code == code
        (line,) = [line for line in ran.out.splitlines() if "FAILED" in line]
        assert line.split()[2:4] == ["cpuAndGPU", "FAILED:"]
        assert ran.out.splitlines()[-1].startswith("m.mlmodelc: FAIL")


def test_own_latent_beyond_float16_is_noted_and_no_float16_file_is_made_of_it(
    tmp_path: Path, capsys: Capture
) -> None:
    from fluxvae.recipes import Size

    values = normal_latent(32, Size(64, 64))
    values[0, 0, 0, :2] = 1e30, -65520
    np.save(tmp_path / "mine.npy", values)
    asked = (*DEMO, "--latents", str(tmp_path / "mine.npy"), "--out", str(tmp_path / "io"))
    ran = run(capsys, *asked)
    assert ran.code == 0
    assert "note: mine holds 1e+30, and float16's largest value is 65504" in ran.err
    ran = run(capsys, *asked, "--overwrite", "--io-precision", "float16")
    assert (ran.code, ran.out) == (1, "")
    assert "export with --io-precision float32" in ran.err
    np.save(tmp_path / "mine.npy", values.clip(-65519, 65519))  # which round to 65504
    ran = run(capsys, *asked, "--overwrite", "--io-precision", "float16")
    assert ran.code == 0
    assert ran.err == "loading demo weights of flux2\ncomputing mine at 64 in float64\n"


def test_a_photo_comes_before_noise_where_an_encoder_belongs_to_the_weights(
    tmp_path: Path, capsys: Capture, demo_package: Path
) -> None:
    from fluxvae.device.compile import compile_model

    model = compile_model(demo_package, tmp_path / "m.mlmodelc", compiler="portable")
    fake = FakeHarness(tmp_path, *[(0, report("validate", validation=validation()), "")] * 2)
    ran = run(capsys, "validate-swift", str(model), "--harness", str(fake.program))
    assert ran.code == 0
    assert [Path(arguments[3]).name for arguments, _ in fake.calls] == ["64-chelsea", "64-normal"]
