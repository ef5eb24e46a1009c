"""What the commands share that talk to the Swift harness."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fluxvae.cli.options import FiniteRange, say

if TYPE_CHECKING:
    from fluxvae.device.harness import Harness
    from fluxvae.records.harness import HarnessReport

F = TypeVar("F", bound=Callable[..., Any])
UNITS = ("all", "cpuOnly", "cpuAndGPU", "cpuAndNeuralEngine", "each")

harness_option = click.option(
    "--harness",
    "program",
    type=click.Path(path_type=Path),
    envvar="FLUXVAE_HARNESS",
    show_envvar=True,
    help="A built fluxvae-harness to use. [default: built from the sources in this package]",
)
units_option = click.option(
    "--compute-units",
    "units",
    type=click.Choice(UNITS),
    default="all",
    show_default=True,
    help="What Core ML may use; 'each' for all four in turn.",
)


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


function_option = click.option("--function", help="Function of a multifunction model.")


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


def find_harness(program: Path | None) -> Harness:
    """``--harness``, or the built one; builds it the first time. Raises ToolError."""
    from fluxvae.device.harness import Harness
    from fluxvae.device.swift import build_harness
    from fluxvae.errors import ToolError

    environment = harness_environment()
    if program is None:
        program = build_harness(cache_folder(), environment, say=say)
    elif not program.is_file():
        raise ToolError(f"{program} does not exist; expected a built fluxvae-harness")
    return Harness(program.absolute(), environment)


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
