"""``fluxvae plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxvae.cli.harness import (
    find_harness,
    function_option,
    harness_option,
    print_failures,
    units_option,
)
from fluxvae.cli.options import artifact_argument, json_option, print_json
from fluxvae.errors import ToolError
from fluxvae.schema import plain

if TYPE_CHECKING:
    from fluxvae.records.harness import UnitsPlan


@click.command("plan")
@artifact_argument("model", compiled=True)
@function_option
@units_option
@harness_option
@json_option
def command(
    model: Path, function: str | None, units: str, program: Path | None, as_json: bool
) -> int:
    """Say which operation of a compiled model would run on which device.

    Asks Core ML's MLComputePlan, so it needs a Mac; elsewhere it says so and ends with code 1.
    Without MODEL, the newest artifact in coreml_out/ is taken, and compiled where it is not.

    \b
    Example:
      fluxvae plan coreml_out/model.mlmodelc --compute-units each
    """
    from fluxvae.device.harness import run_harness
    from fluxvae.device.validate import require_compiled

    require_compiled(model)
    arguments = ["plan", str(model), "--compute-units", units]
    if function is not None:
        arguments += ["--function", function]
    report = run_harness(find_harness(program), arguments)
    plan = report.plan
    if plan is None:
        raise ToolError("the harness gave no plan")
    if as_json:
        print_json(plain(report))
    elif not plan.available:
        raise ToolError(plan.reason or "this system has no compute plan")
    else:
        for result in plan.results:
            _print(result)
        print_failures(report)
    return 0 if plan.available and not report.failures else 1


def _print(plan: UnitsPlan) -> None:
    click.echo(
        f"{plan.function} on {plan.compute_units}: {plan.operations} operations "
        f"({plan.constants} constants apart)"
    )
    for device, count in sorted(plan.devices.items()):
        share = plan.cost_by_device.get(device)
        cost = "" if share is None else f"  {share:7.1%} of the estimated work"
        click.echo(f"  {device:<14}{count:>5} operations{cost}")
    for kind in plan.types:
        where = ", ".join(f"{d} {n}" for d, n in sorted(kind.devices.items()))
        click.echo(f"    {kind.operator:<32}{kind.count:>5}  {where}")
    for index in plan.left_neural_engine:
        op = plan.ops[index]
        click.echo(f"  left the Neural Engine: {op.operator} {op.output} -> {op.preferred}")
