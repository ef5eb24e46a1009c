"""``fluxvae drift``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxvae.cli.harness import (
    check_bundle,
    find_harness,
    function_option,
    harness_option,
    number,
    print_failures,
    units_option,
)
from fluxvae.cli.options import artifact_argument, json_option, print_json
from fluxvae.errors import ToolError
from fluxvae.schema import plain

if TYPE_CHECKING:
    from fluxvae.records.harness import Drift, HarnessReport


@click.command("drift")
@artifact_argument("model", compiled=True)
@click.option("--io", "bundle", type=click.Path(path_type=Path),
              help="A bundle of export-io for the input. [default: seeded noise]")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), default=100, show_default=True,
              help="Predictions on each set of compute units.")  # fmt: skip
@function_option
@click.option("--size", help="Image size of a model of enumerated shapes: 768 or 768x1344.")
@units_option
@harness_option
@json_option
def command(
    model: Path,
    bundle: Path | None,
    repeats: int,
    function: str | None,
    size: str | None,
    units: str,
    program: Path | None,
    as_json: bool,
) -> int:
    """Say whether a compiled model gives the same bits every time and on all compute units.

    Without MODEL, the newest artifact in coreml_out/, compiled where it is not.
    Compute units that fail are named, with exit code 1; the others go on.

    \b
    Example:
      fluxvae drift coreml_out/model.mlmodelc --repeats 100 --compute-units each
    """
    from fluxvae.device.harness import run_harness
    from fluxvae.device.validate import require_compiled

    require_compiled(model)
    check_bundle(bundle, size)
    arguments = ["drift", str(model), "--repeats", str(repeats), "--compute-units", units]
    for option, value in (("--io", bundle), ("--function", function), ("--size", size)):
        if value is not None:
            arguments += [option, str(value)]
    report = run_harness(find_harness(program), arguments)
    if report.drift is None:
        raise ToolError("the harness gave no drift")
    if as_json:
        print_json(plain(report))
    else:
        _print(report, report.drift)
    return 1 if report.failures else 0


def _print(report: HarnessReport, drift: Drift) -> None:
    for run in drift.runs:
        same = (
            f"all {drift.repeats} outputs have the same bits"
            if run.bit_equal
            else f"{run.differing} of {drift.repeats} outputs differ from the first, first at "
            f"number {run.first_differing}, by at most {number(run.max_abs, '.1e')}"
        )
        click.echo(f"{run.compute_units:<20}{same}  (sha256 {run.digest[:12]})")
    for against in drift.against_cpu:
        m = against.metrics
        what = "the same bits" if against.bit_equal else f"max abs {number(m.max_abs, '.1e')}"
        click.echo(f"{against.compute_units:<20}against cpuOnly: {what}")
    print_failures(report)
    for note in report.notes:
        click.echo(f"note: {note}")
