"""``fluxvae roundtrip``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.cache import compressions
from fluxvae.cli.harness import cache_folder
from fluxvae.cli.interrupt import CtrlC
from fluxvae.cli.options import (
    ARTIFACT,
    OUT,
    Variant,
    calibration_option,
    json_option,
    one_size,
    overwrite_option,
    print_json,
    say,
    verbose_option,
)
from fluxvae.cli.sources import AnySources, decoder_option, offline_option, weights_option
from fluxvae.errors import OutputError, UsageError
from fluxvae.recipes import Recipe, Size, parse_sizes
from fluxvae.schema import plain

if TYPE_CHECKING:
    from fluxvae.experiments.maker import Maker
    from fluxvae.experiments.roundtrip.candidates import VariantSpec
    from fluxvae.experiments.roundtrip.job import Job
    from fluxvae.experiments.roundtrip.measure import Run
    from fluxvae.networks.weights import Weights
    from fluxvae.records.roundtrip import Roundtrip

VARIANTS = "fp16,pal8,pal6,pal4,int8,w8a8"
SIZE = "512"  # where neither --size nor an artifact says one
RECORD = "record.json"
ARTIFACTS = "artifacts"  # what is made, below --out


@click.command("roundtrip")
@click.option(
    "--variant",
    type=Variant(),
    help="Which decoder. [default: of the newest artifact in coreml_out/, which is measured too, "
    "with its weights and size]",
)
@decoder_option
@weights_option
@click.option("--encoder", metavar="PATH", help="Encoder that makes the images' latents.")
@click.option(
    "--encoder-artifact",
    type=ARTIFACT,
    help="A saved encoder (convert --part encoder): measure it too, alone and before each variant.",
)
@click.option(
    "--images",
    default="photos",
    show_default=True,
    metavar="photos|soa|DIR",
    help="Six photos of scikit-image, what `fluxvae data fetch soa` stored, or your images.",
)
@click.option(
    "--variants",
    default=VARIANTS,
    show_default=True,
    metavar="NAMES",
    help="Comma-separated: names as compare-variants takes them, or paths of artifacts.",
)
@click.option("--size", help="Image size in pixels. [default: 512, or the newest artifact's]")
@calibration_option("photos")
@click.option(
    "--ablate",
    is_flag=True,
    help="Take each variant apart too: precision, compression and each rewrite alone, then "
    "together. Takes several times as long.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=OUT / "roundtrip",
    show_default=True,
    help="Folder for pictures, artifacts, record and pages. A stopped run goes on there.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes that compress and measure at once. [default: 2, or 1 on one core]",
)
@overwrite_option
@offline_option
@json_option
@verbose_option
def command(
    variant: str | None,
    decoder: str,
    weights: str | None,
    encoder: str | None,
    encoder_artifact: Path | None,
    images: str,
    variants: str,
    size: str | None,
    calibration: str,
    ablate: bool,
    out: Path,
    workers: int | None,
    overwrite: bool,
    offline: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Send images through the encoder and every variant: see and measure what each one does.

    Each image is encoded, decoded by the float32 PyTorch decoder, and by each variant's saved
    package. Pictures, differences and FLIP maps lie beside record.json; index.html shows them.

    \b
    Examples:
      fluxvae roundtrip
      fluxvae roundtrip --variant flux2
      fluxvae roundtrip --variant flux2 --images my_photos --variants fp16,pal4,w8a8
      fluxvae roundtrip --variant flux2 --weights demo --size 256 --variants fp16,pal4-plain
      fluxvae roundtrip --variant flux2 --encoder-artifact encoder.mlpackage
    """
    from fluxvae.experiments.roundtrip.candidates import parse_variants

    sizes = None if size is None else one_size(size, "a round trip")
    if variant is None:
        base, wanted, weights = _of_newest(variants, weights, sizes, offline)
    else:
        base = Recipe(variant, decoder=decoder, sizes=sizes or parse_sizes(SIZE))
        wanted = parse_variants(variants, base)
    record, pages = _run(
        base, wanted, AnySources(base.variant, weights, encoder, offline, base.decoder, base.part),
        encoder_artifact, images, calibration, ablate, out, workers or min(2, _cores()),
        overwrite, verbose,
    )  # fmt: skip
    if as_json:
        files = {"record": str(out / RECORD), "pages": [str(page) for page in pages]}
        print_json({**files, "roundtrip": plain(record)})
    else:
        from fluxvae.cli.roundtrip_text import text_of

        click.echo(text_of(record))
        click.echo(f"record: {out / RECORD}")
        for page in pages:
            click.echo(f"page:   {page}")


def _of_newest(
    variants: str, spec: str | None, sizes: tuple[Size, ...] | None, offline: bool
) -> tuple[Recipe, tuple[VariantSpec, ...], str | None]:
    """Decoder, variants and ``--weights`` of a round trip of the newest artifact.

    Without ``sizes``, at its smallest. Raises UsageError when it is an encoder, WeightsError as
    ``resolve_weights``.
    """
    from fluxvae.cli.newest import newest_artifact
    from fluxvae.experiments.roundtrip.candidates import add_artifact, parse_variants
    from fluxvae.validation.validate import resolve_weights

    opened = newest_artifact()
    recipe, path = opened.record.recipe, opened.programs[0].path
    if recipe.encodes:
        raise UsageError(
            f"{path} is an encoder: pass it with --encoder-artifact, and --variant for the decoders"
        )
    _, chosen = resolve_weights(opened.record, spec, offline=offline)
    base = Recipe(recipe.variant, decoder=recipe.decoder, sizes=sizes or (min(recipe.sizes),))
    wanted = add_artifact(parse_variants(variants, base), path, recipe)
    label = next(one.label for one in wanted if one.path == path)
    say(f"measuring it as {label}, at {base.sizes[0]}, beside the other variants")
    return base, wanted, chosen


def _run(
    base: Recipe,
    wanted: tuple[VariantSpec, ...],
    sources: AnySources,
    encoder_artifact: Path | None,
    images: str,
    calibration: str,
    ablate: bool,
    out: Path,
    workers: int,
    overwrite: bool,
    verbose: bool,
) -> tuple[Roundtrip, tuple[Path, ...]]:
    from fluxvae.experiments.maker import Maker, calibration_for
    from fluxvae.experiments.roundtrip.candidates import open_encoder
    from fluxvae.experiments.roundtrip.run import run_roundtrip
    from fluxvae.experiments.roundtrip.sources import open_source
    from fluxvae.report import write_report
    from fluxvae.schema import save
    from fluxvae.validation.metrics import make_meter

    meter = make_meter()
    source = open_source(images, cache_folder())
    weights, network = sources.load_pair("a round trip begins with one")
    artifact = None
    if encoder_artifact is not None:
        artifact = open_encoder(encoder_artifact, network, base.sizes[0])
    _refuse_foreign(out, weights, base.sizes[0], overwrite)
    ctrl_c = click.get_current_context().find_object(CtrlC) or CtrlC()
    recipes = [one.recipe for one in wanted if one.recipe is not None]
    seen = calibration_for(recipes, calibration, weights, network, say)
    maker = Maker(weights, out / ARTIFACTS, seen, None, overwrite, verbose, ctrl_c.check, say,
                  compressions())  # fmt: skip
    job = _job(base, wanted, weights, network, maker, meter, ablate, out, workers)
    job = replace(job, artifact=artifact)
    with ExitStack() as stack:
        progress = _progress(stack)
        run = _measuring(stack, workers)
        record = run_roundtrip(job, source, progress=progress, check=ctrl_c.check, run=run)
    save(record, out / RECORD)
    return record, write_report(out / RECORD)


def _refuse_foreign(out: Path, weights: Weights, size: Size, overwrite: bool) -> None:
    """Raise OutputError unless ``out`` is new, empty, or holds a round trip of these weights.

    With ``--overwrite`` what was measured there before is forgotten.
    """
    import shutil

    from fluxvae.files import require_writable
    from fluxvae.records.experiment import CELLS
    from fluxvae.records.roundtrip import Roundtrip
    from fluxvae.schema import load

    require_writable(out / RECORD)
    if overwrite:
        shutil.rmtree(out / CELLS, ignore_errors=True)
        return
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file: pass a folder with --out")
    held = {p.name for p in out.iterdir()} if out.exists() else set()
    if held and not held & {RECORD, CELLS, ARTIFACTS}:
        raise OutputError(
            f"{out} holds other files and no round trip: pass --overwrite, or another --out"
        )
    if RECORD in held:
        there = load(Roundtrip, out / RECORD)
        if (there.weights_digest, there.size) != (weights.digest, str(size)):
            raise OutputError(
                f"{out} holds a round trip of {there.weights} at {there.size}: pass --overwrite, "
                "or another --out"
            )


def _job(
    base: Recipe,
    wanted: tuple[VariantSpec, ...],
    weights: Weights,
    encoder: Weights,
    maker: Maker,
    meter: Any,
    ablate: bool,
    out: Path,
    workers: int,
) -> Job:
    """Everything made and opened: variants, and with ``--ablate`` their parts."""
    from fluxvae.experiments.roundtrip.candidates import make_recipes, open_candidate
    from fluxvae.experiments.roundtrip.job import Job, part_label
    from fluxvae.records.ablation import parts_of

    (size,) = base.sizes
    found = {
        one.label: open_candidate(one.label, Path(one.path), weights, size)
        for one in wanted
        if one.path is not None
    }
    chosen = [(one.label, one.recipe or found[one.label].recipe) for one in wanted]
    ablations = tuple((label, parts_of(recipe)) for label, recipe in chosen if ablate)
    own = {recipe for _, recipe in chosen}
    parts = dict.fromkeys(p.recipe for _, some in ablations for p in some)
    extra = [recipe for recipe in parts if recipe not in own]
    made = [*(one.recipe for one in wanted if one.recipe is not None), *extra]
    make_recipes(made, maker, workers=workers, threads=max(1, _cores() // workers))
    candidates = tuple(
        found.get(label) or open_candidate(label, maker.path(recipe), weights, size)
        for label, recipe in chosen
    )
    others = tuple(
        open_candidate(part_label(r.name()), maker.path(r), weights, size) for r in extra
    )
    return Job(base.variant, size, weights, encoder, candidates, ablations, others, meter, out)


def _measuring(stack: ExitStack, workers: int) -> Run:
    """Measuring in processes of its own; here when there is but one."""
    import torch

    from fluxvae.experiments.roundtrip.measure import run_here, run_in
    from fluxvae.experiments.workers import worker_processes

    if workers < 2:
        return run_here
    torch.set_num_threads(max(1, _cores() // workers))  # the rest of the cores measure
    pool = stack.enter_context(worker_processes(workers, 1))
    return run_in(pool, 2 * workers)


def _cores() -> int:
    """Cores that this process may use; not all systems say."""
    import os

    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _progress(stack: ExitStack) -> Any:
    """A bar on a terminal, else a line for each step."""
    import sys

    if not sys.stderr.isatty():
        return lambda done, total, text: say(f"{done}/{total} {text}")
    bar: Any = None

    def progress(done: int, total: int, text: str) -> None:
        nonlocal bar
        if bar is None:
            bar = stack.enter_context(
                click.progressbar(
                    length=total, file=sys.stderr, item_show_func=lambda item: item or ""
                )
            )
        bar.update(done - bar.pos, text)

    return progress
