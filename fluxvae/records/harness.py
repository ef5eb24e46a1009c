"""The report of fluxvae-harness, the Swift program, as data.

Its fields are those of docs/harness.schema.json, name for name; that file says what each means. A
field that a machine cannot know is None.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from fluxvae.errors import ToolError
from fluxvae.schema import Header, Record

Units = Literal["all", "cpuOnly", "cpuAndGPU", "cpuAndNeuralEngine"]
UNITS: tuple[Units, ...] = ("all", "cpuOnly", "cpuAndGPU", "cpuAndNeuralEngine")


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
class HarnessReport(Record):
    """One call's whole report. The part that ``command`` names is there, the others are None."""

    header: ClassVar = Header(
        ToolError, "a report of fluxvae-harness", "leave --harness out, and the right one is built",
        "fluxvae-harness", version=2,
    )  # fmt: skip
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
