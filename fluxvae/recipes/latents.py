"""Which latent a decoder takes or an encoder gives: forms and their contracts. Standard library.

``vae``: the VAE's own space, the KL networks'. ``sampler``: as the sampler leaves it,
unpatchified, the tiny networks'. ``packed``: the same in 2 x 2 patches, as the
transformer gives it: FLUX.1 (1, H/16 * W/16, 64) tokens, FLUX.2 (1, 128, H/16, W/16).
"""

from dataclasses import replace

from fluxvae.networks.catalog import LatentContract, find_decoder
from fluxvae.recipes.fields import RecipeFields, native_form

PATCH = 2  # latent pixels of a patch, each way
# FLUX.1's VAE: the sampler's latent is (z - shift) * scale.
FLUX1_SCALE = 0.3611
FLUX1_SHIFT = 0.1159
PACKED = {
    "flux1": (
        "flux1-sampler-packed",
        "FLUX.1's latent as the transformer leaves it: one token of 64 numbers for each 2 x 2 "
        "patch, row by row.",
    ),
    "flux2": (
        "flux2-sampler-packed",
        "FLUX.2's normalised latent as the transformer leaves it: 128 channels, 2 x 2 patches. No "
        "inverse batch-norm: it happens inside, where the decoder needs it.",
    ),
}
_SAMPLER = {
    "flux1": "FLUX.1's latent exactly as the sampler leaves it; scale and shift happen inside.",
    "flux2": "FLUX.2's normalised latent as the sampler leaves it, only unpatchified from 128 to "
    "32 channels; the inverse batch-norm happens inside.",
}
_IN_WORDS = {
    "vae": "in the VAE's own space",
    "sampler": "as a sampler leaves it",
    "packed": "as a sampler leaves it, in 2 x 2 patches",
}


def artifact_contract(recipe: RecipeFields, own: LatentContract) -> LatentContract:
    """The artifact's latent. ``own``: that of the network with its weights."""
    form = recipe.latent_form
    if form == native_form(recipe.decoder):
        return own
    entry = find_decoder(recipe.variant, recipe.decoder)
    if own.space != entry.contract.space:  # demo and random weights: a space of their own
        space, wants = f"{own.space}-{form}", f"{own.wants} Here {_IN_WORDS[form]}."
    elif form == "packed":
        space, wants = PACKED[recipe.variant]
    elif form == "sampler":
        space, wants = find_decoder(recipe.variant).contract.space, _SAMPLER[recipe.variant]
    else:
        vae = find_decoder(recipe.variant, "full").contract
        space, wants = vae.space, vae.wants
    contract = replace(own, space=space, wants=wants)
    if form != "packed":
        return contract
    return replace(
        contract,
        channels=own.channels * PATCH**2,
        scale=own.scale * PATCH,
        tokens=recipe.variant == "flux1",
    )
