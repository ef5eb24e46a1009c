"""``fluxvae compile``."""

from pathlib import Path

import click

from fluxvae.cli.options import (
    ARTIFACT,
    compiler_option,
    json_option,
    overwrite_option,
    print_json,
    say,
    say_path_note,
)


@click.command()
@click.argument("model", type=ARTIFACT)
@click.option(
    "--out",
    type=ARTIFACT,
    metavar="PATH",
    help="A .mlmodelc to write, or a folder for it. Default: beside the model.",
)
@compiler_option
@overwrite_option
@json_option
def command(model: Path, out: Path | None, compiler: str, overwrite: bool, as_json: bool) -> None:
    """Compile MODEL (.mlpackage or .mlmodel) to .mlmodelc, the form an app loads.

    Xcode's compiler (xcrun coremlcompiler, then coremlc) is preferred where there is one. The
    portable one writes the same files on any OS, from ML Programs only; they run in validate and
    decode, and have not been shown to load on a real Mac. Where it had to guess, it says so.

    \b
    Example:
      fluxvae compile coreml_out/flux2_tiny_decoder_nchw_float16_hw1024.mlpackage
    """
    from fluxvae.device.compile import compile_model, compiled_path

    say_path_note(compiled_path(model, out))
    path = compile_model(model, out, overwrite=overwrite, compiler=compiler, report=say)
    if as_json:
        print_json({"path": str(path), "source": str(model)})
    else:
        click.echo(str(path))
