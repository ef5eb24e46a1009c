"""Options and printing that several commands share."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fluxvae.errors import UsageError
from fluxvae.networks.catalog import CATALOG
from fluxvae.recipes import Size, parse_sizes
from fluxvae.recipes.known_trouble import path_note
from fluxvae.schema import finite, json_text

ARTIFACT = click.Path(path_type=Path)
OUT = Path("coreml_out")  # where artifacts go that are given no other path
# The units are the keys of fluxvae.artifact.backends.COMPUTE_UNITS; help must not wait for its
# numpy.
BACKENDS = ("auto", "reference", "coreml")
UNITS = ("all", "cpuOnly", "cpuAndGPU", "cpuAndNeuralEngine")

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
variant_option = click.option(
    "--variant", type=click.Choice(sorted(CATALOG)), required=True, help="Which decoder."
)
weights_option = click.option(
    "--weights",
    metavar="SOURCE",
    help="A .safetensors or .pth file, the index of several, or a folder; 'demo' (shipped, not "
    "FLUX's latent space); or 'random[:SEED]'. Default: the pinned file of the Hugging Face Hub.",
)
strict_option = click.option(
    "--strict",
    is_flag=True,
    help="Refuse latents that look like those of another space or order, instead of noting it.",
)
LATENT_FILES = ".safetensors, .latent, .npy, .bin; FILE:KEY takes one tensor"
backend_option = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="Who runs the artifact: Core ML on a Mac, our executor anywhere.",
)
compute_units_option = click.option(
    "--compute-units",
    type=click.Choice(UNITS),
    default="all",
    show_default=True,
    help="For Core ML on a Mac.",
)
compiler_option = click.option(
    "--compiler",
    type=click.Choice(("auto", "xcode", "portable")),
    default="auto",
    show_default=True,
    help="Xcode's compiler; or ours, for any OS, whose output has not been shown to load on a "
    "real Mac. auto prefers Xcode's.",
)


def artifact_argument(name: str, *, compiled: bool = False) -> Callable[[Any], Any]:
    """A path of a saved model, as the parameter ``name``; without it the newest in ``OUT``.

    ``compiled``: the command has Core ML load a ``.mlmodelc``; the newest is compiled when it is
    not, and a path that may keep it off the Neural Engine is noted.
    """

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def with_artifact(**values: Any) -> Any:
            if values[name] is None:
                from fluxvae.cli.newest import newest_compiled, newest_path

                values[name] = newest_compiled() if compiled else newest_path()
            if compiled:
                say_path_note(values[name])
            return command(**values)

        return click.argument(name, type=ARTIFACT, required=False)(with_artifact)

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
