"""``fluxvae compare-variants``."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.cache import compressions
from fluxvae.cli.interrupt import CtrlC
from fluxvae.cli.options import (
    OUT,
    calibration_option,
    json_option,
    one_size,
    option_group,
    overwrite_option,
    print_json,
    say,
    verbose_option,
)
from fluxvae.cli.sources import AnySources
from fluxvae.cli.text import hanging
from fluxvae.errors import UsageError
from fluxvae.recipes import TARGETS, Recipe

if TYPE_CHECKING:
    from fluxvae.experiments.compare import Comparison, Row
    from fluxvae.validation.evidence import Evidence

RECIPES = "fp16,int8,pal6,pal4,w8a8"
MEASURE = (
    "PSNR: unclamped output of the saved package, run by the reference executor, against the "
    "float32 PyTorch network; mean over {count} pictures ({names}), none of which calibration saw."
)


@click.command("compare-variants")
@option_group("sources", AnySources)
@click.option(
    "--recipes",
    default=RECIPES,
    show_default=True,
    metavar="NAMES",
    help="Comma-separated: pal4, pal6-tensor, int8-plain, int4-block32, mixed-900KB, w8a8-85, ... "
    "-plain is coremltools' arithmetic, without calibration.",
)
@click.option("--size", default="512", show_default=True, help="Image size in pixels.")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    help="Oldest system to run on; before iOS18 palettes are stored per tensor, which costs dB. "
    "[default: each recipe's best]",
)
@click.option(
    "--images",
    default="photos",
    show_default=True,
    metavar="photos|DIR",
    help="What to measure on: two held-out photos, or your images.",
)
@calibration_option("other photos")
@click.option(
    "--qat",
    "checkpoint",
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="The checkpoint of `fluxvae qat` for a -trained recipe, such as w8a8-trained.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=OUT / "compare",
    show_default=True,
    help="Folder for the artifacts. Those that are there already are measured, not made, again.",
)
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@overwrite_option
@json_option
@verbose_option
def command(
    sources: AnySources,
    recipes: str,
    size: str,
    target: str | None,
    images: str,
    calibration: str,
    checkpoint: Path | None,
    out: Path,
    markdown: bool,
    overwrite: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Compress one network in several ways: bytes, PSNR, SSIM and int8 arithmetic in one table.

    Each recipe is converted, saved, and its package run on the same pictures. The first row is
    float16 without compression: what precision alone costs.

    \b
    Examples:
      fluxvae compare-variants --variant flux2
      fluxvae compare-variants --variant flux1 --recipes int8,int8-plain,pal4,pal4-tensor-plain
      fluxvae compare-variants --variant flux2 --weights demo --size 256 --recipes w8a8,w8a8-85
    """
    if as_json and markdown:
        raise UsageError("--json and --markdown both print the table: choose one")
    if images != "photos" and Path(images).resolve() == Path(calibration).resolve():
        raise UsageError(
            f"--images and --calibration are both {images}: figures on pictures that compression "
            "looked at say little; give another folder, or use photos for one of them"
        )
    from fluxvae.experiments.compare import compare_variants, load_views, parse_recipes
    from fluxvae.experiments.maker import Maker, calibration_for

    (chosen,) = one_size(size, "a comparison")
    base = Recipe(
        sources.variant,
        decoder=sources.decoder,
        part=sources.part,
        sizes=(chosen,),
        target=target,
    )
    wanted = parse_recipes(recipes, base)
    _check_trained(wanted, checkpoint)
    weights, encoder = sources.load_with_encoder("pictures are measured as its latents")
    say(f"running the float32 PyTorch {sources.part} on the held-out pictures at {chosen}")
    views = load_views(images, weights, encoder, chosen, say)
    ctrl_c = click.get_current_context().find_object(CtrlC) or CtrlC()
    seen = calibration_for(wanted, calibration, weights, encoder, say)
    maker = Maker(weights, out, seen, checkpoint, overwrite, verbose, ctrl_c.check, say,
                  compressions())  # fmt: skip
    compared = compare_variants(maker, wanted, views)
    if as_json:
        print_json(comparison_json(compared, calibration))
    elif markdown:
        click.echo(markdown_table(compared))
    else:
        click.echo(plain_table(compared))


def _check_trained(recipes: tuple[Recipe, ...], checkpoint: Path | None) -> None:
    labels = [r.compression.label() for r in recipes
              if r.compression and r.compression.method == "trained"]  # fmt: skip
    if labels and checkpoint is None:
        raise UsageError(f"{labels[0]} needs a checkpoint of `fluxvae qat`: pass --qat CHECKPOINT")
    if len(labels) > 1 or (checkpoint is not None and not labels):
        raise UsageError(f"--qat is one checkpoint for one -trained recipe; got {len(labels)}")


def comparison_json(compared: Comparison, calibration: str) -> dict[str, Any]:
    """The record of a comparison: what was measured on what, and ``rows``."""
    weights = compared.weights
    return {
        "variant": weights.variant,
        "weights": {"source": weights.source.name, "digest": weights.digest},
        "size": str(compared.size),
        "images": [view.name for view in compared.rows[0].views],
        "calibration": calibration,
        "rows": [_row_json(row) for row in compared.rows],
        "notes": [_measure_note(compared), *_advice(compared)],
    }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "recipe": row.label,
        "granularity": row.recipe.granularity,
        "target": row.recipe.deployment_target,
        "bytes": row.bytes,
        "package_bytes": row.package_bytes,
        "fraction": row.fraction,
        "psnr_db": row.psnr_db,
        "ssim": row.ssim,
        "int8_macs": row.evidence.int8_macs,
        "evidence": evidence_words(row.evidence),
        "path": str(row.path),
        "made": not row.kept,
        "photos": [asdict(view) for view in row.views],
    }


def _ssim(row: Row) -> str:
    """A dash for latents, which have none."""
    return "-" if math.isnan(row.ssim) else f"{row.ssim:.4f}"


def plain_table(compared: Comparison) -> str:
    """Aligned text within 100 columns: figures, evidence, what they mean."""
    wide = max(len(row.label) for row in compared.rows)
    lines = [
        f"{'recipe':<{wide}}  {'granularity':<13}  {'bytes':>8}  {'of fp16':>7}  {'PSNR dB':>7}  "
        f"{'worst':>5}  {'SSIM':>6}  {'int8 MACs':>9}"
    ]
    for row in compared.rows:
        lines.append(
            f"{row.label:<{wide}}  {row.recipe.granularity or '-':<13}  {row.bytes:>8}  "
            f"{row.fraction:>7.3f}  {row.psnr_db:>7.2f}  {_worst(row):>5.1f}  {_ssim(row):>6}  "
            f"{row.evidence.int8_macs:>9.1%}"
        )
    lines.append("")
    for row in compared.rows[1:]:
        lines.append(f"{row.label:<{wide}}  {hanging(evidence_words(row.evidence), wide + 2)}")
    notes = (_precision_note(compared), _measure_note(compared), *_advice(compared))
    folder = f"artifacts are in {compared.rows[0].path.parent}"
    return "\n".join([*lines, "", *(hanging(f"note: {n}", 0) for n in notes), folder])


def markdown_table(compared: Comparison) -> str:
    """The same figures as a Markdown table, its notes below."""
    lines = [
        "| recipe | granularity | weights, bytes | of fp16 | PSNR dB | worst picture | SSIM "
        "| MACs in int8 |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in compared.rows:
        lines.append(
            f"| {row.label} | {row.recipe.granularity or ''} | {row.bytes:,} | {row.fraction:.3f} "
            f"| {row.psnr_db:.1f} | {_worst(row):.1f} | {_ssim(row)} "
            f"| {row.evidence.int8_macs:.0%} |"
        )
    weights = compared.weights
    source = f"{weights.variant}, {weights.source.name}, {compared.size} px."
    return "\n".join([*lines, "", hanging(f"{source} {_measure_note(compared)}", 0)])


def evidence_words(evidence: Evidence) -> str:
    """What a saved program says of itself: stored weights, 8-bit inputs, the skip path."""
    stored = ", ".join(f"{kind} ({count})" for kind, count in evidence.weights.items())
    words = f"{evidence.classification}: stored as {stored}"
    if not evidence.dequantize:
        return words
    skips = len(evidence.quantized_adds)
    return (
        f"{words}; 8-bit inputs at {evidence.quantized_convs} of {evidence.convs} convolutions, "
        f"{evidence.paired} with a quantize and dequantize of their own, "
        f"{skips or 'none'} on the skip path"
    )


def _worst(row: Row) -> float:
    """The lowest PSNR of a row; NaN when any is NaN."""
    values = [view.psnr_db for view in row.views]
    return math.nan if any(map(math.isnan, values)) else min(values)


def _measure_note(compared: Comparison) -> str:
    names = [view.name for view in compared.rows[0].views]
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return MEASURE.format(count=len(names), names=shown)


def _precision_note(compared: Comparison) -> str:
    plain = compared.rows[0]
    return (
        f"float16 alone leaves {plain.psnr_db:.1f} dB; what a compressed row has below that is the "
        "compression's."
    )


def _advice(compared: Comparison) -> tuple[str, ...]:
    from fluxvae.compress.advice import advice_on_time

    recipes = [row.recipe.compression for row in compared.rows]
    return advice_on_time([c for c in recipes if c is not None])
