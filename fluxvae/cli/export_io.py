"""``fluxvae export-io``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxvae.cli.options import (
    json_option,
    one_size,
    option_group,
    overwrite_option,
    print_json,
    say,
)
from fluxvae.cli.recipe_options import latent_form_option
from fluxvae.cli.sources import AnySources, UserLatents
from fluxvae.errors import LatentError, UsageError
from fluxvae.recipes import LAYOUTS, PRECISIONS, Recipe, Size
from fluxvae.recipes.capabilities import refuse_command
from fluxvae.recipes.latents import artifact_contract

if TYPE_CHECKING:
    from fluxvae.data.latents import Latent, LatentFile


@click.command("export-io")
@option_group("sources", AnySources)
@latent_form_option
@click.option("--layout", type=click.Choice(LAYOUTS), default="nchw", show_default=True,
              help="Axis order of both files.")  # fmt: skip
@click.option("--size", default="1024", show_default=True,
              help="Image size in pixels: 768 or 768x1344 (height x width).")  # fmt: skip
@click.option(
    "--case",
    metavar="NAME",
    help="normal (seeded noise), chelsea or coffee (photos through the encoder); with --latents, "
    "one of the file's. [default: normal]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Of the noise. [default: 0]")
@option_group("user", UserLatents)
@click.option(
    "--io-precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="Dtype of input.bin. output.bin is float32 always.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@overwrite_option
@json_option
def command(
    sources: AnySources,
    latent_form: str | None,
    layout: str,
    size: str,
    case: str | None,
    seed: int | None,
    user: UserLatents,
    io_precision: str,
    out: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write one latent and the image PyTorch decodes it to, for programs in any language.

    With --part encoder an image and its latent. OUT becomes a folder of input.bin and output.bin
    (raw, little-endian) and manifest.json. The image is computed in float64 and rounded once: the
    same command gives the same bytes.

    \b
    Examples:
      fluxvae export-io --variant flux2 --layout nhwc --size 768 --out coreml_io/flux2
      fluxvae export-io --variant flux1 --weights demo --size 256 --case coffee --out io
    """
    parsed = one_size(size, "an I/O bundle")
    from fluxvae.data.latents import beyond_float16
    from fluxvae.device.bundle import NORMAL, Request, check_target, export_bundle
    from fluxvae.files import file_sha256

    noise = user.latents is None and case in (None, NORMAL)
    if seed is not None and not noise:
        raise UsageError("--seed is of the noise: leave it out for a photo or your own latents")
    if sources.encoder is not None and (noise or user.latents is not None):
        raise UsageError("--encoder makes a photo's latent: add --case chelsea, or leave it out")
    check_target(out, overwrite)
    if user.latents is not None:
        refuse_command("--latents FILE", sources.decoder, sources.part, "--latents")
    recipe = Recipe(
        sources.variant,
        layout=layout,
        sizes=parsed,
        decoder=sources.decoder,
        part=sources.part,
        latents=latent_form,
    )
    loaded, photo = sources.load(), None
    given = user.read(recipe, artifact_contract(recipe, loaded.contract))
    if given is not None:
        latent, digest = _chosen(given, parsed[0], case), file_sha256(given.path)
        request = Request(
            parsed[0], layout, latent.name, 0, io_precision, latent, digest, recipe.latents
        )
        beyond = beyond_float16(latent.values)
        if beyond is not None:
            say(f"note: {latent.name} {beyond}, in a float16 model")
    else:
        request = Request(
            parsed[0], layout, case or NORMAL, seed or 0, io_precision, latents=recipe.latents
        )
        photo = sources.find_encoder() if request.kind == "photo" else None
    from fluxvae.schema import plain

    say(f"computing {request.case} at {parsed[0]} in float64")
    bundle = export_bundle(loaded, request, out, encoder=photo, overwrite=overwrite)
    if as_json:
        notes = list(given.notes if given else ())
        print_json({"path": str(bundle.path), "manifest": plain(bundle.manifest), "notes": notes})
    else:
        click.echo(str(bundle.path))


def _chosen(given: LatentFile, size: Size, case: str | None) -> Latent:
    """The one latent of the file that was asked for."""
    fitting = [x for x in given.latents if case in (None, x.name)]
    if len(fitting) != 1:
        names = ", ".join(f"{x.name} {list(x.values.shape)}" for x in given.latents)
        raise LatentError(
            f"{given.path.name} has {len(fitting)} latents for --size {size}"
            f"{f' named {case}' if case else ''}, expected one: it holds {names}; choose with "
            "--case NAME and --size"
        )
    return fitting[0]
