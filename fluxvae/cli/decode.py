"""``fluxvae decode``."""

from dataclasses import asdict
from pathlib import Path

import click

from fluxvae.cli.options import (
    ARTIFACT,
    backend_option,
    compute_units_option,
    json_option,
    overwrite_option,
    print_json,
    say,
    strict_option,
)


@click.command("decode")
@click.argument("artifact", type=ARTIFACT)
@click.argument("latents", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("images"),
    show_default=True,
    help="Folder for PNGs, or a .safetensors file for the raw outputs.",
)
@click.option("--function", help="Function of a multifunction model. [default: by the size]")
@click.option("--size", help="Decode only latents of this image size, where there are several.")
@click.option(
    "--tile",
    type=int,
    metavar="PX",
    help="Expect an artifact of tiles of this size (convert --tile); says what they cost.",
)
@strict_option
@backend_option
@compute_units_option
@overwrite_option
@json_option
def command(
    artifact: Path,
    latents: Path,
    out: Path,
    function: str | None,
    size: str | None,
    tile: int | None,
    strict: bool,
    backend: str,
    compute_units: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Decode latents with a saved model and write its own pictures.

    LATENTS is a .safetensors, .latent (ComfyUI), .npy or .bin file; FILE:KEY takes one tensor of a
    .safetensors file. The model's own layout decides which axis is which: another is taken only
    where it alone can fit. A model in two halves is named by either one.

    \b
    Examples:
      fluxvae decode model.mlpackage latents.safetensors --out images/
      fluxvae decode model.mlpackage latents.npy --out raw.safetensors
      fluxvae decode model_tile512.mlpackage latents.safetensors --tile 512
    """
    from fluxvae.decode import decode_file

    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        say(f"note: {text}")

    decoded = decode_file(
        artifact,
        latents,
        out,
        function=function,
        size=size,
        tile=tile,
        backend=backend,
        compute_units=compute_units,
        overwrite=overwrite,
        strict=strict,
        on_note=note,
        on_image=lambda d: say(f"decoded {d.name} at {d.size}"),
    )
    for image in decoded:
        if not image.finite:
            say(f"warning: {image.name} decodes to NaN or infinite values")
    tiles = _tile_costs(artifact, [d.size for d in decoded])
    if as_json:
        rows = [{**asdict(d), "path": str(d.path)} for d in decoded]
        print_json(
            {
                "artifact": str(artifact),
                "decoded": rows,
                "notes": notes,
                **({"tiles": tiles} if tiles else {}),
            }
        )
    else:
        for path in dict.fromkeys(d.path for d in decoded):
            click.echo(str(path))


def _tile_costs(artifact: Path, sizes: list[str]) -> list[dict[str, object]]:
    """What tiles cost, for each size; said to stderr. Nothing for an artifact without tiles."""
    from fluxvae.recipes import parse_sizes
    from fluxvae.whole import open_artifact

    opened = open_artifact(artifact)
    if opened.record.tiles is None:
        return []
    from fluxvae.tile_costs import tile_costs

    costs = [tile_costs(opened, *parse_sizes(size)) for size in dict.fromkeys(sizes)]
    for cost in costs:
        say(cost.sentence())
    return [
        {**asdict(cost), "size": str(cost.size), "tile_size": str(cost.tile_size)} for cost in costs
    ]
