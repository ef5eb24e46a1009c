"""``fluxvae convert``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxvae.cli.interrupt import CtrlC
from fluxvae.cli.options import (
    OUT,
    compiler_option,
    json_option,
    option,
    option_group,
    overwrite_option,
    print_json,
    say,
    say_path_note,
    verbose_option,
)
from fluxvae.cli.recipe_options import (
    CompressionOptions,
    CompressionRequest,
    FormOptions,
    compress,
    save_allocation,
    say_choices,
)
from fluxvae.cli.sources import AnySources
from fluxvae.errors import UsageError
from fluxvae.recipes import (
    FORMATS,
    INPUTS,
    LAYOUTS,
    MAC_TARGETS,
    OUTPUTS,
    PRECISIONS,
    SHAPES,
    TARGETS,
    Compression,
    Recipe,
    artifact_name,
    artifact_paths,
    parse_sizes,
)
from fluxvae.recipes.known_trouble import form_troubles

if TYPE_CHECKING:
    from fluxvae.networks.weights import Weights

ENUMERATED_NOTE = (
    "note: enumerated shapes are risky on device. Models of this kind were reported to use the "
    "memory of the largest size always, to leave the Neural Engine, or to run several times "
    "slower; multifunction gives the same sizes as fixed programs that share one weight file."
)


@dataclass(frozen=True)
class ModelOptions:
    """What kind of model is made."""

    precision: str | None = option(
        "--precision",
        type=click.Choice(PRECISIONS),
        help="Compute precision. [default: float16; float32 for neuralnetwork]",
    )
    io_precision: str = option(
        "--io-precision",
        type=click.Choice(("auto", *PRECISIONS)),
        default="auto",
        show_default=True,
        help="Dtype of input and output; auto follows --precision.",
    )
    layout: str | None = option(
        "--layout",
        type=click.Choice(LAYOUTS),
        help="Axis order of input and output. [default: nchw; nhwc with --nhwc-model]",
    )
    nhwc_model: bool = option(
        "--nhwc-model", is_flag=True, help="Make the graph NHWC inside as well."
    )
    sizes: str = option(
        "--size",
        default="1024",
        show_default=True,
        metavar="SIZES",
        help="Image size in pixels: 768, 768,1024 or 768x1344 (height x width).",
    )
    shapes: str | None = option(
        "--shapes",
        type=click.Choice(SHAPES),
        help="How several sizes share a model. [default: fixed; multifunction for several sizes]",
    )
    input: str = option(
        "--input",
        type=click.Choice(INPUTS),
        default="tensor",
        show_default=True,
        help="What an encoder takes: a tensor in [0, 1], or an 8-bit RGB image.",
    )
    output: str = option(
        "--output",
        type=click.Choice(OUTPUTS),
        default="tensor",
        show_default=True,
        help="What a decoder gives: a tensor in its own range, or an 8-bit RGB image.",
    )
    model_format: str = option(
        "--format",
        type=click.Choice(FORMATS),
        default="mlprogram",
        show_default=True,
        help="Kind of Core ML model.",
    )
    target: str | None = option(
        "--target",
        type=click.Choice((*TARGETS, *MAC_TARGETS), case_sensitive=False),
        help="Oldest system to run on. [default: the oldest that can]",
    )

    def recipe(
        self, sources: AnySources, form: FormOptions, compression: Compression | None
    ) -> Recipe:
        """The recipe that all options together ask for. Raises UsageError for what cannot be."""
        sizes = parse_sizes(self.sizes)
        network = self.model_format == "neuralnetwork"
        several = "enumerated" if network else "multifunction"
        return Recipe(
            sources.variant,
            decoder=sources.decoder,
            part=sources.part,
            input=self.input,
            precision=self.precision or ("float32" if network else "float16"),
            io_precision=self.io_precision,
            layout=self.layout or ("nhwc" if self.nhwc_model else "nchw"),
            nhwc_model=self.nhwc_model,
            sizes=sizes,
            shapes=self.shapes or ("fixed" if len(sizes) == 1 else several),
            output=self.output,
            format=self.model_format,
            target=_target(self.target),
            compression=compression,
            **form.recipe_fields(),
        )


@click.command("convert")
@option_group("sources", AnySources)
@option_group("model", ModelOptions)
@option_group("form", FormOptions)
@option_group("compression", CompressionOptions)
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
@json_option
@verbose_option
def command(
    sources: AnySources,
    model: ModelOptions,
    form: FormOptions,
    compression: CompressionOptions,
    compile_too: bool,
    compiler: str,
    validate_too: bool,
    dry_run: bool,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Turn a FLUX VAE's decoder or encoder into a Core ML model.

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
      fluxvae convert --variant flux2 --part encoder --input image
    """
    request = compression.request()
    recipe = model.recipe(sources, form, request.recipe_compression())
    say_choices(recipe)
    if recipe.shapes == "enumerated":
        say(ENUMERATED_NOTE)
    path = _path(recipe, sources.label, out)
    _say_reports(recipe, path)
    paths, compiled = artifact_paths(path, recipe.chunks), []
    compile_now = compile_too and not dry_run
    _refuse_early(recipe, paths, overwrite or dry_run, compiler if compile_now else None)
    if not dry_run:
        _make(recipe, request, sources, path, overwrite, validate_too, verbose)
    if compile_now:
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


def _probe_encoder(recipe: Recipe, sources: AnySources) -> Weights | None:
    """The encoder of the photo latents that fp16 safety measures on; None where noise does.

    The tiny decoders clamp what they take, and random encoders know nothing of photos.
    """
    random = sources.encoder is None and sources.label == "random"
    tiny = recipe.decoder == "tiny" and recipe.fp16_safety == "report"
    if (
        recipe.encodes
        or recipe.precision != "float16"
        or recipe.fp16_safety == "off"
        or tiny
        or random
    ):
        return None
    return sources.find_encoder()


def _target(name: str | None) -> str | None:
    known = {t.lower(): t for t in TARGETS} | {m.lower(): t for m, t in MAC_TARGETS.items()}
    return None if name is None else known[name.lower()]


def _path(recipe: Recipe, label: str, out: Path | None) -> Path:
    """Of the artifact. Raises UsageError when ``out`` names another kind of file."""
    if out is not None and out.suffix in (".mlpackage", ".mlmodel"):
        if out.suffix != recipe.suffix:
            raise UsageError(
                f"a {recipe.format} is saved as {recipe.suffix}: expected such a name, got {out}"
            )
        return out
    return (out or OUT) / artifact_name(recipe, label)


def _refuse_early(
    recipe: Recipe, paths: tuple[Path, ...], overwrite: bool, compiler: str | None
) -> None:
    """Better to hear of what exists, or of a missing compiler, now than after a conversion.

    ``compiler``: None when nothing is compiled.
    """
    from fluxvae.files import refuse_existing

    for path in paths:
        refuse_existing(path, overwrite)
    if compiler is None:
        return
    from fluxvae.device.compile import choose_compiler, compiled_path, find_compilers

    if compiler == "portable" and recipe.format == "neuralnetwork":
        raise UsageError("--compiler portable takes ML Programs only; expected --format mlprogram")
    for path in paths:
        choose_compiler(compiler, path, [] if compiler == "portable" else find_compilers())
        refuse_existing(compiled_path(path), overwrite)


def _make(
    recipe: Recipe,
    request: CompressionRequest,
    sources: AnySources,
    path: Path,
    overwrite: bool,
    validate_too: bool,
    verbose: bool,
) -> None:
    from fluxvae.artifact.save import save_artifact

    weights = sources.load()
    compressed = compress(request, recipe, weights, sources)
    say(f"converting {path.name}")
    ctrl_c = click.get_current_context().find_object(CtrlC) or CtrlC()

    def check(draft: Path) -> None:
        if validate_too:
            from fluxvae.cli.validate import check_draft

            check_draft(draft, weights, sources)
        ctrl_c.check()

    save_artifact(
        weights,
        recipe,
        path,
        compressed=compressed,
        encoder=_probe_encoder(recipe, sources),
        overwrite=overwrite,
        check=check,
        report=say,
        verbose=verbose,
    )
    if compressed is not None:
        save_allocation(compressed, path)
