"""``fluxvae validate``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxvae.cli.encoders import choose_encoder, say_notes
from fluxvae.cli.options import (
    LATENT_FILES,
    artifact_argument,
    backend_option,
    compute_units_option,
    json_option,
    offline_option,
    print_json,
    say,
    strict_option,
)

if TYPE_CHECKING:
    from fluxvae.data.latents import Latent
    from fluxvae.networks.weights import Weights
    from fluxvae.validation.budget import Budget
    from fluxvae.validation.intermediates import Departure, Intermediates
    from fluxvae.validation.validate import Report


@click.command("validate")
@artifact_argument("artifact")
@click.option(
    "--weights",
    metavar="SOURCE",
    help="The weights the artifact was made from; needed when they came from a file.",
)
@click.option("--encoder", metavar="PATH", help="Encoder that makes the photo latents.")
@click.option(
    "--latents",
    type=click.Path(path_type=Path),
    help=f"Your own latents ({LATENT_FILES}) instead of the photos'.",
)
@strict_option
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
@backend_option
@compute_units_option
@offline_option
@json_option
def command(
    artifact: Path,
    weights: str | None,
    encoder: str | None,
    latents: Path | None,
    strict: bool,
    intermediates: bool,
    budget: bool,
    backend: str,
    compute_units: str,
    offline: bool,
    as_json: bool,
) -> int:
    """Compare a saved model with the float32 PyTorch decoder.

    Photo latents first, seeded noise second, extreme ones (saturated, constant, zero) third.
    Without ARTIFACT, the newest one in coreml_out/. Exit code 3 when a case is outside its limit.

    \b
    Examples:
      fluxvae validate
      fluxvae validate coreml_out/flux2_tiny_decoder_nchw_float16_hw1024.mlpackage
      fluxvae validate model.mlpackage --weights taef2_decoder.pth --intermediates
    """
    from fluxvae.artifact.open import open_artifact, refuse_parts
    from fluxvae.validation.validate import resolve_weights

    record = open_artifact(artifact).record
    if budget:
        refuse_parts(artifact.name, record, "--budget")
    if intermediates:
        from fluxvae.validation.intermediates import require_comparable

        refuse_parts(artifact.name, record, "--intermediates")
        require_comparable(artifact, record.recipe)
    loaded, spec = resolve_weights(record, weights, offline=offline)
    say_notes(loaded)
    user: tuple[Latent, ...] = ()
    notes: tuple[str, ...] = ()
    if latents is not None:
        from fluxvae.data.latents import read_latents
        from fluxvae.recipes.axes import latent_input

        wanted = latent_input(record.recipe, record.contract, record.recipe.sizes)
        given = read_latents(latents, wanted, strict=strict)
        user, notes = given.latents, given.notes
        for note in notes:
            say(f"note: {note}")
    variant, kind = record.recipe.variant, record.recipe.decoder
    found = None if user else choose_encoder(variant, spec, encoder, offline=offline, kind=kind)
    report = _run(artifact, loaded, found, user, backend, compute_units)
    report = replace(report, notes=(*notes, *report.notes))
    departures = _intermediates(report, loaded, found, user) if intermediates else None
    stages = _budget(report, loaded, found, user) if budget else None
    if as_json:
        from fluxvae.cli.validate_json import report_json

        print_json(report_json(report, departures, stages))
    else:
        _print_report(report, departures, stages)
    return 0 if report.passed else 3


def check_draft(
    draft: Path, weights: Weights, spec: str | None, encoder: str | None, offline: bool
) -> None:
    """What ``convert --validate`` runs before an artifact gets its name.

    Raises ValidationError, naming the cases, when one is outside its limit.
    """
    from fluxvae.errors import ValidationError

    found = choose_encoder(weights.variant, spec, encoder, offline=offline, kind=weights.kind)
    report = _run(draft, weights, found, (), "auto", "all")
    _print_report(report, to_stderr=True)
    if not report.passed:
        failed = dict.fromkeys(f"{c.case} at {c.size}" for c in report.cases if not c.passed)
        raise ValidationError(
            f"{draft.name} failed validation ({', '.join(failed)}) and was not saved"
        )


def _run(
    path: Path,
    weights: Weights,
    encoder: Weights | None,
    latents: tuple[Latent, ...],
    backend: str,
    units: str,
) -> Report:
    from fluxvae.validation.validate import validate

    say(f"validating {path.name} against the float32 PyTorch decoder")
    return validate(
        path,
        weights,
        encoder=encoder,
        latents=latents,
        backend=backend,
        compute_units=units,
        on_case=lambda c: say(f"  {c.case} at {c.size}: {'ok' if c.passed else 'FAILED'}"),
    )


def _intermediates(
    report: Report, weights: Weights, encoder: Weights | None, latents: tuple[Latent, ...]
) -> Intermediates:
    from fluxvae.data.spaces import passage
    from fluxvae.validation.intermediates import compare_intermediates
    from fluxvae.validation.validate import build_cases

    recipe = report.record.recipe
    size = min(recipe.sizes)
    case = next(build_cases(report.record, size, encoder, latents, passage(recipe, weights)))
    say(f"comparing every operation on {case.name} at {size}")
    return compare_intermediates(report.path, report.record, weights, case.latent, size)


def _budget(
    report: Report, weights: Weights, encoder: Weights | None, latents: tuple[Latent, ...]
) -> Budget:
    from fluxvae.validation.budget import error_budget

    say("converting the same decoder without compression, and at float32")
    return error_budget(
        report.path,
        report.record,
        weights,
        encoder=encoder,
        latents=latents,
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
    line(f"error budget at {budget.size}: PSNR in dB against the float32 PyTorch decoder;")
    line("each stage includes those before it")
    wide = max(len(row.case) for row in budget.cases)
    line("  ".join((f"{'case':<{wide}}", *(f"{name:>10}" for name in budget.stages))))
    for row in budget.cases:
        figures = zip(budget.stages, row.metrics, strict=True)
        cells = (f"{m.psnr_db:>{max(10, len(name))}.1f}" for name, m in figures)
        line("  ".join((f"{row.case:<{wide}}", *cells)))
    line("")
