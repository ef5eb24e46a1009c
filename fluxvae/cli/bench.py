"""``fluxvae bench`` and ``fluxvae bench compare``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.harness import (
    HarnessOptions,
    check_bundle,
    cooldown_option,
    harness_environment,
    number,
)
from fluxvae.cli.newest import artifact_argument
from fluxvae.cli.options import (
    ARTIFACT,
    FiniteRange,
    json_option,
    option_group,
    overwrite_option,
    print_json,
    say,
)
from fluxvae.cli.text import size_text
from fluxvae.errors import OutputError
from fluxvae.schema import plain, save

if TYPE_CHECKING:
    from fluxvae.device.bench import Record, Settings, Start
    from fluxvae.device.bench_compare import Comparison
    from fluxvae.records.harness import FirstCalls

DRIVERS = {"swift": ("swift",), "python": ("python",), "both": ("swift", "python")}


class BenchGroup(click.Group):
    """``bench MODEL`` and ``bench compare A B``: a first word that is not a command is a model."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["run", *args]  # options before the model, or the newest one
        return super().parse_args(ctx, args)


@click.group(cls=BenchGroup, name="bench")
def command() -> None:
    """Time a compiled model: `fluxvae bench MODEL`, the same as `fluxvae bench run MODEL`.

    Without MODEL, the newest artifact in coreml_out/, compiled where it is not.

    \b
    Examples:
      fluxvae bench model.mlmodelc --iterations 200 --warmup 3 --runs 7 --cooldown 30 --out a.json
      fluxvae bench compare a.json b.json
    """


@command.command("run")
@artifact_argument("model", compiled=True)
@click.option("--iterations", type=click.IntRange(min=1), default=200, show_default=True,
              help="Timed predictions in each process.")  # fmt: skip
@click.option("--warmup", type=click.IntRange(min=0), default=3, show_default=True,
              help="Predictions before them, kept as first calls; three at least.")  # fmt: skip
@click.option("--idle", type=FiniteRange(0, 3600), metavar="SECONDS",
              help="Pause after them, and then three first calls more. [default: 6 where Core ML "
              "may use a Neural Engine, which sleeps by then; else none]")  # fmt: skip
@click.option("--runs", type=click.IntRange(min=1), default=7, show_default=True,
              help="Fresh processes for each set of compute units.")  # fmt: skip
@cooldown_option(0.0)
@click.option("--driver", type=click.Choice(tuple(DRIVERS)), default="swift", show_default=True,
              help="Swift's harness, Python (coremltools on a Mac, our executor elsewhere), "
              "or both in turn.")  # fmt: skip
@click.option("--io", "bundle", type=click.Path(path_type=Path),
              help="A bundle of export-io for the input. [default: seeded noise]")  # fmt: skip
@click.option("--size", help="Image size, where the model has several: 768 or 768x1344.")
@click.option("--strict-host", is_flag=True, help="Refuse a noisy, hot or throttled host.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the whole record, every sample in it, as JSON.")  # fmt: skip
@overwrite_option
@option_group("on", HarnessOptions)
@json_option
def run(
    model: Path,
    iterations: int,
    warmup: int,
    idle: float | None,
    runs: int,
    cooldown: float,
    driver: str,
    bundle: Path | None,
    size: str | None,
    strict_host: bool,
    out: Path | None,
    overwrite: bool,
    on: HarnessOptions,
    as_json: bool,
) -> int:
    """Load and time MODEL (.mlmodelc) in fresh processes.

    Without MODEL, the newest artifact in coreml_out/, compiled where it is not.
    Figures are of the runs' medians; outlier runs (modified z-score above 3.5) are flagged and
    stay in. The first calls after loading and after a pause are in none of them, but figures of
    their own. Compute units that fail are named, with exit code 1; the others go on.
    """
    from fluxvae.device.bench import Settings, bench, expand_units
    from fluxvae.device.validate import require_compiled
    from fluxvae.files import refuse_existing, require_writable

    require_compiled(model)
    if out is not None:
        if out.is_dir():
            raise OutputError(f"{out} is a folder; expected the name of a file for the record")
        refuse_existing(out, overwrite)
        require_writable(out)
    check_bundle(bundle, size)
    settings = Settings(
        iterations=iterations,
        warmup=warmup,
        idle_s=idle,
        runs=runs,
        cooldown_s=cooldown,
        drivers=DRIVERS[driver],  # type: ignore[arg-type]
        compute_units=expand_units(on.units),
        function=on.function,
        size=size,
        io=None if bundle is None else str(bundle),
        strict_host=strict_host,
    )
    record = bench(_starter(model, settings, on), settings, say=say)
    if out is not None:
        save(record, out, overwrite=overwrite)
    if as_json:
        print_json(plain(record))
    else:
        _print(record)
        if out is not None:
            click.echo(str(out))
    return 1 if record.failures else 0


def _starter(model: Path, settings: Settings, on: HarnessOptions) -> Start:
    from fluxvae.device.bench import start_swift
    from fluxvae.device.bench_python import Request, start_python

    harness = on.harness() if "swift" in settings.drivers else None
    environment = harness_environment()

    def start(driver: str, units: Any) -> Any:
        if driver == "swift" and harness is not None:
            return start_swift(harness, str(model), settings, units)
        request = Request(
            model=str(model),
            compute_units=units,
            iterations=settings.iterations,
            warmup=settings.warmup,
            function=settings.function,
            size=settings.size,
            io=settings.io,
            idle_s=settings.idle_s,
        )
        return start_python(request, environment)

    return start


def _print(record: Record) -> None:
    click.echo(
        f"{'driver':<7} {'compute units':<19} {'runs':>4} {'median ms':>10} {'p10':>9} {'p90':>9} "
        f"{'load ms':>9} {'again':>8} {'memory':>9}"
    )
    for s in record.summaries:
        memory = "-" if s.peak_memory_bytes is None else size_text(s.peak_memory_bytes)
        click.echo(
            f"{s.driver:<7} {s.compute_units:<19} {s.runs:>4} {s.median:10.3f} {s.p10:9.3f} "
            f"{s.p90:9.3f} {s.first_load_median:9.1f} {s.second_load_median:8.1f} {memory:>9}"
        )
    for s in record.summaries:
        click.echo(f"first calls, {s.driver} {s.compute_units}: {_calls(s.first_calls)}")
    for f in record.failures:
        click.echo(f"{f.driver} {f.compute_units} FAILED in run {f.number}: {f.failure}")
    for s in record.summaries:
        for run_number in s.outliers:
            click.echo(f"outlier, kept: run {run_number} of {s.driver} on {s.compute_units}")
    for note in record.notes:
        click.echo(f"note: {note}")


def _calls(calls: FirstCalls) -> str:
    """Milliseconds in their order, as in "after loading 9.1, 2.2, 2.1 ms"."""
    parts = [("after loading", calls.after_load_ms)]
    if calls.after_idle_ms:
        parts.append((f"after {calls.idle_s:g} s idle", calls.after_idle_ms))
    return "; ".join(f"{when} {', '.join(f'{ms:.1f}' for ms in times)} ms" for when, times in parts)


@command.command("compare")
@click.argument("a", type=ARTIFACT)
@click.argument("b", type=ARTIFACT)
@json_option
def compare(a: Path, b: Path, as_json: bool) -> None:
    """Say whether B is faster, slower or not distinguishable from A.

    A and B are records of `fluxvae bench --out`. The verdict is a Mann-Whitney U test of the
    runs' medians at 5 %; the ratio comes with a 95 % bootstrap interval. First calls are shown,
    not judged.
    """
    from fluxvae.device.bench import read_record
    from fluxvae.device.bench_compare import compare_records

    found = compare_records(read_record(a), read_record(b))
    if as_json:
        print_json({"a": str(a), "b": str(b), **asdict(found)})
        return
    for row in found.rows:
        click.echo(_row(row))
        for name, calls in (("A", row.first_calls_a), ("B", row.first_calls_b)):
            if calls is not None:
                click.echo(f"  first calls of {name}: {_calls(calls)}")
        if row.note:
            click.echo(f"  {row.note}")
    for note in found.notes:
        click.echo(f"note: {note}")


def _row(row: Comparison) -> str:
    interval = f"{number(row.low, '.3f')} to {number(row.high, '.3f')}"
    return (
        f"{row.driver} {row.compute_units}: {row.a:.3f} ms ({row.runs_a} runs) -> {row.b:.3f} ms "
        f"({row.runs_b} runs), ratio {row.ratio:.3f} (95 % {interval}), p {row.p_value:.2g}: "
        f"{row.verdict}"
    )
