"""Running fluxvae-harness, the Swift program, and its report as data.

The report's fields are those of docs/harness.schema.json, name for name; that file says what each
means. A field that a machine cannot know is None.
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fluxvae.errors import ArtifactError, ToolError, UsageError
from fluxvae.schema import parse_record

FORMAT = "fluxvae-harness"
VERSION = 2
Units = Literal["all", "cpuOnly", "cpuAndGPU", "cpuAndNeuralEngine"]
UNITS: tuple[Units, ...] = ("all", "cpuOnly", "cpuAndGPU", "cpuAndNeuralEngine")


@dataclass(frozen=True)
class Harness:
    """The built program, and the whole environment it is started with.

    On Linux its Core ML runs ``FLUXVAE_PYTHON -m fluxvae.mil.serve``, so the environment has
    that and a PYTHONPATH. The command line makes it; nothing below reads the process's own.
    """

    program: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Feature:
    """One declared input or output."""

    name: str
    kind: str
    dtype: str | None
    shape: tuple[int, ...]
    flexibility: str
    shapes: tuple[tuple[int, ...], ...]
    ranges: tuple[tuple[int | None, ...], ...] | None


@dataclass(frozen=True)
class Model:
    """What was loaded."""

    path: str
    functions: tuple[str, ...] | None
    function: str | None
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    metadata: dict[str, str]


@dataclass(frozen=True)
class Moment:
    """The host at one moment."""

    time: str
    thermal_state: str | None
    low_power_mode: bool | None
    power_source: str | None
    load_average: tuple[float, ...] | None
    process_memory_bytes: int | None


@dataclass(frozen=True)
class Environment:
    """Where it ran. ``backend`` is ``coreml``, or ``reference`` on Linux."""

    backend: Literal["coreml", "reference"]
    os: str
    os_version: str
    os_build: str | None
    arch: str
    chip: str | None
    cores: int
    memory_bytes: int | None
    swift: str
    devices: tuple[str, ...]
    before: Moment
    after: Moment


@dataclass(frozen=True)
class Input:
    """What the model was fed."""

    source: str
    path: str | None
    case: str | None
    seed: int | None
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Latency:
    """Of all samples, in milliseconds, without first calls; percentiles by numpy's default."""

    count: int
    mean: float
    stddev: float
    median: float
    p10: float
    p90: float
    p95: float
    p99: float
    min: float
    max: float


@dataclass(frozen=True)
class Load:
    """Milliseconds for loading the model twice in one process."""

    first_ms: float
    second_ms: float


@dataclass(frozen=True)
class FirstCalls:
    """Milliseconds of predictions that no percentile includes. ``idle_s`` 0: no pause was made."""

    after_load_ms: tuple[float, ...]
    idle_s: float
    after_idle_ms: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """Bench on one set of compute units."""

    compute_units: Units
    load: Load
    first_calls: FirstCalls
    samples_ms: tuple[float, ...]
    latency: Latency
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Metrics:
    """Distances; None when the output was not finite (or, for psnr_db, equal)."""

    max_abs: float | None
    mae: float | None
    rmse: float | None
    psnr_db: float | None
    cosine: float | None
    nan: int
    inf: int
    worst: tuple[int, ...]


@dataclass(frozen=True)
class Limit:
    """What has to hold."""

    metric: Literal["max_abs", "psnr_db"]
    bound: float


@dataclass(frozen=True)
class UnitsResult:
    """One prediction, compared."""

    compute_units: Units
    verdict: Literal["pass", "fail"]
    metrics: Metrics


@dataclass(frozen=True)
class Validation:
    """One bundle through the model. A set of compute units without a result is a ``fail`` too."""

    verdict: Literal["pass", "fail"]
    variant: str
    size: str
    case: str
    precision: str
    limit: Limit
    results: tuple[UnitsResult, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PlannedOp:
    """One operation of a compute plan. ``cost`` is a share of the whole, 0 to 1."""

    index: int
    operator: str
    output: str | None
    supported: tuple[str | None, ...]
    preferred: str | None
    cost: float | None


@dataclass(frozen=True)
class OpType:
    """Operations of one type."""

    operator: str
    count: int
    devices: dict[str, int]


@dataclass(frozen=True)
class UnitsPlan:
    """The plan of one function on one set of compute units."""

    compute_units: Units
    function: str
    operations: int
    constants: int
    devices: dict[str, int]
    types: tuple[OpType, ...]
    cost_by_device: dict[str, float]
    left_neural_engine: tuple[int, ...]
    ops: tuple[PlannedOp, ...]


@dataclass(frozen=True)
class Plan:
    """MLComputePlan's answer, or why there is none."""

    available: bool
    reason: str | None
    results: tuple[UnitsPlan, ...]


@dataclass(frozen=True)
class DriftRun:
    """Repeats against the first output of the same compute units."""

    compute_units: Units
    bit_equal: bool
    differing: int
    first_differing: int | None
    max_abs: float | None
    digest: str


@dataclass(frozen=True)
class AgainstCPU:
    """First outputs against those of cpuOnly."""

    compute_units: Units
    bit_equal: bool
    metrics: Metrics


@dataclass(frozen=True)
class Drift:
    """Does it give the same bits each time, and everywhere."""

    repeats: int
    runs: tuple[DriftRun, ...]
    against_cpu: tuple[AgainstCPU, ...]


@dataclass(frozen=True)
class UnitFailure:
    """Why one set of compute units gave no result; those of the others stand."""

    compute_units: Units
    failure: str


@dataclass(frozen=True)
class HarnessReport:
    """One call's whole report. The part that ``command`` names is there, the others are None."""

    format: str
    version: int
    command: Literal["validate", "bench", "plan", "drift"]
    model: Model
    environment: Environment
    input: Input | None
    runs: tuple[Run, ...] | None
    validation: Validation | None
    plan: Plan | None
    drift: Drift | None
    failures: tuple[UnitFailure, ...]
    notes: tuple[str, ...]


_PART = {"validate": "validation", "bench": "runs", "plan": "plan", "drift": "drift"}


def parse_report(text: str) -> HarnessReport:
    """The report in what the harness printed. Raises ToolError when there is none in it."""
    try:
        report = parse_record(HarnessReport, text, FORMAT, VERSION)
    except ValueError as error:  # of JSON, or a StructureError
        what = f"fluxvae-harness printed no report that this fluxvae understands ({error})"
        raise ToolError(f"{what}: leave --harness out, and the right one is built") from error
    if getattr(report, _PART[report.command]) is None:
        raise ToolError(f"fluxvae-harness printed no result of {report.command}")
    return report


def run_harness(harness: Harness, arguments: Sequence[str]) -> HarnessReport:
    """The report of ``fluxvae-harness ARGUMENTS --json``: with exit code 0, 3 (an output outside
    its limit), or 1 (no compute plan, failed compute units). Otherwise raises, with the harness's
    own line: UsageError for 2, ArtifactError for 1, else ToolError."""
    try:
        ran = subprocess.run(
            [str(harness.program), *arguments, "--json"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            env=dict(harness.environment),
        )
    except OSError as error:
        raise ToolError(f"{harness.program} cannot be started: {error.strerror}") from error
    line = _complaint(ran.stderr)
    if ran.returncode < 0:
        raise ToolError(f"fluxvae-harness was ended by signal {-ran.returncode}: {line}")
    if ran.returncode == 2:
        raise UsageError(line)
    if ran.returncode == 1 and not ran.stdout.strip():
        raise ArtifactError(line)
    if ran.returncode not in (0, 1, 3):
        raise ToolError(f"fluxvae-harness ended with code {ran.returncode}: {line}")
    report = parse_report(ran.stdout)
    _check_code(report, ran.returncode, line)
    return report


def _check_code(report: HarnessReport, code: int, line: str) -> None:
    """Exit code and report have to say the same; a harness that contradicts itself is broken."""
    missed = report.validation and any(r.verdict == "fail" for r in report.validation.results)
    no_plan = report.plan is not None and not report.plan.available
    expected = 3 if missed else 1 if no_plan or report.failures else 0
    if code == 1 != expected:
        raise ArtifactError(line)
    if code != expected:
        raise ToolError(f"fluxvae-harness ended with code {code}, but its report says {expected}")


def _complaint(stderr: str) -> str:
    """The ``error:`` line of what the harness printed, else its last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    return (errors or lines or ["fluxvae-harness gave no message"])[-1][:1000]
