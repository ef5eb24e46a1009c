"""``fluxvae matrix``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.cache import compressions_folder
from fluxvae.cli.harness import number
from fluxvae.cli.interrupt import CtrlC
from fluxvae.cli.options import json_option, overwrite_option, print_json, say
from fluxvae.cli.report import command as report
from fluxvae.cli.sources import offline_option
from fluxvae.cli.text import duration_text
from fluxvae.errors import UsageError

if TYPE_CHECKING:
    from fluxvae.experiments.file import Matrix
    from fluxvae.experiments.plan import Abilities
    from fluxvae.experiments.run import MakePool
    from fluxvae.experiments.status import Line, Status
    from fluxvae.records.experiment import Result

ASK_FROM = 200  # cells
FILE = click.Path(path_type=Path)


@click.group("matrix")
def command() -> None:
    """Measure a matrix of artifacts: axes in a TOML file, one folder a cell, resumable.

    \b
    Examples:
      fluxvae matrix init my.toml
      fluxvae matrix run my.toml --out runs/today --workers 2
      fluxvae matrix run my.toml --out runs/today --only 'flux2-nhwc-*'
      fluxvae matrix run my.toml --out runs/today --scheduler tcp://10.0.0.5:8786
      fluxvae matrix verify runs/today
    """


@command.command("init")
@click.argument("file", type=FILE)
@overwrite_option
def init(file: Path, overwrite: bool) -> None:
    """Write a commented matrix to FILE, to be edited."""
    from fluxvae.experiments.file import TEMPLATE
    from fluxvae.files import read_text, write_text

    write_text(file, read_text(TEMPLATE), overwrite=overwrite)
    click.echo(str(file))


@command.command("run")
@click.argument("file", type=FILE)
@click.option("--out", type=FILE, metavar="FOLDER",
              help="Where the cells go; one half-done goes on. [default: runs/NAME]")  # fmt: skip
@click.option("--only", multiple=True, metavar="PATTERN",
              help="Cells whose label fits, such as 'flux2-nhwc-*'; repeatable.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), metavar="N",
              help="Processes of this machine. [default: 1]")  # fmt: skip
@click.option("--scheduler", metavar="ADDRESS",
              help="A Dask scheduler, tcp://host:8786, whose workers do it; their versions must be "
              "these.")  # fmt: skip
@click.option("--yes", is_flag=True, help=f"Do not ask before {ASK_FROM} cells or more.")
@click.option("--harness", type=FILE, envvar="FLUXVAE_HARNESS", show_envvar=True,
              help="A built fluxvae-harness, for cells with driver swift.")  # fmt: skip
@offline_option
@json_option
def run(
    file: Path,
    out: Path | None,
    only: tuple[str, ...],
    workers: int | None,
    scheduler: str | None,
    yes: bool,
    harness: Path | None,
    offline: bool,
    as_json: bool,
) -> int:
    """Do every cell of FILE that is not done yet; then write the summary and the page.

    A cell that fails is recorded and does not stop the rest; the next run tries it again.
    Exit code 3 when an artifact is outside its limits, 1 when a cell failed.
    """
    if workers is not None and scheduler is not None:
        raise UsageError("--workers starts processes here, --scheduler uses those of others: "
                         "choose one")  # fmt: skip
    from fluxvae.experiments.file import read_matrix
    from fluxvae.experiments.run import choose_cells, run_matrix

    matrix = read_matrix(file)
    if matrix.merged:
        say(f"note: {matrix.merged} cells are in {file.name} more than once; each is done once")
    folder = out or Path("runs") / matrix.name
    _check_size(matrix, folder, choose_cells(matrix.cells, only), workers or 1, yes)
    _check_quiet(matrix, workers, scheduler)
    ctrl_c = click.get_current_context().find_object(CtrlC) or CtrlC()
    outcome = run_matrix(
        matrix,
        folder,
        abilities=_abilities(matrix, harness, scheduler),
        make_pool=_pool(matrix, workers, scheduler),
        harness=None if harness is None else harness.absolute(),
        store=compressions_folder(),
        only=only,
        offline=offline,
        say=say,
        check=ctrl_c.check,
    )
    verdict = _verdict(outcome.results)
    pages = [str(page) for page in outcome.pages]
    counts = outcome.counts
    if as_json:
        print_json({"folder": str(folder), "verdict": verdict, "computed": outcome.computed,
                    "cells": len(matrix.cells), "counts": counts, "pages": pages})  # fmt: skip
    else:
        click.echo(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
        for page in pages:
            click.echo(page)
    return {"pass": 0, "incomplete": 1, "fail": 3}[verdict]


@command.command("status")
@click.argument("folder", type=FILE)
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Say what is done in FOLDER, cell by cell."""
    from fluxvae.experiments.status import read_status, status_json

    found = read_status(folder)
    if as_json:
        print_json(status_json(found))
    else:
        click.echo(_status_table(found))


@command.command("verify")
@click.argument("folder", type=FILE)
@json_option
def verify(folder: Path, as_json: bool) -> int:
    """Hold FOLDER against itself: digests, keys, one set of weights, inputs, tools and hosts.

    Every figure of the summary is derived again from the samples. Exit code 3 when something is
    wrong, one line each.
    """
    from fluxvae.experiments.verify import verify as find

    findings = find(folder)
    if as_json:
        print_json({"folder": str(folder), "findings": findings})
    else:
        for line in findings or ["nothing wrong"]:
            click.echo(line)
    return 3 if findings else 0


command.add_command(report)


def _check_size(matrix: Matrix, folder: Path, cells: list[Any], workers: int, yes: bool) -> None:
    """Ask before many cells are begun. Raises UsageError where nobody can be asked."""
    there = {p.parent.name[17:] for p in folder.glob("cells/*/result.json")}
    todo = [cell for cell in cells if cell.label() not in there]
    if len(todo) < ASK_FROM or yes:
        return
    from fluxvae.experiments.plan import estimate

    seconds, taken = estimate(todo, matrix.settings)
    text = (
        f"{len(todo)} cells to do: roughly {duration_text(seconds / workers)} with {workers} "
        f"worker{'s' if workers > 1 else ''}, and {_size(taken)} of files"
    )
    if not sys.stdin.isatty():
        raise UsageError(f"{text}: pass --yes to do them, or choose some with --only")
    if not click.confirm(f"{text}. Go on?", err=True):
        raise click.exceptions.Exit(1)


def _check_quiet(matrix: Matrix, workers: int | None, scheduler: str | None) -> None:
    if "QUIET" in matrix.settings.measure_needs and (workers or 1) > 1 and scheduler is None:
        raise UsageError(
            "measure_needs asks for a QUIET host, and several workers on this one disturb each "
            "other: use --workers 1, or a scheduler with a worker of its own for measuring"
        )


def _abilities(matrix: Matrix, harness: Path | None, scheduler: str | None) -> Abilities:
    from fluxvae.experiments.plan import MAC_UNITS, Abilities

    mac = sys.platform == "darwin"
    if scheduler is not None and any(c.compute_unit in MAC_UNITS for c in matrix.cells):
        from fluxvae.experiments.dask import connect, resources

        with connect(scheduler) as client:
            mac = "MAC" in resources(client)
    if harness is not None and not harness.is_file():
        from fluxvae.errors import ToolError

        raise ToolError(f"{harness} does not exist; expected a built fluxvae-harness")
    return Abilities(mac=mac, harness=harness is not None)


def _pool(matrix: Matrix, workers: int | None, scheduler: str | None) -> MakePool | None:
    """Who does the cells; None for this process. Dask is only needed for several."""
    if scheduler is None and (workers or 1) == 1:
        return None
    import importlib.util

    if importlib.util.find_spec("distributed") is None:
        raise UsageError(
            "--workers 2 or more and --scheduler need Dask's distributed: install "
            "fluxvae[matrix], or use --workers 1"
        )
    from fluxvae.experiments.dask import local_cluster, remote_cluster

    if scheduler is not None:
        settings = matrix.settings
        return partial(
            remote_cluster, scheduler, frozenset(settings.make_needs + settings.measure_needs)
        )
    return partial(local_cluster, workers or 1)


def _verdict(results: tuple[Result, ...]) -> str:
    if any(r.verdict == "fail" for r in results):
        return "fail"
    return "incomplete" if any(r.status == "failed" for r in results) else "pass"


def _status_table(status: Status) -> str:
    """Aligned text: a line for each cell, the counts first."""
    counts = ", ".join(f"{count} {name}" for name, count in sorted(status.counts.items()))
    wide = max(len(line.label) for line in status.lines)
    head = (f"{'cell':<{wide}}  {'status':<7}  {'verdict':<7}  {'median ms':>10}  {'PSNR dB':>7}  "
            f"{'bytes':>9}")  # fmt: skip
    return "\n".join(
        [f"{status.name}: {counts}", "", head, *(_line(x, wide) for x in status.lines)]
    )


def _line(line: Line, wide: int) -> str:
    row = line.row
    start = f"{line.label:<{wide}}  {line.status:<7}"
    if row is None:
        return start
    if row.reason is not None:
        return f"{start}  {row.reason}"
    marks = "".join(f"  {flag}" for flag in row.flags)
    return (
        f"{start}  {row.verdict or '-':<7}  {number(row.latency_ms, '.3f'):>10}  "
        f"{number(row.psnr_db, '.2f'):>7}  {number(row.bytes, 'd'):>9}{marks}"
    )


def _size(count: float) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
