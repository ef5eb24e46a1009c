"""What follows from a recipe, decided once and handed on. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fluxvae.networks.catalog import LatentContract, find_decoder
from fluxvae.recipes.functions import STRIDES, tile_shapes
from fluxvae.recipes.latents import artifact_contract
from fluxvae.recipes.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """One artifact to make, with nothing left to choose.

    ``recipe``: as artifacts record it, with a form of attention. ``own``: the latent and the image
    of the network with its weights, ``contract``: those of the artifact. ``target``: the oldest
    release it runs on; None for neural networks. ``boundary``: dtype of what parts pass to each
    other; it must hold every value that the programs compute, exactly. ``tiles``: rows and columns
    in latent pixels that each function of tiles takes; ``stride``: how far apart their statistics
    are measured, None where they need none.
    """

    recipe: Recipe
    own: LatentContract
    contract: LatentContract
    target: str | None
    boundary: str
    tiles: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    stride: int | None = None


def plan_of(recipe: Recipe, own: LatentContract | None = None, channels: int = 0) -> Plan:
    """The plan of an artifact from a network of the contract ``own``.

    Without one: the catalogue's, with ``channels`` of the network's latent. Every encoder takes
    images in [0, 1].
    """
    made = recipe.resolved()
    own = own or replace(find_decoder(made.variant, made.decoder).contract, channels=channels)
    if made.encodes:
        own = replace(own, low=0.0, high=1.0)
    wide = "float32" in (made.precision, made.io_dtype)
    tiled, tiny = made.tile is not None, made.decoder == "tiny"
    return Plan(
        recipe=made,
        own=own,
        contract=artifact_contract(made, own),
        target=made.deployment_target,
        boundary="float32" if wide else "float16",
        tiles=tile_shapes(made) if tiled else {},
        stride=STRIDES[made.tile_statistics] if tiled and not tiny else None,
    )
