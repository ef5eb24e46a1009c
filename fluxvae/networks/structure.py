"""What a network is made of, as it says itself: steps in the order they run, and where to cut.

A network is a row of steps: layers, and residual blocks, whose branch is added to what they were
given. Modules of several layers list theirs (``Described``); rows of modules (``nn.Sequential``)
are read one after the other. Compression, rewriting, cuts and tiles ask here and know no network
by its class; a test holds the steps against every network's ``forward``.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fluxvae.errors import CompressionError, ConvertError


@dataclass(frozen=True)
class Layer:
    """One operation on the map (B, C, h, w): ``run`` computes it.

    ``name`` is its module's name in the network; "" for a function without weights. ``parts``: the
    names of linear layers inside it, the last of which makes its output.
    """

    name: str
    run: nn.Module | Callable[[Tensor], Tensor]
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Residual:
    """A branch whose output is added to its input, after ``shortcut`` where there is one.

    ``role``: ``block``, or ``pool`` for TAEF2's branch of the whole map.
    """

    branch: tuple["Step", ...]
    shortcut: tuple["Step", ...] = ()
    role: str = "block"


Step = Layer | Residual


@runtime_checkable
class Described(Protocol):
    """A module of several layers that lists them."""

    def steps(self, name: str) -> tuple[Step, ...]:
        """Its steps in the order they run; ``name`` is its own in the network, "" for the whole."""
        ...


@runtime_checkable
class Row(Protocol):
    """A network that is a row of modules without being an ``nn.Sequential``."""

    def stages(self) -> list[nn.Module]:
        """The modules; run one after the other, they are the network."""
        ...


@dataclass(frozen=True)
class VAEInput:
    """How a decoder of the VAE's own latents begins: module names.

    ``conv``: its first 3x3 convolution, padded with zeros. ``quant``: the 1x1 convolution before
    it, or None. ``statistics``: FLUX.2's batch-norm as data, ``running_mean`` and ``running_var``
    (4 C,); None where the weights have none.
    """

    conv: str
    quant: str | None
    statistics: nn.Module | None


@dataclass(frozen=True)
class VAEOutput:
    """How an encoder of the VAE's own latents ends: module names.

    ``conv``: its last 3x3 convolution, of mean and log variance. ``quant``: the 1x1 convolution
    after it, or None. ``mean``: what takes the mean out of both. ``statistics``: see ``VAEInput``.
    """

    conv: str
    quant: str | None
    mean: str
    statistics: nn.Module | None


@runtime_checkable
class TakesVAELatent(Protocol):
    """A network that takes the VAE's own latents; all others take the sampler's."""

    def vae_input(self) -> VAEInput:
        """How it begins."""
        ...


@runtime_checkable
class GivesVAELatent(Protocol):
    """A network that gives the VAE's own latents; all other encoders give the sampler's."""

    def vae_output(self) -> VAEOutput:
        """How it ends."""
        ...


def steps(network: nn.Module, name: str = "") -> tuple[Step, ...]:
    """Everything ``network`` does, in order. Raises CompressionError for a module of several layers
    that does not say so."""
    if isinstance(network, Described):
        return network.steps(name)
    if isinstance(network, nn.Sequential | nn.ModuleList):
        return row(network, name, *(key for key, _ in network.named_children()))
    if next(network.children(), None) is None:
        return (Layer(name, network),)
    raise CompressionError(f"layer {name}: no rule for a {type(network).__name__}")


def row(module: nn.Module, name: str, *keys: str) -> tuple[Step, ...]:
    """The steps of these parts of the module ``name``, in turn; absent ones have none."""
    parts = dict(module.named_modules())
    return tuple(s for k in keys if k in parts for s in steps(parts[k], joined(name, k)))


def joined(name: str, key: str) -> str:
    """The dotted name of a part of the module ``name``."""
    return f"{name}.{key}" if name else key


@dataclass(frozen=True)
class Site:
    """One convolution or linear layer. ``name`` is its module name (``"3.conv.0"``).

    ``role``: ``in`` (first), ``out`` (last), ``up`` (after an upsampling), ``pool`` (TAEF2's
    branch), ``block`` (inside a block), ``block-end`` (its output is added to the skip path),
    ``shortcut`` (on the skip path) or ``plain``. ``scale`` is the side of the map that it makes
    over the latent's: 1, 2, 4 or 8. ``macs`` are multiply-accumulates for each latent pixel.
    """

    name: str
    role: str
    scale: int
    macs: int
    shape: tuple[int, int, int, int]  # of the weight: (O, I, kh, kw)


def conv_sites(network: nn.Module) -> tuple[Site, ...]:
    """Every layer with a weight matrix, in execution order."""
    found: list[tuple[str, str, Fraction]] = []  # name, role, scale over the input's
    scale, resized = Fraction(1), False

    def visit(given: tuple[Step, ...], role: str, end: str) -> None:
        nonlocal scale, resized
        for step in given:
            if isinstance(step, Residual):
                block = step.role == "block"
                visit(step.branch, step.role, "block-end" if block else step.role)
                visit(step.shortcut, "shortcut", "shortcut")
                continue
            if isinstance(step.run, nn.Upsample):
                scale, resized = scale * 2, True
            for name in (step.name,) if isinstance(step.run, nn.Conv2d | nn.Linear) else step.parts:
                here = end if step is given[-1] and name == (step.parts or (name,))[-1] else role
                if isinstance(step.run, nn.Conv2d):
                    scale /= step.run.stride[0]
                found.append((name, "up" if resized else here, scale))
                resized = False

    visit(steps(network), "plain", "plain")
    ends = {found[0][0]: "in", found[-1][0]: "out"} if found else {}
    latent = min((scale for _, _, scale in found), default=Fraction(1))
    return tuple(
        _site(name, ends.get(name, role), int(scale / latent), network.get_submodule(name))
        for name, role, scale in found
    )


def _site(name: str, role: str, scale: int, layer: nn.Module) -> Site:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    out, into, height, width = (*layer.weight.shape, 1, 1)[:4]
    return Site(
        name, role, scale, out * into * height * width * scale**2, (out, into, height, width)
    )


def input_scale(network: nn.Module) -> int:
    """Side of what a network takes, over the latent's: 1 for a decoder, 8 for an encoder."""
    first = conv_sites(network)[0]
    return first.scale * convolution(network, first.name).stride[0]


def convolution(network: nn.Module, name: str) -> nn.Conv2d:
    """The convolution of a site."""
    found = network.get_submodule(name)
    assert isinstance(found, nn.Conv2d)
    return found


Watch = tuple[str, Callable[[Tensor], None]]  # a module's name, and what looks at its values


def watch(
    network: nn.Module,
    latents: Iterable[Tensor],
    *,
    inputs: Iterable[Watch] = (),
    outputs: Iterable[Watch] = (),
) -> None:
    """Run ``network`` on each latent and show the values that go into and come out of modules."""
    hooks: list[RemovableHandle] = []
    try:
        for name, see in inputs:
            module = network.get_submodule(name)
            hooks.append(module.register_forward_pre_hook(lambda _, x, see=see: see(x[0])))
        for name, see in outputs:
            module = network.get_submodule(name)
            hooks.append(module.register_forward_hook(lambda _, __, y, see=see: see(y)))
        with torch.no_grad():
            for latent in latents:
                network(latent)
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(eq=False)  # several may hold equal names while they are collected
class Stream:
    """Values whose channels share one vector of scales: dividing them where they are written and
    multiplying where they are read changes nothing. All are module names.

    ``writers``: layers (rows and bias are divided) and norms (affine is divided); ``readers``:
    layers whose input channels are multiplied; ``norms`` undo the scale of a group themselves.
    """

    name: str
    writers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)


@torch.no_grad()
def divided(
    decoder: nn.Module, streams: Iterable[Stream], by: Mapping[str, Tensor]
) -> dict[str, nn.Module]:
    """Copies of all that writes or reads streams, their channels divided by positive numbers.

    ``by``: for a stream's name one number for each channel, or for each group of channels; others
    stay. Computed in float64 and rounded to each layer's own dtype.
    """
    made: dict[str, nn.Module] = {}
    for stream in streams:
        if stream.name not in by:
            continue
        numbers = by[stream.name].double()
        for name in {*stream.writers, *stream.readers} - made.keys():
            made[name] = copy.deepcopy(decoder.get_submodule(name))
        for name in stream.writers:
            _multiply(made[name].weight, 1 / numbers, axis=0)
            _multiply(made[name].bias, 1 / numbers, axis=0)
        for name in stream.readers:
            _multiply(made[name].weight, numbers, axis=1)
    return made


def _multiply(parameter: object, numbers: Tensor, axis: int) -> None:
    if isinstance(parameter, Tensor):
        each = numbers.repeat_interleave(parameter.shape[axis] // len(numbers))
        shape = [1] * parameter.dim()
        shape[axis] = -1
        parameter.copy_((parameter.double() * each.reshape(shape)).to(parameter.dtype))


def streams(network: nn.Module) -> tuple[Stream, ...]:
    """Every stream, each named after what writes it first, in the order in which they end.

    ReLU, upsampling to nearest neighbours and zero padding carry a scale on; any other function
    ends a stream.
    """
    found: list[Stream] = []

    def opened(writer: str) -> Stream:
        found.append(Stream(writer, [writer]))
        return found[-1]

    def visit(given: tuple[Step, ...], stream: Stream) -> Stream:
        for step in given:
            if isinstance(step, Residual):
                own = visit(step.branch, stream)
                stream = visit(step.shortcut, stream)
                stream.writers += own.writers
                found.remove(own)
            elif isinstance(step.run, nn.GroupNorm):
                stream.norms.append(step.name)
                stream = opened(step.name)
            elif isinstance(step.run, nn.Conv2d | nn.Linear):
                stream.readers.append(step.name)
                stream = opened(step.name)
            elif step.parts:
                stream.readers += step.parts[:-1]
                stream = opened(step.parts[-1])
            elif not isinstance(step.run, nn.ReLU | nn.Upsample | nn.ZeroPad2d):
                if stream in found and not (stream.readers or stream.norms):
                    found.remove(stream)
                stream = Stream("")  # of values that no scale can be moved through
        return stream

    visit(steps(network), Stream(""))
    order = {name: index for index, (name, _) in enumerate(network.named_modules())}
    for stream in found:
        stream.writers.sort(key=order.__getitem__)
        stream.readers.sort(key=order.__getitem__)
    return tuple(sorted(found, key=lambda s: max(order[n] for n in ("", *s.readers, *s.norms))))


def residual_blocks(network: nn.Module) -> Iterator[str]:
    """Names of the modules whose output is a residual's sum."""
    for name, module in network.named_modules():
        if isinstance(module, Described):
            own = module.steps(name)
            if len(own) == 1 and isinstance(own[0], Residual):
                yield name


def stages(network: nn.Module) -> list[nn.Module]:
    """The row of modules that a network is: one after the other they are the network itself.

    Raises ConvertError for one that is not such a row.
    """
    if isinstance(network, Row):
        return network.stages()
    if isinstance(network, nn.Sequential):
        return list(network)
    raise ConvertError(f"{type(network).__name__} cannot be cut into parts: leave --chunks out")


def upsamplers(row: list[nn.Module]) -> list[int]:
    """Indices of the stages that enlarge the map."""
    return [i for i, s in enumerate(row) if any(isinstance(m, nn.Upsample) for m in s.modules())]


def receptive_field(part: nn.Module) -> int:
    """From how many input pixels away, each way, an output of ``part`` can depend on a value.

    Exact from the graph for rows of convolutions and nearest upsamplers; GroupNorms count as
    frozen. Shortcuts reach no further than the convolutions beside them.
    """
    scale, total = 1, Fraction(0)
    for module in part.modules():
        if isinstance(module, nn.Upsample):
            scale *= 2
        elif isinstance(module, nn.Conv2d):
            total += Fraction(module.kernel_size[0] // 2, scale)
    return math.ceil(total)
