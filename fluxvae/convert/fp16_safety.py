"""What keeps a float16 artifact's values finite: measured on latents, done as the recipe says.

``report`` measures the torch decoder and warns; ``rescale`` folds powers of two through the
residual stream (``fluxvae.convert.rewrite.rescale``); ``mixed`` keeps in float32 what makes and
what reads a value beyond float16, by a census of the float32 program; ``off`` does nothing.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fluxvae.convert.census import FP16_LIMIT, take_census
from fluxvae.convert.rewrite.rescale import choose_exponents, peak_magnitudes, rescaled
from fluxvae.data.latents import Latent
from fluxvae.data.photos import CALIBRATION_PHOTOS, photo_image
from fluxvae.data.spaces import latent_transform
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Program
from fluxvae.networks.build import build_encoder
from fluxvae.networks.weights import Weights
from fluxvae.recipes import SCALE, Recipe, Size, parse_attention, parse_sizes

SIDE = 128  # of the images that are measured on, in pixels
PHOTOS = 3  # of the calibration photos; one where it is for a warning only, which all pay for
# Other latents go farther than those that were measured: what comes within this factor of the
# limit is treated as what goes beyond it.
MARGIN = 4.0


@dataclass(frozen=True, eq=False)
class Safety:
    """What was decided: the decoder to convert, the values that stay float32, what was found.

    ``keep``: names by size. ``notes``: plain data for the artifact's record, enough to do the same
    again. ``warnings``: sentences for the user.
    """

    decoder: nn.Module
    keep: Mapping[Size, frozenset[str]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def make_safe(
    decoder: nn.Module, recipe: Recipe, weights: Weights, encoder: Weights | None = None
) -> Safety:
    """Measure a network on a few small inputs, and do what ``recipe.fp16_safety`` says.

    ``recipe`` is ``resolved``. A decoder's are photos by ``encoder``, or noise without one; an
    encoder's the photos. Nothing is done at float32.
    """
    mode = recipe.fp16_safety
    if mode == "off" or recipe.precision != "float16":
        return Safety(decoder)
    if mode == "mixed":
        return _mixed(decoder, recipe, weights, encoder)
    count = PHOTOS if mode == "rescale" else 1
    latents = probe_inputs(weights, encoder, Size(SIDE, SIDE), recipe, count=count)
    tensors = [torch.from_numpy(latent.values) for latent in latents]
    notes: dict[str, Any] = {}
    if mode == "rescale":
        exponents = choose_exponents(decoder, tensors)
        decoder = rescaled(decoder, exponents)
        names = [latent.name for latent in latents]
        notes = {"mode": mode, "latents": names, "exponents": exponents}
    return Safety(decoder, {}, _plain(notes), _warnings(decoder, tensors, mode))


def as_recorded(decoder: nn.Module, notes: Mapping[str, Any]) -> nn.Module:
    """The decoder as the artifact with these notes has it, in real numbers the same."""
    exponents = notes.get("exponents")
    if not exponents:
        return decoder
    return rescaled(decoder, {name: tuple(powers) for name, powers in exponents.items()})


def kept(notes: Mapping[str, Any]) -> dict[Size, frozenset[str]]:
    """The values that the artifact with these notes keeps in float32, by size."""
    return {
        size: frozenset(names)
        for text, names in notes.get("float32", {}).items()
        for size in parse_sizes(text)
    }


def probe_inputs(
    weights: Weights,
    encoder: Weights | None,
    size: Size,
    recipe: Recipe,
    *,
    count: int = PHOTOS,
) -> tuple[Latent, ...]:
    """What the network itself takes: photos (1, 3, H, W), or latents in the decoder's own space,
    of photos through ``encoder`` or noise of the sampler's.

    Without FLUX.2's batch-norm statistics the noise is taken as it is.
    """
    if recipe.encodes or encoder is not None:
        encode = nn.Identity() if encoder is None or recipe.encodes else build_encoder(encoder)
        inputs = []
        for photo in CALIBRATION_PHOTOS[:count]:
            image = torch.from_numpy(photo_image(photo, size.height, size.width))
            with torch.no_grad():
                inputs.append(Latent(photo.name, encode(image).numpy()))
        return tuple(inputs)
    shape = (1, weights.contract.channels, size.height // SCALE, size.width // SCALE)
    noise = np.random.Generator(np.random.PCG64(0)).standard_normal(shape, np.float32)
    transform = replace(latent_transform(recipe, weights), form="sampler")
    return (Latent("noise", transform.to_decoder(noise) if transform.known else noise),)


def _warnings(decoder: nn.Module, latents: Sequence[torch.Tensor], mode: str) -> tuple[str, ...]:
    rows = peak_magnitudes(decoder, latents)
    beyond = [row for row in rows if not row.largest <= FP16_LIMIT]
    if not beyond:
        near = rows[0]
        if near.largest * MARGIN <= FP16_LIMIT:
            return ()
        return (
            f"the {_what(near.kind)} of {near.layer} reach {near.largest:.3g}, close to float16's "
            f"{FP16_LIMIT:.0f}: other latents may overflow{_way_out(mode)}",
        )
    layers = list(dict.fromkeys(row.layer for row in beyond))
    return (
        f"values go beyond float16's {FP16_LIMIT:.0f} at {len(layers)} layers, first of all the "
        f"{_what(beyond[0].kind)} of {beyond[0].layer} ({beyond[0].largest:.3g}): the output will "
        f"be wrong, even where it is finite{_way_out(mode)}",
    )


def _what(kind: str) -> str:
    return "squares in the norm" if kind == "square" else "outputs"


def _way_out(mode: str) -> str:
    if mode == "rescale":
        return "; powers of two do not help there, use --fp16-safety mixed"
    return "; use --fp16-safety rescale or mixed (rescale: KL decoders)"


def _mixed(decoder: nn.Module, recipe: Recipe, weights: Weights, encoder: Weights | None) -> Safety:
    keep: dict[Size, frozenset[str]] = {}
    measured: tuple[Latent, ...] = ()
    by_parts: dict[int, frozenset[str]] = {}
    for size in recipe.sizes:
        probe, parts = _probe_recipe(recipe, size)
        if parts not in by_parts:
            own = probe_inputs(weights, encoder, probe.sizes[0], recipe)
            transform = latent_transform(recipe, weights)
            measured = tuple(Latent(x.name, transform.into_artifact(x.values)) for x in own)
            census = take_census(decoder, probe, weights.contract.channels, measured)
            names = frozenset(tap.name for tap in census.beyond(FP16_LIMIT / MARGIN))
            by_parts[parts] = names
        keep[size] = by_parts[parts]
    notes = {
        "mode": "mixed",
        "latents": [latent.name for latent in measured],
        "float32": {str(size): sorted(names) for size, names in keep.items()},
    }
    return Safety(decoder, keep, _plain(notes))


def _probe_recipe(recipe: Recipe, size: Size) -> tuple[Recipe, int]:
    """A small recipe whose program has the names of the one at ``size``, and its attention's parts.

    Names count operations, and an attention that computes its queries in turn has one set of them
    for each turn: so the small one gets as many turns.
    """
    form, queries = parse_attention(recipe.attention)
    tokens = size.height * size.width // SCALE**2
    parts = math.ceil(tokens / queries) if queries else 1
    rows = SIDE // SCALE
    columns = parts * max(1, rows // parts)
    attention = f"{form}:{rows * columns // parts}" if parts > 1 else form
    if parts == 1 and form == "chunked":
        attention = f"chunked:{rows * columns}"
    probe = Size(rows * SCALE, columns * SCALE)
    return replace(recipe, sizes=(probe,), shapes="fixed", attention=attention), parts


@dataclass(frozen=True)
class MixedCost:
    """Operations in float32, casts in and out, and bytes of weights that float16 would not take."""

    ops: int
    casts: int
    bytes: int


def mixed_cost(program: Program) -> MixedCost:
    """Count the float32 part of a mixed artifact. Weights that functions share count once."""
    ops = casts = 0
    weights: dict[tuple[str, int], int] = {}
    for function in program.functions.values():
        for op in function.ops:
            fp32 = any(v.type.dtype == "fp32" for v in op.outputs)
            if op.kind == "cast":
                casts += 1
            elif op.kind != "const" and fp32:
                ops += 1
            for constant in op.constants():
                if constant.type.dtype == "fp32" and constant.blob is not None:
                    key = (str(constant.blob.file.path), constant.blob.offset)
                    weights[key] = constant.nbytes
    return MixedCost(ops, casts, sum(weights.values()) // 2)


def report_cost(package: Path, safety: Safety, report: Callable[[str], None]) -> dict[str, Any]:
    """What was done for float16's sake and what it cost, reported and for the record."""
    mode = safety.notes.get("mode")
    if mode == "rescale":
        streams = safety.notes["exponents"]
        groups = sum(bool(power) for powers in streams.values() for power in powers)
        report(f"rescaled {groups} groups of channels in {len(streams)} streams, exactly")
    if mode != "mixed":
        return {}
    cost = mixed_cost(read_package(package))
    report(
        f"{cost.ops} operations stay float32, with {cost.casts} casts; their weights take "
        f"{cost.bytes} bytes more than in float16 ({cost.bytes / 1e6:.2f} MB)"
    )
    return {"cost": asdict(cost)}


def _plain(notes: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, so that a record read again equals the one that was written."""
    plain: dict[str, Any] = json.loads(json.dumps(notes))
    return plain
