"""Which latent an artifact takes: forms, what they need, and their contracts. Standard library.

``vae``: the VAE's own space, which the KL decoders take. ``sampler``: as the sampler leaves it,
unpatchified, which the tiny decoders take. ``packed``: the same in 2 x 2 patches, as the
transformer gives it: FLUX.1 (1, H/16 * W/16, 64) tokens, FLUX.2 (1, 128, H/16, W/16).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fluxvae.errors import UsageError
from fluxvae.networks.catalog import LatentContract, find_decoder

if TYPE_CHECKING:
    from fluxvae.recipes.recipe import Recipe

PATCH = 2  # latent pixels of a patch, each way
# FLUX.1's VAE: the sampler's latent is (z - shift) * scale.
FLUX1_SCALE = 0.3611
FLUX1_SHIFT = 0.1159
_PACKED = {
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


def native_form(kind: str) -> str:
    """The form that a decoder takes without anything in front of it."""
    return "sampler" if kind == "tiny" else "vae"


def check_latents(recipe: Recipe) -> None:
    """Raise UsageError where the recipe cannot have its ``latents``."""
    form = recipe.latent_form
    if form == native_form(recipe.decoder):
        return
    patches = form == "packed" or recipe.variant == "flux2"
    step = PATCH * find_decoder(recipe.variant, recipe.decoder).contract.scale
    tokens = form == "packed" and recipe.variant == "flux1"
    for wrong, why in (
        (recipe.variant not in _PACKED, "is not known: leave --latents out"),
        (
            form == "vae" and recipe.variant == "flux2",
            "needs FLUX.2's batch-norm statistics, which the tiny decoder has not: use --latents "
            "sampler or packed, or --decoder full",
        ),
        (recipe.nhwc_model, "has no NHWC graph: --layout nhwc alone gives NHWC in and out"),
        (recipe.format == "neuralnetwork", "is for --format mlprogram"),
        (
            patches and any(side % step for s in recipe.sizes for side in (s.height, s.width)),
            f"takes 2 x 2 patches: height and width must be multiples of {step}",
        ),
        (
            tokens and recipe.shapes == "enumerated",
            "cannot tell sizes apart by their number of tokens: use --shapes multifunction",
        ),
    ):
        if wrong:
            raise UsageError(f"--latents {form} of {recipe.variant} {why}")


def artifact_contract(recipe: Recipe, own: LatentContract) -> LatentContract:
    """What the artifact takes. ``own``: what the decoder with its weights takes."""
    form = recipe.latent_form
    if form == native_form(recipe.decoder):
        return own
    entry = find_decoder(recipe.variant, recipe.decoder)
    if own.space != entry.contract.space:  # demo and random weights: a space of their own
        space, wants = f"{own.space}-{form}", f"{own.wants} Here {_IN_WORDS[form]}."
    elif form == "packed":
        space, wants = _PACKED[recipe.variant]
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
