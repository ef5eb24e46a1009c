"""What a cell's own process does: compress, convert, judge, measure.

Everything is done with the threads that the job says, so that equal jobs give equal bits.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fluxvae.backends import choose_backend, make_runner
from fluxvae.bench import Settings as BenchSettings
from fluxvae.bench import bench, start_swift
from fluxvae.bench_python import Request, start_python
from fluxvae.calibration import calibration_of
from fluxvae.catalog import LatentContract
from fluxvae.compare import similarity
from fluxvae.compiler import compile_model
from fluxvae.compress.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from fluxvae.compress.forms import CompressedDecoder
from fluxvae.compress.pipeline import compress_decoder
from fluxvae.convert import write_model
from fluxvae.errors import ArtifactError, MatrixError, ToolError
from fluxvae.harness import Harness, run_harness
from fluxvae.host import this_host
from fluxvae.laps import timed
from fluxvae.latent_spaces import passage
from fluxvae.matrix.energy import Decode, cell_energy, ready_decode
from fluxvae.matrix.inputs import CALIBRATION, Tensor, load_tensors, sha256_of
from fluxvae.matrix.job import SOLVED, STAGE, Job, host_here
from fluxvae.matrix.plan import last_stage, tool_versions
from fluxvae.matrix.record import FORMAT, VERSION, ErrorFigures, Latency, Result
from fluxvae.matrix.verdict import flags_of, verdict_of
from fluxvae.metrics import Metrics, compare
from fluxvae.mil.package import read_package
from fluxvae.models.build import build_decoder, build_tiny_decoder
from fluxvae.package_parts import save_any
from fluxvae.recipes import Recipe, Size, artifact_name, parse_sizes
from fluxvae.validate import Case, Watch, limit_for
from fluxvae.weights import Weights, WeightSource
from fluxvae.weights.digest import tensor_digest
from fluxvae.whole import Artifact, open_artifact

_INFO = "fluxvae"  # the one entry of a supply's metadata


def save_supply(weights: Weights, path: Path) -> None:
    """Weights as one file that any worker can read, wherever they came from."""
    from safetensors.torch import save

    about = {
        "variant": weights.variant,
        "part": weights.part,
        "kind": weights.kind,
        "source": asdict(weights.source),
        "contract": weights.contract.to_dict(),
        "digest": weights.digest,
    }
    tensors = {name: tensor.contiguous() for name, tensor in weights.tensors.items()}
    path.write_bytes(save(tensors, {_INFO: json.dumps(about)}))  # an OSError for a full disk


def load_supply(job: Job) -> Weights:
    """The inverse, checked against the job's digest. Raises MatrixError."""
    from safetensors import safe_open

    with safe_open(job.files["weights"], "pt") as file:
        about = json.loads((file.metadata() or {})[_INFO])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    ordered = dict(sorted(tensors.items()))
    if tensor_digest(ordered) != job.weights_digest:
        raise MatrixError("the weights this cell was given are not those the matrix is of")
    return Weights(
        variant=about["variant"],
        part=about["part"],
        tensors=ordered,
        source=WeightSource(**about["source"]),
        contract=LatentContract(**about["contract"]),
        digest=job.weights_digest,
        kind=about["kind"],
    )


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
        seen = calibration_of("photos", list(_latents(job, calibration=True).values()))
    began = time.monotonic()
    found = compress_decoder(build_tiny_decoder(weights), recipe, seen, log=print)
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
    for case in _cases(job, recipe.sizes[0]):
        with torch.no_grad():
            reference = decoder(torch.from_numpy(case.latent)).numpy()
        metrics = compare(runner(case.latent), reference, peak=weights.contract.peak)
        found[case.name] = _finite(metrics.psnr_db)
    (out / STAGE).write_text(json.dumps(found, allow_nan=False), encoding="utf-8")


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
        format=FORMAT,
        version=VERSION,
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


def measure(job: Job, out: Path, result: Result, environment: Mapping[str, str]) -> Result:
    """Latency in fresh processes, loads, peak memory and, on a Mac, placement and energy.

    Not run on a Mac yet.
    """
    if not job.settings.runs:
        return result
    began = time.monotonic()
    package = out / str(result.artifact)
    runs, placement = _measure(job, package, environment)

    def prepare() -> Decode:
        case = next(_cases(job, parse_sizes(job.cell.sizes)[0]))
        return ready_decode(job, package, case.latent)

    energy = cell_energy(this_host(), prepare, print)
    seconds = {**result.seconds, "measure": time.monotonic() - began}
    host = host_here(job.versions["python"])
    measured = replace(
        result, runs=runs, placement=placement, energy=energy, seconds=seconds, host=host
    )
    return replace(measured, flags=flags_of(measured, job.thresholds))


def _solved(job: Job, weights: Weights, recipe: Recipe) -> tuple[CompressedDecoder | None, float]:
    if recipe.compression is None:
        return None, 0.0
    path = Path(job.files["solved"])
    seconds = float(read_checkpoint(path).training["seconds"])
    return load_checkpoint(path, weights, recipe.compression), seconds


def _errors(job: Job, artifact: Artifact, weights: Weights) -> Iterator[ErrorFigures]:
    """Every input on every function and size, as ``fluxvae.validate`` judges them."""
    record = artifact.record
    decoder, way, watch = build_decoder(weights), passage(record.recipe, weights), Watch()
    backend = choose_backend("auto")
    several = len(record.recipe.sizes) > 1
    for function, size in artifact.functions_and_sizes():
        runner = artifact.runner(function, backend, job.cell.compute_unit, on_op=watch)
        for case in _cases(job, size):
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
    cases = list(_cases(job, size))
    names = [c.name for c in cases if c.kind == "photo"] or [c.name for c in cases]
    ends = {name: f"{name}@{size}" if len(recipe.sizes) > 1 else name for name in names}
    stages: dict[str, dict[str, float | None]] = {
        role.partition(":")[2]: json.loads(Path(path).read_text(encoding="utf-8"))
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


def _cases(job: Job, size: Size) -> Iterator[Case]:
    group = f"{size.height}x{size.width}"
    for name, values in _latents(job, group=group).items():
        yield Case(name.rpartition("/")[2], job.inputs[name].kind, values)


def _latents(
    job: Job, *, group: str | None = None, calibration: bool = False
) -> dict[str, np.ndarray]:
    wanted: dict[str, Tensor] = {
        name: tensor
        for name, tensor in job.inputs.items()
        if (tensor.kind == CALIBRATION) == calibration
        and (group is None or name.split("/")[1] == group)
    }
    return load_tensors(Path(job.files["latents"]), wanted)


def _measure(
    job: Job, package: Path, environment: Mapping[str, str]
) -> tuple[tuple[Latency, ...], dict[str, int]]:
    several = job.cell.shapes == "multifunction"
    size = parse_sizes(job.cell.sizes)[0]
    settings = BenchSettings(
        iterations=job.settings.iterations,
        warmup=job.settings.warmup,
        runs=job.settings.runs,
        cooldown_s=job.settings.cooldown_s,
        drivers=(job.cell.driver,),  # type: ignore[arg-type]
        compute_units=(job.cell.compute_unit,),  # type: ignore[arg-type]
        function=size.function if several else None,
        size=str(size),
    )
    harness = Harness(Path(job.files["harness"]), environment) if "harness" in job.files else None
    compiled = package
    if harness is not None and (job.cell.driver == "swift" or sys.platform == "darwin"):
        compiled = compile_model(package, package.parent.parent)  # which goes away with the job

    def start(driver: str, units: Any) -> Any:
        if driver == "swift" and harness is not None:
            return start_swift(harness, str(compiled), settings, units)
        request = Request(str(package), units, settings.iterations, settings.warmup,
                          settings.function, settings.size)  # fmt: skip
        return start_python(request, environment)

    record = bench(start, settings, say=print)
    runs = tuple(
        Latency(
            first_load_s=process.run.load.first_ms / 1e3,
            later_load_s=process.run.load.second_ms / 1e3,
            samples_ms=process.run.samples_ms,
            peak_memory_bytes=process.run.peak_memory_bytes,
        )
        for process in record.processes
    )
    planned = harness is not None and compiled != package
    return runs, _placement(harness, compiled, job) if harness and planned else {}


def _placement(harness: Harness, model: Path, job: Job) -> dict[str, int]:
    """Operations by device where there is a compute plan; else nothing."""
    try:
        report = run_harness(
            harness, ["plan", str(model), "--compute-units", job.cell.compute_unit]
        )
    except ArtifactError:
        return {}
    if report.plan is None or not report.plan.available:
        return {}
    found: dict[str, int] = {}
    for units in report.plan.results:
        for device, count in units.devices.items():
            found[device] = found.get(device, 0) + count
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
