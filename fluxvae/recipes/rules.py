"""Combinations that a recipe cannot have, by what they are about; in the words of the options.

The first that is wrong is told. What latents and parts cannot be is in ``latents`` and ``parts``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxvae.errors import UsageError

if TYPE_CHECKING:
    from fluxvae.recipes.recipe import Recipe


def check_shapes(recipe: Recipe) -> None:
    """Raise UsageError for sizes and layouts that do not go together."""
    if recipe.shapes == "fixed" and len(recipe.sizes) != 1:
        raise UsageError(
            "several sizes need --shapes multifunction (one function per size, one weight "
            "file) or --shapes enumerated"
        )
    if recipe.shapes != "fixed" and len(recipe.sizes) < 2:
        raise UsageError(f"--shapes {recipe.shapes} needs two sizes or more, such as 768,1024")
    if recipe.nhwc_model and recipe.layout != "nhwc":
        raise UsageError("--nhwc-model takes and gives NHWC: use it with --layout nhwc")


def check_format(recipe: Recipe) -> None:
    """Raise UsageError for what a neural network cannot be."""
    if recipe.format != "neuralnetwork":
        return
    for wrong, why in (
        (recipe.precision != "float32", "has no compute precision: use --precision float32"),
        (recipe.io_precision == "float16", "has float32 input and output only"),
        (recipe.shapes == "multifunction", "has one function: use --shapes enumerated"),
        (
            recipe.output == "image" and recipe.shapes == "enumerated",
            "has no image output of several sizes (coremltools 9.0): use --output tensor, "
            "or --format mlprogram",
        ),
        (recipe.compression is not None, "cannot be compressed here: use --format mlprogram"),
        (recipe.target is not None, "runs from iOS 13 / macOS 10.15 on: leave --target out"),
    ):
        if wrong:
            raise UsageError(f"the neuralnetwork format {why}")


def check_full(recipe: Recipe) -> None:
    """Raise UsageError for what the KL decoders have no form of."""
    for wrong, why in (
        (recipe.format == "neuralnetwork", "has no neuralnetwork form: use --format mlprogram"),
        (recipe.nhwc_model, "has no NHWC graph: --layout nhwc alone gives NHWC in and out"),
        (recipe.compression is not None, "cannot be compressed: that is for --decoder tiny"),
        (
            recipe.shapes == "enumerated",
            "has an attention of one size: use --shapes multifunction",
        ),
    ):
        if wrong:
            raise UsageError(f"the {recipe.decoder} decoder {why}")


def check_safety(recipe: Recipe) -> None:
    """Raise UsageError for a ``fp16_safety`` that has nothing to do."""
    if recipe.fp16_safety not in ("rescale", "mixed"):
        return
    for wrong, why in (
        (recipe.precision != "float16", "is for --precision float16; float32 does not overflow"),
        (recipe.compression is not None, "is for decoders that are not compressed"),
        (
            recipe.fp16_safety == "rescale" and recipe.decoder == "tiny",
            "is for the KL decoders, --decoder full or small; mixed is for all",
        ),
    ):
        if wrong:
            raise UsageError(f"--fp16-safety {recipe.fp16_safety} {why}")
