"""``fluxvae validate``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxvae.cli.newest import artifact_argument
from fluxvae.cli.options import json_option, option_group, print_json, say
from fluxvae.cli.sources import OwnSources, Runner, Sources, UserLatents

if TYPE_CHECKING:
    from fluxvae.data.latents import Latent
    from fluxvae.networks.weights import Weights
    from fluxvae.validation.stages import Budget, Departure, Intermediates
    from fluxvae.validation.validate import Report


@click.command("validate")
@artifact_argument("artifact")
@option_group("sources", OwnSources)
@option_group("user", UserLatents)
@click.option(
    "--intermediates",
    is_flag=True,
    help="Name the first operation that departs from the float32 program.",
)
@click.option(
    "--budget",
    is_flag=True,
    help="Say how much error conversion, precision and compression add (converts two twins).",
)
@option_group("runner", Runner)
@json_option
def command(
    artifact: Path,
    sources: OwnSources,
    user: UserLatents,
    intermediates: bool,
    budget: bool,
    runner: Runner,
    as_json: bool,
) -> int:
    """Compare a saved model with the float32 PyTorch network.

    Photos first (their latents for a decoder), seeded noise second, extreme inputs (saturated,
    constant, zero) third.
    Without ARTIFACT, the newest one in coreml_out/. Exit code 3 when a case is outside its limit.

    \b
    Examples:
      fluxvae validate
      fluxvae validate coreml_out/flux2_tiny_decoder_nchw_float16_hw1024.mlpackage
      fluxvae validate model.mlpackage --weights taef2_decoder.pth --intermediates
    """
    from fluxvae.artifact.open import open_artifact, refuse_parts, require_command

    record = open_artifact(artifact).record
    if budget:
        refuse_parts(artifact.name, record, "--budget")
    if intermediates:
        from fluxvae.validation.stages import require_comparable

        refuse_parts(artifact.name, record, "--intermediates")
        require_comparable(artifact, record.recipe)
    if user.latents is not None:
        require_command(artifact.name, record, "--latents FILE")
    loaded, own = sources.resolve(record)
    given = user.read(record.recipe, record.contract)
    latents, notes = ((), ()) if given is None else (given.latents, given.notes)
    found = None if latents else own.find_encoder()
    inputs = Inputs(loaded, found, latents, runner)
    report = _run(artifact, inputs)
    report = replace(report, notes=(*notes, *report.notes))
    departures = _intermediates(report, inputs) if intermediates else None
    stages = _budget(report, inputs) if budget else None
    if as_json:
        from fluxvae.cli.validate_json import report_json

        print_json(report_json(report, departures, stages))
    else:
        _print_report(report, departures, stages)
    return 0 if report.passed else 3


def check_draft(draft: Path, weights: Weights, sources: Sources) -> None:
    """What ``convert --validate`` runs before an artifact gets its name.

    Raises ValidationError, naming the cases, when one is outside its limit.
    """
    from fluxvae.errors import ValidationError

    inputs = Inputs(weights, sources.find_encoder(), (), Runner("auto", "all"))
    report = _run(draft, inputs)
    _print_report(report, to_stderr=True)
    if not report.passed:
        failed = dict.fromkeys(f"{c.case} at {c.size}" for c in report.cases if not c.passed)
        raise ValidationError(
            f"{draft.name} failed validation ({', '.join(failed)}) and was not saved"
        )


@dataclass(frozen=True)
class Inputs:
    """What an artifact is judged with: its own weights, an encoder or the user's latents."""

    weights: Weights
    encoder: Weights | None
    latents: tuple[Latent, ...]
    runner: Runner


def _run(path: Path, inputs: Inputs) -> Report:
    from fluxvae.validation.validate import validate

    say(f"validating {path.name} against the float32 PyTorch network")
    return validate(
        path,
        inputs.weights,
        encoder=inputs.encoder,
        latents=inputs.latents,
        backend=inputs.runner.backend,
        compute_units=inputs.runner.compute_units,
        on_case=lambda c: say(f"  {c.case} at {c.size}: {'ok' if c.passed else 'FAILED'}"),
    )


def _intermediates(report: Report, inputs: Inputs) -> Intermediates:
    from fluxvae.data.spaces import latent_transform
    from fluxvae.validation.stages import compare_intermediates
    from fluxvae.validation.validate import build_cases

    recipe, weights = report.record.recipe, inputs.weights
    size, transform = min(recipe.sizes), latent_transform(recipe, weights)
    case = next(build_cases(report.record, size, inputs.encoder, inputs.latents, transform))
    say(f"comparing every operation on {case.name} at {size}")
    return compare_intermediates(report.path, report.record, weights, case.values, size)


def _budget(report: Report, inputs: Inputs) -> Budget:
    from fluxvae.validation.stages import error_budget

    say("converting the same decoder without compression, and at float32")
    return error_budget(
        report.path,
        report.record,
        inputs.weights,
        encoder=inputs.encoder,
        latents=inputs.latents,
        backend=report.backend,
        compute_units=report.compute_units or "all",
    )


def _print_report(
    report: Report,
    departures: Intermediates | None = None,
    budget: Budget | None = None,
    *,
    to_stderr: bool = False,
) -> None:
    def line(text: str = "") -> None:
        click.echo(text, err=to_stderr)

    wide = max(len(c.case) for c in report.cases)
    several = len({c.size for c in report.cases}) > 1
    head = f"{'case':<{wide}}  {'size':>9}  {'max abs':>8}  {'MAE':>8}  {'RMSE':>8}  {'PSNR dB':>7}"
    line(f"{head}  {'limit':>12}  verdict")
    last = None
    for case in report.cases:
        if several and last not in (None, case.size):
            line()
        last = case.size
        m = case.metrics
        bad = f"  ({m.nan} NaN, {m.inf} Inf)" if m.nan or m.inf else ""
        if case.nonfinite is not None:
            n = case.nonfinite
            bad += f"  (NaN or infinity in {n.operations} operations, first {n.kind} {n.first})"
        line(
            f"{case.case:<{wide}}  {case.size!s:>9}  {m.max_abs:8.1e}  {m.mae:8.1e}  "
            f"{m.rmse:8.1e}  {m.psnr_db:7.1f}  {case.limit!s:>12}  "
            f"{'pass' if case.passed else 'FAIL at ' + str(list(m.worst))}{bad}"
        )
    line()
    if departures is not None:
        _print_departures(departures, line)
    if budget is not None:
        _print_budget(budget, line)
    for note in report.notes:
        line(f"note: {note}")
    judge = "Core ML" if report.backend == "coreml" else "the reference executor"
    line(f"{report.path.name}: {'PASS' if report.passed else 'FAIL'} ({judge})")


def _print_departures(departures: Intermediates, line: Callable[[str], None]) -> None:
    def row(d: Departure) -> str:
        shape = "x".join(map(str, d.shape))
        return (
            f"  {d.index:>4}  {d.kind:<26} {shape:<16} {d.snr_db:7.1f} dB  "
            f"max abs {d.max_abs:.1e}  largest {d.largest:.3g}  {d.name}"
        )

    if departures.nonfinite:
        line(f"NaN or infinity in {len(departures.nonfinite)} operations, the first:")
        line(row(departures.nonfinite[0]))
    if departures.first is None:
        line(f"no operation is below {departures.bound_db:g} dB against float32; worst:")
    else:
        line(f"first operation below {departures.bound_db:g} dB against float32:")
        line(row(departures.first))
        line("worst:")
    worst = sorted(departures.rows, key=lambda d: -math.inf if math.isnan(d.snr_db) else d.snr_db)
    for d in worst[:5]:
        line(row(d))
    line("")


def _print_budget(budget: Budget, line: Callable[[str], None]) -> None:
    line(f"error budget at {budget.size}: PSNR in dB against the float32 PyTorch network;")
    line("each stage includes those before it")
    wide = max(len(row.case) for row in budget.cases)
    line("  ".join((f"{'case':<{wide}}", *(f"{name:>10}" for name in budget.stages))))
    for row in budget.cases:
        figures = zip(budget.stages, row.metrics, strict=True)
        cells = (f"{m.psnr_db:>{max(10, len(name))}.1f}" for name, m in figures)
        line("  ".join((f"{row.case:<{wide}}", *cells)))
    line("")
