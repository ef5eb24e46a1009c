"""``fluxvae census``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.options import json_option, one_size, option_group, print_json, say
from fluxvae.cli.recipe_options import latent_form_option
from fluxvae.cli.sources import AnySources, UserLatents
from fluxvae.recipes import Recipe, Size
from fluxvae.recipes.capabilities import refuse_command
from fluxvae.recipes.latents import artifact_contract

if TYPE_CHECKING:
    from fluxvae.convert.census import Census, Tap
    from fluxvae.data.latents import Latent
    from fluxvae.networks.weights import Weights

_ROWS = 20  # of the table, unless --all


@click.command("census")
@option_group("sources", AnySources)
@option_group("user", UserLatents)
@latent_form_option
@click.option(
    "--size",
    default="256",
    show_default=True,
    help="Image size in pixels, 256 or 256x384 (height x width); photos are cut to it, and of a "
    "file the latents of this size are taken.",
)
@click.option("--all", "every", is_flag=True, help="Every operation, not the largest 20.")
@json_option
def command(
    sources: AnySources,
    user: UserLatents,
    latent_form: str | None,
    size: str,
    every: bool,
    as_json: bool,
) -> None:
    """Say how far the activations of the float32 program go, and how near float16's limit.

    On photo latents, or on yours. A headroom below 1 overflows in float16: convert with
    --fp16-safety rescale or mixed.

    \b
    Examples:
      fluxvae census --variant flux2 --decoder full
      fluxvae census --variant flux1 --decoder full --latents latents.safetensors --size 512
    """
    sizes = one_size(size, "a census")
    recipe = Recipe(
        sources.variant,
        precision="float32",
        sizes=sizes,
        decoder=sources.decoder,
        part=sources.part,
        latents=latent_form,
    )
    from fluxvae.convert.census import take_census
    from fluxvae.networks.build import build_network

    loaded = sources.load()
    if user.latents is not None:
        refuse_command("--latents FILE", sources.decoder, sources.part, "--latents")
    given = user.read(recipe, artifact_contract(recipe, loaded.contract))
    chosen = given.latents if given else _measured(recipe, loaded, sources.find_encoder())
    say(f"running the float32 program on {', '.join(x.name for x in chosen)} at {sizes[0]}")
    census = take_census(build_network(loaded), recipe, loaded.contract.channels, chosen)
    if as_json:
        print_json(_json(census, recipe, loaded, () if given is None else given.notes))
    else:
        _print(census, every)


def _measured(recipe: Recipe, weights: Weights, encoder: Weights | None) -> tuple[Latent, ...]:
    """Photo latents, or noise without an encoder, as the recipe takes them."""
    from fluxvae.convert.fp16_safety import probe_inputs
    from fluxvae.data.latents import Latent
    from fluxvae.data.spaces import latent_transform

    if encoder is None and not recipe.encodes:
        say("warning: no encoder belongs to these weights; noise says less than photos do")
    transform = latent_transform(recipe, weights)
    own = probe_inputs(weights, encoder, recipe.sizes[0], recipe)
    return tuple(Latent(x.name, transform.into_artifact(x.values)) for x in own)


def _print(census: Census, every: bool) -> None:
    from fluxvae.convert.census import FP16_LIMIT

    largest = sorted(census.taps, key=lambda tap: -tap.largest)
    shown = set(largest if every else largest[:_ROWS])
    wide = max(len(tap.kind) for tap in shown)
    click.echo(f"{'op':>5}  {'kind':<{wide}}  {'largest':>9}  {'headroom':>9}  {'shape':<18}  name")
    for tap in census.taps:
        if tap in shown:
            shape = "x".join(map(str, tap.shape))
            click.echo(
                f"{tap.index:>5}  {tap.kind:<{wide}}  {tap.largest:9.3g}  {tap.headroom:9.3g}  "
                f"{shape:<18}  {tap.name}"
            )
    if len(shown) < len(census.taps):
        click.echo(f"the largest {len(shown)} of {len(census.taps)} operations; --all shows them")
    beyond = census.beyond()
    click.echo(
        f"{len(beyond)} of {len(census.taps)} operations go beyond float16's {FP16_LIMIT:.0f}"
        + (f", first {beyond[0].kind} {beyond[0].name}" if beyond else "")
    )


def _json(
    census: Census, recipe: Recipe, weights: Weights, notes: tuple[str, ...]
) -> dict[str, Any]:
    from fluxvae.convert.census import FP16_LIMIT

    def row(tap: Tap) -> dict[str, Any]:
        return {
            "index": tap.index,
            "kind": tap.kind,
            "name": tap.name,
            "shape": list(tap.shape),
            "largest": tap.largest,
            "headroom": tap.headroom,
            "latent": tap.latent,
        }

    size: Size = census.size
    return {
        "variant": recipe.variant,
        "decoder": recipe.decoder,
        "weights": {"source": weights.source.name, "digest": weights.digest},
        "size": str(size),
        "latents": list(census.latents),
        "limit": FP16_LIMIT,
        "beyond": len(census.beyond()),
        "notes": list(notes),
        "operations": [row(tap) for tap in census.taps],
    }
