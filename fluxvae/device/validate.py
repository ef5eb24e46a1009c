"""An artifact, in all functions and sizes, against the PyTorch network by the Swift harness.

The same question as ``fluxvae.validation.validate``, asked through Core ML's Swift API: on a Mac by
Core ML, on Linux by the reference executor behind that API.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxvae.artifact.open import functions_and_sizes, refuse_parts
from fluxvae.artifact.record import Record
from fluxvae.device.bundle import NORMAL, Bundle, Request, export_bundle, read_bundle
from fluxvae.device.harness import Harness, run_harness
from fluxvae.errors import ArtifactError, UsageError
from fluxvae.mil.program import Program
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Size, parse_sizes
from fluxvae.records.harness import HarnessReport, UnitsResult, Validation


@dataclass(frozen=True)
class Job:
    """One bundle for one function. ``function`` is None for a model without named functions."""

    function: str | None
    size: Size
    bundle: Path


@dataclass(frozen=True)
class JobResult:
    """One job's outcome: the harness's whole report."""

    job: Job
    report: HarnessReport

    @property
    def validation(self) -> Validation:
        """What the harness found; ``parse_report`` has seen to it that it is there."""
        if self.report.validation is None:
            raise ArtifactError("the harness gave no validation")
        return self.report.validation

    @property
    def rows(self) -> tuple[UnitsResult, ...]:
        """One result for each set of compute units that gave an output."""
        return self.validation.results

    @property
    def passed(self) -> bool:
        return self.validation.verdict == "pass"

    @property
    def missed_limit(self) -> bool:
        """Whether an output was outside its limit; compute units that failed gave none."""
        return any(row.verdict == "fail" for row in self.rows)


def require_compiled(path: Path) -> None:
    """Raise ArtifactError when ``path`` is not a compiled model: Core ML loads nothing else."""
    if not path.exists():
        raise ArtifactError(f"{path} does not exist; give a compiled model (.mlmodelc)")
    if path.suffix in (".mlpackage", ".mlmodel"):
        raise ArtifactError(
            f"{path} is not compiled, and Core ML loads compiled models only: run "
            f"fluxvae compile {path}, then give the .mlmodelc"
        )
    if path.suffix != ".mlmodelc" or not path.is_dir():
        raise ArtifactError(
            f"{path} is not a compiled model: expected an .mlmodelc folder, as fluxvae compile "
            "makes it from an .mlpackage"
        )
    if not (path / "coremldata.bin").is_file():  # which every kind of model has
        raise ArtifactError(
            f"{path} is not a compiled model, or an incomplete one: it has no coremldata.bin; "
            "compile its .mlpackage again with fluxvae compile --overwrite"
        )


def plan_jobs(
    program: Program,
    record: Record,
    folder: Path,
    *,
    function: str | None = None,
    sizes: str | None = None,
    cases: tuple[str, ...] = (NORMAL,),
) -> Iterator[tuple[Job, Request]]:
    """What to export into ``folder`` and to run: every function and size, or those asked for.

    The latents are float32 in the model's layout; the harness rounds them where the model takes
    float16, as ``fluxvae.validation.validate`` does. Raises UsageError when nothing is left.
    """
    if record.tiles is not None:
        refuse_parts(program.path.name, record, "fluxvae-harness")
    if record.recipe.output == "image":
        raise ArtifactError(
            f"{program.path.name} gives 8-bit images, which the harness does not read; use "
            "fluxvae validate, or convert with --output tensor"
        )
    if record.recipe.input == "image":
        raise ArtifactError(
            f"{program.path.name} takes 8-bit images, which the harness does not make; use "
            "fluxvae validate, or convert with --input tensor"
        )
    wanted = None if sizes is None else parse_sizes(sizes)
    several = record.recipe.shapes == "multifunction"
    every = list(functions_and_sizes(program, record))
    chosen = [(f, s) for f, s in every if function in (None, f) and (wanted is None or s in wanted)]
    if not chosen:
        asked = [f"--function {function}"] if function else []
        asked += [f"--size {sizes}"] if sizes else []
        raise UsageError(
            f"{program.path.name} has "
            + ", ".join(f"{s} in function {f}" for f, s in every)
            + f"; {' '.join(asked)} asks for none of that"
        )
    for name, size in chosen:
        for case in cases:
            job = Job(name if several else None, size, folder / f"{size}-{case}")
            yield (
                job,
                Request(
                    size,
                    record.recipe.layout,
                    case,
                    latents=record.recipe.latents,
                    compression=record.recipe.compression,
                ),
            )


def job_for_bundle(
    program: Program, record: Record | None, folder: Path, function: str | None
) -> Job:
    """The job for a bundle at hand. The function of a multifunction artifact follows its size."""
    bundle: Bundle = read_bundle(folder)
    size = bundle.manifest.image_size
    if function is None and record is not None and record.recipe.shapes == "multifunction":
        function = size.function if size.function in program.functions else None
    return Job(function, size, folder)


def run_job(harness: Harness, model: Path, job: Job, units: str) -> JobResult:
    """Have the harness judge one bundle. Raises as ``run_harness``."""
    arguments = ["validate", str(model), "--io", str(job.bundle), "--compute-units", units]
    if job.function is not None:
        arguments += ["--function", job.function]
    return JobResult(job, run_harness(harness, arguments))


def validate_swift(
    harness: Harness,
    model: Path,
    weights: Weights,
    encoder: Weights | None,
    jobs: Iterator[tuple[Job, Request]],
    units: str,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[JobResult]:
    """Export each bundle and run it; results come one by one."""
    for job, request in jobs:
        say(f"computing {request.case} at {job.size} in float64")
        export_bundle(weights, request, job.bundle, encoder=encoder)
        result = run_job(harness, model, job, units)
        say(f"  {request.case} at {job.size}: {'ok' if result.passed else 'FAILED'}")
        yield result
