"""``fluxvae decode``."""

import tempfile
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
from fluxvae.cli.sources import STRICT, OwnSources, Runner, offline_option
from fluxvae.errors import WeightsError


@click.command("decode")
@click.argument("artifact", type=ARTIFACT, required=False)
@click.argument("latents", type=click.Path(path_type=Path), required=False)
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
@click.option("--strict", is_flag=True, help=STRICT)
@option_group("runner", Runner)
@overwrite_option
@offline_option
@json_option
def command(
    artifact: Path | None,
    latents: Path | None,
    out: Path,
    function: str | None,
    size: str | None,
    tile: int | None,
    strict: bool,
    runner: Runner,
    overwrite: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Decode latents with a saved model and write its own pictures.

    LATENTS is a .safetensors, .latent (ComfyUI), .npy or .bin file; FILE:KEY takes one tensor of a
    .safetensors file. The model's own layout decides which axis is which: another is taken only
    where it alone can fit. Without LATENTS, two photos through the encoder that belongs to the
    artifact's weights are decoded. Without ARTIFACT, the newest one in coreml_out/. A model in two
    halves is named by either one.

    \b
    Examples:
      fluxvae decode
      fluxvae decode latents.safetensors
      fluxvae decode model.mlpackage latents.safetensors --out images/
      fluxvae decode model.mlpackage latents.npy --out raw.safetensors
      fluxvae decode model_tile512.mlpackage latents.safetensors --tile 512
    """
    from fluxvae.artifact.decode import decode_file
    from fluxvae.cli.newest import SUFFIXES, newest_path

    if artifact is not None and latents is None and artifact.suffix not in SUFFIXES:
        artifact, latents = None, artifact
    artifact = artifact or newest_path()
    if latents is None:
        folder = tempfile.TemporaryDirectory(prefix="fluxvae-latents-")
        latents = Path(click.get_current_context().with_resource(folder)) / "photos.safetensors"
        _write_photos(artifact, latents, size, offline)
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
        backend=runner.backend,
        compute_units=runner.compute_units,
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


def _write_photos(artifact: Path, file: Path, size: str | None, offline: bool) -> None:
    """Write the latents of validation's photos for an artifact, of every size or of ``--size``.

    Raises WeightsError when no encoder belongs to the artifact's weights.
    """
    from safetensors.numpy import save_file

    from fluxvae.artifact.open import open_artifact
    from fluxvae.data.latents import space_metadata
    from fluxvae.data.spaces import latent_transform
    from fluxvae.recipes import parse_sizes
    from fluxvae.validation.validate import build_cases

    record = open_artifact(artifact).record
    if record.source.kind == "file":
        raise WeightsError(
            f"{artifact.name} was converted from the file {record.source.name!r}, and what encoder "
            "belongs to that is not known here: pass LATENTS"
        )
    weights, own = OwnSources(None, None, offline).resolve(record)
    encoder = own.find_encoder()
    if encoder is None:
        raise WeightsError(f"no encoder belongs to the weights of {artifact.name}: pass LATENTS")
    sizes = parse_sizes(size) if size else record.recipe.sizes
    say(f"encoding photos with the encoder of weights {encoder.source.name}")
    latents = {
        case.name if len(sizes) == 1 else f"{case.name}-{one}": case.values
        for one in sizes
        for case in build_cases(record, one, encoder, (), latent_transform(record.recipe, weights))
        if case.kind == "photo"
    }
    save_file(latents, file, space_metadata(record.contract))


def _tile_costs(artifact: Path, sizes: list[str]) -> list[dict[str, object]]:
    """What tiles cost, for each size; printed to stderr. Nothing for an artifact without tiles."""
    from fluxvae.artifact.open import open_artifact
    from fluxvae.recipes import parse_sizes

    opened = open_artifact(artifact)
    if opened.record.tiles is None:
        return []
    from fluxvae.validation.tile_costs import tile_costs

    costs = [tile_costs(opened, *parse_sizes(size)) for size in dict.fromkeys(sizes)]
    for cost in costs:
        say(cost.sentence())
    return [
        {**asdict(cost), "size": str(cost.size), "tile_size": str(cost.tile_size)} for cost in costs
    ]
