"""What a cell's own process makes: compressed weights, programs of its error budget, its artifact.

Everything is done with the threads that the job says, so that equal jobs give equal bits.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fluxvae.artifact.backends import choose_backend, make_runner
from fluxvae.artifact.open import Artifact, open_artifact
from fluxvae.artifact.save_parts import save_any
from fluxvae.compress import compress
from fluxvae.compress.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from fluxvae.compress.forms import CompressedDecoder
from fluxvae.convert.laps import timed
from fluxvae.convert.program import write_model
from fluxvae.data.calibration import calibration_of
from fluxvae.data.spaces import passage
from fluxvae.errors import ToolError
from fluxvae.experiments.compare import similarity
from fluxvae.experiments.inputs import sha256_of
from fluxvae.experiments.job import SOLVED, STAGE, Job, host_here
from fluxvae.experiments.plan import last_stage, tool_versions
from fluxvae.experiments.supply import cases, latents, load_supply
from fluxvae.experiments.verdict import flags_of, verdict_of
from fluxvae.files import read_text, write_text
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_decoder
from fluxvae.networks.catalog import LatentContract
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe, artifact_name
from fluxvae.records.experiment import ErrorFigures, Result
from fluxvae.schema import json_text, parse_json
from fluxvae.validation.metrics import Metrics, compare
from fluxvae.validation.validate import Case, Watch, limit_for


def check_tools(job: Job) -> None:
    """Raise ToolError when this installation is not the one that the matrix is of."""
    here = tool_versions()
    wrong = [
        f"{n} {here.get(n)} instead of {v}" for n, v in job.versions.items() if here.get(n) != v
    ]
    if wrong:
        raise ToolError(f"this worker has {', '.join(wrong)}: install the same versions everywhere")


def solve(job: Job, out: Path) -> None:
    """The compressed weights, as a sealed file; its record says how many seconds it took."""
    weights, recipe = load_supply(job), Recipe.from_dict(job.recipe)
    compression = recipe.compression
    assert compression is not None
    seen = None
    if compression.needs_calibration:
        seen = calibration_of("photos", list(latents(job, calibration=True).values()))
    began = time.monotonic()
    found = compress(weights, recipe, seen, log=print).compressed
    took = time.monotonic() - began
    if seen is not None:
        source = {"calibration": {"name": seen.name, "digest": seen.digest}}
        found = replace(found, notes={**found.notes, **source})
    save_checkpoint(out / SOLVED, found, weights, compression, {"seconds": took})


def stage(job: Job, out: Path) -> None:
    """PSNR in dB of a plain program on every input; null where it is not a finite number."""
    weights, recipe = load_supply(job), Recipe.from_dict(job.recipe)
    decoder = build_decoder(weights)
    path = out / f"stage{recipe.suffix}"
    write_model(decoder, recipe, weights.contract.channels, path)
    runner = make_runner(read_package(path), None, recipe.layout, choose_backend("auto"))
    found: dict[str, float | None] = {}
    for case in cases(job, recipe.sizes[0]):
        with torch.no_grad():
            reference = decoder(torch.from_numpy(case.latent)).numpy()
        metrics = compare(runner(case.latent), reference, peak=weights.contract.peak)
        found[case.name] = _finite(metrics.psnr_db)
    write_text(out / STAGE, json_text(found), overwrite=True)


def make(job: Job, out: Path) -> Result:
    """Convert and judge. The result has no runs yet."""
    weights, recipe = load_supply(job), Recipe.from_dict(job.recipe)
    path = out / artifact_name(recipe, weights.source.kind)
    compressed, solving = _solved(job, weights, recipe)
    began = time.monotonic()
    with timed() as laps:
        save_any(weights, recipe, path, compressed=compressed, report=print)
    saved = time.monotonic() - began
    began = time.monotonic()
    artifact = open_artifact(path)
    errors = tuple(_errors(job, artifact, weights))
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    result = Result(
        key=job.key,
        cell=job.cell,
        status="done",
        reason=None,
        verdict=verdict_of(errors),
        weights_digest=job.weights_digest,
        inputs_digest=job.inputs_digest,
        versions=job.versions,
        host=host_here(job.versions["python"]),
        seconds={
            "capture": laps.get("capture", 0.0),
            "convert": laps.get("convert", 0.0),
            "compress": solving,
            "save": saved - laps.get("capture", 0.0) - laps.get("convert", 0.0),
            "validate": time.monotonic() - began,
        },
        bytes=sum(f.stat().st_size for f in files),
        artifact=path.name,
        artifact_sha256={str(f.relative_to(out)): sha256_of(f) for f in files},
        errors=errors,
        budget=_budget(job, recipe, errors),
        runs=(),
        placement={},
        energy=None,
        flags=(),
    )
    return replace(result, flags=flags_of(result, job.thresholds))


def _solved(job: Job, weights: Weights, recipe: Recipe) -> tuple[CompressedDecoder | None, float]:
    if recipe.compression is None:
        return None, 0.0
    path = Path(job.files["solved"])
    seconds = float(read_checkpoint(path).training["seconds"])
    return load_checkpoint(path, weights, recipe.compression), seconds


def _errors(job: Job, artifact: Artifact, weights: Weights) -> Iterator[ErrorFigures]:
    """Every input on every function and size, as ``fluxvae.validation.validate`` judges them."""
    record = artifact.record
    decoder, way, watch = build_decoder(weights), passage(record.recipe, weights), Watch()
    backend = choose_backend("auto")
    several = len(record.recipe.sizes) > 1
    for function, size in artifact.functions_and_sizes():
        runner = artifact.runner(function, backend, job.cell.compute_unit, on_op=watch)
        for case in cases(job, size):
            with torch.no_grad():
                reference = decoder(torch.from_numpy(way.inwards(case.latent))).numpy()
            image = runner(case.latent)
            metrics = compare(image, reference, peak=record.contract.peak)
            limit = limit_for(record, case.kind)
            finite = watch.take() is None and not (metrics.nan or metrics.inf)
            yield ErrorFigures(
                input=f"{case.name}@{size}" if several else case.name,
                kind=case.kind,
                psnr_db=_finite(metrics.psnr_db),
                max_abs=_finite(metrics.max_abs),
                ssim=_ssim(image, reference, record.contract, case, metrics),
                limit=str(limit),
                passed=finite and limit.holds(metrics),
            )


def _ssim(
    image: np.ndarray, reference: np.ndarray, contract: LatentContract, case: Case, m: Metrics
) -> float | None:
    if case.kind != "photo" or m.nan or m.inf:
        return None
    a, b = ((x - contract.low) / contract.peak for x in (image, reference))
    return similarity(a, b)


def _budget(job: Job, recipe: Recipe, errors: tuple[ErrorFigures, ...]) -> dict[str, float]:
    """Worst PSNR in dB after each stage, on photos where there are some, at the smallest size.

    A stage without a finite one is left out.
    """
    size = min(recipe.sizes)
    given = list(cases(job, size))
    names = [c.name for c in given if c.kind == "photo"] or [c.name for c in given]
    ends = {name: f"{name}@{size}" if len(recipe.sizes) > 1 else name for name in names}
    stages: dict[str, dict[str, float | None]] = {
        role.partition(":")[2]: parse_json(read_text(Path(path)))
        for role, path in job.files.items()
        if role.startswith("stage:")
    }
    own = {e.input: e.psnr_db for e in errors}
    stages[last_stage(recipe)] = {name: own[ends[name]] for name in names}
    worst = {}
    for label, figures in stages.items():
        known = [figures[name] for name in names]
        if all(v is not None for v in known):
            worst[label] = min(v for v in known if v is not None)
    return worst


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
