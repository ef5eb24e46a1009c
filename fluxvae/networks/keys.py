"""Whether tensors are exactly the network they should be, and which network some tensors are."""

from collections.abc import Iterable, Mapping, Sequence

from fluxvae.errors import WeightsError
from fluxvae.networks.catalog import Decoder, all_decoders
from fluxvae.networks.kl_keys import STATISTICS, Shape
from fluxvae.networks.locate import Network
from fluxvae.networks.shapes import entry_shapes


def choose_network(
    entry: Decoder, part: str, networks: Sequence[Network], shapes: Mapping[str, Shape], name: str
) -> Network:
    """The one of a checkpoint's networks that is exactly the entry's ``part``.

    ``shapes`` are of the checkpoint's own names; ``name`` is what the user calls it. Raises
    WeightsError, in words, when there is none, or more than one.
    """
    own = [network for network in networks if network.part == part]
    fits = [network for network in own if fits_entry(entry, part, network.shapes(shapes))]
    if len(fits) > 1:
        raise WeightsError(
            f"{name}: holds the {entry.variant} {part} {len(fits)} times, under "
            f"{' and under '.join(repr(network.prefix) for network in fits)}: save the one you "
            "want as a file of its own"
        )
    if fits:
        return fits[0]
    if not networks:
        keys = first_few(shapes) or "none"
        raise WeightsError(f"{name}: no FLUX VAE's weights in it; its keys are {keys}")
    nearest = max(own or networks, key=lambda n: bool(fitting_entries(n.shapes(shapes), n.part)))
    check_family(entry, nearest, shapes, name)
    if not own:
        raise WeightsError(f"{name}: holds the {nearest.part}; give the file of the {part}")
    check_fit(entry, part, nearest.shapes(shapes), name)
    return nearest


def fits_entry(entry: Decoder, part: str, shapes: Mapping[str, Shape]) -> bool:
    """Whether these are exactly the entry's ``part``; batch-norm statistics may be left out."""
    return shapes == _asked_shapes(entry, part, shapes)


def _asked_shapes(entry: Decoder, part: str, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """``entry_shapes`` without FLUX.2's batch-norm statistics where ``shapes`` has none of them.

    A file of the decoder alone may leave them out: the decoder itself does not use them.
    """
    expected = entry_shapes(entry, part)
    if not any(name in shapes for name in STATISTICS):
        expected = {name: shape for name, shape in expected.items() if name not in STATISTICS}
    return expected


def check_family(entry: Decoder, network: Network, shapes: Mapping[str, Shape], name: str) -> None:
    """Raise WeightsError when a KL autoencoder stands where a tiny one is wanted, or the reverse.

    ``shapes`` maps the checkpoint's own names to shapes.
    """
    if network.kl == (entry.kl is not None):
        return
    found = likely_entry(network.shapes(shapes), network.part, kl=network.kl)
    what = "a full KL autoencoder" if network.kl else "a tiny autoencoder"
    raise WeightsError(
        f"{name}: these are the weights of {what} ({found.title.split(',')[0]}), not of "
        f"{entry.title.split(',')[0]}: use {options(found)}, or give other weights"
    )


def options(entry: Decoder) -> str:
    """What chooses an entry on the command line."""
    return f"--variant {entry.variant} --decoder {entry.kind}"


def likely_entry(shapes: Mapping[str, Shape], part: str, *, kl: bool) -> Decoder:
    """The entry these come nearest to: a fit, else by latent channels and equal shapes."""
    fits = fitting_entries(shapes, part)
    return fits[0] if fits else _nearest(_family(kl), part, shapes)


def _nearest(entries: Sequence[Decoder], part: str, shapes: Mapping[str, Shape]) -> Decoder:
    """The entry with these latent channels and the most equal shapes; the first of equals."""
    channels = _latent_channels(shapes, part)

    def nearness(entry: Decoder) -> tuple[bool, int, int]:
        expected = entry_shapes(entry, part)
        equal = sum(shapes.get(name) == shape for name, shape in expected.items())
        return entry.contract.channels == channels, equal, len(shapes.keys() & expected.keys())

    return max(entries, key=nearness)


def fitting_entries(shapes: Mapping[str, Shape], part: str) -> tuple[Decoder, ...]:
    """Entries of the catalogue whose ``part`` has exactly these names and shapes."""
    return tuple(entry for entry in all_decoders() if fits_entry(entry, part, shapes))


def _family(kl: bool) -> tuple[Decoder, ...]:
    return tuple(entry for entry in all_decoders() if (entry.kl is not None) == kl)


def check_fit(entry: Decoder, part: str, shapes: Mapping[str, Shape], name: str) -> None:
    """Raise WeightsError, in words, unless ``shapes`` are exactly the entry's ``part``.

    ``shapes`` maps our names to shapes; ``name`` is what the user calls the weights.
    """
    expected = _asked_shapes(entry, part, shapes)
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
    """The entry these are of or come nearer to, when it is another one."""
    fits = fitting_entries(shapes, part)
    if fits:
        return fits[0]
    nearest = _nearest((entry, *_family(entry.kl is not None)), part, shapes)
    if nearest is entry or nearest.contract.channels != _latent_channels(shapes, part):
        return None
    return nearest


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
