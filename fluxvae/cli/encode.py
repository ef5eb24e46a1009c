"""``fluxvae encode``."""

from dataclasses import asdict
from pathlib import Path

import click

from fluxvae.cli.options import (
    ARTIFACT,
    json_option,
    option_group,
    overwrite_option,
    print_json,
    say,
)
from fluxvae.cli.sources import Runner


@click.command("encode")
@click.argument("artifact", type=ARTIFACT)
@click.argument("images", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("latents.safetensors"),
    show_default=True,
    help="The file of latents; it says which space they are in.",
)
@click.option("--function", help="Function of a multifunction model. [default: by the size]")
@click.option("--size", help="Encode images of this size only, where there are several.")
@click.option(
    "--crop", is_flag=True, help="Take the middle of images of other sizes, mirrored where small."
)
@option_group("runner", Runner)
@overwrite_option
@json_option
def command(
    artifact: Path,
    images: Path,
    out: Path,
    function: str | None,
    size: str | None,
    crop: bool,
    runner: Runner,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Encode images with a saved encoder and write their latents.

    IMAGES is an image or a folder of them. They are taken as 8-bit RGB: what that changes (alpha,
    CMYK, 16 bits) is said. A KL encoder gives the mean of its distribution; to sample from it is
    for the app.

    \b
    Examples:
      fluxvae encode encoder.mlpackage photo.png
      fluxvae encode encoder.mlpackage images/ --crop --out latents.safetensors
    """
    from fluxvae.artifact.encode import Encoded, encode_files

    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        say(f"note: {text}")

    def show(image: Encoded) -> None:
        changes = f" ({'; '.join(image.changes)})" if image.changes else ""
        say(f"encoded {image.name} at {image.size}{changes}")

    encoded = encode_files(
        artifact,
        images,
        out,
        function=function,
        size=size,
        crop=crop,
        backend=runner.backend,
        compute_units=runner.compute_units,
        overwrite=overwrite,
        on_image=show,
        on_note=note,
    )
    if as_json:
        rows = [asdict(image) for image in encoded]
        print_json({"artifact": str(artifact), "out": str(out), "encoded": rows, "notes": notes})
    else:
        click.echo(str(out))
