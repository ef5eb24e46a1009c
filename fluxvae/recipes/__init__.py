"""What to make: frozen recipes, checked when they are built. Standard library only."""

from fluxvae.recipes.compression import (
    ACTIVATIONS,
    KINDS,
    METHODS,
    PALETTE_BITS,
    Compression,
    parse_label,
)
from fluxvae.recipes.recipe import (
    FORMATS,
    LARGEST_SIDE,
    LAYOUTS,
    MAC_TARGETS,
    OUTPUTS,
    PRECISIONS,
    SCALE,
    SHAPES,
    TARGETS,
    Recipe,
    Size,
    artifact_name,
    latent_shape,
    parse_sizes,
)

__all__ = [
    "ACTIVATIONS",
    "FORMATS",
    "KINDS",
    "LARGEST_SIDE",
    "LAYOUTS",
    "MAC_TARGETS",
    "METHODS",
    "OUTPUTS",
    "PALETTE_BITS",
    "PRECISIONS",
    "SCALE",
    "SHAPES",
    "TARGETS",
    "Compression",
    "Recipe",
    "Size",
    "artifact_name",
    "latent_shape",
    "parse_label",
    "parse_sizes",
]
