"""What is done for a cell, one function a step: solve, stage, make (convert and judge), measure.

Everything is done with the threads that the job says, so that equal jobs give equal bits. A Mac
report uses ``bench_settings`` and ``plan`` too.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fluxvae.artifact.backends import choose_backend, make_runner
from fluxvae.artifact.open import Artifact, open_artifact
from fluxvae.artifact.save import save_artifact
from fluxvae.compress import compress
from fluxvae.compress.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from fluxvae.compress.forms import CompressedDecoder
from fluxvae.compress.store import Store
from fluxvae.convert.coremltools import step_timings
from fluxvae.convert.program import write_model
from fluxvae.data.arrays import to_model
from fluxvae.data.calibration import calibration_of
from fluxvae.device.bench import Settings as BenchSettings
from fluxvae.device.bench import bench, start_swift
from fluxvae.device.bench_python import Request, start_python
from fluxvae.device.compile import SUFFIX, compile_model, find_compilers
from fluxvae.device.harness import Harness, run_harness
from fluxvae.device.host import Host, this_host
from fluxvae.device.power import Window, measure_energy
from fluxvae.errors import ArtifactError, BenchError, PowerError, ToolError
from fluxvae.experiments.inputs import sha256_of
from fluxvae.experiments.job import SOLVED, STAGE, Job, host_here, result_of
from fluxvae.experiments.plan import tool_versions
from fluxvae.experiments.supply import cases, latents, load_weights_file
from fluxvae.files import files_of, read_text, size_of, write_text
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe, Size, artifact_name, parse_sizes
from fluxvae.records.experiment import Energy, ErrorFigures, Latency, Result
from fluxvae.records.harness import Plan
from fluxvae.records.summary import flags_of, verdict_of
from fluxvae.schema import finite, json_text, parse_json
from fluxvae.validation.validate import judge, torch_reference
from fluxvae.validation.validate import measure as measure_cases

PATIENCE_S = 300.0  # for the load of the conversion before to fade
Decode = Callable[[], object]


def check_tools(job: Job) -> None:
    """Raise ToolError when this installation is not the one that the matrix is of."""
    here = tool_versions()
    wrong = [
        f"{n} {here.get(n)} instead of {v}" for n, v in job.versions.items() if here.get(n) != v
    ]
    if wrong:
        raise ToolError(f"this worker has {', '.join(wrong)}: install the same versions everywhere")


def solve(job: Job, out: Path) -> None:
    """The compressed weights, as a checksummed file; its record says how many seconds they took.

    Those of the solving, also where another run did that.
    """
    weights, recipe = load_weights_file(job), Recipe.from_dict(job.recipe)
    assert recipe.compression is not None
    seen = None
    if recipe.compression.needs_calibration:
        seen = calibration_of("photos", list(latents(job, calibration=True).values()))
    store = Store(Path(job.files["store"])) if "store" in job.files else None
    found = compress(weights, recipe, seen, store=store, log=print)
    took = {"seconds": found.seconds}
    save_checkpoint(out / SOLVED, found.compressed, weights, recipe.compression, took)


def stage(job: Job, out: Path) -> None:
    """PSNR in dB of a plain program on every input; null where it is not a finite number."""
    weights, recipe = load_weights_file(job), Recipe.from_dict(job.recipe)
    path = out / f"stage{recipe.suffix}"
    write_model(build_decoder(weights), recipe, weights.contract.channels, path)
    runner = make_runner(read_package(path), None, recipe.layout, choose_backend("auto"))
    reference, peak = torch_reference(recipe, weights), weights.contract.peak
    judged = measure_cases(runner, cases(job, recipe.sizes[0]), reference, peak=peak)
    found = finite({one.case.name: one.metrics.psnr_db for one in judged})
    write_text(out / STAGE, json_text(found), overwrite=True)


def make(job: Job, out: Path) -> Result:
    """Convert and judge. The result has no runs yet."""
    weights, recipe = load_weights_file(job), Recipe.from_dict(job.recipe)
    path = out / artifact_name(recipe, weights.source.kind)
    compressed, solving = _solved(job, weights, recipe)
    began = time.monotonic()
    with step_timings() as timings:
        save_artifact(weights, recipe, path, compressed=compressed, report=print)
    saved = time.monotonic() - began
    began = time.monotonic()
    errors = tuple(_errors(job, open_artifact(path), weights))
    result = result_of(
        job,
        "done",
        verdict=verdict_of(errors),
        seconds={
            "capture": timings.get("capture", 0.0),
            "convert": timings.get("convert", 0.0),
            "compress": solving,
            "save": saved - timings.get("capture", 0.0) - timings.get("convert", 0.0),
            "validate": time.monotonic() - began,
        },
        bytes=size_of(path),
        artifact=path.name,
        artifact_sha256=_digests(path, out),
        errors=errors,
        budget=_budget(job, recipe, errors),
    )
    return replace(result, flags=flags_of(result, job.thresholds))


def _solved(job: Job, weights: Weights, recipe: Recipe) -> tuple[CompressedDecoder | None, float]:
    if recipe.compression is None:
        return None, 0.0
    path = Path(job.files["solved"])
    seconds = float(read_checkpoint(path).training["seconds"])
    return load_checkpoint(path, weights, recipe.compression), seconds


def _digests(path: Path, out: Path) -> dict[str, str]:
    """sha256 of every file of ``path``, by its path from ``out``."""
    return {f.relative_to(out).as_posix(): sha256_of(f) for f in files_of(path)}


def _errors(job: Job, artifact: Artifact, weights: Weights) -> Iterator[ErrorFigures]:
    """Every input on every function and size, as ``fluxvae.validation.validate`` judges them."""
    several, contract = len(artifact.record.recipe.sizes) > 1, artifact.record.contract
    backend, units = choose_backend("auto"), job.cell.compute_unit
    given = partial(cases, job)
    for result, measured in judge(artifact, weights, given, backend=backend, compute_units=units):
        yield ErrorFigures(
            input=f"{result.case}@{result.size}" if several else result.case,
            kind=result.kind,
            psnr_db=finite(result.metrics.psnr_db),
            max_abs=finite(result.metrics.max_abs),
            ssim=finite(measured.ssim(contract)) if result.kind == "photo" else None,
            limit=str(result.limit),
            passed=result.passed and not (result.metrics.nan or result.metrics.inf),
        )


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
    stages[list(recipe.stages())[-1]] = {name: own[ends[name]] for name in names}
    worst = {}
    for label, figures in stages.items():
        known = [v for v in (figures[name] for name in names) if v is not None]
        if len(known) == len(names):
            worst[label] = min(known)
    return worst


def measure(job: Job, out: Path, result: Result, environment: Mapping[str, str]) -> Result:
    """Latency in fresh processes, loads, peak memory and, on a Mac, placement and energy.

    A cell's own process does it after ``make``, or another machine's for an artifact made
    elsewhere. Not run on a Mac yet.
    """
    if not job.settings.runs:
        return result
    began = time.monotonic()
    package = out / str(result.artifact)
    runs, placement = _measure(job, package, environment)

    def prepare() -> Decode:
        case = next(cases(job, parse_sizes(job.cell.sizes)[0]))
        return ready_decode(job, package, case.values)

    energy = cell_energy(this_host(), prepare, print)
    compiled = package.with_suffix(SUFFIX)
    made = _digests(compiled, out) if compiled.exists() else {}
    measured = replace(
        result,
        runs=runs,
        placement=placement,
        energy=energy,
        seconds={**result.seconds, "measure": time.monotonic() - began},
        host=host_here(job.versions["python"]),
        artifact_sha256={**result.artifact_sha256, **made},
    )
    return replace(measured, flags=flags_of(measured, job.thresholds))


def bench_settings(
    asked: Any, driver: str, units: str, size: Size, function: str | None
) -> BenchSettings:
    """One driver on one set of compute units, as often as ``asked`` says: a matrix' ``Settings``
    or a Mac report's."""
    return BenchSettings(
        iterations=asked.iterations,
        warmup=asked.warmup,
        runs=asked.runs,
        cooldown_s=asked.cooldown_s,
        drivers=(driver,),  # type: ignore[arg-type]
        compute_units=(units,),  # type: ignore[arg-type]
        function=function,
        size=str(size),
    )


def _measure(
    job: Job, package: Path, environment: Mapping[str, str]
) -> tuple[tuple[Latency, ...], dict[str, int]]:
    cell, size = job.cell, parse_sizes(job.cell.sizes)[0]
    function = size.function if cell.shapes == "multifunction" else None
    settings = bench_settings(job.settings, cell.driver, cell.compute_unit, size, function)
    harness = Harness(Path(job.files["harness"]), environment) if "harness" in job.files else None
    compiled = package
    if harness is not None and (cell.driver == "swift" or sys.platform == "darwin"):
        # Beside the package if Apple's compiler makes it, to be published. One of the portable
        # compiler, which was not shown to load on a Mac, goes away with the job.
        compilers = find_compilers()
        home = package.parent if compilers else package.parent.parent
        compiled = compile_model(package, home, overwrite=True, compilers=compilers)

    def start(driver: str, units: Any) -> Any:
        if driver == "swift" and harness is not None:
            return start_swift(harness, str(compiled), settings, units)
        request = Request(str(package), units, settings.iterations, settings.warmup,
                          settings.function, settings.size)  # fmt: skip
        return start_python(request, environment)

    record = bench(start, settings, say=print)
    for failed in record.failures:  # or a cell of fewer runs would look like a whole one
        raise BenchError(f"run {failed.number} of {settings.runs}: {failed.failure}")
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
    return runs, _placement(harness, compiled, cell.compute_unit) if harness and planned else {}


def plan(harness: Harness, model: Path, units: str, *options: str) -> Plan:
    """What Core ML plans for each operation. Raises ArtifactError where there is no plan."""
    arguments = ["plan", str(model), "--compute-units", units, *options]
    found = run_harness(harness, arguments).plan
    if found is None or not found.available:
        reason = found.reason if found else None
        raise ArtifactError(reason or "there is no compute plan on this system")
    return found


def _placement(harness: Harness, model: Path, units: str) -> dict[str, int]:
    """Operations by device where there is a compute plan; else nothing."""
    found: dict[str, int] = {}
    try:
        for result in plan(harness, model, units).results:
            for device, count in result.devices.items():
                found[device] = found.get(device, 0) + count
    except ArtifactError:
        return {}
    return found


def cell_energy(
    host: Host, prepare: Callable[[], Decode], say: Callable[[str], object]
) -> Energy | None:
    """Energy above the idle Mac's of what ``prepare`` makes ready; None where it cannot be had.

    Other systems are passed over in silence; a Mac that is not fit says why, and the cell goes on.
    Not run on a Mac yet.
    """
    if host.system != "Darwin":
        return None
    try:
        return measure_energy(host, Window(), prepare(), patience_s=PATIENCE_S)
    except PowerError as error:
        say(f"energy was not measured: {error}")
        return None


def ready_decode(job: Job, package: Path, latent: np.ndarray) -> Decode:
    """One decode of ``latent`` (1, C, h, w) by the cell's artifact on its compute units."""
    artifact = open_artifact(package)
    size = parse_sizes(job.cell.sizes)[0]
    function = next(f for f, s in artifact.functions_and_sizes() if s == size)
    record = artifact.record
    array = to_model(latent, record.recipe.layout, tokens=record.contract.tokens)
    run = artifact.raw_runner(function, choose_backend("auto"), job.cell.compute_unit)
    ready = np.ascontiguousarray(array, np.float32)
    return lambda: run(ready)
