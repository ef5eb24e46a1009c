"""Find a VAE's networks among a checkpoint's tensors, whatever stands before their names.

A file may hold a decoder alone, a whole autoencoder, or both among the tensors of a pipeline, under
any one prefix (``vae.``, ``first_stage_model.``, ``module.``, ...). A network is found by the names
it must have, in each key style.

taesd keeps each network as one Sequential (``3.conv.0.weight``), sometimes with ``decoder.`` or
``encoder.`` before it. diffusers' AutoencoderTiny has both in one file: ``decoder.layers.{i}`` is
taesd's ``{i + 1}``, because taesd's decoder has its clamp at index 0, and ``encoder.layers.{i}``
is taesd's ``{i}``. Sources: ``taesd.py`` of https://github.com/madebyollin/taesd and
``models/autoencoders/vae.py`` of https://github.com/huggingface/diffusers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from fluxvae.networks.catalog import PARTS
from fluxvae.networks.kl_keys import (
    KL_BFL,
    KL_DIFFUSERS,
    Shape,
    bfl_name,
    stored_shape,
)
from fluxvae.networks.shapes import known_names

TAESD = "taesd Sequential"
TAESD_PREFIXED = "taesd Sequential, prefixed"
DIFFUSERS = "diffusers AutoencoderTiny"
UNKNOWN = "unknown"

_DIFFUSERS_OFFSET = {"decoder": 1, "encoder": 0}
_MOST_DOTS = 5  # of a name within a network
_LEAST_DOTS = 3  # of a name that other models are not likely to have: ``3.conv.0.weight``
# Modules of one part that diffusers keeps beside it. A counter of training is not a weight.
_BESIDE = {"decoder": ("post_quant_conv", "bn"), "encoder": ("quant_conv", "bn")}
_COUNTER = "bn.num_batches_tracked"


@dataclass(frozen=True)
class Network:
    """One part of a VAE in a checkpoint.

    ``root`` is what stands before the names within the part: "", ``decoder.``, ``vae.decoder.``.
    ``names`` maps our names (taesd's, or diffusers' for a KL autoencoder) to the checkpoint's;
    ``extra`` are names under the same root that no such network has.
    """

    part: str
    kl: bool
    style: str
    root: str
    names: Mapping[str, str]
    extra: tuple[str, ...]

    @property
    def prefix(self) -> str:
        """What stands before the whole VAE's names: "", ``vae.``, ``first_stage_model.``."""
        return self.root.removesuffix(f"{self.part}.")

    def shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Shapes as the network uses them, by our names; extra ones by the checkpoint's."""
        own = {ours: stored_shape(ours, shapes[name]) for ours, name in self.names.items()}
        return own | {name: shapes[name] for name in self.extra}


def find_networks(names: Iterable[str]) -> tuple[Network, ...]:
    """Every network whose names are there at least in part; the most complete first."""
    names = [name for name in names if not name.endswith(_COUNTER)]
    present = set(names)
    made = [
        _network(root, style, part, found, present)
        for root, styles in _matches(names).items()
        for (style, part), found in [max(styles.items(), key=lambda item: len(item[1]))]
        if any(_dots(name, root) >= _LEAST_DOTS for name in found.values())
    ]
    kept: list[Network] = []
    for network in sorted(made, key=lambda n: (-len(n.names), n.root)):
        # AutoencoderTiny's ``encoder.layers.0`` is also taesd's ``0`` under ``encoder.layers.``.
        used = set(network.names.values())
        if not any(used <= set(other.names.values()) for other in kept):
            kept.append(network)
    return tuple(kept)


def passed_over(network: Network, networks: Sequence[Network], names: Iterable[str]) -> list[str]:
    """The names that belong neither to this network nor to its VAE's other part."""
    own = {
        name
        for other in networks
        if other is network or (other.prefix == network.prefix and other.part != network.part)
        for name in (*other.names.values(), *other.extra)
    }
    return [name for name in names if name not in own and not name.endswith(_COUNTER)]


Matches = dict[tuple[str, str], dict[str, str]]  # by style and part: our name to the checkpoint's


def _matches(names: Iterable[str]) -> Mapping[str, Matches]:
    """By root: the names that some network has."""
    table, found = _table(), defaultdict[str, Matches](dict)
    for name in names:
        pieces = name.rsplit(".", _MOST_DOTS + 1)
        for cut in range(len(pieces)):
            rest = ".".join(pieces[cut:])
            root = name[: len(name) - len(rest)]
            for style, part, ours in table.get(rest, ()):
                if _named_part(root) in (None, part):
                    found[root].setdefault((style, part), {})[ours] = name
    return found


@cache
def _table() -> Mapping[str, Sequence[tuple[str, str, str]]]:
    """{name within a part, as some style has it: (style, part, our name)}."""
    table = defaultdict[str, list[tuple[str, str, str]]](list)
    for part in PARTS:
        for ours in known_names(part, kl=True):
            for style, theirs in ((KL_DIFFUSERS, ours), (KL_BFL, bfl_name(ours))):
                table[theirs].append((style, part, ours))
        for ours in known_names(part, kl=False):
            index, _, rest = ours.partition(".")
            theirs = f"layers.{int(index) - _DIFFUSERS_OFFSET[part]}.{rest}"
            table[ours].append((TAESD, part, ours))
            table[theirs].append((DIFFUSERS, part, ours))
    return table


def _named_part(root: str) -> str | None:
    """``decoder`` or ``encoder`` when the root says so."""
    return next((piece for piece in reversed(root.split(".")) if piece in PARTS), None)


def _dots(name: str, root: str) -> int:
    return name.count(".", len(root))


def _network(
    root: str, style: str, part: str, found: Mapping[str, str], present: set[str]
) -> Network:
    own = dict(found)
    kl = style in (KL_DIFFUSERS, KL_BFL)
    network = Network(part, kl, style, root, own, ())
    if kl and network.prefix != root:
        for ours in known_names(part, kl=True):
            name = network.prefix + ours
            if ours.startswith(_BESIDE[part]) and name in present:
                own.setdefault(ours, name)
    if style == TAESD and network.prefix != root:
        style = TAESD_PREFIXED
    used = set(own.values())
    extra = tuple(sorted(name for name in _under(network, present) if name not in used))
    return Network(part, kl, style, root, own, extra)


def _under(network: Network, names: Iterable[str]) -> Iterator[str]:
    """The names that claim to be this network's."""
    root, prefix = network.root, network.prefix
    bare = prefix == root
    beside = tuple(f"{module}." for module in _BESIDE[network.part])
    first = Counter(name[len(root) :].partition(".")[0] for name in network.names.values())
    for name in names:
        if name.startswith(root):
            piece = name[len(root) :].partition(".")[0]
            if not bare or piece in first or (network.style == TAESD and piece.isdecimal()):
                yield name
        elif network.kl and name.startswith(prefix) and name[len(prefix) :].startswith(beside):
            yield name


def group_names(names: Iterable[str]) -> list[str]:
    """What names begin with, the most frequent first: ``model.``, ``text_encoders.``."""
    count = Counter(name.partition(".")[0] + "." * ("." in name) for name in names)
    return sorted(count, key=lambda start: (-count[start], start))
