"""Say what a checkpoint file is, for ``fluxvae weights show``."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fluxvae.errors import WeightsError
from fluxvae.networks.catalog import KNOWN_FILES, PARTS, all_decoders
from fluxvae.networks.files import Checkpoint
from fluxvae.networks.keys import (
    check_fit,
    choose_network,
    first_few,
    fitting_entries,
    likely_entry,
)
from fluxvae.networks.kl_keys import STATISTICS
from fluxvae.networks.locate import UNKNOWN, Network, find_networks, group_names, passed_over
from fluxvae.networks.sharded import checkpoint_bytes, checkpoint_sha256, open_checkpoint
from fluxvae.networks.weights import WeightSource, load_file


@dataclass(frozen=True)
class FileReport:
    """What a file holds and what it is good for.

    ``format`` is ``safetensors``, ``pytorch`` or None when unreadable. ``fits`` are the
    (variant, kind, part) triples it can serve as. ``dtypes`` counts tensors by dtype. ``known``
    names a published file with the same sha256; ``pinned`` is the variant whose Hub file this is.
    ``problems`` says in words what stands against using it; ``notes`` what else there is to know.
    """

    path: Path
    size: int  # bytes
    sha256: str
    format: str | None = None
    style: str | None = None
    fits: tuple[tuple[str, str, str], ...] = ()
    tensors: int = 0
    parameters: int = 0
    dtypes: Mapping[str, int] = field(default_factory=dict)
    known: str | None = None
    pinned: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def describe_file(path: Path) -> FileReport:
    """Facts about one checkpoint file; what is wrong with it is in ``problems``, not raised.

    Raises WeightsError only when there is no such file.
    """
    if not path.is_file():
        what = "is a folder; give a file in it" if path.is_dir() else "does not exist"
        raise WeightsError(f"{path}: {what}")
    known, pinned = None, None
    sha256, size = "", 0
    try:
        sha256, size = checkpoint_sha256(path), checkpoint_bytes(path)
        known, pinned = _published(sha256)
        checkpoint = open_checkpoint(path)
    except WeightsError as error:
        return FileReport(path, size, sha256, known=known, pinned=pinned, problems=(str(error),))
    shapes, networks = checkpoint.shapes, find_networks(checkpoint.shapes)
    fits = tuple(
        (entry.variant, entry.kind, network.part)
        for network in networks
        for entry in fitting_entries(network.shapes(shapes), network.part)
    )
    return FileReport(
        path,
        size,
        sha256,
        format=checkpoint.format,
        style=networks[0].style if networks else UNKNOWN,
        fits=tuple(dict.fromkeys(fits)),
        tensors=len(shapes),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        dtypes=dict(Counter(checkpoint.dtypes.values())),
        known=known,
        pinned=pinned,
        metadata=checkpoint.metadata,
        problems=tuple(_problems(path, checkpoint, networks)),
        notes=tuple(_notes(checkpoint, networks)),
    )


def _published(sha256: str) -> tuple[str | None, str | None]:
    """(title, variant) when the digest is a published file's; variant only for a pinned one."""
    for entry in all_decoders():
        if entry.hub.sha256 == sha256:
            return f"{entry.hub.file} of {entry.hub.repo}, the pinned file", entry.variant
    return KNOWN_FILES.get(sha256), None


def _problems(path: Path, checkpoint: Checkpoint, networks: Sequence[Network]) -> Iterator[str]:
    """What stops each part from being loaded; reads the values of those that would fit."""
    shapes = checkpoint.shapes
    if not networks:
        entry = likely_entry({}, PARTS[0], kl=False)
        yield from _refusal(lambda: choose_network(entry, PARTS[0], (), shapes, path.name))
    for part in PARTS:
        own = [network for network in networks if network.part == part]
        fitting = [n for n in own if fitting_entries(n.shapes(shapes), part)]
        for network in fitting[:1] or own[:1]:
            given = network.shapes(shapes)
            entry = likely_entry(given, part, kl=network.kl)
            if fitting:
                source = WeightSource("file", path.name, None)
                yield from _refusal(partial(load_file, entry, part, path, source))
            else:
                yield from _refusal(partial(check_fit, entry, part, given, path.name))


def _notes(checkpoint: Checkpoint, networks: Sequence[Network]) -> Iterator[str]:
    """Where the VAE is, what it lacks and what else there is."""
    if not networks:
        return
    network = networks[0]
    if network.prefix:
        yield f"the VAE is under {network.prefix!r}"
    statistics = any(name in network.names for name in STATISTICS)
    if "post_quant_conv.weight" in network.names and not statistics:
        yield "no batch-norm statistics: for --latents vae alone"
    others = [*passed_over(network, networks, checkpoint.shapes), *checkpoint.others]
    if others:
        yield f"{len(others)} other entries ({first_few(group_names(others), 4)})"


def _refusal(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except WeightsError as error:
        yield str(error)
