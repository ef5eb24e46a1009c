"""``fluxvae cache``, and the store of solved compressions that commands use."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxvae.cli.harness import cache_folder
from fluxvae.cli.options import json_option, print_json
from fluxvae.cli.text import duration_text, rows, size_text
from fluxvae.files import size_of

if TYPE_CHECKING:
    from fluxvae.compress.store import Store

# Folders in the cache folder, and what is lost with each.
KINDS = {
    "compressions": "compressed weights; without them the next convert solves them again",
    "harness": "the built Swift harness; built again when a command needs it",
    "soa": "images of `fluxvae data fetch soa`; fetched again by that command alone",
}


@dataclass(frozen=True)
class Entry:
    """A file or folder in the cache. ``age_s``: seconds since it was made, or last used."""

    kind: str
    name: str
    bytes: int
    age_s: float


@click.group("cache", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Show and clear what fluxvae keeps in the user's cache folder to be quicker.

    Without a subcommand: show. Compressed weights may take 2 GB; beyond that, the least recently
    used are removed. Weights that were fetched are in Hugging Face's cache, and stay there.
    """
    if context.invoked_subcommand is None:
        context.invoke(show)


@command.command()
@json_option
def show(as_json: bool) -> None:
    """List what is in the cache, with sizes and ages.

    \b
    Example:
      fluxvae cache show
    """
    from fluxvae.networks.hub import cache_folder as hub_folder

    folder, entries = cache_folder(), list(_entries())
    if as_json:
        print_json({"folder": str(folder), "bytes": _bytes(entries), "weights": str(hub_folder()),
                    "entries": [asdict(entry) for entry in entries]})  # fmt: skip
        return
    click.echo(f"{folder}: {size_text(_bytes(entries))}")
    for kind, about in KINDS.items():
        found = [entry for entry in entries if entry.kind == kind]
        click.echo(rows([(kind, f"{size_text(_bytes(found))}: {about}")], label=14))
        for entry in found:
            click.echo(
                f"{size_text(entry.bytes):>14}  {duration_text(entry.age_s):>11}  {entry.name}"
            )
    click.echo(
        f"Weights that were fetched: {hub_folder()} (Hugging Face's cache, not cleared here)"
    )


@command.command()
@click.argument("kinds", nargs=-1, type=click.Choice(tuple(KINDS)))
@json_option
def clear(kinds: tuple[str, ...], as_json: bool) -> None:
    """Remove what is in the cache: KINDS of it, or all. It is made again when needed.

    \b
    Examples:
      fluxvae cache clear
      fluxvae cache clear compressions
    """
    folder, cleared = cache_folder(), kinds or tuple(KINDS)
    removed = _bytes([entry for entry in _entries() if entry.kind in cleared])
    for kind in cleared:
        for path in _visible(folder / kind):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    if as_json:
        print_json({"folder": str(folder), "kinds": list(cleared), "removed_bytes": removed})
    else:
        click.echo(f"removed {size_text(removed)} from {folder}")


def compressions_folder() -> Path:
    """Where the store of solved compressions is."""
    return cache_folder() / "compressions"


def compressions() -> Store:
    """Compressions that were solved before, in the user's cache."""
    from fluxvae.compress.store import Store

    return Store(compressions_folder())


def _visible(folder: Path) -> list[Path]:
    """Hidden is what a process is making at this moment."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if not path.name.startswith("."))


def _entries() -> Iterator[Entry]:
    for kind in KINDS:
        for path in _visible(cache_folder() / kind):
            with suppress(FileNotFoundError):  # another process has just removed it
                if path.suffix != ".lock":
                    age = time.time() - path.stat().st_mtime
                    yield Entry(kind, path.name, size_of(path), age)


def _bytes(entries: list[Entry]) -> int:
    return sum(entry.bytes for entry in entries)
