"""From what ``--weights`` says to checked float32 tensors under upstream's names."""

import hashlib
import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from fluxvae.errors import UsageError, WeightsError
from fluxvae.files import file_sha256
from fluxvae.networks.catalog import (
    PARTS,
    Decoder,
    LatentContract,
    demo_contract,
    find_decoder,
    random_contract,
)
from fluxvae.networks.folder import choose_file, fitting_files, refuse_newer
from fluxvae.networks.hub import Fetching, fetch_file
from fluxvae.networks.keys import choose_network, first_few, fits_entry
from fluxvae.networks.locate import Network, find_networks, group_names, passed_over
from fluxvae.networks.random import random_tensors
from fluxvae.networks.shapes import entry_shapes
from fluxvae.networks.sharded import checkpoint_sha256, open_checkpoint

OWN_METADATA = "fluxvae"  # key that scripts/train_demo_weights.py leaves in a file's metadata
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class WeightSource:
    """Where tensors came from; written into every artifact, so it never holds a local path.

    ``kind`` is ``hub``, ``file``, ``demo`` or ``random``. ``name`` is
    ``repo@revision/file``, the file's bare name, ``demo`` or ``random:SEED``.
    ``file_sha256`` is the digest of the file's bytes, for an index of several files as
    ``fluxvae.networks.sharded.checkpoint_sha256`` defines it; None for random weights.
    """

    kind: str
    name: str
    file_sha256: str | None


@dataclass(frozen=True, eq=False)  # tensors have no useful ==; compare digests
class Weights:
    """One network's parameters, checked: every key, every shape, all finite.

    ``part`` is ``decoder`` or ``encoder``; ``kind`` the catalogue's (``tiny``, ``full``,
    ``small``). ``tensors`` has upstream's names (tiny: taesd's Sequential, ``1.weight``, ...; KL:
    diffusers' without the leading ``decoder.``, ``up_blocks.0.resnets.0.conv1.weight``, ...) and
    float32 values on the CPU. ``digest`` is
    ``tensor_digest`` of them: equal for equal values, whatever the
    container, key style or (exactly representable) dtype they came in. FLUX.2's batch-norm
    statistics (``STATISTICS`` of ``fluxvae.networks.kl_keys``) may be absent, as from a file of the
    decoder alone: then only latents of the VAE's own space can be taken. ``notes`` say, for
    people, what was taken and what was passed over.
    """

    variant: str
    part: str
    tensors: Mapping[str, Tensor]
    source: WeightSource
    contract: LatentContract
    digest: str
    kind: str = "tiny"
    notes: tuple[str, ...] = ()


def load_weights(
    variant: str,
    spec: str | None = None,
    *,
    kind: str = "tiny",
    part: str = "decoder",
    **fetching: Unpack[Fetching],
) -> Weights:
    """Weights of one part (``decoder`` or ``encoder``) of a catalogue variant and kind.

    ``spec``: None for the pinned Hub file; ``demo``; ``random`` or ``random:SEED``; otherwise the
    path of a file or folder (``./demo`` for a path of that name). Raises UsageError for an unknown
    variant, part or seed, DownloadError when the file cannot be had, and WeightsError when it is
    missing, damaged, not the pinned one, of another decoder, incomplete, or not finite.
    """
    return load_entry(find_decoder(variant, kind), spec, part=part, **fetching)


def load_entry(
    entry: Decoder,
    spec: str | None = None,
    *,
    part: str = "decoder",
    **fetching: Unpack[Fetching],
) -> Weights:
    """``load_weights`` for an entry at hand, in the catalogue or not."""
    if part not in PARTS:
        raise UsageError(f"unknown part {part!r}; known: {', '.join(PARTS)}")
    if spec is None:
        path = fetch_file(entry.hub, **fetching)
        hub = entry.hub
        seen = hub.sha256 or file_sha256(path)  # of a file that is pinned by its commit alone
        source = WeightSource("hub", f"{hub.repo}@{hub.revision}/{hub.file}", seen)
        return load_file(entry, part, path, source)
    if spec == "demo":
        return _load_demo(entry, part)
    if _is_random(spec):
        return _load_random(entry, part, spec)
    path, notes = choose_file(entry, part, Path(spec))
    source = WeightSource("file", path.name, checkpoint_sha256(path))
    return load_file(entry, part, path, source, notes)


def find_encoder(
    variant: str,
    spec: str | None = None,
    *,
    kind: str = "tiny",
    **fetching: Unpack[Fetching],
) -> Weights | None:
    """The encoder that belongs to the decoder of the same ``spec``; None when there is none.

    The Hub file, demo and random weights bring their own. For a folder it is in the folder; for
    a file, in the same file or in the sibling whose name has ``encoder`` where the file's has
    ``decoder``. Raises as ``load_weights`` when an encoder is there but cannot be used.
    """
    entry = find_decoder(variant, kind)
    if spec is None:
        path = fetch_file(entry.hub, **fetching)
        if not _holds(entry, "encoder", path):
            return None
        return load_entry(entry, part="encoder", **fetching)
    if spec == "demo" or _is_random(spec):
        return load_entry(entry, spec, part="encoder")
    path = Path(spec)
    if path.is_dir():
        fitting, _ = fitting_files(entry, "encoder", path)
        return load_entry(entry, spec, part="encoder") if fitting else None
    if _holds(entry, "encoder", path):
        return load_entry(entry, spec, part="encoder")
    name = path.name.replace("decoder", "encoder").replace("Decoder", "Encoder")
    sibling = path.with_name(name)
    if name == path.name or not sibling.exists():
        return None
    return load_entry(entry, str(sibling), part="encoder")


def _is_random(spec: str) -> bool:
    return spec == "random" or spec.startswith("random:")


def _load_demo(entry: Decoder, part: str) -> Weights:
    if entry.kl is not None:
        raise UsageError(
            "there are demo weights of the tiny decoders only: use --weights random for a "
            f"{entry.kind} one, or --decoder tiny"
        )
    name = f"{entry.variant}_demo_{part}.safetensors"
    with importlib.resources.as_file(importlib.resources.files("fluxvae.demo") / name) as path:
        if not path.is_file():
            raise WeightsError(
                f"this installation lacks the demo weights ({name}): install fluxvae again, "
                "or give --weights PATH"
            )
        return load_file(entry, part, path, WeightSource("demo", "demo", file_sha256(path)))


def _load_random(entry: Decoder, part: str, spec: str) -> Weights:
    digits = spec.removeprefix("random").removeprefix(":") if spec != "random" else "0"
    if not (digits.isascii() and digits.isdigit() and int(digits) <= _LARGEST_SEED):
        raise UsageError(
            f"--weights {spec}: the seed must be a whole number from 0 to {_LARGEST_SEED}, "
            "for instance random:7"
        )
    seed = int(digits)
    tensors = random_tensors(entry, part, seed)
    source = WeightSource("random", f"random:{seed}", None)
    return _weights(entry, part, tensors, source, random_contract(entry))


def _holds(entry: Decoder, part: str, path: Path) -> bool:
    """Whether a file has the part, of this entry or of another, whole or not.

    Beside a whole VAE's other part it is that VAE's: a pipeline's other networks have its names.
    """
    shapes = open_checkpoint(path).shapes
    networks = [n for n in find_networks(shapes) if n.kl == (entry.kl is not None)]
    whole = {n.prefix for n in networks if fits_entry(entry, n.part, n.shapes(shapes))}
    return any(n.part == part and (not whole or n.prefix in whole) for n in networks)


def load_file(
    entry: Decoder, part: str, path: Path, source: WeightSource, notes: tuple[str, ...] = ()
) -> Weights:
    """Read, check and convert one part of one checkpoint. Raises WeightsError."""
    checkpoint = open_checkpoint(path)
    if source.kind == "file":
        refuse_newer(path, checkpoint.metadata)
    networks = find_networks(checkpoint.shapes)
    network = choose_network(entry, part, networks, checkpoint.shapes, str(path))
    expected = entry_shapes(entry, part)
    values = checkpoint.read(network.names.values())
    tensors = {
        name: _to_float32(values[key], key, path).reshape(expected[name])
        for name, key in network.names.items()
    }
    own = source.kind == "demo" or OWN_METADATA in checkpoint.metadata
    contract = demo_contract(entry) if own else entry.contract
    others = [*passed_over(network, networks, checkpoint.shapes), *checkpoint.others]
    texts = (*notes, *_notes(path.name, network, others))
    return _weights(entry, part, tensors, source, contract, texts)


def _notes(name: str, network: Network, others: Sequence[str]) -> Iterator[str]:
    """What was taken of a file that holds more."""
    if not others:
        return
    where = f" under {network.prefix!r}" if network.prefix else ""
    yield (
        f"{name}: took the {network.part}{where}; passed over {len(others)} other entries "
        f"({first_few(group_names(others), 4)})"
    )


def _to_float32(tensor: Tensor, key: str, path: Path) -> Tensor:
    plain = tensor.layout is torch.strided and not tensor.is_meta
    if not tensor.is_floating_point() or not plain:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise WeightsError(f"{path}: {key} is {kind}; expected plain floating-point weights")
    # A copy even of float32: the file's own memory may change with the file.
    values = tensor.to(torch.float32, copy=True).contiguous()
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise WeightsError(
            f"{path}: {key} holds NaN or infinity in float32 (values: {bad}); "
            "the checkpoint is broken: download it again"
        )
    return values


def _weights(
    entry: Decoder,
    part: str,
    tensors: Mapping[str, Tensor],
    source: WeightSource,
    contract: LatentContract,
    notes: tuple[str, ...] = (),
) -> Weights:
    ordered = {name: tensors[name] for name in entry_shapes(entry, part) if name in tensors}
    digest = tensor_digest(ordered)
    return Weights(entry.variant, part, ordered, source, contract, digest, entry.kind, notes)


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal sha256 over names (sorted), shapes and little-endian float32 values.

    Each tensor contributes ``name shape\\n`` in UTF-8 (``3.conv.0.bias 64``, dimensions joined
    by ``x``) and then its values in C order. Values beyond float32 are rounded to it first.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().to("cpu", torch.float32).contiguous().numpy()
        shape = "x".join(str(size) for size in values.shape)
        digest.update(f"{name} {shape}\n".encode())
        digest.update(values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
