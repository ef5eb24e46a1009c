"""``convert``'s options for the full decoders, and what they ask for as data."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from fluxvae.catalog import DECODERS
from fluxvae.cli.options import say
from fluxvae.recipes import Recipe

decoder_option = click.option(
    "--decoder",
    type=click.Choice(DECODERS),
    default="tiny",
    show_default=True,
    help="The tiny decoder, or a KL decoder: full, or (FLUX.2) small.",
)
_OPTIONS = (
    decoder_option,
    click.option(
        "--attention",
        metavar="FORM",
        default="auto",
        show_default=True,
        help="Form of a KL decoder's attention: auto, plain, channels-first, chunked:N (N queries "
        "at a time), split-einsum or sdpa (iOS18).",
    ),
)


@dataclass(frozen=True)
class FullRequest:
    """What the options ask for: fields of the recipe."""

    decoder: str = "tiny"
    attention: str = "auto"

    def recipe_fields(self) -> dict[str, Any]:
        """Keyword arguments of ``Recipe``."""
        return {"decoder": self.decoder, "attention": self.attention}


def full_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets one argument ``full`` in their place."""

    @functools.wraps(command)
    def with_request(decoder: str, attention: str, **others: Any) -> Any:
        return command(full=FullRequest(decoder, attention), **others)

    for option in reversed(_OPTIONS):
        with_request = option(with_request)
    return with_request


def say_choices(recipe: Recipe) -> None:
    """What ``auto`` stands for in a recipe, and why, to stderr."""
    if recipe.decoder != "tiny" and recipe.attention == "auto":
        form, why = recipe.auto_attention()
        say(f"attention: {form}: {why}")
