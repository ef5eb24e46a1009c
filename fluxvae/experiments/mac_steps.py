"""How each step of ``fluxvae mac-report`` is done: one function a kind, plain data out.

Nothing here asks whether this is a Mac: the steps run on whatever Core ML the harness has. On
Linux that is the reference executor; ``mac_report`` labels what it gave.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from fluxvae.compress.store import Store
from fluxvae.device.bench import bench, start_swift
from fluxvae.device.bundle import NORMAL, Request, export_bundle
from fluxvae.device.compile import NOT_SHOWN, compile_model, compiled_path
from fluxvae.device.harness import Harness, run_harness
from fluxvae.device.validate import Job, run_job
from fluxvae.errors import ArtifactError
from fluxvae.experiments.maker import Maker
from fluxvae.experiments.steps import bench_settings, plan
from fluxvae.files import size_of
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe, Size, artifact_name, parse_sizes
from fluxvae.records.harness import UNITS
from fluxvae.records.mac import EACH, Task
from fluxvae.schema import finite, plain
from fluxvae.validation.validate import validate

PHOTO = "chelsea"


@dataclass(frozen=True)
class Settings:
    """How much is measured, the same for every artifact. ``cooldown_s`` is in seconds."""

    iterations: int = 100
    warmup: int = 3
    runs: int = 3
    cooldown_s: float = 10.0
    repeats: int = 20


@dataclass(frozen=True)
class StepContext:
    """One artifact, what it is made from, and where. ``store``: of solved compressions."""

    recipe: Recipe
    weights: Weights
    encoder: Weights | None
    harness: Harness
    folder: Path
    settings: Settings
    store: Store | None = None

    @property
    def package(self) -> Path:
        return self.folder / "models" / artifact_name(self.recipe, self.weights.source.kind)

    @property
    def compiled(self) -> Path:
        return compiled_path(self.package)

    @property
    def name(self) -> str:
        """The artifact's."""
        return self.package.stem

    @property
    def encoder_digest(self) -> str | None:
        return None if self.encoder is None else self.encoder.digest

    @property
    def cases(self) -> tuple[str, ...]:
        """Of export-io. A photo first where an encoder makes its latent: noise flatters fp16."""
        return (NORMAL,) if self.encoder is None else (PHOTO, NORMAL)

    def made(self, task: Task) -> list[Path]:
        """What a step leaves for later ones: it is done only while that is there."""
        return {"convert": [self.package], "compile": [self.compiled]}.get(task.kind, [])

    def function(self, size: Size) -> str | None:
        return size.function if self.recipe.shapes == "multifunction" else None

    def function_options(self, size: Size) -> list[str]:
        """``--function`` for the harness, where there are several."""
        function = self.function(size)
        return [] if function is None else ["--function", function]


def convert_step(context: StepContext, task: Task) -> dict[str, Any]:
    """The package, converted afresh. ``bytes``: all of its files.

    A compression is one that looks at no latents (``plain``).
    """
    maker = Maker(context.weights, overwrite=True, store=context.store)
    return {"bytes": size_of(maker.save(context.recipe, context.package))}


def compile_step(context: StepContext, task: Task) -> dict[str, Any]:
    """The compiled model beside it: Xcode's where there is one."""
    lines: list[str] = []
    compile_model(context.package, overwrite=True, report=lambda line: lines.append(str(line)))
    compiler = "portable" if NOT_SHOWN in lines else "xcode"
    return {"compiler": compiler, "notes": [line for line in lines if line != NOT_SHOWN]}


def executor_step(context: StepContext, task: Task) -> dict[str, Any]:
    """The compiled model by the reference executor against torch: the worst PSNR of each kind."""
    report = validate(
        context.compiled, context.weights, encoder=context.encoder, backend="reference"
    )
    psnr: dict[str, float | None] = {}
    for kind in dict.fromkeys(case.kind for case in report.cases):
        worst = min(c.metrics.psnr_db for c in report.cases if c.kind == kind)
        psnr[kind] = finite(worst)
    return {"verdict": "pass" if report.passed else "fail", "worst_psnr_db": psnr}


def validate_step(context: StepContext, task: Task) -> dict[str, Any]:
    """Every case of one size on one set of compute units, through Swift."""
    size, rows = _size(task), []
    for case in context.cases:
        job = Job(context.function(size), size, _bundle(context, size, case))
        result = run_job(context.harness, context.compiled, job, _units(task))
        rows.append({"case": case, "passed": result.passed, **asdict(result.rows[0].metrics)})
    return {"verdict": "pass" if all(r["passed"] for r in rows) else "fail", "cases": rows}


def bench_step(context: StepContext, task: Task) -> dict[str, Any]:
    """Fresh processes on one set of compute units: the whole record, every sample in it."""
    size = _size(task)
    settings = bench_settings(context.settings, "swift", _units(task), size, context.function(size))
    model = str(context.compiled)
    return plain(bench(lambda _, u: start_swift(context.harness, model, settings, u), settings))


def plan_step(context: StepContext, task: Task) -> dict[str, Any]:
    """What Core ML plans for each operation on one set of compute units."""
    options = context.function_options(_size(task))
    return asdict(plan(context.harness, context.compiled, _units(task), *options))


def drift_step(context: StepContext, task: Task) -> dict[str, Any]:
    """Repeated predictions, bit-compared; with all units in this one call, against the CPU's too.

    The harness compares with cpuOnly only what it ran beside cpuOnly, hence ``EACH``.
    """
    size = _size(task)
    arguments = ["drift", str(context.compiled), "--compute-units", _units(task)]
    arguments += ["--repeats", str(context.settings.repeats)]
    arguments += context.function_options(size) or ["--size", str(size)]
    report = run_harness(context.harness, arguments)
    if report.drift is None:
        raise ArtifactError("the harness gave no drift")
    failed = {f.compute_units for f in report.failures}
    compared = {against.compute_units for against in report.drift.against_cpu}
    expected = {*UNITS} - failed - {"cpuOnly"} if "cpuOnly" not in failed else set()
    if task.units == EACH and compared != expected:
        raise ArtifactError("the harness did not compare all compute units with cpuOnly")
    return {**asdict(report.drift), "failures": [asdict(f) for f in report.failures]}


Step = Callable[[StepContext, Task], dict[str, Any]]
STEPS: dict[str, Step] = {
    "convert": convert_step,
    "compile": compile_step,
    "executor": executor_step,
    "validate": validate_step,
    "bench": bench_step,
    "plan": plan_step,
    "drift": drift_step,
}


def _bundle(context: StepContext, size: Size, case: str) -> Path:
    """The bundle of one case, computed once for all artifacts of a variant, layout and compression
    (whose limits are in it)."""
    recipe = context.recipe
    name = f"{recipe.variant}-{recipe.layout}-{size}-{case}-{context.weights.digest[:12]}"
    if recipe.compression is not None:
        name += f"-{recipe.compression.label()}"
    if case != NORMAL and context.encoder is not None:
        name += f"-{context.encoder.digest[:12]}"
    folder = context.folder / "io" / name
    if not (folder / "manifest.json").is_file():
        request = Request(size, recipe.layout, case, compression=recipe.compression)
        export_bundle(context.weights, request, folder, encoder=context.encoder, overwrite=True)
    return folder


def _size(task: Task) -> Size:
    (size,) = parse_sizes(task.size or "")
    return size


def _units(task: Task) -> str:
    return cast(str, task.units)
