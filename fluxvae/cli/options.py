"""Options and printing that several commands share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Show coremltools' own messages and progress bars."
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace an output that exists already."
)
offline_option = click.option(
    "--offline", is_flag=True, help="Never use the network; take weights from the cache only."
)
weights_option = click.option(
    "--weights",
    metavar="SOURCE",
    help="A .safetensors or .pth file or a folder, 'demo' (shipped, not FLUX's latent space), "
    "or 'random[:SEED]'. Default: the pinned file of the Hugging Face Hub.",
)
compiler_option = click.option(
    "--compiler",
    type=click.Choice(("auto", "xcode", "portable")),
    default="auto",
    show_default=True,
    help="Xcode's compiler; or ours, for any OS, whose output has not been shown to load on a "
    "real Mac. auto prefers Xcode's.",
)
ARTIFACT = click.Path(path_type=Path)


def print_json(data: object) -> None:
    """One JSON object to stdout, strict (no NaN or Infinity) and in a stable order of keys."""
    click.echo(json.dumps(data, indent=2, allow_nan=False))


def say(text: str) -> None:
    """A line of progress or a note: stderr, so that stdout holds results only."""
    click.echo(text, err=True)
