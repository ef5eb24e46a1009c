"""Options and printing that several commands share."""

import functools
import math
from collections.abc import Callable
from dataclasses import field, fields
from pathlib import Path
from typing import Any

import click

from fluxvae.errors import UsageError
from fluxvae.networks.catalog import CATALOG
from fluxvae.networks.names import ALIASES, resolved, why_unknown
from fluxvae.recipes import Size, parse_sizes
from fluxvae.recipes.known_trouble import path_note
from fluxvae.schema import finite, json_text

ARTIFACT = click.Path(path_type=Path)
OUT = Path("coreml_out")  # where artifacts go that are given no other path
LATENT_FILES = ".safetensors, .latent, .npy, .bin; FILE:KEY takes one tensor"

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Show coremltools' own messages and progress bars."
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace an output that exists already."
)
compiler_option = click.option(
    "--compiler",
    type=click.Choice(("auto", "xcode", "portable")),
    default="auto",
    show_default=True,
    help="Xcode's compiler; or ours, for any OS, whose output has not been shown to load on a "
    "real Mac. auto prefers Xcode's.",
)


def option(*declarations: str, **attributes: Any) -> Any:
    """A field of an option group, declared as for ``click.option``; see ``option_group``."""
    return field(metadata={"option": (declarations, attributes)})


def option_group(name: str, group: type) -> Callable[[Any], Any]:
    """Adds every option of the dataclass ``group``; the command gets them as one argument ``name``.

    The dataclass's fields are made by ``option``, in the order of the help; those of the classes
    it inherits from come first, as in any dataclass.
    """

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def with_group(**values: Any) -> Any:
            own = {f.name: values.pop(f.name) for f in fields(group)}
            return command(**{name: group(**own)}, **values)

        for f in reversed(fields(group)):
            declarations, attributes = f.metadata["option"]
            with_group = click.option(f.name, *declarations, **attributes)(with_group)
        return with_group

    return decorate


def calibration_option(photos: str) -> Callable[[Any], Any]:
    """``--calibration`` of commands that compress. ``photos``: which ones, in words."""
    return click.option(
        "--calibration",
        default="photos",
        show_default=True,
        metavar="photos|DIR",
        help=f"What compression may look at: 16 crops of {photos}, or your images or latents.",
    )


class Variant(click.ParamType):
    """A variant of the catalogue, or the name of a model that uses its VAE."""

    name = "variant"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(sorted(CATALOG))}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = resolved(value)
        if found in CATALOG:
            if found != value:
                say(f"note: {value} uses the VAE of {found}")
            return found
        known = ", ".join((*sorted(CATALOG), *sorted(ALIASES)))
        raise click.BadParameter(
            why_unknown(value) or f"{value!r} is not known; expected one of {known}", ctx, param
        )


class FiniteRange(click.FloatRange):
    """``click.FloatRange`` without NaN and infinity, which that lets through."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"expected a finite number, got {value}", param, ctx)
        return number


def one_size(text: str, owner: str) -> tuple[Size, ...]:
    """``--size`` of a command that takes one, as ``parse_sizes``. ``owner``: what has it, as in
    "a round trip". Raises UsageError for several."""
    sizes = parse_sizes(text)
    if len(sizes) != 1:
        raise UsageError(f"{owner} has one size, got {text}: run it once for each")
    return sizes


def print_json(data: object) -> None:
    """One JSON object to stdout, in a stable order of keys; NaN and infinity become null."""
    click.echo(json_text(finite(data), indent=2), nl=False)


def say(text: str) -> None:
    """A line of progress or a note: stderr, so that stdout holds results only."""
    click.echo(text, err=True)


def say_path_note(path: Path) -> None:
    """A note where a model's path is reported to keep it off the Neural Engine."""
    note = path_note(path)
    if note is not None:
        say(note)
