"""Every kind of network through the Swift harness: full decoders, halves, encoders, compressed."""

from pathlib import Path

import numpy as np
import pytest

from fluxvae.artifact.open import open_artifact
from fluxvae.artifact.save import save_artifact
from fluxvae.cli.harness import harness_environment
from fluxvae.compress import compress
from fluxvae.data.spaces import latent_transform
from fluxvae.device.bundle import Request, export_bundle, read_bundle
from fluxvae.device.compile import compile_model
from fluxvae.device.harness import Harness
from fluxvae.device.validate import plan_jobs, run_job
from fluxvae.errors import ArtifactError
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Compression, Recipe, artifact_name, artifact_paths
from fluxvae.validation.metrics import compare
from tests.artifacts import recipe
from tests.conversion_cache import install
from tests.kl_hot import small_weights

SIZE = "64x96"
PALETTE = Compression("palette", bits=6, method="plain")


def weights_of(made: Recipe) -> Weights:
    if made.decoder == "tiny":
        return load_weights(made.variant, "demo", part=made.part)
    return small_weights(made.variant, made.part)


def compiled(weights: Weights, made: Recipe, folder: Path) -> Path:
    """The compiled artifact; of halves the first."""
    install()
    path = folder / artifact_name(made, "demo")
    solved = None if made.compression is None else compress(weights, made, None).compressed
    save_artifact(weights, made, path, compressed=solved)
    models = [
        compile_model(one, None, compiler="portable") for one in artifact_paths(path, made.chunks)
    ]
    return models[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "made",
    [
        recipe("flux1", SIZE, decoder="full"),
        recipe("flux1", SIZE, decoder="full", chunks=2, compression=PALETTE),
        recipe("flux2", SIZE, decoder="full", part="encoder", latents="packed", layout="nhwc"),
        recipe("flux1", SIZE, part="encoder", latents="packed"),
        recipe("flux2", SIZE, part="encoder", precision="float32"),
    ],
    ids=["full-decoder", "compressed-halves", "full-encoder", "tokens-encoder", "tiny-encoder"],
)
def test_harness_judges_it_as_python_does(
    harness_program: Path, tmp_path: Path, made: Recipe
) -> None:
    harness = Harness(harness_program, harness_environment())
    weights = weights_of(made)
    model = compiled(weights, made, tmp_path)
    opened = open_artifact(model)
    case = "coffee" if made.encodes else "normal"
    program, record = opened.programs[0], opened.record
    ((job, request),) = plan_jobs(program, record, tmp_path / "io", cases=(case,))
    export_bundle(weights, request, job.bundle)
    result = run_job(harness, model, job, "cpuOnly")
    assert result.passed, result.report
    bundle = read_bundle(job.bundle)
    run = opened.raw_runner(None, "reference")
    output = run(bundle.input).astype(np.float32)
    peak = float(np.ptp(bundle.output)) if made.encodes else record.contract.peak
    expected = compare(output, bundle.output, peak=peak)
    found = result.rows[0].metrics
    assert found.max_abs == pytest.approx(expected.max_abs, rel=1e-6)
    assert found.psnr_db == pytest.approx(expected.psnr_db, abs=1e-6)


@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_equal_requests_make_equal_bytes(tmp_path: Path, part: str) -> None:
    weights = small_weights("flux2", part)
    (size,) = recipe("flux2", SIZE).sizes
    request = Request(size, "nhwc", "normal", latents="packed")
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        export_bundle(weights, request, folder)
    for file in ("input.bin", "output.bin", "manifest.json"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()
    bundle = read_bundle(folders[0])
    names = (bundle.manifest.input.name, bundle.manifest.output.name)
    assert names == (("image", "latent") if part == "encoder" else ("latent", "image"))
    made = recipe("flux2", SIZE, decoder="full", part=part, latents="packed", layout="nhwc")
    assert latent_transform(made, weights).part == part


def test_encoder_of_8_bit_images_is_refused_in_words(tmp_path: Path) -> None:
    made = recipe("flux1", "64", part="encoder", input="image")
    weights = weights_of(made)
    (path,) = save_artifact(weights, made, tmp_path / artifact_name(made, "demo"))
    opened = open_artifact(path)
    with pytest.raises(ArtifactError, match="takes 8-bit images, which the harness does not make"):
        list(plan_jobs(opened.programs[0], opened.record, tmp_path))
