"""``fluxvae plan``, ``fluxvae drift``, and what all commands share that talk to the harness."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fluxvae.cli.newest import artifact_argument
from fluxvae.cli.options import (
    FiniteRange,
    json_option,
    option,
    option_group,
    print_json,
    say,
)
from fluxvae.cli.sources import UNITS as ONE_UNITS
from fluxvae.errors import ToolError
from fluxvae.schema import plain

if TYPE_CHECKING:
    from fluxvae.device.harness import Harness
    from fluxvae.records.harness import Drift, HarnessReport, UnitsPlan

F = TypeVar("F", bound=Callable[..., Any])
UNITS = (*ONE_UNITS, "each")


def cooldown_option(default: float) -> Callable[[F], F]:
    """``--cooldown SECONDS``."""
    return click.option(
        "--cooldown",
        type=FiniteRange(min=0),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help="Rest between two processes.",
    )


@dataclass(frozen=True)
class HarnessProgram:
    """Which program runs models."""

    program: Path | None = option(
        "--harness",
        type=click.Path(path_type=Path),
        envvar="FLUXVAE_HARNESS",
        show_envvar=True,
        help="A built fluxvae-harness to use. [default: built from the sources in this package]",
    )

    def harness(self) -> Harness:
        """``--harness``, or the built one; builds it the first time. Raises ToolError."""
        from fluxvae.device.harness import Harness
        from fluxvae.device.swift import build_harness

        environment, program = harness_environment(), self.program
        if program is None:
            program = build_harness(cache_folder(), environment, say=say)
        elif not program.is_file():
            raise ToolError(f"{program} does not exist; expected a built fluxvae-harness")
        return Harness(program.absolute(), environment)


@dataclass(frozen=True)
class HarnessOptions(HarnessProgram):
    """What of a compiled model is run, on what, and by which program."""

    function: str | None = option("--function", help="Function of a multifunction model.")
    units: str = option(
        "--compute-units",
        type=click.Choice(UNITS),
        default="all",
        show_default=True,
        help="What Core ML may use; 'each' for all four in turn.",
    )

    def run(self, name: str, model: Path, **options: object) -> HarnessReport:
        """The report of one of the harness's commands. ``options`` of value None are left out.

        Raises ArtifactError for a model that is not compiled, and as ``run_harness``.
        """
        from fluxvae.device.harness import run_harness
        from fluxvae.device.validate import require_compiled

        require_compiled(model)
        arguments = [name, str(model), "--compute-units", self.units]
        for key, value in {"function": self.function, **options}.items():
            if value is not None:
                arguments += [f"--{key}", str(value)]
        return run_harness(self.harness(), arguments)


def cache_folder() -> Path:
    """The user's cache folder of fluxvae, by the system's custom."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fluxvae"
    # a relative XDG_CACHE_HOME is to be ignored: XDG Base Directory Specification
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "fluxvae"


def harness_environment() -> dict[str, str]:
    """This process's environment, with this very Python and package for Core ML on Linux."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "FLUXVAE_PYTHON": sys.executable,
        "PYTHONPATH": f"{package}{os.pathsep}{path}" if path else package,
    }


def check_bundle(folder: Path | None, size: str | None) -> None:
    """Read the bundle of ``--io`` before anything is run with it.

    Raises BundleError when it is damaged, UsageError when ``--size`` says another size.
    """
    if folder is None:
        return
    from fluxvae.device.bundle import read_bundle
    from fluxvae.errors import UsageError
    from fluxvae.recipes import parse_sizes

    held = read_bundle(folder).manifest.image_size
    if size is not None and parse_sizes(size) != (held,):
        raise UsageError(f"--size {size} is not that of {folder}, which holds {held}: leave it out")


def print_failures(report: HarnessReport) -> None:
    """A line for each set of compute units that gave no result."""
    for failed in report.failures:
        click.echo(f"{failed.compute_units:<20}FAILED: {failed.failure}")


def number(value: float | None, form: str) -> str:
    """A figure for a table; ``-`` when it is not known."""
    return "-" if value is None else format(value, form)


@click.command("plan")
@artifact_argument("model", compiled=True)
@option_group("on", HarnessOptions)
@json_option
def plan(model: Path, on: HarnessOptions, as_json: bool) -> int:
    """Say which operation of a compiled model would run on which device.

    Asks Core ML's MLComputePlan, so it needs a Mac; elsewhere it says so and ends with code 1.
    Without MODEL, the newest artifact in coreml_out/ is taken, and compiled where it is not.

    \b
    Example:
      fluxvae plan coreml_out/model.mlmodelc --compute-units each
    """
    report = on.run("plan", model)
    found = report.plan
    if found is None:
        raise ToolError("the harness gave no plan")
    if as_json:
        print_json(plain(report))
    elif not found.available:
        raise ToolError(found.reason or "this system has no compute plan")
    else:
        for result in found.results:
            _print_plan(result)
        print_failures(report)
    return 0 if found.available and not report.failures else 1


def _print_plan(plan: UnitsPlan) -> None:
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


@click.command("drift")
@artifact_argument("model", compiled=True)
@click.option("--io", "bundle", type=click.Path(path_type=Path),
              help="A bundle of export-io for the input. [default: seeded noise]")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), default=100, show_default=True,
              help="Predictions on each set of compute units.")  # fmt: skip
@click.option("--size", help="Image size of a model of enumerated shapes: 768 or 768x1344.")
@option_group("on", HarnessOptions)
@json_option
def drift(
    model: Path,
    bundle: Path | None,
    repeats: int,
    size: str | None,
    on: HarnessOptions,
    as_json: bool,
) -> int:
    """Say whether a compiled model gives the same bits every time and on all compute units.

    Without MODEL, the newest artifact in coreml_out/, compiled where it is not.
    Compute units that fail are named, with exit code 1; the others go on.

    \b
    Example:
      fluxvae drift coreml_out/model.mlmodelc --repeats 100 --compute-units each
    """
    from fluxvae.device.validate import require_compiled

    require_compiled(model)
    check_bundle(bundle, size)
    report = on.run("drift", model, repeats=repeats, io=bundle, size=size)
    if report.drift is None:
        raise ToolError("the harness gave no drift")
    if as_json:
        print_json(plain(report))
    else:
        _print_drift(report, report.drift)
    return 1 if report.failures else 0


def _print_drift(report: HarnessReport, drift: Drift) -> None:
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
