"""Key styles of TAEF checkpoints, and the exact names and shapes each network must have.

taesd keeps each network as one Sequential (``3.conv.0.weight``), sometimes with ``decoder.`` or
``encoder.`` before it. diffusers' AutoencoderTiny has both in one file: ``decoder.layers.{i}`` is
taesd's ``{i + 1}``, because taesd's decoder has its clamp at index 0, and ``encoder.layers.{i}``
is taesd's ``{i}``. Sources: ``taesd.py`` of https://github.com/madebyollin/taesd and
``models/autoencoders/vae.py`` of https://github.com/huggingface/diffusers.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fluxvae.catalog import CATALOG, Decoder
from fluxvae.errors import WeightsError

Shape = tuple[int, ...]

PARTS = ("decoder", "encoder")
TAESD = "taesd Sequential"
TAESD_PREFIXED = "taesd Sequential, prefixed"
DIFFUSERS = "diffusers AutoencoderTiny"
KL = "full KL autoencoder"
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
# diffusers' names, then Black Forest Labs' own, wherever a prefix puts them.
_KL_KEY = re.compile(
    r"\b(?:(?:up|down)_blocks\.\d|mid_block\.|mid\.(?:block|attn)_\d|(?:up|down)\.\d+\.block)"
)


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
    """``expected_shapes`` of one part of a catalogue entry."""
    return expected_shapes(part, entry.contract.channels, entry.pool)


@dataclass(frozen=True)
class KeyLayout:
    """How a file names its tensors.

    ``parts`` maps ``decoder`` and ``encoder``, as far as present, to {taesd name: file's name}.
    ``unknown`` are the names that belong to neither.
    """

    style: str
    parts: Mapping[str, Mapping[str, str]]
    unknown: tuple[str, ...]


def read_layout(names: Iterable[str]) -> KeyLayout:
    """Find the key style and translate every name to taesd's."""
    names = list(names)
    if any(_KL_KEY.search(name) for name in names):
        return KeyLayout(KL, {}, tuple(names))
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
    """{taesd name: file's name} of one part. Raises WeightsError when the file lacks it.

    Names that belong to neither part count as this part's, so that ``check_fit`` refuses them.
    """
    if layout.style == KL:
        raise WeightsError(
            f"{name}: this is the full KL autoencoder (decoder), which is not supported yet: "
            "give the weights of the tiny one, TAEF1 or TAEF2"
        )
    if not layout.parts:
        raise WeightsError(
            f"{name}: no TAEF weights in it; its keys are {first_few(layout.unknown) or 'none'}"
        )
    if part not in layout.parts:
        other = next(iter(layout.parts))
        raise WeightsError(f"{name}: holds the {other}; give the file of the {part}")
    return {**layout.parts[part], **{name: name for name in layout.unknown}}


def likely_variant(shapes: Mapping[str, Shape], part: str) -> str:
    """The variant these come nearest to: by latent channels, else by shared names."""
    channels = _latent_channels(shapes, part)
    for variant, entry in sorted(CATALOG.items()):
        if entry.contract.channels == channels:
            return variant
    return max(sorted(CATALOG), key=lambda v: len(shapes.keys() & entry_shapes(CATALOG[v], part)))


def fitting_variants(shapes: Mapping[str, Shape], part: str) -> tuple[str, ...]:
    """Variants whose ``part`` has exactly these names and shapes."""
    return tuple(v for v, entry in sorted(CATALOG.items()) if entry_shapes(entry, part) == shapes)


def check_fit(entry: Decoder, part: str, shapes: Mapping[str, Shape], name: str) -> None:
    """Raise WeightsError, in words, unless ``shapes`` are exactly the entry's ``part``.

    ``shapes`` maps taesd names to shapes; ``name`` is what the user calls the weights.
    """
    expected = entry_shapes(entry, part)
    if shapes == expected:
        return
    if (other := _other_variant(entry, part, shapes)) is not None:
        theirs = CATALOG[other]
        raise WeightsError(
            f"{name}: these are {theirs.title.split(',')[0]}'s ({theirs.contract.channels} latent "
            f"channels), not {entry.variant}'s: use --variant {other}"
        )
    raise WeightsError(
        f"{name}: not a {entry.variant} {part}: {_differences(expected, shapes)}. "
        f"Give an unmodified {entry.title.split(',')[0]} checkpoint"
    )


def _other_variant(entry: Decoder, part: str, shapes: Mapping[str, Shape]) -> str | None:
    """The variant these are of, when it is another one: a full fit, or its latent channels."""
    fits = [v for v in fitting_variants(shapes, part) if v != entry.variant]
    if fits:
        return fits[0]
    channels = _latent_channels(shapes, part)
    if channels == entry.contract.channels:
        return None
    same = (v for v, e in sorted(CATALOG.items()) if e.contract.channels == channels)
    return next(same, None)


def _latent_channels(shapes: Mapping[str, Shape], part: str) -> int | None:
    key, axis = {"decoder": ("1.weight", 1), "encoder": ("14.weight", 0)}[part]
    shape = shapes.get(key, ())
    return shape[axis] if len(shape) == 4 else None


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
