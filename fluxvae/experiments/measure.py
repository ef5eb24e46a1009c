"""How fast an artifact is: fresh processes, by Python or Swift, and where its operations run.

A cell's own process does it after ``make``, or another machine's for an artifact made elsewhere.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fluxvae.device.bench import Settings as BenchSettings
from fluxvae.device.bench import bench, start_swift
from fluxvae.device.bench_python import Request, start_python
from fluxvae.device.compile import SUFFIX, compile_model, find_compilers
from fluxvae.device.harness import Harness, run_harness
from fluxvae.device.host import this_host
from fluxvae.errors import ArtifactError, BenchError
from fluxvae.experiments.energy import Decode, cell_energy, ready_decode
from fluxvae.experiments.inputs import sha256_of
from fluxvae.experiments.job import Job, host_here
from fluxvae.experiments.supply import cases
from fluxvae.experiments.verdict import flags_of
from fluxvae.recipes import parse_sizes
from fluxvae.records.experiment import Latency, Result


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
        case = next(cases(job, parse_sizes(job.cell.sizes)[0]))
        return ready_decode(job, package, case.latent)

    energy = cell_energy(this_host(), prepare, print)
    seconds = {**result.seconds, "measure": time.monotonic() - began}
    host = host_here(job.versions["python"])
    compiled = package.with_suffix(SUFFIX)
    kept = sorted(f for f in compiled.rglob("*") if f.is_file())
    measured = replace(
        result,
        runs=runs,
        placement=placement,
        energy=energy,
        seconds=seconds,
        host=host,
        artifact_sha256={
            **result.artifact_sha256,
            **{f.relative_to(out).as_posix(): sha256_of(f) for f in kept},
        },
    )
    return replace(measured, flags=flags_of(measured, job.thresholds))


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
