"""``fluxvae convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxvae.cli.encoders import choose_encoder, load_decoder
from fluxvae.cli.full import FullRequest, full_options, say_choices
from fluxvae.cli.interrupt import CtrlC
from fluxvae.cli.options import (
    OUT,
    compiler_option,
    json_option,
    offline_option,
    overwrite_option,
    print_json,
    say,
    say_path_note,
    variant_option,
    verbose_option,
    weights_option,
)
from fluxvae.cli.recipe_options import (
    CompressionRequest,
    compress,
    compression_options,
    save_allocation,
)
from fluxvae.errors import UsageError
from fluxvae.recipes import (
    FORMATS,
    LAYOUTS,
    MAC_TARGETS,
    OUTPUTS,
    PRECISIONS,
    SHAPES,
    TARGETS,
    Recipe,
    parse_sizes,
)
from fluxvae.recipes.known_trouble import form_troubles

if TYPE_CHECKING:
    from fluxvae.networks.source import Weights

ENUMERATED_NOTE = (
    "note: enumerated shapes are risky on device. Models of this kind were reported to use the "
    "memory of the largest size always, to leave the Neural Engine, or to run several times "
    "slower; multifunction gives the same sizes as fixed programs that share one weight file."
)


@click.command("convert")
@variant_option
@weights_option
@click.option("--encoder", metavar="PATH", help="Encoder for --validate's photo latents.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Compute precision. [default: float16; float32 for neuralnetwork]",
)
@click.option(
    "--io-precision",
    type=click.Choice(("auto", *PRECISIONS)),
    default="auto",
    show_default=True,
    help="Dtype of input and output; auto follows --precision.",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    help="Axis order of input and output. [default: nchw; nhwc with --nhwc-model]",
)
@click.option("--nhwc-model", is_flag=True, help="Make the graph NHWC inside as well.")
@click.option(
    "--size",
    "sizes",
    default="1024",
    show_default=True,
    metavar="SIZES",
    help="Image size in pixels: 768, 768,1024 or 768x1344 (height x width).",
)
@click.option(
    "--shapes",
    type=click.Choice(SHAPES),
    help="How several sizes share a model. [default: fixed; multifunction for several sizes]",
)
@click.option("--output", type=click.Choice(OUTPUTS), default="tensor", show_default=True,
              help="A tensor in the decoder's own range, or an 8-bit RGB image.")  # fmt: skip
@click.option("--format", "model_format", type=click.Choice(FORMATS), default="mlprogram",
              show_default=True, help="Kind of Core ML model.")  # fmt: skip
@click.option(
    "--target",
    type=click.Choice((*TARGETS, *MAC_TARGETS), case_sensitive=False),
    help="Oldest system to run on. [default: the oldest that can]",
)
@full_options
@compression_options
@click.option("--compile", "compile_too", is_flag=True, help="Also compile to .mlmodelc.")
@compiler_option
@click.option("--validate", "validate_too", is_flag=True, help="Save only if validation passes.")
@click.option("--dry-run", is_flag=True, help="Print what would be made; write nothing.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write: a folder, or a path ending in .mlpackage or .mlmodel. "
    "[default: coreml_out]",
)
@overwrite_option
@offline_option
@json_option
@verbose_option
def command(
    variant: str,
    weights: str | None,
    encoder: str | None,
    precision: str | None,
    io_precision: str,
    layout: str | None,
    nhwc_model: bool,
    sizes: str,
    shapes: str | None,
    output: str,
    model_format: str,
    target: str | None,
    full: FullRequest,
    request: CompressionRequest,
    compile_too: bool,
    compiler: str,
    validate_too: bool,
    dry_run: bool,
    out: Path | None,
    overwrite: bool,
    offline: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Turn a FLUX VAE decoder into a Core ML model.

    \b
    Examples:
      fluxvae convert --variant flux2
      fluxvae convert --variant flux1 --size 768,1024 --shapes multifunction --validate
      fluxvae convert --variant flux2 --weights demo --size 256 --output image
      fluxvae convert --variant flux2 --palettize 4 --validate
      fluxvae convert --variant flux2 --w8a8
      fluxvae convert --variant flux2 --decoder small --weights random --size 256
      fluxvae convert --variant flux1 --decoder full --chunks 2
      fluxvae convert --variant flux2 --tile 512
    """
    parsed = parse_sizes(sizes)
    network = model_format == "neuralnetwork"
    several = "enumerated" if network else "multifunction"
    recipe = Recipe(
        variant=variant,
        precision=precision or ("float32" if network else "float16"),
        io_precision=io_precision,
        layout=layout or ("nhwc" if nhwc_model else "nchw"),
        nhwc_model=nhwc_model,
        sizes=parsed,
        shapes=shapes or ("fixed" if len(parsed) == 1 else several),
        output=output,
        format=model_format,
        target=_target(target),
        compression=request.recipe_compression(),
        **full.recipe_fields(),
    )
    say_choices(recipe)
    if recipe.shapes == "enumerated":
        say(ENUMERATED_NOTE)
    _say_reports(recipe, _place(recipe, weights, out))
    if compile_too and not dry_run:
        _check_compiler(recipe, compiler, weights, out, overwrite)
    paths = _make(
        recipe, request, weights, encoder, out, overwrite, offline, validate_too, dry_run, verbose
    )
    compiled = []
    if compile_too and not dry_run:
        from fluxvae.device.compile import compile_model

        compiled = [
            compile_model(path, None, overwrite=overwrite, compiler=compiler, report=say)
            for path in paths
        ]
    if as_json:
        print_json(_result(paths, compiled, recipe, dry_run))
        return
    for path in paths:
        oldest = recipe.deployment_target or "iOS13"
        click.echo(f"would write {path} for {oldest} and newer" if dry_run else str(path))
    for made in compiled:
        click.echo(str(made))


def _say_reports(recipe: Recipe, path: Path) -> None:
    """What others report about the form that is to be written, or about its path."""
    target = recipe.deployment_target
    if recipe.compression is not None and target is not None:
        for trouble in form_troubles(recipe.compression.reported_forms(target)):
            say(f"note: {trouble.sentence}; {trouble.advice}")
    say_path_note(path)


def _result(
    paths: tuple[Path, ...], compiled: list[Path], recipe: Recipe, dry_run: bool
) -> dict[str, object]:
    """``path`` and ``compiled`` are the first half's where there are two; ``parts`` lists both."""
    result: dict[str, object] = {
        "path": str(paths[0]), "recipe": recipe.to_dict(), "dry_run": dry_run
    }  # fmt: skip
    if compiled:
        result["compiled"] = str(compiled[0])
    if len(paths) > 1:
        result["parts"] = [str(path) for path in paths]
        if compiled:
            result["compiled_parts"] = [str(path) for path in compiled]
    return result


def _probe_encoder(
    recipe: Recipe, spec: str | None, encoder: str | None, offline: bool
) -> Weights | None:
    """Who makes the photo latents that fp16 safety measures on; None where noise does.

    The tiny decoders clamp what they take, and random encoders know nothing of photos.
    """
    random = encoder is None and (spec or "").partition(":")[0] == "random"
    tiny = recipe.decoder == "tiny" and recipe.fp16_safety == "report"
    if recipe.precision != "float16" or recipe.fp16_safety == "off" or tiny or random:
        return None
    return choose_encoder(recipe.variant, spec, encoder, offline=offline, kind=recipe.decoder)


def _target(name: str | None) -> str | None:
    known = {t.lower(): t for t in TARGETS} | {m.lower(): t for m, t in MAC_TARGETS.items()}
    return None if name is None else known[name.lower()]


def _check_compiler(
    recipe: Recipe, compiler: str, spec: str | None, out: Path | None, overwrite: bool
) -> None:
    """Better to hear of a missing compiler, or of a place taken, now than after a conversion."""
    from fluxvae.device.compile import choose_compiler, compiled_path, find_compilers
    from fluxvae.files import refuse_existing
    from fluxvae.recipes import artifact_paths

    if compiler == "portable" and recipe.format == "neuralnetwork":
        raise UsageError("--compiler portable takes ML Programs only; expected --format mlprogram")
    for path in artifact_paths(_place(recipe, spec, out), recipe.chunks):
        choose_compiler(compiler, path, [] if compiler == "portable" else find_compilers())
        refuse_existing(compiled_path(path), overwrite)


def _place(recipe: Recipe, spec: str | None, out: Path | None) -> Path:
    """Where the artifact goes. Raises UsageError when ``out`` names another kind of file."""
    from fluxvae.recipes import artifact_name

    if out is not None and out.suffix in (".mlpackage", ".mlmodel"):
        if out.suffix != recipe.suffix:
            raise UsageError(
                f"a {recipe.format} is saved as {recipe.suffix}: expected such a name, got {out}"
            )
        return out
    return (out or OUT) / artifact_name(recipe, (spec or "").partition(":")[0])


def _make(
    recipe: Recipe,
    request: CompressionRequest,
    spec: str | None,
    encoder: str | None,
    out: Path | None,
    overwrite: bool,
    offline: bool,
    validate_too: bool,
    dry_run: bool,
    verbose: bool,
) -> tuple[Path, ...]:
    # Cheap refusals before torch is loaded and weights are fetched.
    from fluxvae.files import refuse_existing
    from fluxvae.recipes import artifact_paths

    path = _place(recipe, spec, out)
    paths = artifact_paths(path, recipe.chunks)
    for place in paths:
        refuse_existing(place, overwrite or dry_run)
    if dry_run:
        return paths

    from fluxvae.artifact.save import save_artifact

    say(f"loading {spec or 'pinned'} weights of {recipe.variant}")
    weights = load_decoder(recipe.variant, spec, kind=recipe.decoder, offline=offline)
    compressed = compress(request, recipe, weights, spec, encoder, offline)
    say(f"converting {path.name}")
    ctrl_c = click.get_current_context().find_object(CtrlC) or CtrlC()

    def check(draft: Path) -> None:
        if validate_too:
            from fluxvae.cli.validate import check_draft

            check_draft(draft, weights, spec, encoder, offline)
        ctrl_c.check()

    save_artifact(
        weights,
        recipe,
        path,
        compressed=compressed,
        encoder=_probe_encoder(recipe, spec, encoder, offline),
        overwrite=overwrite,
        check=check,
        report=say,
        verbose=verbose,
    )
    if compressed is not None:
        save_allocation(compressed, path)
    return paths
