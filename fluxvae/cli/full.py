"""``convert``'s options for the full decoders, and what they ask for as data."""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import click

from fluxvae.cli.options import say
from fluxvae.networks.catalog import DECODERS
from fluxvae.recipes import FP16_SAFETY, LATENTS, TILE_STATISTICS, Recipe

decoder_option = click.option(
    "--decoder",
    type=click.Choice(DECODERS),
    default="tiny",
    show_default=True,
    help="The tiny decoder, or a KL decoder: full, or (FLUX.2) small.",
)
latent_form_option = click.option(
    "--latent-form",
    type=click.Choice(LATENTS),
    help="Which latent it is: the VAE's own, the sampler's, or the transformer's packed one. "
    "[default: sampler for tiny, vae for full and small]",
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
    click.option(
        "--latents",
        type=click.Choice(LATENTS),
        help="Which latent the artifact takes: the VAE's own, the sampler's, or the transformer's "
        "packed one; the rest happens inside. [default: sampler for tiny, vae for full and small]",
    ),
    click.option(
        "--fp16-safety",
        type=click.Choice(FP16_SAFETY),
        default="report",
        show_default=True,
        help="Against values that float16 cannot hold: warn; rescale groups of channels (KL "
        "decoders, exact); keep what makes and reads them in float32 (mixed); or nothing.",
    ),
    click.option(
        "--chunks",
        type=click.IntRange(1, 2),
        default=1,
        show_default=True,
        help="2: two packages of even weights, run one after the other.",
    ),
    click.option(
        "--tile",
        type=int,
        metavar="PX",
        help="One package that makes any large image in tiles of this size, such as 512; a KL "
        "decoder's for images of --size.",
    ),
    click.option(
        "--tile-statistics",
        type=click.Choice(TILE_STATISTICS),
        default=TILE_STATISTICS[0],
        show_default=True,
        help="GroupNorm statistics of a KL decoder's tiles: from passes over every second block of "
        "rows and columns (about 45 dB), or from a whole pass (exact; all its memory).",
    ),
)


@dataclass(frozen=True)
class FullRequest:
    """What the options ask for: fields of the recipe."""

    decoder: str = "tiny"
    attention: str = "auto"
    latents: str | None = None
    fp16_safety: str = "report"
    chunks: int = 1
    tile: int | None = None
    tile_statistics: str = TILE_STATISTICS[0]

    def recipe_fields(self) -> dict[str, Any]:
        """Keyword arguments of ``Recipe``."""
        return asdict(self)


def full_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets one argument ``full`` in their place."""

    @functools.wraps(command)
    def with_request(**given: Any) -> Any:
        own = {field.name: given.pop(field.name) for field in fields(FullRequest)}
        return command(full=FullRequest(**own), **given)

    for option in reversed(_OPTIONS):
        with_request = option(with_request)
    return with_request


def say_choices(recipe: Recipe) -> None:
    """What ``auto`` stands for in a recipe, and why, to stderr."""
    if recipe.decoder != "tiny" and recipe.attention == "auto":
        form, why = recipe.auto_attention()
        say(f"attention: {form}: {why}")
