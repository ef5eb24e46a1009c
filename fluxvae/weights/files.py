"""Read the tensors of one file, trusting nothing in it.

Takes ``.safetensors`` and torch's ``.pth``/``.pt``/``.bin``; which of the two it is, the first
bytes say, not the name. Pickles are read by torch's restricted unpickler alone
(``weights_only=True``: https://docs.pytorch.org/docs/stable/notes/serialization.html), so no code
in them can run.
"""

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fluxvae.errors import WeightsError, git_lfs_problem
from fluxvae.weights.keys import Shape, first_few

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
SAFETENSORS = "safetensors"
PYTORCH = "pytorch"

_HEADER_LENGTH = 8  # safetensors: little-endian 64-bit size of the JSON header, then "{"
_LARGEST_HEADER = 100_000_000  # the limit of safetensors' own reader
_DTYPE_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+)")  # in torch's message


@dataclass(frozen=True)
class Contents:
    """A file's tensors as they are, under the file's own names and dtypes."""

    format: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Header:
    """Names, shapes and dtypes (torch's names: ``float16``, ...) without the values."""

    format: str
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]


def read_file(path: Path) -> Contents:
    """All tensors of a checkpoint. Raises WeightsError naming the file, in one line."""
    if sniff(path) == SAFETENSORS:
        return _read_safetensors(path)
    return Contents(PYTORCH, _read_pickle(path), {})


def read_header(path: Path) -> Header:
    """What the tensors are called and look like. Reads values only where a format forces it."""
    if sniff(path) == SAFETENSORS:
        return _read_safetensors_header(path)
    tensors = _read_pickle(path)
    return Header(
        PYTORCH,
        {name: tuple(t.shape) for name, t in tensors.items()},
        {name: str(t.dtype).removeprefix("torch.") for name, t in tensors.items()},
        {},
    )


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
    if start.lstrip()[:1] == b"<":
        raise WeightsError(
            f"{path}: is a web page, not weights: download the file itself (the 'resolve' "
            "address, not 'blob')"
        )
    length = int.from_bytes(start[:_HEADER_LENGTH], "little")
    if start[_HEADER_LENGTH : _HEADER_LENGTH + 1] == b"{" and length <= _LARGEST_HEADER:
        return SAFETENSORS
    if start.startswith((b"PK\x03\x04", b"\x80")):  # zip archive, or a bare pickle (protocol 2+)
        return PYTORCH
    if path.suffix == ".safetensors":
        raise WeightsError(
            f"{path}: is not a safetensors file (no header at its start); download it again"
        )
    raise WeightsError(
        f"{path}: is neither safetensors nor a torch checkpoint; give one of {', '.join(SUFFIXES)}"
    )


def _read_safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Contents(SAFETENSORS, tensors, dict(file.metadata() or {}))
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _read_safetensors_header(path: Path) -> Header:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return Header(
                SAFETENSORS,
                {name: tuple(s.get_shape()) for name, s in slices.items()},
                {name: _dtype_name(s.get_dtype()) for name, s in slices.items()},
                dict(file.metadata() or {}),
            )
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _dtype_name(name: str) -> str:
    return _DTYPE_NAMES.get(name, name.lower())


def _damaged(path: Path, error: Exception) -> WeightsError:
    size = path.stat().st_size
    reason = " ".join(str(error).split())
    return WeightsError(
        f"{path}: is truncated or damaged ({size} bytes; {reason}); download it again"
    )


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hints about pickle protocols, before the refusal
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused_pickle(path, error) from error
    except Exception as error:
        # torch.load answers damage with RuntimeError, EOFError, KeyError, ValueError and more,
        # depending on where the file breaks.
        raise _damaged(path, _first_sentence(error)) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise WeightsError(
            f"{path}: holds a {type(loaded).__name__}; expected a state dict of tensors by name"
        )
    others = [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(
            f"{path}: holds things that are not tensors ({first_few(others)}); give a plain "
            "state dict, or a dict whose 'state_dict' is one"
        )
    return {str(name): value.detach() for name, value in loaded.items()}


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
