"""Which of coremltools' graph passes a conversion runs."""

from collections.abc import Callable
from typing import Any

from fluxvae.recipes import Recipe

CAST = "common::add_fp16_cast"
PASSES = tuple(
    f"common::{name}"
    for name in (
        "update_output_dtypes",
        "cast_optimization",
        "noop_elimination",
        "const_elimination",
        "sanitize_input_output_names",
        "divide_to_multiply",
        "const_deduplication",
        "reduce_transposes",
        "fuse_conv_scale",
        "merge_consecutive_transposes",
        "fuse_transpose_matmul",
        "remove_redundant_ops",
        "dedup_op_and_var_names",
        "add_fp16_cast",  # ``fluxvae.convert.fp16_cast`` stands in for it
        "update_output_dtypes",
        "const_elimination",
        "dead_code_elimination",
        "cast_optimization",
        "dead_code_elimination",
        "const_deduplication",
        "noop_elimination",
        "reduce_transposes",
        "topological_reorder",
        "dead_code_elimination",
    )
)


def pass_pipeline(
    ct: Any,
    recipe: Recipe,
    to_float16: Callable[[Any], bool] | None = None,
    *,
    every: bool = False,
) -> Any:
    """Those of coremltools' default passes that find something in our programs, in its order.

    After each pass coremltools validates the whole program, 16 ms for a KL decoder at 1024 px; 70
    of its 95 change nothing here. ``to_float16`` tells which operations become float16 (default:
    all) when the recipe's precision is. ``every`` takes all but the harmful: the package must have
    the same bytes (tests/test_converter_passes.py). An old neural network gets every one.
    """
    pipeline = ct.PassPipeline.DEFAULT
    cast = CAST
    if not every and recipe.format == "mlprogram":
        import fluxvae.convert.fp16_cast

        cast = fluxvae.convert.fp16_cast.NAME
        pipeline.passes = [cast if name == CAST else name for name in PASSES]
    if recipe.precision == "float32":  # coremltools leaves out its own, not ours
        pipeline.remove_passes({cast})
    elif to_float16 is not None:
        pipeline.set_options(cast, {"op_selector": to_float16})
    pipeline.remove_passes(_harmful(recipe))
    return pipeline


def _harmful(recipe: Recipe) -> set[str]:
    """Default passes of coremltools 9.0 that must not run.

    ``fuse_elementwise_to_batchnorm`` turns GroupNorm's ``x * gamma + beta`` into a batch_norm with
    epsilon 1e-5 and variance 1, so each gain is off by -5e-6: 1.7e-5 and 1.3e-5 at the output of
    the two KL decoders (tests/test_convert_kl.py), seven times the error of float32 itself. We
    found no report of it upstream; remove when coremltools passes epsilon 0 there.
    ``reduce_transposes`` would undo an NHWC graph. ``fuse_conv_scale`` would move an image
    output's factor into the last convolution's weight, which is to be replaced by its compressed
    form, or (full decoders, halves) to be found again in the package.
    """
    passes = {"common::fuse_elementwise_to_batchnorm"}
    if recipe.nhwc_model:
        passes.add("common::reduce_transposes")
    if recipe.compression is not None or recipe.decoder != "tiny" or recipe.chunks != 1:
        passes.add("common::fuse_conv_scale")
    return passes
