"""Which file of a folder is meant.

As diffusers does: the plain name before its variants (``x.fp16.safetensors``), safetensors before
torch's formats (``_get_model_file`` in https://github.com/huggingface/diffusers).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fluxvae.errors import WeightsError
from fluxvae.networks.catalog import Decoder
from fluxvae.networks.files import SUFFIXES
from fluxvae.networks.keys import choose_network, first_few
from fluxvae.networks.locate import find_networks
from fluxvae.networks.names import newer_model
from fluxvae.networks.sharded import open_checkpoint

_SAFE = (".safetensors", ".sft")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
_INDEX = re.compile(r"(.*)\.(safetensors|bin)\.index(\.\w+)?\.json")
_VARIANT = re.compile(r"\.(?:fp\d+\w*|bf16|ema|non_ema)$")


def choose_file(entry: Decoder, part: str, path: Path) -> tuple[Path, tuple[str, ...]]:
    """The path itself, or the one file of a folder that is the asked part of the entry; and what
    to say about the choice. Raises WeightsError when there is none, or more than one."""
    if not path.exists():
        raise WeightsError(
            f"{path}: does not exist; give a {' or '.join(SUFFIXES)} file or a folder, "
            "or 'demo', or 'random[:SEED]'"
        )
    if not path.is_dir():
        return path, ()
    fitting, reasons = fitting_files(entry, part, path)
    if not fitting and not reasons:
        raise WeightsError(f"{path}: the folder has no {', '.join(SUFFIXES)} file in it")
    if not fitting:
        raise WeightsError(
            f"{path}: no {entry.variant} {part} in the folder: {first_few(reasons, 4)}"
        )
    preferred = _preferred(fitting)
    if len(preferred) > 1:
        raise WeightsError(
            f"{path}: several files fit ({first_few((p.name for p in preferred), 6)}): "
            "give one of them with --weights"
        )
    others = first_few((p.name for p in fitting if p not in preferred), 6)
    taken = preferred[0]
    return taken, (f"took {taken.name}; passed over {others}",) if others else ()


def refuse_newer(path: Path, metadata: Mapping[str, str]) -> None:
    """Raise WeightsError for a checkpoint that says it is of a model newer than the catalogue.

    Its tensors can have the names and shapes of an older one's.
    """
    config = path.parent / "config.json"
    try:
        text = config.read_text(encoding="utf-8")[:100_000] if config.is_file() else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    where = newer_model(path, metadata, text)
    if where is not None:
        raise WeightsError(
            f"{path}: its {where} says FLUX 3, which is newer than this fluxvae: expected weights "
            "of FLUX.1 or FLUX.2"
        )


def fitting_files(entry: Decoder, part: str, folder: Path) -> tuple[list[Path], list[str]]:
    """A folder's files that are the entry's part, and why each other one is not.

    Where none fits, those of the folder ``vae`` in it, as a diffusers pipeline has.
    """
    problems = {path: _problem(entry, part, path) for path in _candidates(folder)}
    fitting = [path for path, problem in problems.items() if problem is None]
    inner = folder / "vae"
    if not fitting and inner.is_dir():
        fitting, reasons = fitting_files(entry, part, inner)
        if fitting or not problems:
            return fitting, reasons
    return fitting, [problem for problem in problems.values() if problem is not None]


def _candidates(folder: Path) -> list[Path]:
    """Weight files and indices by their names; not hidden ones (macOS' ``._x``), nor the shards of
    an index."""
    try:
        files = sorted(p for p in folder.iterdir() if p.name[0] != "." and p.is_file())
    except OSError as error:
        raise WeightsError(f"{folder}: cannot be read: {error.strerror}") from error
    indices = [p for p in files if _INDEX.fullmatch(p.name)]
    weights = [p for p in files if p.suffix.lower() in SUFFIXES]
    return sorted([*indices, *(p for p in weights if not (indices and _SHARD.search(p.name)))])


def _problem(entry: Decoder, part: str, path: Path) -> str | None:
    """Why a file of a folder is not the one that is looked for; None when it is."""
    if _SHARD.search(path.name):
        return f"{path.name}: is one of several files: download their *.index.json too"
    try:
        checkpoint = open_checkpoint(path)
        refuse_newer(path, checkpoint.metadata)
        shapes = checkpoint.shapes
        choose_network(entry, part, find_networks(shapes), shapes, path.name)
    except WeightsError as error:
        return str(error).replace(f"{path.parent}/", "")
    return None


def _preferred(fitting: Sequence[Path]) -> list[Path]:
    """Those that no other one comes before."""
    ranks = {path: _rank(path) for path in fitting}
    best: dict[str, tuple[bool, bool]] = {}
    for stem, *rank in ranks.values():
        best[stem] = min(best.get(stem, (True, True)), (rank[0], rank[1]))
    return [path for path, (stem, *rank) in ranks.items() if tuple(rank) == best[stem]]


def _rank(path: Path) -> tuple[str, bool, bool]:
    """The name without variant and format, whether it is a variant, whether it is a pickle."""
    name = _INDEX.sub(r"\1\3.\2", path.name)
    stem, dot, suffix = name.rpartition(".")
    plain = _VARIANT.sub("", stem)
    return plain, plain != stem, f"{dot}{suffix}".lower() not in _SAFE
