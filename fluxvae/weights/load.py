"""From what ``--weights`` says to checked float32 tensors under upstream's names."""

import importlib.resources
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fluxvae.catalog import (
    Decoder,
    LatentContract,
    demo_contract,
    find_decoder,
    random_contract,
)
from fluxvae.digest import file_sha256
from fluxvae.errors import UsageError, WeightsError
from fluxvae.weights.digest import tensor_digest
from fluxvae.weights.files import SUFFIXES, read_file, read_header
from fluxvae.weights.hub import Progress, fetch_file
from fluxvae.weights.keys import (
    PARTS,
    Shape,
    check_family,
    check_fit,
    entry_shapes,
    first_few,
    part_names,
    part_shapes,
    read_layout,
)
from fluxvae.weights.random_weights import random_tensors
from fluxvae.weights.source import Weights, WeightSource

OWN_METADATA = "fluxvae"  # key that scripts/train_demo_weights.py leaves in a file's metadata
_LARGEST_SEED = 2**63 - 1


def load_weights(
    variant: str,
    spec: str | None = None,
    *,
    kind: str = "tiny",
    part: str = "decoder",
    offline: bool = False,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
    progress: Progress | None = None,
) -> Weights:
    """Weights of one part (``decoder`` or ``encoder``) of a catalogue variant and kind.

    ``spec``: None for the pinned Hub file; ``demo``; ``random`` or ``random:SEED``; otherwise the
    path of a file or folder (``./demo`` for a path of that name). ``offline`` uses only
    huggingface_hub's cache. Raises UsageError for an unknown variant, part or seed,
    DownloadError when the file cannot be had, and WeightsError when it is missing, damaged, not
    the pinned one, of another decoder, incomplete, or not finite.
    """
    return load_entry(
        find_decoder(variant, kind),
        spec,
        part=part,
        offline=offline,
        cache_dir=cache_dir,
        endpoint=endpoint,
        progress=progress,
    )


def load_entry(
    entry: Decoder,
    spec: str | None = None,
    *,
    part: str = "decoder",
    offline: bool = False,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
    progress: Progress | None = None,
) -> Weights:
    """``load_weights`` for an entry at hand, in the catalogue or not."""
    if part not in PARTS:
        raise UsageError(f"unknown part {part!r}; known: {', '.join(PARTS)}")
    if spec is None:
        path = fetch_file(
            entry.hub, offline=offline, cache_dir=cache_dir, endpoint=endpoint, progress=progress
        )
        hub = entry.hub
        seen = hub.sha256 or file_sha256(path)  # of a file that is pinned by its commit alone
        source = WeightSource("hub", f"{hub.repo}@{hub.revision}/{hub.file}", seen)
        return load_file(entry, part, path, source)
    if spec == "demo":
        return _load_demo(entry, part)
    if _is_random(spec):
        return _load_random(entry, part, spec)
    path = _choose_file(entry, part, Path(spec))
    return load_file(entry, part, path, WeightSource("file", path.name, file_sha256(path)))


def find_encoder(
    variant: str,
    spec: str | None = None,
    *,
    kind: str = "tiny",
    offline: bool = False,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
    progress: Progress | None = None,
) -> Weights | None:
    """The encoder that belongs to the decoder of the same ``spec``; None when there is none.

    The Hub file, demo and random weights bring their own. For a folder it is in the folder; for
    a file, in the same file or in the sibling whose name has ``encoder`` where the file's has
    ``decoder``. Raises as ``load_weights`` when an encoder is there but cannot be used.
    """
    entry = find_decoder(variant, kind)
    if spec is None:
        path = fetch_file(
            entry.hub, offline=offline, cache_dir=cache_dir, endpoint=endpoint, progress=progress
        )
        if not _holds(path, "encoder"):
            return None
        return load_entry(entry, part="encoder", offline=True, cache_dir=cache_dir)
    if spec == "demo" or _is_random(spec):
        return load_entry(entry, spec, part="encoder")
    path = Path(spec)
    if path.is_dir():
        fitting = [p for p in _candidates(path) if _problem(entry, "encoder", p) is None]
        return load_entry(entry, spec, part="encoder") if fitting else None
    if _holds(path, "encoder"):
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


def _choose_file(entry: Decoder, part: str, path: Path) -> Path:
    """The path itself, or the one file of a folder that is the asked part of the asked variant."""
    if not path.exists():
        raise WeightsError(
            f"{path}: does not exist; give a {' or '.join(SUFFIXES)} file or a folder, "
            "or 'demo', or 'random[:SEED]'"
        )
    if not path.is_dir():
        return path
    candidates = _candidates(path)
    inner = path / "vae"  # the folder of a whole diffusers pipeline
    if not candidates and entry.kl is not None and inner.is_dir():
        return _choose_file(entry, part, inner)
    if not candidates:
        raise WeightsError(f"{path}: the folder has no {', '.join(SUFFIXES)} file in it")
    problems = {p: _problem(entry, part, p) for p in candidates}
    fitting = [p for p, problem in problems.items() if problem is None]
    if len(fitting) > 1:
        raise WeightsError(
            f"{path}: several files fit ({first_few((p.name for p in fitting), 6)}): "
            "give one of them with --weights"
        )
    if not fitting:
        reasons = first_few((str(problem) for problem in problems.values()), 4)
        raise WeightsError(f"{path}: no {entry.variant} {part} in the folder: {reasons}")
    return fitting[0]


def _candidates(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())


def _problem(entry: Decoder, part: str, path: Path) -> str | None:
    """Why a file of a folder is not the one that is looked for; None when it is."""
    try:
        header = read_header(path)
        _check_header(entry, part, header.shapes, path.name)
    except WeightsError as error:
        return str(error).replace(str(path), path.name)
    return None


def _check_header(entry: Decoder, part: str, shapes: Mapping[str, Shape], name: str) -> None:
    """Raise WeightsError unless a file of such tensors has exactly this part of the entry."""
    layout = read_layout(shapes)
    check_family(entry, layout, shapes, name)
    part_names(layout, part, name)
    check_fit(entry, part, part_shapes(layout, part, shapes), name)


def _holds(path: Path, part: str) -> bool:
    return part in read_layout(read_header(path).shapes).parts


def load_file(entry: Decoder, part: str, path: Path, source: WeightSource) -> Weights:
    """Read, check and convert one part of one file. Raises WeightsError."""
    contents = read_file(path)
    shapes = {key: tuple(tensor.shape) for key, tensor in contents.tensors.items()}
    _check_header(entry, part, shapes, str(path))
    expected = entry_shapes(entry, part)
    tensors = {
        name: _to_float32(contents.tensors[key], key, path).reshape(expected[name])
        for name, key in part_names(read_layout(shapes), part, str(path)).items()
    }
    own = source.kind == "demo" or OWN_METADATA in contents.metadata
    contract = demo_contract(entry) if own else entry.contract
    return _weights(entry, part, tensors, source, contract)


def _to_float32(tensor: Tensor, key: str, path: Path) -> Tensor:
    if not tensor.is_floating_point() or tensor.layout is not torch.strided:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise WeightsError(f"{path}: {key} is {kind}; expected plain floating-point weights")
    values = tensor.to(torch.float32).contiguous()
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
) -> Weights:
    ordered = {name: tensors[name] for name in entry_shapes(entry, part)}
    digest = tensor_digest(ordered)
    return Weights(entry.variant, part, ordered, source, contract, digest, entry.kind)
