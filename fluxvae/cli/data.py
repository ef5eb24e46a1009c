"""``fluxvae data``."""

from __future__ import annotations

import click

from fluxvae.cli.harness import cache_folder
from fluxvae.cli.options import json_option, print_json, say


@click.group("data")
def command() -> None:
    """Images to look at, fetched once into the user's cache."""


@command.command(short_help="Fetch images, and list them with their digests.")
@click.argument("name", type=click.Choice(("soa",)))
@click.option(
    "--count",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many images: the first of the dataset that can be used.",
)
@json_option
def fetch(name: str, count: int, as_json: bool) -> None:
    """Fetch images of a public dataset; `fluxvae roundtrip --images soa` uses them.

    soa is madebyollin/soa-aesthetic (Smithsonian Open Access, CC0), streamed with the `datasets`
    package (pip install 'fluxvae[soa]').

    \b
    Example:
      fluxvae data fetch soa --count 20
    """
    from dataclasses import asdict

    from fluxvae.data.soa import LISTING, download, fetch_soa, folder, open_stream

    cache = cache_folder()
    listing = fetch_soa(cache, count, stream=open_stream, download=download, progress=say)
    if as_json:
        print_json({"folder": str(folder(cache)), **asdict(listing)})
    else:
        click.echo(f"{len(listing.entries)} images in {folder(cache)}, listed in {LISTING}")
