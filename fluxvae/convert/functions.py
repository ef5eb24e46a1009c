"""What an artifact's functions are: decided from a recipe, before coremltools comes in.

Whatever the recipe, an artifact is one or more packages of one or more functions: one for each
size, two halves, or a front and tiles.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fluxvae.convert.rewrite.attention import with_attention
from fluxvae.convert.rewrite.latents import with_encoded_latents, with_latents
from fluxvae.convert.rewrite.layouts import (
    NHWCInterface,
    NHWCOutput,
    PixelInput,
    PixelOutput,
    PlanarOutput,
    nhwc_inside,
)
from fluxvae.convert.rewrite.split import (
    Frozen,
    Measuring,
    count_norms,
    front_and_up,
    halves,
)
from fluxvae.errors import ConvertError
from fluxvae.networks.structure import receptive_field
from fluxvae.recipes import Size
from fluxvae.recipes.functions import (
    FEATURES,
    INPUT_NAME,
    MAIN,
    OUTPUT_NAME,
    STATISTICS,
    function_names,
)
from fluxvae.recipes.latents import PATCH
from fluxvae.recipes.plan import Plan

Named = tuple[str, nn.Module]
ANY = (8, 512)  # rows or columns of a latent that any image may have


@dataclass(frozen=True)
class Port:
    """One tensor that goes into a function. ``shapes``: those it takes, the default one first.

    ``open_axes``: those of any extent, 8 to 512; the shape's own extents are the default there.
    ``step``: of which number the extents of axes that differ are multiples. ``image``: 8-bit RGB.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    open_axes: tuple[int, ...] = ()
    step: int = 1
    image: bool = False

    @property
    def example(self) -> torch.Tensor:
        """Zeros. Open extents differ from each other, or the exporter would take them for one."""
        shape = self.shapes[0]
        return torch.zeros([n + (a if a in self.open_axes else 0) for a, n in enumerate(shape)])

    @property
    def dynamic(self) -> dict[int, Any] | None:
        """The axes that differ, as torch.export takes them; None without any."""
        spans = dict.fromkeys(self.open_axes, ANY)
        for axis, extents in enumerate(zip(*self.shapes, strict=True)):
            if len(set(extents)) > 1:
                spans[axis] = (min(extents), max(extents))
        return {axis: self._axis(axis, low, high) for axis, (low, high) in spans.items()} or None

    def _axis(self, axis: int, low: int, high: int) -> Any:
        dim = torch.export.Dim(f"axis{axis}", min=low // self.step, max=high // self.step)
        return dim if self.step == 1 else self.step * dim


@dataclass(frozen=True, eq=False)  # modules have no useful ==
class Function:
    """One function to convert: its module, what goes in, and the one output.

    ``image_sizes``: of an 8-bit RGB output, which the module scales to 0..255; empty for a tensor
    of ``dtype``. ``keep`` names values whose producers and readers stay float32 in a float16
    program. ``unread``: a part of the module that the output does not depend on.
    """

    name: str
    network: nn.Module
    inputs: tuple[Port, ...]
    output: str
    dtype: str
    image_sizes: tuple[Size, ...] = ()
    keep: frozenset[str] = frozenset()
    unread: nn.Module | None = None

    def in_order(self) -> tuple[Named, ...]:
        """Its convolutions and linear layers in the order they run; nothing is computed."""
        found: list[nn.Module] = []
        unread = () if self.unread is None else {id(part) for part in self.unread.modules()}
        hooks = [
            layer.register_forward_pre_hook(lambda layer, _: found.append(layer))
            for layer in self.network.modules()
            if isinstance(layer, nn.Conv2d | nn.Linear) and id(layer) not in unread
        ]
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
                self.network(*(torch.empty(port.shapes[0]) for port in self.inputs))
        finally:
            for hook in hooks:
                hook.remove()
        names = {id(layer): name for name, layer in self.network.named_modules()}
        return tuple((names[id(layer)], layer) for layer in found)


@dataclass(frozen=True)
class _Builder:
    """Makes functions of a plan; ``keep`` names values that stay float32, by size."""

    plan: Plan
    keep: Mapping[Size, frozenset[str]]

    def entry(self, *sizes: Size, open_axes: bool = False) -> Port:
        """The port of the artifact's input for images of these sizes."""
        recipe, contract = self.plan.recipe, self.plan.contract
        if recipe.encodes:
            image = recipe.input == "image"
            shapes = tuple(image_shape(s, "nchw" if image else recipe.layout) for s in sizes)
            return Port(OUTPUT_NAME, shapes, recipe.io_dtype, step=contract.scale, image=image)
        shapes = tuple(contract.shape(s.height, s.width, recipe.layout) for s in sizes)
        axes = ((1, 2) if recipe.layout == "nhwc" else (2, 3)) if open_axes else ()
        return Port(INPUT_NAME, shapes, recipe.io_dtype, axes)

    @property
    def exit(self) -> tuple[str, str]:
        """Name and dtype of the artifact's output."""
        recipe = self.plan.recipe
        return INPUT_NAME if recipe.encodes else OUTPUT_NAME, recipe.io_dtype

    def name(self, size: Size) -> str:
        """Of a function that is for ``size``, but for those of tiles."""
        return size.function if self.plan.recipe.shapes == "multifunction" else MAIN

    def image_sizes(self, *sizes: Size) -> tuple[Size, ...]:
        """``Function.image_sizes`` of a function that gives the image."""
        return sizes if self.plan.recipe.output == "image" else ()

    def prepared(self, network: nn.Module, size: Size) -> nn.Module:
        """The network with what the recipe changes inside it; what may be cut into parts.

        ``size`` matters to FLUX.1's tokens, which do not state theirs.
        """
        recipe, patch = self.plan.recipe, self.plan.own.scale * PATCH
        patches = (size.height // patch, size.width // patch)
        if recipe.encodes:
            network = with_encoded_latents(network, recipe.variant, recipe.latent_form)
        else:
            network = with_latents(network, recipe.variant, recipe.latent_form, patches=patches)
        return network if recipe.decoder == "tiny" else with_attention(network, recipe.attention)

    def around(self, network: nn.Module, *, first: bool = True, last: bool = True) -> nn.Module:
        """``network`` with the recipe's forms around it: of the input where it is the ``first``
        part of a decoder, of the output where it is the ``last``.
        """
        recipe, nhwc = self.plan.recipe, self.plan.recipe.layout == "nhwc"
        image, pixels = last and recipe.output == "image", recipe.input == "image"
        latent = nhwc and not self.plan.contract.tokens
        takes_nhwc = first and (nhwc and not pixels if recipe.encodes else latent)
        gives_nhwc = last and (latent if recipe.encodes else nhwc and not image)
        if recipe.nhwc_model:
            network = nhwc_inside(network)
            network = PlanarOutput(network) if image else network
        elif takes_nhwc:
            network = NHWCInterface(network, planar=not gives_nhwc)
        elif gives_nhwc:
            network = NHWCOutput(network)
        if pixels:
            return PixelInput(network, nhwc=recipe.nhwc_model)
        return PixelOutput(network, self.plan.own.low, self.plan.own.high) if image else network

    def features(self, front: nn.Module, size: Size) -> tuple[int, ...]:
        """Shape of what ``front`` passes on for an image of ``size``; nothing is computed."""
        latent = self.plan.contract.shape(size.height, size.width, "nchw")
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            return tuple(front(torch.empty(latent)).shape)


def image_shape(size: Size, layout: str) -> tuple[int, ...]:
    """Shape of an RGB image as a tensor."""
    sides = (size.height, size.width)
    return (1, *sides, 3) if layout == "nhwc" else (1, 3, *sides)


def functions_of(
    decoder: nn.Module, plan: Plan, keep: Mapping[Size, frozenset[str]]
) -> tuple[tuple[Function, ...], ...]:
    """The packages of an artifact, each with its functions, the default one first.

    ``decoder``: an NCHW latent to an NCHW image, or an encoder the other way, float32. ``keep``
    names values that stay float32, by size. Parameters are shared, not copied.
    """
    recipe, builder = plan.recipe, _Builder(plan, keep)
    if recipe.tile is not None:
        return (tuple(_tiled(decoder, builder)),)
    if recipe.chunks == 2:
        pairs = [_halves(decoder, builder, size) for size in recipe.sizes]
        return tuple(zip(*pairs, strict=True))
    if recipe.shapes == "enumerated":
        return ((_whole(decoder, builder, recipe.sizes),),)
    return (tuple(_whole(decoder, builder, (size,)) for size in recipe.sizes),)


def _whole(decoder: nn.Module, builder: _Builder, sizes: tuple[Size, ...]) -> Function:
    network = builder.around(builder.prepared(decoder, sizes[0]))
    keep = builder.keep.get(sizes[0], frozenset())
    made = Function(builder.name(sizes[0]), network, (builder.entry(*sizes),), *builder.exit)
    return replace(made, image_sizes=builder.image_sizes(*sizes), keep=keep)


def _halves(decoder: nn.Module, builder: _Builder, size: Size) -> tuple[Function, Function]:
    """The two halves of a decoder for one size, with the same functions each."""
    name, dtype = builder.name(size), builder.plan.boundary
    first, second = halves(builder.prepared(decoder, size))
    before = builder.around(first, last=False), (builder.entry(size),)
    port = Port(FEATURES, (builder.features(first, size),), dtype)
    after = builder.around(second, first=False), (port,)
    return (
        Function(name, *before, FEATURES, dtype),
        Function(name, *after, *builder.exit, builder.image_sizes(size)),
    )


def _tiled(decoder: nn.Module, builder: _Builder) -> list[Function]:
    """One package: ``front`` for whole images, ``tile``, and for KL decoders ``statistics``.

    One package of several functions rather than several packages: there is one file to ship and
    none to mix up, and ``statistics`` and ``tile`` are the same weights, stored once. Its price,
    iOS 18 / macOS 15, is what the Swift library needs anyway.
    """
    recipe, dtype = builder.plan.recipe, builder.plan.boundary
    front, up = front_and_up(builder.prepared(decoder, recipe.sizes[0]))
    halo = receptive_field(up)
    if halo != recipe.halo:
        raise ConvertError(f"a tile's halo would be {halo} latent pixels, not {recipe.halo}")
    norms, groups = count_norms(up)
    functions = []
    for size in recipe.sizes if norms else recipe.sizes[:1]:
        name, statistics = function_names(recipe, size)
        latent = builder.entry(size, open_axes=not norms)
        whole = builder.around(front, last=False)
        functions.append(Function(name, whole, (latent,), FEATURES, dtype))
        if norms:
            stride = builder.plan.stride or 1
            batch, width, rows, columns = builder.features(front, size)
            port = Port(FEATURES, ((batch, width, rows // stride, columns // stride),), dtype)
            # no statistics come after the last norm
            measuring = Function(statistics, Measuring(up), (port,), STATISTICS, dtype)
            functions.append(replace(measuring, unread=up[-1]))
    width = builder.features(front, recipe.sizes[0])[1]
    last = builder.around(Frozen(up) if norms else up, first=False)
    for name, shape in builder.plan.tiles.items():
        ports = [Port(FEATURES, ((1, width, *shape),), dtype)]
        ports += [Port(STATISTICS, ((1, norms, groups, 2),), dtype)] if norms else []
        functions.append(Function(name, last, tuple(ports), *builder.exit))
    return functions
