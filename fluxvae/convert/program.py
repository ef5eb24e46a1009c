"""A torch decoder to Core ML models on disk, without metadata (``fluxvae.artifact.record``).

coremltools translates from ``torch.export``: it needs no forward pass, so any size takes about a
second. Every conversion goes through ``write_packages``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fluxvae.convert.coremltools import (
    coremltools,
    no_garbage_collection,
    pass_pipeline,
    step,
    temporary_files_in,
    translate_errors,
)
from fluxvae.convert.functions import ANY, Function, Port, functions_of
from fluxvae.errors import ConvertError
from fluxvae.files import scratch
from fluxvae.recipes import Recipe, Size
from fluxvae.recipes.functions import MAIN, artifact_paths
from fluxvae.recipes.plan import Plan, plan_of


def write_model(
    decoder: nn.Module,
    recipe: Recipe,
    channels: int,
    path: Path,
    *,
    keep: Mapping[Size, frozenset[str]] | None = None,
) -> None:
    """``write_packages`` by a recipe, for a decoder whose latent has so many ``channels``."""
    write_packages(decoder, plan_of(recipe, channels=channels), path, keep=keep)


def write_packages(
    decoder: nn.Module,
    plan: Plan,
    path: Path,
    *,
    keep: Mapping[Size, frozenset[str]] | None = None,
    verbose: bool = False,
) -> None:
    """Convert a decoder (NCHW latent to NCHW image, float32) as planned and save its packages.

    ``path``: the artifact's name as if it were one package, ending in the recipe's suffix; halves
    are written as ``artifact_paths`` names them. Nothing may be there. ``keep`` names values, by
    size, whose producers and readers stay float32 in a float16 program. Raises ConvertError when
    coremltools refuses or a program has none of these values, OSError when the disk does.
    """
    packages = functions_of(decoder, plan, keep or {})
    with coremltools(verbose) as ct:
        for functions, to in zip(packages, artifact_paths(path, len(packages)), strict=True):
            if functions[0].name == MAIN:
                _write_function(ct, functions[0], plan, to)
                continue
            with scratch(path.parent) as folder:
                drafts = {made.name: folder / f"{made.name}.mlpackage" for made in functions}
                for made in functions:
                    _write_function(ct, made, plan, drafts[made.name])
                _join_functions(ct, drafts, plan, to)


def _write_function(ct: Any, made: Function, plan: Plan, path: Path) -> None:
    translated = partial(translate_errors, plan.recipe, path.parent)
    with no_garbage_collection():
        with translated(), step("capture"):
            program = _export(made.network.eval(), made.inputs)
        # Not while torch looks; and a full disk is recognised while its files are still there.
        with temporary_files_in(path.parent), translated():
            model = _run_converter(ct, program, made, plan)
            if len(made.image_sizes) > 1:
                model = _with_image_sizes(ct, model, made.image_sizes)
            model.save(str(path))


def _join_functions(ct: Any, functions: Mapping[str, Path], plan: Plan, path: Path) -> None:
    """Packages of one function to one of several, the first one its default; equal weights once."""
    joined = ct.utils.MultiFunctionDescriptor()
    for name, part in functions.items():
        joined.add_function(str(part), MAIN, name)
    joined.default_function_name = next(iter(functions))
    with temporary_files_in(path.parent), translate_errors(plan.recipe, path.parent):
        ct.utils.save_multifunction(joined, str(path))


def _export(network: nn.Module, inputs: Sequence[Port]) -> Any:
    """The network as an exported program, dynamic in the axes where its ports are."""
    dynamic = tuple(port.dynamic for port in inputs)
    with torch.no_grad():
        exported = torch.export.export(
            network,
            tuple(port.example for port in inputs),
            dynamic_shapes=dynamic if any(dynamic) else None,
        )
        return exported.run_decompositions({})  # coremltools takes no TRAINING dialect


def _run_converter(ct: Any, program: Any, made: Function, plan: Plan) -> Any:
    import numpy as np

    recipe = plan.recipe
    options: dict[str, Any] = {}
    dtype = getattr(np, made.dtype)
    if recipe.format == "neuralnetwork":
        dtype = None  # coremltools allows it no output dtype
    else:
        options["compute_precision"] = ct.precision[recipe.precision.upper()]
        options["minimum_deployment_target"] = getattr(ct.target, str(plan.target))
    output = (
        ct.ImageType(name=made.output, color_layout=ct.colorlayout.RGB)
        if made.image_sizes
        else ct.TensorType(name=made.output, dtype=dtype)
    )
    unseen = set(made.keep)
    passes = pass_pipeline(ct, recipe, _all_but(made.keep, unseen) if made.keep else None)
    with step("convert"):
        model = ct.convert(
            program,
            inputs=[_input(ct, np, port) for port in made.inputs],
            outputs=[output],
            convert_to=recipe.format,
            pass_pipeline=passes,
            skip_model_load=True,
            **options,
        )
    if unseen:
        raise ConvertError(
            f"the program has no {', '.join(sorted(unseen)[:3])}, which was to stay float32 "
            f"({len(unseen)} such values): please report this; --fp16-safety rescale does without"
        )
    return model


def _input(ct: Any, np: Any, port: Port) -> Any:
    if port.image:
        return ct.ImageType(name=port.name, shape=_shape(ct, port), color_layout=ct.colorlayout.RGB)
    return ct.TensorType(name=port.name, shape=_shape(ct, port), dtype=getattr(np, port.dtype))


def _shape(ct: Any, port: Port) -> Any:
    if len(port.shapes) > 1:
        return ct.EnumeratedShapes(shapes=port.shapes, default=port.shapes[0])
    return tuple(
        ct.RangeDim(*ANY, default=extent) if axis in port.open_axes else extent
        for axis, extent in enumerate(port.shapes[0])
    )


def _all_but(keep: frozenset[str], unseen: set[str]) -> Callable[[Any], bool]:
    """Whether an operation neither makes nor reads a value of ``keep``; takes those it makes out of
    ``unseen``.
    """

    def to_float16(op: Any) -> bool:
        made = {variable.name for variable in op.outputs}
        unseen.difference_update(made)
        inputs = (
            variable
            for value in op.inputs.values()
            for variable in (value if isinstance(value, list | tuple) else (value,))
        )
        read = {variable.name for variable in inputs if variable is not None}
        return not (made | read) & keep

    return to_float16


def _with_image_sizes(ct: Any, model: Any, sizes: tuple[Size, ...]) -> Any:
    """Describe an image output of enumerated shapes: coremltools 9.0 leaves it at 1 x 1.

    ``add_enumerated_image_sizes`` alone would keep a 1 x 1 entry, so the fields are set here.
    """
    spec = model.get_spec()
    image = spec.description.output[0].type.imageType
    image.ClearField("imageSizeRange")
    image.height, image.width = sizes[0].height, sizes[0].width
    for size in sizes:
        entry = image.enumeratedSizes.sizes.add()
        entry.height, entry.width = size.height, size.width
    return ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)
