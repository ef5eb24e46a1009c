"""Open one checkpoint file, trusting nothing in it; values are read when asked for.

Takes ``.safetensors`` and torch's ``.pth``/``.pt``/``.bin``/``.ckpt``; which of the two it is, the
first bytes say, not the name. A VAE may be a hundredth of the file, so nothing else of it is read.
Pickles are read by torch's restricted unpickler alone (``weights_only=True``:
https://docs.pytorch.org/docs/stable/notes/serialization.html), so no code in them can run.
"""

import contextlib
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fluxvae.errors import WeightsError, git_lfs_problem
from fluxvae.networks.keys import first_few
from fluxvae.networks.kl_keys import Shape

SUFFIXES = (".safetensors", ".sft", ".pth", ".pt", ".bin", ".ckpt")
SAFETENSORS = "safetensors"
PYTORCH = "pytorch"

_HEADER_LENGTH = 8  # safetensors: little-endian 64-bit size of the JSON header, then "{"
_LARGEST_HEADER = 100_000_000  # the limit of safetensors' own reader
_DTYPE_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
                "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}  # fmt: skip
_DEEPEST = 8  # dicts within dicts
_LONGEST_NAME = 1000
_REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+)")  # in torch's message


@dataclass(frozen=True)
class Checkpoint:
    """Names, shapes and dtypes (torch's names: ``float16``, ...) of a checkpoint's tensors.

    ``read`` gives the values of some of them as they are, on the CPU; it raises WeightsError.
    ``others`` names what else it holds.
    """

    format: str
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str]
    read: Callable[[Iterable[str]], dict[str, Tensor]]
    metadata: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()


def open_file(path: Path) -> Checkpoint:
    """A checkpoint of one file. Raises WeightsError naming it, in one line."""
    return _open_safetensors(path) if sniff(path) == SAFETENSORS else _open_pickle(path)


def sniff(path: Path) -> str:
    """``safetensors`` or ``pytorch``. Raises WeightsError for everything that is neither."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    if not start:
        raise WeightsError(f"{path}: is empty; download it again")
    if pointer := git_lfs_problem(start, "the weights"):
        raise WeightsError(f"{path}: {pointer}")
    length = int.from_bytes(start[:_HEADER_LENGTH], "little")
    if start[_HEADER_LENGTH : _HEADER_LENGTH + 1] == b"{" and length <= _LARGEST_HEADER:
        return SAFETENSORS
    if start.lstrip()[:1] == b"<":  # after safetensors, whose length may begin like this
        raise WeightsError(
            f"{path}: is a web page, not weights: download the file itself (the 'resolve' "
            "address, not 'blob')"
        )
    if start.startswith((b"PK\x03\x04", b"\x80")):  # zip archive, or a bare pickle (protocol 2+)
        return PYTORCH
    if path.suffix == ".safetensors":
        raise WeightsError(
            f"{path}: is not a safetensors file (no header at its start); download it again"
        )
    raise WeightsError(
        f"{path}: is neither safetensors nor a torch checkpoint; give one of {', '.join(SUFFIXES)}"
    )


def _open_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return Checkpoint(
                SAFETENSORS,
                {name: tuple(s.get_shape()) for name, s in slices.items()},
                {name: _dtype_name(s.get_dtype()) for name, s in slices.items()},
                partial(_read_safetensors, path),
                dict(file.metadata() or {}),
            )
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _read_safetensors(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _dtype_name(name: str) -> str:
    return _DTYPE_NAMES.get(name, name.lower())


def _damaged(path: Path, error: Exception) -> WeightsError:
    size = path.stat().st_size
    reason = " ".join(str(error).split())
    return WeightsError(
        f"{path}: is truncated or damaged ({size} bytes; {reason}); download it again"
    )


def _open_pickle(path: Path) -> Checkpoint:
    tensors: dict[str, Tensor] = {}
    others = []
    for name, value in _flat(_load_pickle(path), path):
        if not isinstance(value, Tensor):
            others.append(name)
        elif name in tensors:
            raise WeightsError(f"{path}: holds {name} twice; save the state dict alone")
        else:
            tensors[name] = value.detach()
    if not tensors:
        raise WeightsError(f"{path}: no tensors in it, but {first_few(others) or 'nothing'}")
    return Checkpoint(
        PYTORCH,
        {name: tuple(t.shape) for name, t in tensors.items()},
        {name: str(t.dtype).removeprefix("torch.") for name, t in tensors.items()},
        lambda names: {name: tensors[name] for name in names},
        others=tuple(others),
    )


def _load_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        mapped = file.read(2) == b"PK"  # torch's older format cannot be mapped
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hints about pickle protocols, before the refusal
            if _names_too_long(path, mapped):
                raise pickle.UnpicklingError
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise _refused_pickle(path, error) from error
    except Exception as error:
        # torch.load answers damage with RuntimeError, EOFError, KeyError, ValueError and more,
        # depending on where the file breaks.
        raise _damaged(path, _first_sentence(error)) from error


def _names_too_long(path: Path, zipped: bool) -> bool:
    """Whether a pickle names a class or function with more than ``_LONGEST_NAME`` letters.

    torch refuses such a name, and then searches its own message about it with patterns whose time
    grows with the square of the length: minutes for a damaged file. Remove when `_get_wo_message`
    of torch/serialization.py no longer does (it does in 2.13).
    """
    try:
        with contextlib.ExitStack() as stack:
            if zipped:
                archive = stack.enter_context(zipfile.ZipFile(path))
                (name,) = [n for n in archive.namelist() if n.endswith("data.pkl")]
                file, pickles = stack.enter_context(archive.open(name)), 1
            else:  # magic number, protocol, system, state dict, keys
                file, pickles = stack.enter_context(path.open("rb")), 5
            for _ in range(pickles):
                for operation, argument, _ in pickletools.genops(file):
                    if operation.name == "GLOBAL" and len(str(argument)) > _LONGEST_NAME:
                        return True
    except ValueError as error:  # a name that is not ASCII, which no class of torch has, or no end
        return isinstance(error, UnicodeDecodeError) or "newline" in str(error)
    except Exception:
        return False  # damaged in another way: torch says how
    return False


def _flat(loaded: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """(name, value) of a dict and the dicts in it, as ``state_dict.decoder.conv_in.weight``."""
    if not isinstance(loaded, dict):
        raise WeightsError(
            f"{path}: holds a {type(loaded).__name__}; expected a state dict of tensors by name"
        )
    waiting, seen = [("", loaded, 0)], {id(loaded)}
    while waiting:
        start, items, depth = waiting.pop()
        for key, value in items.items():
            name = f"{start}{key}"
            if not isinstance(value, dict):
                yield name, value
            elif id(value) not in seen and depth < _DEEPEST:  # a dict may hold itself
                seen.add(id(value))
                waiting.append((f"{name}.", value, depth + 1))


def _refused_pickle(path: Path, error: Exception) -> WeightsError:
    match = _REFUSED_GLOBAL.search(str(error))
    what = (
        f"is a pickle with code in it ({match[1]})"
        if match
        else "is a pickle of a kind that torch does not write for weights (code in it, or damage)"
    )
    return WeightsError(
        f"{path}: {what}: refused, nothing of it was run. Give a file of tensors only, "
        "best .safetensors"
    )


def _first_sentence(error: Exception) -> Exception:
    text = " ".join(str(error).split()) or type(error).__name__
    return RuntimeError(text.split(". ")[0][:160])
