"""Checkpoints of several files: an index (``*.index.json``) says which tensor is in which.

The format of transformers and diffusers: an object whose ``weight_map`` is {tensor: file name},
every file beside the index (``save_pretrained`` in https://github.com/huggingface/diffusers).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from fluxvae.errors import WeightsError, git_lfs_problem
from fluxvae.files import file_sha256, read_text
from fluxvae.networks.files import Checkpoint, open_file
from fluxvae.schema import parse_json


def is_index(path: Path) -> bool:
    """Whether a file is an index, by its name: ``x.safetensors.index.json``, ``.index.fp16.json``.

    Every other .json file is taken for one too: it is not a checkpoint of another kind.
    """
    return path.suffix.lower() == ".json"


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint of one file, or of several by their index. Raises WeightsError."""
    if not is_index(path):
        return open_file(path)
    shard_of = read_index(path)
    shards = {shard: open_file(shard) for shard in sorted(set(shard_of.values()))}
    for name, shard in shard_of.items():
        if name not in shards[shard].shapes:
            raise WeightsError(
                f"{path}: says that {name} is in {shard.name}, which does not hold it: the files "
                "are of different downloads; fetch them again"
            )
    first = next(iter(shards.values()))

    def read(names: Iterable[str]) -> dict[str, Tensor]:
        wanted = defaultdict[Path, list[str]](list)
        for name in names:
            wanted[shard_of[name]].append(name)
        return {n: t for shard, own in wanted.items() for n, t in shards[shard].read(own).items()}

    unlisted = {name for shard in shards.values() for name in shard.shapes} - shard_of.keys()
    return Checkpoint(
        first.format,
        {name: shards[shard].shapes[name] for name, shard in shard_of.items()},
        {name: shards[shard].dtypes[name] for name, shard in shard_of.items()},
        read,
        first.metadata,
        others=(*sorted(unlisted), *(o for shard in shards.values() for o in shard.others)),
    )


def read_index(path: Path) -> Mapping[str, Path]:
    """{tensor: file} of an index; the files are there. Raises WeightsError."""
    try:
        text = read_text(path)
        if pointer := git_lfs_problem(text[:200].encode(), "the index"):
            raise WeightsError(f"{path}: {pointer}")
        data = parse_json(text)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise WeightsError(f"{path}: is not JSON ({error}); download it again") from error
    listed = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise WeightsError(
            f"{path}: is not an index of sharded weights (no weight_map); give the "
            "*.index.json file, or the weights themselves"
        )
    for name, file in listed.items():
        # The file writes this name, so it must not lead elsewhere.
        if not isinstance(file, str) or not _is_plain(file):
            raise WeightsError(
                f"{path}: says that {name} is in {file!r}; expected a file beside the index"
            )
    found = {name: path.parent / file for name, file in listed.items()}
    missing = sorted({file.name for file in found.values() if not file.is_file()})
    if missing:
        raise WeightsError(
            f"{path}: lacks {', '.join(missing[:4])} beside it: download all of its "
            f"{len(set(found.values()))} files"
        )
    return found


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not any(mark in name for mark in ("/", "\\", ":", "\0"))


def checkpoint_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes; of an index: of the lines ``sha256  name`` of its
    files in the order of their names, as ``sha256sum FILES | sha256sum`` gives it."""
    if not is_index(path):
        return file_sha256(path)
    files = sorted(set(read_index(path).values()))
    lines = "".join(f"{file_sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def checkpoint_bytes(path: Path) -> int:
    """Size of a file, or of all files of an index, in bytes."""
    files = set(read_index(path).values()) if is_index(path) else {path}
    return sum(file.stat().st_size for file in files)
