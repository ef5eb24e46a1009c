"""``fluxvae mac-report``."""

from __future__ import annotations

import sys
from pathlib import Path
from platform import python_version

import click

from fluxvae.cli.cache import compressions
from fluxvae.cli.harness import HarnessProgram, cooldown_option
from fluxvae.cli.options import Variant, json_option, option_group, print_json, say
from fluxvae.cli.sources import Sources, offline_option, weights_option
from fluxvae.errors import OutputError, ToolError
from fluxvae.networks.catalog import CATALOG
from fluxvae.recipes import parse_sizes


@click.command("mac-report")
@click.option("--out", type=click.Path(path_type=Path), default=Path("mac-report"),
              show_default=True, help="Folder of the report; one half-done goes on.")  # fmt: skip
@click.option("--rehearse", is_flag=True,
              help="Run without a Mac what can be; mark the rest 'not run'.")  # fmt: skip
@click.option("--variant", "variants", type=Variant(), multiple=True,
              help="Which decoders; may be given again. [default: all]")  # fmt: skip
@weights_option
@click.option("--size", "sizes", default="768,1024", show_default=True, metavar="SIZES",
              help="Image sizes; several also make the models of several sizes.")  # fmt: skip
@click.option("--iterations", type=click.IntRange(min=1), default=100, show_default=True,
              help="Timed predictions in each process.")  # fmt: skip
@click.option("--warmup", type=click.IntRange(min=0), default=3, show_default=True,
              help="Predictions before them.")  # fmt: skip
@click.option("--runs", type=click.IntRange(min=1), default=3, show_default=True,
              help="Fresh processes for each figure.")  # fmt: skip
@cooldown_option(10.0)
@click.option("--repeats", type=click.IntRange(min=1), default=20, show_default=True,
              help="Predictions that are bit-compared.")  # fmt: skip
@option_group("on", HarnessProgram)
@offline_option
@json_option
def command(
    out: Path,
    rehearse: bool,
    variants: tuple[str, ...],
    weights: str | None,
    sizes: str,
    iterations: int,
    warmup: int,
    runs: int,
    cooldown: float,
    repeats: int,
    on: HarnessProgram,
    offline: bool,
    as_json: bool,
) -> int:
    """Convert, compile, validate, bench, plan and drift a fixed list of models: one record.

    For a Mac. Writes record.json and report.md into --out; interrupted, it goes on where it was.
    Exit code 3 when a model is outside its limits, 1 when a step failed.

    \b
    Examples:
      fluxvae mac-report --out mac-report/
      fluxvae mac-report --rehearse --weights demo --size 64,96 --iterations 3 --runs 1 --cooldown 0
    """
    if sys.platform != "darwin" and not rehearse:
        raise ToolError(
            "mac-report measures Core ML, which exists on Apple's systems only: run it on a Mac, "
            "or add --rehearse to run here what does not need one"
        )
    from fluxvae.experiments.job import host_here
    from fluxvae.experiments.mac import default_recipes, run_report
    from fluxvae.experiments.mac_steps import Settings, StepContext
    from fluxvae.files import require_writable, write_text
    from fluxvae.report.matrix.mac import report_page
    from fluxvae.schema import save

    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; expected a folder for the report")
    require_writable(out / "record.json")
    parsed = parse_sizes(sizes)
    settings = Settings(iterations, warmup, runs, cooldown, repeats)
    harness = on.harness()
    contexts = []
    for variant in variants or sorted(CATALOG):
        sources = Sources(variant, weights, None, offline)
        own, encoder = sources.load(), sources.find_encoder()
        contexts += [
            StepContext(recipe, own, encoder, harness, out, settings, compressions())
            for recipe in default_recipes([variant], parsed)
        ]
    record = run_report(contexts, host_here(python_version()), rehearsal=rehearse, say=say)
    save(record, out / "record.json")
    page = report_page(record)
    write_text(out / "report.md", page, overwrite=True)
    if as_json:
        print_json({"record": str(out / "record.json"), "report": str(out / "report.md"),
                    "verdict": record.verdict, "rehearsal": rehearse})  # fmt: skip
    else:
        click.echo(page)
        click.echo(str(out / "record.json"))
    return {"pass": 0, "incomplete": 1, "fail": 3}[record.verdict]
