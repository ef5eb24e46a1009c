"""Two packages that are one decoder: saved together, run together, refused apart.

The KL decoder has all four stages, each a third as long: its conversion is most of the time here.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fluxvae.artifact.open import open_artifact
from fluxvae.artifact.record import read_record
from fluxvae.artifact.save import save_artifact
from fluxvae.device.bench_python import Request, measure
from fluxvae.device.compile import compile_model
from fluxvae.errors import ArtifactError, CompressionError, OutputError
from fluxvae.experiments.roundtrip.candidates import open_candidate
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Recipe, Size
from fluxvae.recipes.latents import FLUX1_SCALE, FLUX1_SHIFT
from fluxvae.validation.validate import validate
from tests import tiles
from tests.artifacts import normal_latent, save, save_parts
from tests.cli.run import run
from tests.conversion_cache import write_packages
from tests.kl_hot import hot_weights, short_stages, small_weights
from tests.packages import WEIGHTS, copy_of, edited, tree
from tests.tiles import tiled

TILES = Recipe("flux2", sizes=(Size(128, 128),), tile=80)
KL = Recipe("flux1", decoder="full", sizes=(Size(64, 96),), chunks=2)
TINY = Recipe("flux2", sizes=(Size(64, 72),), chunks=2)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("halves")
    return save_parts(load_weights("flux2", "demo"), TINY, folder)


@pytest.fixture(scope="module")
def kl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    with short_stages():
        return save_parts(small_weights(), KL, tmp_path_factory.mktemp("kl-halves"))


def test_kl_halves_give_the_whole_image_and_have_its_weights(
    kl: tuple[Path, ...], tmp_path: Path
) -> None:
    latent = normal_latent(16, KL.sizes[0])
    with short_stages():
        whole = save(small_weights(), Recipe("flux1", decoder="full", sizes=KL.sizes), tmp_path)
    expected = open_artifact(whole).runner(None, "reference")(latent)
    for half in kl:  # either one names the pair
        assert np.array_equal(open_artifact(half).runner(None, "reference")(latent), expected)
    # How evenly real widths are split: test_rewrite_cut.py.
    first, second = ((half / WEIGHTS).stat().st_size for half in kl)
    assert first + second == pytest.approx((whole / WEIGHTS).stat().st_size, rel=0.01)


def test_tiny_halves_give_the_whole_image(tiny: tuple[Path, ...], tmp_path: Path) -> None:
    latent = normal_latent(32, TINY.sizes[0])
    whole = save(load_weights("flux2", "demo"), Recipe("flux2", sizes=TINY.sizes), tmp_path)
    expected = open_artifact(whole).runner(None, "reference")(latent)
    assert np.array_equal(open_artifact(tiny[1]).runner(None, "reference")(latent), expected)


def test_each_half_says_which_it_is(tiny: tuple[Path, ...]) -> None:
    assert [path.name for path in tiny] == [
        "flux2_tiny_decoder_nchw_float16_hw64x72_2chunks_demo_part1of2.mlpackage",
        "flux2_tiny_decoder_nchw_float16_hw64x72_2chunks_demo_part2of2.mlpackage",
    ]
    records = [read_record(read_package(path)) for path in tiny]
    parts = [record.part for record in records if record is not None]
    assert [part.number for part in parts if part] == [1, 2]
    assert [part.other for part in parts if part] == [tiny[1].name, tiny[0].name]
    digests = {part.whole for part in parts if part}
    assert len(digests) == 1
    assert all(record is not None and record.whole() in digests for record in records)
    first, second = (read_package(path).signatures["main"] for path in tiny)
    assert (first.inputs[0].name, first.outputs[0].name) == ("latent", "features")
    assert (second.inputs[0].name, second.outputs[0].name) == ("features", "image")


def test_validate_gives_one_verdict_for_the_pair(tiny: tuple[Path, ...], capsys: Capture) -> None:
    ran = run(capsys, "validate", str(tiny[1]), "--json")
    assert ran.code == 0
    report = json.loads(ran.out)
    assert report["verdict"] == "pass"
    assert len(report["cases"]) == 6


def test_decode_takes_either_half(tiny: tuple[Path, ...], tmp_path: Path, capsys: Capture) -> None:
    np.save(tmp_path / "latent.npy", normal_latent(32, TINY.sizes[0]))
    for half in tiny:
        out = tmp_path / half.stem
        latent = str(tmp_path / "latent.npy")
        assert run(capsys, "decode", str(half), latent, "--out", str(out)).code == 0
    first, second = ((tmp_path / half.stem / "latent.png").read_bytes() for half in tiny)
    assert first == second


def test_half_without_its_other_half_is_refused(tiny: tuple[Path, ...], tmp_path: Path) -> None:
    alone = copy_of(tiny[0], tmp_path)
    with pytest.raises(ArtifactError, match=rf"is part 1 of 2 .* as {tiny[1].name}"):
        open_artifact(alone)


def test_halves_of_two_decoders_are_refused(tiny: tuple[Path, ...], tmp_path: Path) -> None:
    """The other half says that it belongs to another whole."""
    first, second = (copy_of(half, tmp_path) for half in tiny)
    with edited(second) as model:
        entries = model.description.metadata.userDefined
        part = json.loads(entries["com.github.fluxvae.part"])
        entries["com.github.fluxvae.part"] = json.dumps({**part, "whole": 64 * "0"})
    with pytest.raises(ArtifactError, match=r"is not the other half of .* another conversion"):
        open_artifact(first)


@pytest.mark.parametrize("option", ["--intermediates", "--budget"])
def test_what_looks_into_one_program_refuses_halves(
    tiny: tuple[Path, ...], option: str, capsys: Capture
) -> None:
    ran = run(capsys, "validate", str(tiny[0]), option)
    assert ran.code == 1
    assert re.search(rf"{option} looks into .* is half a decoder", ran.err)


def test_rescaling_reaches_both_halves_and_is_reported(tmp_path: Path) -> None:
    """A hot channel passes between halves: plain float16 loses it, rescaled ones do not."""
    made = replace(KL, fp16_safety="rescale", latents="sampler", sizes=(Size(64, 64),))
    noise = torch.from_numpy(normal_latent(16, made.sizes[0]))
    said: list[str] = []
    with short_stages():
        weights = hot_weights("flux1", noise / FLUX1_SCALE + FLUX1_SHIFT, 1e5)
        paths = save_artifact(weights, made, tmp_path / "x.mlpackage", report=said.append)
        report = validate(paths[1], weights, encoder=None, backend="reference")
    assert said[-1].startswith("rescaled ")
    case = report.cases[0]
    assert (case.kind, case.nonfinite) == ("normal", None)
    assert case.metrics.psnr_db >= 63  # as a whole artifact: test_fp16_safety.py
    for path in paths:
        record = read_record(read_package(path))
        assert record is not None
        assert "conv_in" in record.safety["exponents"]


@pytest.mark.parametrize("made", [TINY, TILES], ids=["halves", "tiles"])
def test_weight_that_is_not_the_decoder_s_is_caught_by_name(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load_weights("flux2", "demo")
    spoilt = build_decoder(weights)
    assert isinstance(spoilt, nn.Sequential)
    last = spoilt[-1]
    assert isinstance(last, nn.Conv2d)
    last.weight = nn.Parameter(last.weight + 1, requires_grad=False)
    monkeypatch.setattr(
        "fluxvae.artifact.save.write_packages",
        lambda _, *rest, **options: write_packages(spoilt, *rest, **options),
    )
    with pytest.raises(CompressionError, match="the saved weight of convolution 19 "):
        save_artifact(weights, made, tmp_path / "x.mlpackage")
    assert tree(tmp_path) == {}


def test_round_trip_compares_the_pair_as_one(tiny: tuple[Path, ...]) -> None:
    weights, (size,) = load_weights("flux2", "demo"), TINY.sizes
    first, second = (open_candidate("halves", path, weights, size) for path in tiny)
    assert first.digest == second.digest
    assert first.variant.bytes == sum((half / WEIGHTS).stat().st_size for half in tiny)
    latent = normal_latent(32, size)
    whole = open_artifact(tiny[0]).runner(None, "reference")(latent)
    assert np.array_equal(second.decode(latent), whole)


def test_python_times_the_pair_as_one(tiny: tuple[Path, ...]) -> None:
    report = measure(Request(str(tiny[1]), "all", iterations=1, warmup=0))
    assert [f.name for f in report.model.inputs] == ["latent"]
    assert [f.name for f in report.model.outputs] == ["image"]
    assert report.runs is not None
    assert len(report.runs[0].samples_ms) == 1


def test_halves_get_their_names_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second half's name cannot be given: the first one's old package is back."""
    paths = save_parts(load_weights("flux2", "demo"), TINY, tmp_path)
    (paths[0] / "mark").write_text("old")
    before = tree(tmp_path)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == paths[1] and ".old" not in self.parts:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="no space left"):
        save_artifact(
            load_weights("flux2", "demo"), TINY, tmp_path / paths[0].name.replace("_part1of2", ""),
            overwrite=True,
        )  # fmt: skip
    assert tree(tmp_path) == before


def test_convert_names_both_halves(tmp_path: Path, capsys: Capture) -> None:
    arguments = ["convert", "--variant", "flux1", "--decoder", "full", "--weights", "random"]
    out = str(tmp_path / "vae.mlpackage")
    ran = run(capsys, *arguments, "--chunks", "2", "--out", out, "--dry-run", "--json")
    assert ran.code == 0
    result = json.loads(ran.out)
    assert result["parts"] == [str(tmp_path / f"vae_part{n}of2.mlpackage") for n in (1, 2)]
    assert result["path"] == result["parts"][0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--format neuralnetwork", "--chunks needs ML Programs"),
        ("--nhwc-model", "--chunks passes on NCHW"),
        ("--size 64,72 --shapes enumerated", "--chunks has no enumerated shapes"),
    ],
)
def test_halves_that_cannot_be_are_refused(arguments: str, expected: str, capsys: Capture) -> None:
    given = ["convert", "--variant", "flux1", "--dry-run", "--chunks", "2", *arguments.split()]
    ran = run(capsys, *given)
    assert ran.code == 2
    assert expected in ran.err


def test_swift_harness_runs_the_pair_as_one(
    tiny: tuple[Path, ...], harness_program: Path, tmp_path: Path, capsys: Capture
) -> None:
    halves = [compile_model(path, tmp_path / f"{path.stem}.mlmodelc") for path in tiny]
    harness = ["--harness", str(harness_program)]
    arguments = ["validate-swift", str(halves[1]), "--case", "normal", *harness]
    ran = run(capsys, *arguments, "--json")
    assert ran.code == 0
    (report,) = json.loads(ran.out)["reports"]
    assert report["validation"]["verdict"] == "pass"
    assert [f["name"] for f in report["model"]["inputs"]] == ["latent"]
    assert [f["name"] for f in report["model"]["outputs"]] == ["image"]
    away = halves[0].rename(tmp_path / "away.mlmodelc")
    ran = run(capsys, *arguments)
    assert ran.code == 1
    assert f"as {halves[0].name}" in ran.err
    assert away.exists()


@pytest.fixture
def harness_refusal(
    harness_program: Path,
) -> Callable[[Path], str]:
    """What the harness itself says of a model that it does not run."""
    from fluxvae.cli.harness import harness_environment
    from fluxvae.device.harness import Harness, run_harness

    def refuse(model: Path) -> str:
        harness = Harness(harness_program, harness_environment())
        with pytest.raises(ArtifactError) as caught:
            run_harness(harness, ["drift", str(model), "--repeats", "2"])
        return str(caught.value)

    return refuse


def test_swift_harness_and_python_s_refuse_tiles(
    harness_refusal: Callable[[Path], str], tmp_path: Path
) -> None:
    _, path = tiled(tiles.TINY, tmp_path)
    assert "makes tiles with several functions" in harness_refusal(compile_model(path))
    with pytest.raises(ArtifactError, match="bench looks into a decoder of one program"):
        measure(Request(str(path), "all", iterations=1, warmup=0))


def test_swift_harness_refuses_half_a_decoder_alone(
    tiny: tuple[Path, ...], harness_refusal: Callable[[Path], str], tmp_path: Path
) -> None:
    model = compile_model(tiny[0], tmp_path / "renamed.mlmodelc")
    expected = f"{Path(tiny[1].name).stem}.mlmodelc"
    assert f"part 1 of 2 of a decoder: expected the other part beside it as {expected}" in (
        harness_refusal(model)
    )
