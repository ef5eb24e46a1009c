"""The Python driver of ``fluxvae bench``: one fresh process, one run, the harness's own report.

``python -m fluxvae.device.bench_python REQUEST`` with REQUEST in JSON prints one object of
docs/harness.schema.json, so that the two drivers can be laid side by side. On a Mac coremltools
runs the model through Core ML (not yet run on one); elsewhere our executor runs it.
"""

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from fluxvae.artifact.backends import choose_backend, raw_runner, single_input
from fluxvae.artifact.open import open_artifact, refuse_parts
from fluxvae.artifact.record import Record, read_record
from fluxvae.data.latents import beyond_float16
from fluxvae.device.bench import FIRST_CALLS, latency
from fluxvae.device.bundle import read_bundle
from fluxvae.device.harness import parse_report
from fluxvae.device.host import chip, keep_freed_memory, os_build, peak_memory, this_host
from fluxvae.device.programs import run_captured
from fluxvae.errors import ArtifactError, FluxVAEError, ToolError, UsageError
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Feature as MilFeature
from fluxvae.mil.program import Program
from fluxvae.recipes import SCALE, Size, parse_sizes
from fluxvae.records.harness import (
    Environment,
    Feature,
    FirstCalls,
    HarnessReport,
    Input,
    Load,
    Model,
    Moment,
    Run,
)
from fluxvae.schema import build, plain

SLEEPS_AFTER_S = 6.0  # a pause after which a Neural Engine sleeps, as in the harness
_DTYPES = {"fp16": "float16", "fp32": "float32", "fp64": "float64", "int32": "int32"}


@dataclass(frozen=True)
class Request:
    """One run to make. ``io`` is a bundle's folder; None for seeded noise."""

    model: str
    compute_units: str
    iterations: int
    warmup: int
    function: str | None = None
    size: str | None = None
    io: str | None = None
    idle_s: float | None = None


def start_python(request: Request, environment: Mapping[str, str]) -> HarnessReport:
    """Run ``request`` in a fresh process.

    Raises with its line when it fails: UsageError for options that do not fit, ToolError when it
    was ended by a signal, else ArtifactError.
    """
    command = [sys.executable, "-m", "fluxvae.device.bench_python", json.dumps(asdict(request))]
    ran = run_captured(command, environment=environment)
    if ran.returncode != 0:
        lines = [line for line in ran.stderr.splitlines() if line.strip()] or ["no message"]
        if ran.returncode < 0:
            raise ToolError(f"the Python driver was ended by signal {-ran.returncode}: {lines[-1]}")
        kind = UsageError if ran.returncode == UsageError.exit_code else ArtifactError
        raise kind(f"the Python driver: {lines[-1]}")
    return parse_report(ran.stdout)


def measure(request: Request) -> HarnessReport:
    """Make one run in this process. Copies and conversions stay outside the timed region."""
    before = _moment()
    path = Path(request.model)
    backend = choose_backend("auto")
    programs = _programs(path)
    program = programs[0]
    name = _function(program, request)
    latent, _ = single_input(program.signatures[name])
    array, fed, notes = _input(request, latent, read_record(program))

    def load() -> tuple[Callable[[np.ndarray], np.ndarray], float]:
        began = time.perf_counter_ns()
        steps = [raw_runner(p, name, backend, request.compute_units) for p in _programs(path)]
        return lambda array: reduce(lambda value, step: step(value), steps, array), _ms(began)

    runner, first_ms = load()
    _, second_ms = load()
    after_load = [_timed(runner, array) for _ in range(max(request.warmup, FIRST_CALLS))]
    samples = [_timed(runner, array) for _ in range(request.iterations)]
    pause = _pause(request, backend)
    time.sleep(pause)
    after_idle = [_timed(runner, array) for _ in range(FIRST_CALLS if pause else 0)]
    run = Run(
        compute_units=request.compute_units,  # type: ignore[arg-type]
        load=Load(first_ms, second_ms),
        first_calls=FirstCalls(tuple(after_load), pause, tuple(after_idle)),
        samples_ms=tuple(samples),
        latency=latency(samples),
        peak_memory_bytes=peak_memory(),
    )
    return HarnessReport(
        command="bench",
        model=_model(programs, name, request),
        environment=_environment(backend, before),
        input=fed,
        runs=(run,),
        validation=None,
        plan=None,
        drift=None,
        failures=(),
        notes=(
            "Python driver: it does not ask for thermal state, power source or low-power mode.",
            *notes,
        ),
    )


def _programs(path: Path) -> tuple[Program, ...]:
    """The model's program; the other half's too, which is timed with it as one model."""
    program = read_package(path)
    record = read_record(program)
    if record is None or (record.part is None and record.tiles is None):
        return (program,)
    if record.tiles is not None:
        refuse_parts(path.name, record, "bench")
    return open_artifact(path).programs


def _pause(request: Request, backend: str) -> float:
    """Seconds before the first calls after a pause. Only a Neural Engine is known to sleep."""
    if request.idle_s is not None:
        return request.idle_s
    sleeps = backend == "coreml" and request.compute_units in ("all", "cpuAndNeuralEngine")
    return SLEEPS_AFTER_S if sleeps else 0.0


def _timed(runner: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> float:
    began = time.perf_counter_ns()  # monotonic
    runner(array)
    return _ms(began)


def _ms(began: int) -> float:
    return (time.perf_counter_ns() - began) / 1e6


def _function(program: Program, request: Request) -> str:
    if request.function is not None:
        return program.function(request.function).name
    if request.size is not None:
        size = _size(request.size)
        if size.function in program.functions:
            return size.function
    return program.default_function


def _size(text: str) -> Size:
    sizes = parse_sizes(text)
    if len(sizes) != 1:
        raise UsageError(f"one size is timed at a time, got --size {text}")
    return sizes[0]


def _input(
    request: Request, latent: MilFeature, record: Record | None
) -> tuple[np.ndarray, Input, tuple[str, ...]]:
    """The latent in the model's own layout and dtype, and notes about it."""
    dtype = np.float16 if latent.dtype == "fp16" else np.float32
    notes: tuple[str, ...] = ()
    if request.io is not None:
        bundle = read_bundle(Path(request.io))
        beyond = beyond_float16(bundle.input)
        if beyond and (dtype is np.float16 or (record and record.recipe.precision == "float16")):
            notes = (f"The input {beyond}.",)
        with np.errstate(over="ignore"):  # that is what the note says
            array = bundle.input.astype(dtype)
        fed = Input("io", request.io, bundle.manifest.case, None, array.shape)
    else:
        shape = _shape(request, latent, record)
        noise = np.random.Generator(np.random.PCG64(0)).standard_normal(shape, np.float32)
        array = noise.astype(dtype)
        fed = Input("generated", None, None, 0, shape)
    return np.ascontiguousarray(array), fed, notes


def _shape(request: Request, latent: MilFeature, record: Record | None) -> tuple[int, ...]:
    shapes = latent.shapes or (latent.shape,)
    if request.size is None:
        return latent.shape
    size = _size(request.size)
    sides = (size.height // SCALE, size.width // SCALE)
    for shape in shapes:
        if record is None:  # made by others: NCHW or NHWC
            fits = sides in (shape[2:], shape[1:3])
        else:
            wanted = record.contract.shape(size.height, size.width, record.recipe.layout)
            fits = shape == wanted
        if fits:
            return shape
    raise UsageError(f"the model takes {[list(s) for s in shapes]}, none of which is --size {size}")


def _model(programs: tuple[Program, ...], name: str, request: Request) -> Model:
    program = programs[0]
    several = len(program.functions) > 1
    return Model(
        path=request.model,
        functions=tuple(program.functions) if several else None,
        function=name if several else None,
        inputs=tuple(_feature(f) for f in program.signatures[name].inputs),
        outputs=tuple(_feature(f) for f in programs[-1].signatures[name].outputs),
        metadata=dict(program.metadata.user),
    )


def _feature(feature: MilFeature) -> Feature:
    shapes = feature.shapes or ((feature.shape,) if not feature.ranges else ())
    return Feature(
        name=feature.name,
        kind="image" if feature.kind == "image" else "multiArray",
        dtype=None if feature.kind == "image" else _DTYPES[feature.dtype],
        shape=feature.shape,
        flexibility="enumerated" if feature.shapes else "range" if feature.ranges else "fixed",
        shapes=shapes,
        ranges=tuple((low, None if high < 0 else high) for low, high in feature.ranges) or None,
    )


def _environment(backend: str, before: Moment) -> Environment:
    host = this_host()
    mac = host.system == "Darwin"
    return Environment(
        backend="coreml" if backend == "coreml" else "reference",
        os="macOS" if mac else host.system,
        os_version=host.release,
        os_build=os_build(host),
        arch=host.arch,
        chip=chip(host),
        cores=os.cpu_count() or 0,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        swift=f"none: Python {platform.python_version()}",
        devices=() if mac else ("cpu",),
        before=before,
        after=_moment(),
    )


def _moment() -> Moment:
    return Moment(
        time=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        thermal_state=None,
        low_power_mode=None,
        power_source=None,
        load_average=os.getloadavg(),
        process_memory_bytes=None,
    )


def main(arguments: list[str]) -> int:
    """One run, its report on stdout; one line on stderr and the error's code for an error."""
    keep_freed_memory()
    try:
        data: Any = json.loads(arguments[0])
        with contextlib.redirect_stdout(sys.stderr):  # coremltools prints
            report = measure(build(Request, data))
    except FluxVAEError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(plain(report), sort_keys=True, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
