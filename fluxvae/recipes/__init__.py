"""What to make: frozen recipes, checked when they are built. Standard library only."""

from fluxvae.recipes.compression import (
    ACTIVATIONS,
    KINDS,
    METHODS,
    PALETTE_BITS,
    Compression,
    parse_label,
)
from fluxvae.recipes.fields import (
    FORMATS,
    FP16_SAFETY,
    INPUTS,
    LATENTS,
    LAYOUTS,
    MAC_TARGETS,
    OUTPUTS,
    PRECISIONS,
    SHAPES,
    TARGETS,
    TILE_STATISTICS,
)
from fluxvae.recipes.functions import artifact_paths
from fluxvae.recipes.recipe import Recipe, artifact_name, latent_shape
from fluxvae.recipes.rules import check_tile
from fluxvae.recipes.sizes import (
    ATTENTION,
    HALO,
    LARGEST_SIDE,
    SCALE,
    Size,
    parse_attention,
    parse_sizes,
)

__all__ = [
    "ACTIVATIONS",
    "ATTENTION",
    "FORMATS",
    "FP16_SAFETY",
    "HALO",
    "INPUTS",
    "KINDS",
    "LARGEST_SIDE",
    "LATENTS",
    "LAYOUTS",
    "MAC_TARGETS",
    "METHODS",
    "OUTPUTS",
    "PALETTE_BITS",
    "PRECISIONS",
    "SCALE",
    "SHAPES",
    "TARGETS",
    "TILE_STATISTICS",
    "Compression",
    "Recipe",
    "Size",
    "artifact_name",
    "artifact_paths",
    "check_tile",
    "latent_shape",
    "parse_attention",
    "parse_label",
    "parse_sizes",
]
