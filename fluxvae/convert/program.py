"""A torch decoder to a Core ML model on disk, without names or metadata (see ``package``).

coremltools does the translation, from ``torch.export``: it needs no forward pass, so any size
takes about a second.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fluxvae.convert.coremltools import (
    coremltools,
    in_own_words,
    no_garbage_collection,
    temporary_files_in,
)
from fluxvae.convert.laps import lap
from fluxvae.convert.passes import pass_pipeline
from fluxvae.convert.rewrite.attention import with_attention
from fluxvae.convert.rewrite.latents import with_latents
from fluxvae.convert.rewrite.layouts import (
    NHWCInterface,
    NHWCLatentInterface,
    NHWCOutput,
    PixelOutput,
    PlanarOutput,
    nhwc_inside,
)
from fluxvae.errors import ConvertError
from fluxvae.files import scratch
from fluxvae.networks.catalog import find_decoder
from fluxvae.recipes import Recipe, Size, latent_shape
from fluxvae.recipes.latents import PATCH, artifact_contract

INPUT_NAME = "latent"
OUTPUT_NAME = "image"
MAIN = "main"  # coremltools' name for the only function of a package
_ANY = (8, 512)  # rows or columns of a latent that any image may have


@dataclass(frozen=True)
class Port:
    """One tensor that goes into a program. ``open_axes``: those of any extent, 8 to 512; the
    shape's own extents are the default there.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    open_axes: tuple[int, ...] = ()


def write_program(
    network: nn.Module,
    recipe: Recipe,
    inputs: Sequence[Port],
    output: str,
    dtype: str,
    path: Path,
    *,
    verbose: bool = False,
) -> None:
    """Convert a part of a decoder, one function with one output of its own name and dtype.

    A part that gives the image (``output`` is ``image``) does so as the recipe wants it.
    Raises ConvertError when coremltools refuses, OSError when the disk does.
    """
    own_words = in_own_words(recipe, path.parent)
    with coremltools(verbose) as ct, own_words, no_garbage_collection():
        import numpy as np

        with lap("capture"):
            program = _export_ports(network.eval(), inputs)
        features = [
            ct.TensorType(name=p.name, shape=_open_shape(ct, p), dtype=getattr(np, p.dtype))
            for p in inputs
        ]
        if output == OUTPUT_NAME and recipe.output == "image":
            made = ct.ImageType(name=output, color_layout=ct.colorlayout.RGB)
        else:
            made = ct.TensorType(name=output, dtype=getattr(np, dtype))
        with temporary_files_in(path.parent):
            _run_converter(ct, program, recipe, features, made).save(str(path))


def join_functions(
    functions: Mapping[str, Path], recipe: Recipe, path: Path, *, verbose: bool = False
) -> None:
    """Packages of one function to one of several, the first one its default; equal weights once."""
    with coremltools(verbose) as ct:
        joined = ct.utils.MultiFunctionDescriptor()
        for name, part in functions.items():
            joined.add_function(str(part), MAIN, name)
        joined.default_function_name = next(iter(functions))
        with temporary_files_in(path.parent), in_own_words(recipe, path.parent):
            ct.utils.save_multifunction(joined, str(path))


def _open_shape(ct: Any, port: Port) -> Any:
    return tuple(
        ct.RangeDim(*_ANY, default=extent) if axis in port.open_axes else extent
        for axis, extent in enumerate(port.shape)
    )


def _export_ports(network: nn.Module, inputs: Sequence[Port]) -> Any:
    low, high = _ANY
    dynamic = [
        {axis: torch.export.Dim(f"axis{axis}", min=low, max=high) for axis in p.open_axes} or None
        for p in inputs
    ]
    with torch.no_grad():
        exported = torch.export.export(
            network,
            # Extents that differ from each other, or the exporter would take them for one.
            tuple(torch.zeros([n + (a if a in p.open_axes else 0) for a, n in enumerate(p.shape)])
                  for p in inputs),
            dynamic_shapes=tuple(dynamic) if any(dynamic) else None,
        )  # fmt: skip
        return exported.run_decompositions({})


def write_model(
    decoder: nn.Module,
    recipe: Recipe,
    channels: int,
    path: Path,
    *,
    keep: Mapping[Size, frozenset[str]] | None = None,
    verbose: bool = False,
) -> None:
    """Convert ``decoder`` (NCHW latent to NCHW image, float32) and save it at ``path``.

    ``path`` must not exist; it ends in the recipe's suffix. ``channels`` are those of the decoder's
    own latent. ``keep`` names values, by size, whose producers and readers stay float32 in a
    float16 program. Raises ConvertError when coremltools refuses or the program has no such value,
    OSError when the disk does.
    """
    with coremltools(verbose) as ct:
        if recipe.shapes == "multifunction":
            _write_multifunction(ct, decoder, recipe, channels, path, keep or {})
        else:
            _write_one(ct, decoder, recipe, recipe.sizes, channels, path, keep or {})


def interface(decoder: nn.Module, recipe: Recipe, size: Size | None = None) -> nn.Module:
    """The decoder with the input and output forms of the recipe around it.

    ``size`` (default: the recipe's first) matters to FLUX.1's tokens, which do not tell theirs.
    """
    contract = artifact_contract(recipe, find_decoder(recipe.variant, recipe.decoder).contract)
    decoder = prepared(decoder, recipe, size or recipe.sizes[0])
    network = nhwc_inside(decoder) if recipe.nhwc_model else decoder
    image = recipe.output == "image"
    if recipe.nhwc_model and image:
        network = PlanarOutput(network)
    elif recipe.layout == "nhwc" and contract.tokens:
        network = network if image else NHWCOutput(network)
    elif recipe.layout == "nhwc" and not recipe.nhwc_model:
        network = NHWCLatentInterface(network) if image else NHWCInterface(network)
    return PixelOutput(network, contract.low, contract.high) if image else network


def prepared(decoder: nn.Module, recipe: Recipe, size: Size) -> nn.Module:
    """The decoder with what the recipe changes inside it; what may be cut into parts."""
    recipe = recipe.resolved()
    scale = find_decoder(recipe.variant, recipe.decoder).contract.scale
    patches = (size.height // scale // PATCH, size.width // scale // PATCH)
    decoder = with_latents(decoder, recipe.variant, recipe.latent_form, patches=patches)
    return decoder if recipe.decoder == "tiny" else with_attention(decoder, recipe.attention)


def input_side(front: nn.Module, recipe: Recipe) -> nn.Module:
    """``interface`` for a part that takes the latent and gives features, NCHW."""
    contract = artifact_contract(recipe, find_decoder(recipe.variant, recipe.decoder).contract)
    return NHWCLatentInterface(front) if recipe.layout == "nhwc" and not contract.tokens else front


def output_side(last: nn.Module, recipe: Recipe) -> nn.Module:
    """``interface`` for a part that takes features and gives the image."""
    if recipe.output == "image":
        contract = find_decoder(recipe.variant, recipe.decoder).contract
        return PixelOutput(last, contract.low, contract.high)
    return NHWCOutput(last) if recipe.layout == "nhwc" else last


def _write_one(
    ct: Any,
    decoder: nn.Module,
    recipe: Recipe,
    sizes: tuple[Size, ...],
    channels: int,
    path: Path,
    keep: Mapping[Size, frozenset[str]],
) -> None:
    network = interface(decoder, recipe, sizes[0]).eval()
    shapes = [latent_shape(recipe, s, channels) for s in sizes]
    with in_own_words(recipe, path.parent), no_garbage_collection(), lap("capture"):
        program = _export(network, shapes)
    own_words = in_own_words(recipe, path.parent)
    with temporary_files_in(path.parent), own_words, no_garbage_collection():
        model = _convert(ct, program, recipe, shapes, keep.get(sizes[0], frozenset()))
        if recipe.output == "image" and len(sizes) > 1:
            model = _with_image_sizes(ct, model, sizes)
        model.save(str(path))


def _convert(
    ct: Any,
    program: Any,
    recipe: Recipe,
    shapes: Sequence[tuple[int, ...]],
    keep: frozenset[str] = frozenset(),
) -> Any:
    import numpy as np

    dtype = {"float16": np.float16, "float32": np.float32}[recipe.io_dtype]
    shape = ct.EnumeratedShapes(shapes=shapes, default=shapes[0]) if len(shapes) > 1 else shapes[0]
    network_format = recipe.format == "neuralnetwork"
    output = (
        ct.ImageType(name=OUTPUT_NAME, color_layout=ct.colorlayout.RGB)
        if recipe.output == "image"
        else ct.TensorType(name=OUTPUT_NAME, dtype=None if network_format else dtype)
    )
    latent = ct.TensorType(name=INPUT_NAME, shape=shape, dtype=dtype)
    return _run_converter(ct, program, recipe, [latent], output, keep)


def _run_converter(
    ct: Any,
    program: Any,
    recipe: Recipe,
    inputs: Sequence[Any],
    out: Any,
    keep: frozenset[str] = frozenset(),
) -> Any:
    options: dict[str, Any] = {}
    if recipe.format != "neuralnetwork":
        options["compute_precision"] = ct.precision[recipe.precision.upper()]
        options["minimum_deployment_target"] = getattr(ct.target, str(recipe.deployment_target))
    unseen = set(keep)
    passes = pass_pipeline(ct, recipe, _all_but(keep, unseen) if keep else None)
    with lap("convert"):
        model = ct.convert(
            program,
            inputs=list(inputs),
            outputs=[out],
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


def _export(network: nn.Module, shapes: Sequence[tuple[int, ...]]) -> Any:
    """The network as an exported program, dynamic in the axes where ``shapes`` differ."""
    example = torch.zeros(shapes[0])
    axes = [i for i, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1]
    dynamic = {
        i: torch.export.Dim(
            f"axis{i}", min=min(s[i] for s in shapes), max=max(s[i] for s in shapes)
        )
        for i in axes
    }
    with torch.no_grad():
        exported = torch.export.export(
            network, (example,), dynamic_shapes=(dynamic,) if dynamic else None
        )
        return exported.run_decompositions({})  # coremltools takes no TRAINING dialect


def _write_multifunction(
    ct: Any,
    decoder: nn.Module,
    recipe: Recipe,
    channels: int,
    path: Path,
    keep: Mapping[Size, frozenset[str]],
) -> None:
    """One function for each size. coremltools stores equal weights once."""
    with scratch(path.parent) as folder:
        parts = {}
        for size in recipe.sizes:
            parts[size.function] = folder / f"{size.function}.mlpackage"
            _write_one(ct, decoder, recipe, (size,), channels, parts[size.function], keep)
        join_functions(parts, recipe, path)


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
