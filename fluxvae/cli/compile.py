"""``fluxvae compile``."""

from pathlib import Path

import click

from fluxvae.cli.options import ARTIFACT, json_option, overwrite_option, print_json


@click.command()
@click.argument("model", type=ARTIFACT)
@click.option(
    "--out",
    type=ARTIFACT,
    metavar="PATH",
    help="A .mlmodelc to write, or a folder for it. Default: beside the model.",
)
@overwrite_option
@json_option
def command(model: Path, out: Path | None, overwrite: bool, as_json: bool) -> None:
    """Compile MODEL (.mlpackage or .mlmodel) to .mlmodelc, the form an app loads.

    Needs a Mac with full Xcode: its compiler is called (xcrun coremlcompiler, then coremlc).
    Xcode does the same by itself when a package is added to an app; nothing else here needs it.

    \b
    Example:
      fluxvae compile coreml_out/flux2_tiny_decoder_nchw_float16_hw1024.mlpackage
    """
    from fluxvae.compiler import compile_model

    path = compile_model(model, out, overwrite=overwrite)
    if as_json:
        print_json({"path": str(path), "source": str(model)})
    else:
        click.echo(str(path))
