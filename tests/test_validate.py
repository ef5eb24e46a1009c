"""Verdicts both ways, and numbers that another computation gives too."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import fluxvae.artifact.open
import fluxvae.validation.validate
from fluxvae.artifact.open import require_record
from fluxvae.artifact.save import save_artifact
from fluxvae.data.latents import Latent, read_latents
from fluxvae.errors import ArtifactError, LatentError, ToolError, WeightsError
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Size
from fluxvae.recipes.axes import latent_input
from fluxvae.validation.metrics import Metrics
from fluxvae.validation.validate import (
    CaseResult,
    Limit,
    Report,
    limit_for,
    resolve_weights,
    validate,
)
from tests.artifacts import normal_latent, recipe
from tests.checkpoint_files import in_style, write
from tests.packages import change_one_weight, copy_of, edited

ALL = ["chelsea", "coffee", "normal", "saturated", "constant", "zero"]


@pytest.fixture(scope="module")
def report(demo_package: Path, weights: Weights, encoder: Weights) -> Report:
    return validate(demo_package, weights, encoder=encoder, backend="reference")


def test_faithful_artifact_passes_photos_first(report: Report) -> None:
    assert report.passed
    assert [c.case for c in report.cases] == ALL
    assert [c.kind for c in report.cases] == ["photo"] * 2 + ["normal"] + ["extreme"] * 3
    assert {(c.function, str(c.size)) for c in report.cases} == {("main", "64")}
    assert (report.backend, report.compute_units) == ("reference", None)
    (note,) = report.notes
    assert "not Apple's kernels" in note


def test_numbers_are_those_of_numpy(
    report: Report, demo_package: Path, weights: Weights, encoder: Weights
) -> None:
    import skimage.data

    crop = torch.from_numpy(skimage.data.coffee()[:64, :64]).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        latent = build_encoder(encoder)(crop)
        wanted = build_decoder(weights)(latent).double().numpy()
    session = Session(read_package(demo_package))
    got = session.run({"latent": latent.numpy()})["image"].astype(np.float64)
    found = report.cases[1].metrics
    error = got - wanted
    # the same executor and torch on the same latent: only the photo's division by 255 may round
    # differently, 6e-8 of one latent; measured equal to 9 digits
    assert found.psnr_db == pytest.approx(-10 * math.log10((error**2).mean()), abs=1e-3)
    assert found.max_abs == pytest.approx(np.abs(error).max(), rel=1e-3)
    assert found.mae == pytest.approx(np.abs(error).mean(), rel=1e-3)
    assert found.worst == tuple(np.unravel_index(np.abs(error).argmax(), error.shape))


def test_one_changed_weight_fails_with_numbers(
    demo_package: Path, weights: Weights, encoder: Weights, tmp_path: Path
) -> None:
    package = copy_of(demo_package, tmp_path)
    change_one_weight(package, 0.1)
    report = validate(package, weights, encoder=encoder, backend="reference")
    assert not report.passed
    photo = report.cases[1]
    assert (photo.case, photo.passed) == ("coffee", False)
    # measured: the intact artifact 79 dB, this one 28 (0.1 times a channel of about 0.4)
    assert 15 < photo.metrics.psnr_db < 45
    assert photo.metrics.max_abs > 0.01
    assert (photo.metrics.nan, photo.metrics.inf) == (0, 0)


def test_weight_that_is_not_a_number_fails_and_is_counted(
    demo_package: Path, weights: Weights, tmp_path: Path
) -> None:
    package = copy_of(demo_package, tmp_path)
    change_one_weight(package, math.nan)
    report = validate(package, weights, encoder=None, backend="reference")
    assert not report.passed
    assert all(not c.passed and c.metrics.nan > 0 for c in report.cases)
    assert all(math.isnan(c.metrics.psnr_db) for c in report.cases)


def test_artifact_of_other_weights_is_refused_by_digest(
    demo_package: Path, weights: Weights
) -> None:
    record = require_record(read_package(demo_package))
    with pytest.raises(WeightsError) as caught:
        resolve_weights(record, "random:1")
    other = load_weights("flux2", "random:1").digest
    assert f"(random:1, digest {other[:12]}) are not the artifact's own (demo" in str(caught.value)
    assert weights.digest[:12] in str(caught.value)


def test_weights_are_found_from_the_record(demo_package: Path, weights: Weights) -> None:
    record = require_record(read_package(demo_package))
    loaded, spec = resolve_weights(record, None)
    assert (loaded.digest, spec) == (weights.digest, "demo")


def test_weights_from_a_file_have_to_be_named_again(weights: Weights, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.safetensors", in_style("diffusers", weights))
    own = load_weights("flux2", str(file))
    (package,) = save_artifact(own, recipe("flux2"), tmp_path / "x.mlpackage")
    record = require_record(read_package(package))
    with pytest.raises(WeightsError, match=r"the file 'mine.safetensors' \(sha256 [0-9a-f]{12}…\)"):
        resolve_weights(record, None)
    # the values decide, not the file: another style and container of the same weights will do
    other = write(tmp_path / "other.pth", in_style("taesd", weights))
    assert resolve_weights(record, str(other))[0].digest == own.digest


def test_report_says_when_photos_were_not_tested(demo_package: Path, weights: Weights) -> None:
    report = validate(demo_package, weights, encoder=None, backend="reference")
    assert [c.case for c in report.cases] == ALL[2:]
    assert any("Photo latents were NOT tested" in note for note in report.notes)


def test_own_latents_take_the_place_of_photos(
    demo_package: Path, weights: Weights, encoder: Weights
) -> None:
    mine = Latent("mine", normal_latent(32, Size(64, 64), seed=5))
    wide = Latent("wide", normal_latent(32, Size(64, 128), seed=5))
    mine.values[0, 3, 1, 2] = -1e30
    report = validate(
        demo_package, weights, encoder=encoder, latents=(mine, wide), backend="reference"
    )
    assert [c.case for c in report.cases] == ["mine", *ALL[2:]]
    assert report.cases[0].kind == "user"
    assert report.cases[0].limit == Limit("psnr_db", 60.0)
    assert report.notes[-1] == "These latents fit no size of the artifact: wide."
    assert report.notes[-2] == (
        "The latent mine holds -1e+30, and float16's largest value is 65504: it becomes infinity "
        "there (values: 1)."
    )
    assert not any("NOT tested" in note for note in report.notes)


def test_latents_that_fit_nowhere_are_refused_with_both_sizes(
    demo_package: Path, tmp_path: Path
) -> None:
    record = require_record(read_package(demo_package))
    wanted = latent_input(record.recipe, record.contract, record.recipe.sizes)
    wide, fits = (normal_latent(32, size) for size in (Size(64, 128), Size(64, 64)))
    save_file({"wide": wide}, tmp_path / "x.safetensors")
    reason = r"\[1, 32, 8, 16\]; expected .* for images of 64\. It is for images of 64x128"
    with pytest.raises(LatentError, match=reason):
        read_latents(tmp_path / "x.safetensors", wanted)
    save_file({"wide": wide, "fits": fits}, tmp_path / "x.safetensors")
    found = read_latents(tmp_path / "x.safetensors", wanted)
    assert [latent.name for latent in found.latents] == ["fits"]
    assert "passed over 'wide'" in found.notes[0]


@pytest.mark.parametrize("shapes", ["multifunction", "enumerated"])
def test_every_size_is_validated_and_every_function_loaded_once(
    demo_artifact: Callable[..., Path], shapes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    for module, name in (
        (fluxvae.artifact.open, "raw_runner"),
        (fluxvae.validation.validate, "build_encoder"),
    ):
        real = getattr(module, name)
        monkeypatch.setattr(
            f"{module.__name__}.{name}",
            lambda *a, real=real, name=name, **k: (built.append(name), real(*a, **k))[1],
        )
    package = demo_artifact("flux1", "64,128", shapes=shapes)
    report = validate(
        package,
        load_weights("flux1", "demo"),
        encoder=load_weights("flux1", "demo", part="encoder"),
        backend="reference",
    )
    functions = ["hw64", "hw128"] if shapes == "multifunction" else ["main", "main"]
    rows = list(dict.fromkeys((c.function, str(c.size)) for c in report.cases))
    assert rows == list(zip(functions, ["64", "128"], strict=True))
    assert len(report.cases) == 2 * len(ALL)
    assert report.passed
    assert built == ["build_encoder", *["raw_runner"] * len(set(functions))]


def test_image_output_is_held_against_a_clamped_image(demo_artifact: Callable[..., Path]) -> None:
    package = demo_artifact("flux1", output="image")
    report = validate(package, load_weights("flux1", "demo"), encoder=None, backend="reference")
    assert report.passed
    noise = next(c for c in report.cases if c.case == "normal")
    # Rounding to 256 levels: error uniform in 1/255, rmse 1/255/sqrt(12), 58.9 dB, over the pixels
    # that are not clamped (those have no error); fp16 adds some: measured 0.1 dB.
    latent = np.random.Generator(np.random.PCG64(0)).standard_normal((1, 16, 8, 8), np.float32)
    image = build_decoder(load_weights("flux1", "demo"))(torch.from_numpy(latent))
    inside = float(((image > 0) & (image < 1)).double().mean())
    expected = 20 * math.log10(255 * math.sqrt(12 / inside))
    assert noise.metrics.psnr_db == pytest.approx(expected, abs=0.5)
    # half a level, and what fp16 errs before it: at most 2.5e-3 of 1 on this decoder's noise
    # (0.64 levels); measured 0.85 levels together
    assert noise.metrics.max_abs * 255 < 0.5 + 0.64


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_float32_artifact_stays_within_its_limit(
    demo_artifact: Callable[..., Path], layout: str
) -> None:
    package = demo_artifact("flux1", precision="float32", layout=layout)
    report = validate(package, load_weights("flux1", "demo"), encoder=None, backend="reference")
    assert report.passed
    assert {c.limit for c in report.cases} == {Limit("max_abs", 2e-5), Limit("max_abs", 5e-5)}


@pytest.mark.parametrize(
    ("limit", "value", "holds"),
    [
        (Limit("psnr_db", 60.0), 60.0, True),
        (Limit("psnr_db", 60.0), 59.9, False),
        (Limit("psnr_db", 60.0), math.inf, True),
        (Limit("psnr_db", 60.0), math.nan, False),
        (Limit("max_abs", 2e-5), 2e-5, True),
        (Limit("max_abs", 2e-5), 2.1e-5, False),
        (Limit("max_abs", 2e-5), math.inf, False),
        (Limit("max_abs", 2e-5), math.nan, False),
    ],
)
def test_limit_holds_up_to_its_bound_and_never_for_nan(
    limit: Limit, value: float, holds: bool
) -> None:
    zero = Metrics(0, 0, 0, 0, 0, 0, 0, ())
    assert limit.holds(replace(zero, **{limit.metric: value})) is holds


def test_fp16_limits_ask_more_of_noise_than_of_photos(report: Report) -> None:
    # noise flatters fp16: the same defect costs it less
    bounds = {
        kind: limit_for(report.record, kind) for kind in ("photo", "user", "normal", "extreme")
    }
    assert {limit.metric for limit in bounds.values()} == {"psnr_db"}
    assert bounds["normal"].bound > bounds["photo"].bound == bounds["user"].bound
    assert bounds["photo"].bound > bounds["extreme"].bound


def test_report_without_cases_is_no_pass(report: Report) -> None:
    assert not replace(report, cases=()).passed
    failed = replace(report.cases[0], limit=Limit("psnr_db", 200.0))
    assert not replace(report, cases=(*report.cases, failed)).passed


def test_cases_are_told_as_they_end(demo_package: Path, weights: Weights) -> None:
    told: list[CaseResult] = []
    report = validate(demo_package, weights, encoder=None, backend="reference", on_case=told.append)
    assert tuple(told) == report.cases


def test_model_of_others_is_refused(demo_package: Path, weights: Weights, tmp_path: Path) -> None:
    package = copy_of(demo_package, tmp_path)
    with edited(package) as model:
        model.description.metadata.userDefined.clear()
    with pytest.raises(ArtifactError, match="was not made by fluxvae"):
        validate(package, weights, encoder=None)


def test_core_ml_off_a_mac_is_refused_with_the_way_out(
    demo_package: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(ToolError, match="--backend reference runs the same program here"):
        validate(demo_package, weights, encoder=None, backend="coreml")
