"""``fluxvae export-io``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxvae.cli.encoders import choose_encoder, load_decoder
from fluxvae.cli.full import decoder_option, latent_form_option
from fluxvae.cli.options import (
    LATENT_FILES,
    json_option,
    offline_option,
    one_size,
    overwrite_option,
    print_json,
    say,
    strict_option,
    variant_option,
    weights_option,
)
from fluxvae.errors import LatentError, UsageError
from fluxvae.recipes import LAYOUTS, PRECISIONS, Recipe, Size

if TYPE_CHECKING:
    from fluxvae.data.latents import Latent, LatentFile
    from fluxvae.networks.weights import Weights


@click.command("export-io")
@variant_option
@decoder_option
@weights_option
@latent_form_option
@click.option("--encoder", metavar="PATH", help="Encoder that makes a photo's latent.")
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
@click.option(
    "--latents",
    type=click.Path(path_type=Path),
    help=f"A file of your own latents to take the latent from ({LATENT_FILES}).",
)
@strict_option
@click.option(
    "--io-precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="Dtype of input.bin. output.bin is float32 always.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@overwrite_option
@offline_option
@json_option
def command(
    variant: str,
    decoder: str,
    weights: str | None,
    latent_form: str | None,
    encoder: str | None,
    layout: str,
    size: str,
    case: str | None,
    seed: int | None,
    latents: Path | None,
    strict: bool,
    io_precision: str,
    out: Path,
    overwrite: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Write one latent and the image PyTorch decodes it to, for programs in any language.

    OUT becomes a folder of input.bin and output.bin (raw, little-endian) and manifest.json. The
    image is computed in float64 and rounded once: the same command gives the same bytes.

    \b
    Examples:
      fluxvae export-io --variant flux2 --layout nhwc --size 768 --out coreml_io/flux2
      fluxvae export-io --variant flux1 --weights demo --size 256 --case coffee --out io
    """
    parsed = one_size(size, "an I/O bundle")
    from fluxvae.data.latents import beyond_float16
    from fluxvae.device.bundle import NORMAL, Request, check_target, export_bundle
    from fluxvae.files import file_sha256

    noise = latents is None and case in (None, NORMAL)
    if seed is not None and not noise:
        raise UsageError("--seed is of the noise: leave it out for a photo or your own latents")
    if encoder is not None and (noise or latents is not None):
        raise UsageError("--encoder makes a photo's latent: add --case chelsea, or leave it out")
    check_target(out, overwrite)
    notes: tuple[str, ...] = ()
    recipe = Recipe(variant, layout=layout, sizes=parsed, decoder=decoder, latents=latent_form)
    loaded = load_decoder(variant, weights, kind=decoder, offline=offline)
    if latents is not None:
        given = _read(latents, loaded, recipe, strict)
        notes = given.notes
        for note in notes:
            say(f"note: {note}")
        latent, digest = _chosen(given, parsed[0], case), file_sha256(given.path)
        request = Request(
            parsed[0], layout, latent.name, 0, io_precision, latent, digest, recipe.latents
        )
        photo = None
        beyond = beyond_float16(latent.values)
        if beyond is not None:
            say(f"note: {latent.name} {beyond}, in a float16 model")
    else:
        request = Request(
            parsed[0], layout, case or NORMAL, seed or 0, io_precision, latents=recipe.latents
        )
        photo = (
            choose_encoder(variant, weights, encoder, offline=offline, kind=decoder)
            if request.kind == "photo"
            else None
        )
    say(f"computing {request.case} at {parsed[0]} in float64")
    bundle = export_bundle(loaded, request, out, encoder=photo, overwrite=overwrite)
    if as_json:
        manifest = bundle.manifest.to_dict()
        print_json({"path": str(bundle.path), "manifest": manifest, "notes": list(notes)})
    else:
        click.echo(str(bundle.path))


def _read(path: Path, weights: Weights, recipe: Recipe, strict: bool) -> LatentFile:
    from fluxvae.data.latents import read_latents
    from fluxvae.recipes.axes import latent_input
    from fluxvae.recipes.latents import artifact_contract

    contract = artifact_contract(recipe, weights.contract)
    return read_latents(path, latent_input(recipe, contract, recipe.sizes), strict=strict)


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
