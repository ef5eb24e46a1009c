"""Key styles of checkpoints, and the exact names and shapes each network must have.

The tiny ones are here, the KL autoencoders in ``kl_keys``.

taesd keeps each network as one Sequential (``3.conv.0.weight``), sometimes with ``decoder.`` or
``encoder.`` before it. diffusers' AutoencoderTiny has both in one file: ``decoder.layers.{i}`` is
taesd's ``{i + 1}``, because taesd's decoder has its clamp at index 0, and ``encoder.layers.{i}``
is taesd's ``{i}``. Sources: ``taesd.py`` of https://github.com/madebyollin/taesd and
``models/autoencoders/vae.py`` of https://github.com/huggingface/diffusers.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fluxvae.catalog import Decoder, all_decoders
from fluxvae.errors import WeightsError
from fluxvae.weights.kl_keys import Shape as Shape
from fluxvae.weights.kl_keys import kl_parts, kl_shapes, kl_style, stored_shape

PARTS = ("decoder", "encoder")
TAESD = "taesd Sequential"
TAESD_PREFIXED = "taesd Sequential, prefixed"
DIFFUSERS = "diffusers AutoencoderTiny"
UNKNOWN = "unknown"

_WIDTH = 64
_POOL_WIDTH = 4 * _WIDTH
# Indices in the Sequentials of taesd.py: residual blocks, those at latent resolution (which have
# TAEF2's GroupNorm branch), and the convolutions between stages, which have no bias.
_BLOCKS = {
    "decoder": (3, 4, 5, 8, 9, 10, 13, 14, 15, 18),
    "encoder": (1, 3, 4, 5, 7, 8, 9, 11, 12, 13),
}
_LATENT_BLOCKS = {"decoder": (3, 4, 5), "encoder": (11, 12, 13)}
_BETWEEN = {"decoder": (7, 12, 17), "encoder": (2, 6, 10)}
_DIFFUSERS_OFFSET = {"decoder": 1, "encoder": 0}

_PLAIN_KEY = re.compile(r"\d+\.[\w.]+")
_PREFIXED_KEY = re.compile(r"(decoder|encoder)\.(\d+\.[\w.]+)")
_DIFFUSERS_KEY = re.compile(r"(decoder|encoder)\.layers\.(\d+)\.([\w.]+)")


def expected_shapes(part: str, latent_channels: int, pool: bool) -> dict[str, Shape]:
    """Every parameter name of a tiny network and its shape, in taesd's naming.

    A test holds this table against the modules of ``fluxvae.models.tiny``.
    """
    ends = {
        "decoder": {1: (_WIDTH, latent_channels), 19: (3, _WIDTH)},
        "encoder": {0: (_WIDTH, 3), 14: (latent_channels, _WIDTH)},
    }[part]
    shapes: dict[str, Shape] = {}
    for index, (channels_out, channels_in) in ends.items():
        shapes[f"{index}.weight"] = (channels_out, channels_in, 3, 3)
        shapes[f"{index}.bias"] = (channels_out,)
    for index in _BETWEEN[part]:
        shapes[f"{index}.weight"] = (_WIDTH, _WIDTH, 3, 3)
    for index in _BLOCKS[part]:
        for conv in (0, 2, 4):
            shapes[f"{index}.conv.{conv}.weight"] = (_WIDTH, _WIDTH, 3, 3)
            shapes[f"{index}.conv.{conv}.bias"] = (_WIDTH,)
    for index in _LATENT_BLOCKS[part] if pool else ():
        shapes[f"{index}.pool.0.weight"] = (_POOL_WIDTH, _WIDTH, 1, 1)
        shapes[f"{index}.pool.1.weight"] = (_POOL_WIDTH,)
        shapes[f"{index}.pool.1.bias"] = (_POOL_WIDTH,)
        shapes[f"{index}.pool.3.weight"] = (_WIDTH, _POOL_WIDTH, 1, 1)
    return shapes


def entry_shapes(entry: Decoder, part: str) -> dict[str, Shape]:
    """Every parameter name and shape of one part of a catalogue entry."""
    if entry.kl is not None:
        return kl_shapes(part, entry.contract.channels, entry.kl)
    return expected_shapes(part, entry.contract.channels, entry.pool)


@dataclass(frozen=True)
class KeyLayout:
    """How a file names its tensors.

    ``parts`` maps ``decoder`` and ``encoder``, as far as present, to {our name: file's name}; ours
    are taesd's, or diffusers' for a KL autoencoder (``kl``). ``unknown`` are the names that belong
    to neither.
    """

    style: str
    parts: Mapping[str, Mapping[str, str]]
    unknown: tuple[str, ...]
    kl: bool = False


def read_layout(names: Iterable[str]) -> KeyLayout:
    """Find the key style and translate every name to taesd's, or to diffusers' for a KL one."""
    names = list(names)
    if (style := kl_style(names)) is not None:
        return KeyLayout(style, *kl_parts(names), kl=True)
    if any(_DIFFUSERS_KEY.fullmatch(name) for name in names):
        return _prefixed_layout(DIFFUSERS, names)
    if any(_PREFIXED_KEY.fullmatch(name) for name in names):
        return _prefixed_layout(TAESD_PREFIXED, names)
    plain = {name: name for name in names if _PLAIN_KEY.fullmatch(name)}
    unknown = tuple(name for name in names if name not in plain)
    if not plain:
        return KeyLayout(UNKNOWN, {}, unknown)
    return KeyLayout(TAESD, {_part_of_plain(plain): plain}, unknown)


def _prefixed_layout(style: str, names: list[str]) -> KeyLayout:
    parts: dict[str, dict[str, str]] = {}
    unknown = []
    for name in names:
        if style == DIFFUSERS and (match := _DIFFUSERS_KEY.fullmatch(name)):
            index = int(match[2]) + _DIFFUSERS_OFFSET[match[1]]
            parts.setdefault(match[1], {})[f"{index}.{match[3]}"] = name
        elif style == TAESD_PREFIXED and (match := _PREFIXED_KEY.fullmatch(name)):
            parts.setdefault(match[1], {})[match[2]] = name
        else:
            unknown.append(name)
    return KeyLayout(style, parts, tuple(unknown))


def _part_of_plain(names: Iterable[str]) -> str:
    """Bare names do not say which part they are: take the one that shares more names."""
    present = set(names)

    def shared(part: str) -> int:
        return len(present & expected_shapes(part, 1, True).keys())

    return max(PARTS, key=shared)


def part_names(layout: KeyLayout, part: str, name: str) -> dict[str, str]:
    """{our name: file's name} of one part. Raises WeightsError when the file lacks it.

    Names that belong to neither part count as this part's, so that ``check_fit`` refuses them.
    """
    if not layout.parts:
        raise WeightsError(
            f"{name}: no FLUX VAE's weights in it; its keys are "
            f"{first_few(layout.unknown) or 'none'}"
        )
    if part not in layout.parts:
        other = next(iter(layout.parts))
        raise WeightsError(f"{name}: holds the {other}; give the file of the {part}")
    return {**layout.parts[part], **{name: name for name in layout.unknown}}


def part_shapes(layout: KeyLayout, part: str, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """{our name: shape} of one part of a file whose own names have ``shapes``."""
    return {n: stored_shape(n, shapes[key]) for n, key in part_names(layout, part, "").items()}


def check_family(entry: Decoder, layout: KeyLayout, shapes: Mapping[str, Shape], name: str) -> None:
    """Raise WeightsError when a KL autoencoder stands where a tiny one is wanted, or the reverse.

    ``shapes`` maps the file's own names to shapes.
    """
    if layout.kl == (entry.kl is not None) or not layout.parts:
        return
    part = next(iter(layout.parts))
    found = likely_entry(part_shapes(layout, part, shapes), part, kl=layout.kl)
    what = "a full KL autoencoder" if layout.kl else "a tiny autoencoder"
    raise WeightsError(
        f"{name}: these are the weights of {what} ({found.title.split(',')[0]}), not of "
        f"{entry.title.split(',')[0]}: use {options(found)}, or give other weights"
    )


def options(entry: Decoder) -> str:
    """What chooses an entry on the command line."""
    return f"--variant {entry.variant} --decoder {entry.kind}"


def likely_entry(shapes: Mapping[str, Shape], part: str, *, kl: bool) -> Decoder:
    """The entry these come nearest to: a fit, else by latent channels, else by shared names."""
    fits = fitting_entries(shapes, part)
    if fits:
        return fits[0]
    family = _family(kl)
    channels = _latent_channels(shapes, part)
    for entry in family:
        if entry.contract.channels == channels:
            return entry
    return max(family, key=lambda entry: len(shapes.keys() & entry_shapes(entry, part)))


def fitting_entries(shapes: Mapping[str, Shape], part: str) -> tuple[Decoder, ...]:
    """Entries whose ``part`` has exactly these names and shapes."""
    return tuple(entry for entry in all_decoders() if entry_shapes(entry, part) == shapes)


def _family(kl: bool) -> tuple[Decoder, ...]:
    return tuple(entry for entry in all_decoders() if (entry.kl is not None) == kl)


def check_fit(entry: Decoder, part: str, shapes: Mapping[str, Shape], name: str) -> None:
    """Raise WeightsError, in words, unless ``shapes`` are exactly the entry's ``part``.

    ``shapes`` maps our names to shapes; ``name`` is what the user calls the weights.
    """
    expected = entry_shapes(entry, part)
    if shapes == expected:
        return
    if (theirs := _other_entry(entry, part, shapes)) is not None:
        use = f"--variant {theirs.variant}" if entry.kl is None else options(theirs)
        which = entry.variant if entry.kl is None else entry.title.split(",")[0]
        raise WeightsError(
            f"{name}: these are {theirs.title.split(',')[0]}'s ({theirs.contract.channels} latent "
            f"channels), not {which}'s: use {use}"
        )
    raise WeightsError(
        f"{name}: not a {entry.variant} {part}: {_differences(expected, shapes)}. "
        f"Give an unmodified {entry.title.split(',')[0]} checkpoint"
    )


def _other_entry(entry: Decoder, part: str, shapes: Mapping[str, Shape]) -> Decoder | None:
    """The entry these are of, when it is another one: a full fit, or its latent channels."""
    fits = fitting_entries(shapes, part)
    if fits:
        return fits[0]
    channels = _latent_channels(shapes, part)
    if channels == entry.contract.channels:
        return None
    same = (e for e in _family(entry.kl is not None) if e.contract.channels == channels)
    return next(same, None)


def _latent_channels(shapes: Mapping[str, Shape], part: str) -> int | None:
    for key, axis, times in {
        "decoder": (("1.weight", 1, 1), ("conv_in.weight", 1, 1)),
        "encoder": (("14.weight", 0, 1), ("conv_out.weight", 0, 2)),  # KL: mean and variance
    }[part]:
        shape = shapes.get(key, ())
        if len(shape) == 4:
            return shape[axis] // times
    return None


def _differences(expected: Mapping[str, Shape], shapes: Mapping[str, Shape]) -> str:
    missing = [key for key in expected if key not in shapes]
    extra = [key for key in shapes if key not in expected]
    wrong = [
        f"{key} is {_by(shapes[key])} instead of {_by(expected[key])}"
        for key in expected
        if key in shapes and shapes[key] != expected[key]
    ]
    groups = (("missing keys", missing), ("extra keys", extra), ("wrong shapes", wrong))
    return "; ".join(f"{word} ({len(all_)}): {first_few(all_)}" for word, all_ in groups if all_)


def first_few(items: Iterable[str], count: int = 3) -> str:
    """``a, b, c and 5 more``."""
    items = list(items)
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return ", ".join(items[:count]) + more


def _by(shape: Shape) -> str:
    return "x".join(str(size) for size in shape) or "a scalar"
