"""``fluxvae validate-swift``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.harness import HarnessOptions, number
from fluxvae.cli.newest import artifact_argument
from fluxvae.cli.options import json_option, option_group, print_json, say
from fluxvae.cli.sources import OwnSources
from fluxvae.errors import UsageError
from fluxvae.schema import plain

if TYPE_CHECKING:
    from fluxvae.device.harness import Harness
    from fluxvae.device.validate import JobResult

NORMAL = "normal"
CASES = (NORMAL, "chelsea", "coffee")


@click.command("validate-swift")
@artifact_argument("model", compiled=True)
@click.option(
    "--io",
    "bundle",
    type=click.Path(path_type=Path),
    help="A bundle of export-io. [default: exported for every function and size]",
)
@click.option(
    "--case",
    "cases",
    multiple=True,
    type=click.Choice(CASES),
    help="What to export without --io; may be given again. [default: chelsea, where an encoder "
    "belongs to the weights, and normal]",
)
@click.option("--size", metavar="SIZES", help="Only these image sizes, such as 768 or 768,1024.")
@option_group("sources", OwnSources)
@option_group("on", HarnessOptions)
@json_option
def command(
    model: Path,
    bundle: Path | None,
    cases: tuple[str, ...],
    size: str | None,
    sources: OwnSources,
    on: HarnessOptions,
    as_json: bool,
) -> int:
    """Compare a compiled model (.mlmodelc) with the PyTorch network, through Core ML's Swift API.

    On Linux the same Swift program runs on fluxvae's reference executor. Without MODEL, the newest
    artifact in coreml_out/ is taken, and compiled where it is not. Exit code 3 when a case is
    outside its limit; 1 when compute units failed, whose name and reason are printed, and no case
    is outside its limit.

    \b
    Examples:
      fluxvae validate-swift
      fluxvae validate-swift coreml_out/model.mlmodelc
      fluxvae validate-swift model.mlmodelc --io coreml_io/flux2 --compute-units each
    """
    from fluxvae.device.validate import require_compiled
    from fluxvae.files import scratch

    if bundle is not None and (cases or sources.weights or sources.encoder or size):
        raise UsageError(
            "--io brings latent and image: leave --case, --size, --weights and --encoder out"
        )
    require_compiled(model)
    harness = on.harness()
    if bundle is not None:
        results = [_given(harness, model, bundle, on)]
    else:
        with scratch(Path(tempfile.gettempdir())) as folder:
            results = _exported(harness, model, folder, cases, size, sources, on)
    if as_json:
        print_json(results_json(model, results))
    else:
        _print(model, results)
    if any(r.missed_limit for r in results):
        return 3
    return 1 if any(r.report.failures for r in results) else 0


def _given(harness: Harness, model: Path, bundle: Path, on: HarnessOptions) -> JobResult:
    from fluxvae.artifact.record import read_record
    from fluxvae.device.validate import job_for_bundle, run_job
    from fluxvae.mil.package import read_package

    program = read_package(model)
    record = read_record(program)
    if record is not None and record.recipe.compression is not None:
        say(
            f"note: {bundle} has the limits of a decoder without compression: leave --io out to "
            f"judge {model.name} by those of its own kind"
        )
    job = job_for_bundle(program, record, bundle, on.function)
    return run_job(harness, model, job, on.units)


def _exported(
    harness: Harness,
    model: Path,
    folder: Path,
    cases: tuple[str, ...],
    size: str | None,
    sources: OwnSources,
    on: HarnessOptions,
) -> list[JobResult]:
    from fluxvae.artifact.open import open_artifact
    from fluxvae.device.validate import plan_jobs, validate_swift

    opened = open_artifact(model)
    program, record = opened.programs[0], opened.record
    weights, own = sources.resolve(record)
    photo = None
    if sources.encoder is not None or set(cases) != {NORMAL}:
        photo = own.find_encoder()
    photos = photo is not None or record.recipe.encodes
    wanted = cases or (("chelsea", NORMAL) if photos else (NORMAL,))
    jobs = plan_jobs(program, record, folder, function=on.function, sizes=size, cases=wanted)
    planned = iter(list(jobs))  # errors before anything is computed
    return list(validate_swift(harness, model, weights, photo, planned, on.units, say=say))


def results_json(model: Path, results: list[JobResult]) -> dict[str, Any]:
    """Verdict and every harness report, each as docs/harness.schema.json describes it."""
    return {
        "artifact": str(model),
        "verdict": "pass" if all(r.passed for r in results) else "fail",
        "reports": [plain(r.report) for r in results],
    }


def _print(model: Path, results: list[JobResult]) -> None:
    click.echo(
        f"{'case':<10}  {'size':>9}  {'compute units':<18}  {'max abs':>8}  {'RMSE':>8}  "
        f"{'PSNR dB':>7}  {'limit':>12}  verdict"
    )
    for result in results:
        limit = result.validation.limit
        bound = f">= {limit.bound:g} dB" if limit.metric == "psnr_db" else f"max <= {limit.bound:g}"
        for row in result.rows:
            m = row.metrics
            bad = f"  ({m.nan} NaN, {m.inf} Inf)" if m.nan or m.inf else ""
            verdict = "pass" if row.verdict == "pass" else f"FAIL at {list(m.worst)}"
            click.echo(
                f"{result.validation.case:<10}  {result.job.size!s:>9}  {row.compute_units:<18}  "
                f"{number(m.max_abs, '8.1e'):>8}  {number(m.rmse, '8.1e'):>8}  "
                f"{number(m.psnr_db, '7.1f'):>7}  {bound:>12}  {verdict}{bad}"
            )
        for failed in result.report.failures:
            where = f"{result.validation.case:<10}  {result.job.size!s:>9}"
            click.echo(f"{where}  {failed.compute_units:<18}  FAILED: {failed.failure}")
    notes = dict.fromkeys(n for r in results for n in (*r.validation.notes, *r.report.notes))
    click.echo()
    if all(result.validation.case == "normal" for result in results):
        click.echo(
            "note: noise only, which flatters fp16 by up to 10 dB; add --case chelsea, and "
            "--encoder PATH where none belongs to the weights"
        )
    for note in notes:
        click.echo(f"note: {note}")
    backend = results[0].report.environment.backend
    judge = "Core ML" if backend == "coreml" else "the reference executor, through Swift"
    verdict = "PASS" if all(r.passed for r in results) else "FAIL"
    click.echo(f"{model.name}: {verdict} ({judge})")
