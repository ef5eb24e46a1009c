"""What artifacts take, for tests of latents."""

from fluxvae.networks.catalog import LatentContract, find_decoder
from fluxvae.recipes import Recipe, parse_sizes
from fluxvae.recipes.axes import LatentInput, latent_input
from fluxvae.recipes.latents import artifact_contract


def takes(
    variant: str,
    *sizes: str,
    latents: str | None = None,
    layout: str = "nchw",
    decoder: str = "tiny",
    own: LatentContract | None = None,
) -> LatentInput:
    """What an artifact of these sizes takes; without sizes, of every one.

    ``own``: contract of its decoder; None for the catalogue's.
    """
    recipe = Recipe(variant, latents=latents, layout=layout, decoder=decoder)
    contract = artifact_contract(recipe, own or find_decoder(variant, decoder).contract)
    return latent_input(recipe, contract, parse_sizes(",".join(sizes)) if sizes else ())
