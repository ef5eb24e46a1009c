"""Latents from ``.safetensors``, ``.latent``, ``.npy`` and ``.bin`` files, as (1, C, h, w) float32.

``.latent`` is what ComfyUI's SaveLatent writes: safetensors with the latent as ``latent_tensor``
and a marker without values. https://github.com/comfyanonymous/ComfyUI/blob/master/nodes.py
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluxvae.data.spaces import unlike
from fluxvae.errors import LatentError, git_lfs_problem
from fluxvae.files import write_file
from fluxvae.networks.catalog import LatentContract
from fluxvae.recipes import Recipe
from fluxvae.recipes.axes import FIRST, LatentInput, Reading, choose_reading

SPACE_KEY = "fluxvae.latent_space"  # safetensors metadata: which space the latents are in
SUFFIXES = (".safetensors", ".latent", ".npy", ".bin")
KEYED = (".safetensors", ".latent")
FLOAT16_LARGEST = 65504
_FLOAT16_INFINITE = 65520  # from here on the nearest float16 is infinity
_COMFY_TENSOR = "latent_tensor"
_COMFY_MARKER = "latent_format_version_0"
_COMFY_OLD_SCALE = 0.18215  # of files without the marker
# Which latents ComfyUI saves, by their channels: of FLUX.1 it undoes the sampler's scale and shift.
_COMFY_FORMS = {16: ("flux1", "vae"), 128: ("flux2", "packed")}


@dataclass(frozen=True)
class Latent:
    """One latent (1, C, h, w), float32, and the name it goes by."""

    name: str
    values: np.ndarray


@dataclass(frozen=True)
class LatentFile:
    """What of a file an artifact takes; ``notes`` in sentences: what was passed over or is odd.

    ``path`` is the file itself, without a key.
    """

    path: Path
    latents: tuple[Latent, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Tensor:
    """An array of a file under its name; ``stated``: the file says which space it is in."""

    name: str
    values: np.ndarray
    stated: bool = False


def read_latents(path: Path, wanted: LatentInput, *, strict: bool = False) -> LatentFile:
    """Every latent of a file that ``wanted`` takes, a batch split into its members.

    ``path`` may end in ``:KEY``, which takes that tensor of a safetensors file alone. A raw
    ``.bin`` (little-endian float32 or float16, in the artifact's own layout) is recognised by its
    length. Latents of a file that does not state their space are measured. Raises LatentError,
    with what was expected, when nothing fits, when a value is not finite, when the file states
    another space, and, with ``strict``, when the latents look like those of another space.
    """
    file, key = split_key(path)
    if not file.is_file():
        raise LatentError(f"{path} does not exist or is not a file; expected latents")
    with file.open("rb") as stream:
        pointer = git_lfs_problem(stream.read(64), "the latents")
    if pointer is not None:
        raise LatentError(f"{file.name} {pointer}")
    notes: list[str] = []
    latents: list[Latent] = []
    unlikely: dict[str, list[str]] = {}
    for tensor, reading in _fitting(file, _tensors(file, key, wanted, notes), wanted, notes):
        maps = _as_maps(tensor.values, reading)
        _check_finite(file, tensor.name, maps)
        for index in range(len(maps)):
            name = tensor.name if len(maps) == 1 else f"{tensor.name}-{index}"
            latents.append(Latent(name, maps[index : index + 1]))
            text = None if tensor.stated else unlike(latents[-1].values, wanted, reading.order)
            if text is not None:
                unlikely.setdefault(text, []).append(name)
    warnings = [f"{file.name}: {_listed(names)} {text}" for text, names in unlikely.items()]
    if strict and warnings:
        raise LatentError(f"{warnings[0]} (an error because of --strict)")
    return LatentFile(file, tuple(latents), (*notes, *warnings))


def split_key(path: Path) -> tuple[Path, str | None]:
    """``file.safetensors:key`` in its two parts; a file whose own name has a colon stays whole."""
    text = str(path)
    if path.is_file():
        return path, None
    for index, character in enumerate(text):
        file = Path(text[:index])
        if character == ":" and file.suffix.lower() in SUFFIXES and file.is_file():
            return file, text[index + 1 :]
    return path, None


def _fitting(
    file: Path, tensors: Iterable[_Tensor | str], wanted: LatentInput, notes: list[str]
) -> Iterator[tuple[_Tensor, Reading]]:
    """Those of ``tensors`` that the artifact takes. A string says why one is not a latent.

    Raises LatentError when none is taken; else ``notes`` says at the end what was passed over.
    """
    reasons = []
    none = True
    for tensor in tensors:
        if isinstance(tensor, str):
            reasons.append(tensor)
            continue
        try:
            reading = _read_axes(tensor, wanted)
        except LatentError as error:
            reasons.append(f"{tensor.name!r} {error}")
        else:
            none = False
            yield tensor, reading
    passed = "; ".join([*(reason.rstrip(".") for reason in reasons[:-1]), *reasons[-1:]])
    if none:
        raise LatentError(f"{file.name}: {passed}" if passed else f"{file.name} holds no tensors")
    if passed:
        notes.append(f"{file.name}: passed over {passed}")


def _read_axes(tensor: _Tensor, wanted: LatentInput) -> Reading:
    """Raises LatentError, the rest of a sentence about the tensor."""
    if not tensor.values.size:
        raise LatentError(f"is empty, of shape {list(tensor.values.shape)}")
    return choose_reading(tensor.values.shape, wanted)


def _tensors(
    file: Path, key: str | None, wanted: LatentInput, notes: list[str]
) -> Iterator[_Tensor | str]:
    suffix = file.suffix.lower()
    if suffix in KEYED:
        yield from _safetensors(file, key, wanted, notes)
    elif key is not None:
        raise LatentError(f"{file.name} holds one array: leave out {':' + key!r}")
    elif suffix == ".npy":
        yield _npy(file)
    elif suffix == ".bin":
        yield _raw(file, wanted)
    else:
        raise LatentError(f"{file.name}: latents come as {', '.join(SUFFIXES[:-1])} or .bin")


def _safetensors(
    file: Path, key: str | None, wanted: LatentInput, notes: list[str]
) -> Iterator[_Tensor | str]:
    import torch
    from safetensors import SafetensorError, safe_open

    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    try:
        with safe_open(file, "pt") as content:
            metadata, names = content.metadata() or {}, list(content.keys())
            _check_space(file, metadata, wanted.contract)
            if key is not None and key not in names:
                raise LatentError(f"{file.name} holds no tensor {key!r}; it holds {_listed(names)}")
            comfy = _COMFY_MARKER in names or file.suffix.lower() == ".latent"
            for name in names if key is None else [key]:
                if name == _COMFY_MARKER and key is None:
                    continue
                values = content.get_tensor(name)
                if values.dtype not in floats:
                    dtype = str(values.dtype).removeprefix("torch.")
                    yield f"{name!r} holds {dtype}, not floats of 16, 32 or 64 bits"
                    continue
                tensor = _Tensor(name, values.to(torch.float32).numpy(), SPACE_KEY in metadata)
                if comfy and name == _COMFY_TENSOR:
                    yield _of_comfy(file, tensor, _COMFY_MARKER in names, wanted, notes)
                else:
                    yield tensor
    except (SafetensorError, OSError) as error:
        raise LatentError(f"{file.name} is truncated or not a safetensors file: {error}") from error


def _of_comfy(
    file: Path, tensor: _Tensor, marked: bool, wanted: LatentInput, notes: list[str]
) -> _Tensor | str:
    """ComfyUI's tensor as ComfyUI would load it, or why the artifact does not take its space."""
    values = tensor.values
    if not marked:
        values = values / np.float32(_COMFY_OLD_SCALE)
        notes.append(
            f"{file.name}: divided by {_COMFY_OLD_SCALE}, as ComfyUI does with files that lack "
            f"{_COMFY_MARKER!r}"
        )
    channels = values.shape[1] if values.ndim > 1 else 0
    variant, form = _COMFY_FORMS.get(channels, ("", ""))
    if variant != wanted.variant:
        return _Tensor(tensor.name, values)  # its shape tells
    if form != wanted.form:
        where = "in the VAE's own space" if form == "vae" else "packed"
        return (
            f"{tensor.name!r} is {where}, as ComfyUI saves latents of {variant}; this model "
            f"takes them otherwise ({wanted.contract.wants.rstrip('.')}): convert with "
            f"--latents {form}"
        )
    return _Tensor(tensor.name, values, stated=True)


def _check_space(file: Path, metadata: dict[str, str], contract: LatentContract) -> None:
    space = metadata.get(SPACE_KEY)
    if space is not None and space != contract.space:
        raise LatentError(
            f"{file.name} holds latents of the space {space!r}, but this decoder wants "
            f"{contract.space!r}: {contract.wants} The picture would have wrong colours"
        )


def _npy(file: Path) -> _Tensor | str:
    try:
        # Mapped, so that a header which promises more than the file has does not fill the memory.
        array = np.load(file, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # damaged headers raise nearly everything, SyntaxError too
        # Of any other file numpy says that it is a pickle, and how to load one: code would run.
        reason = "it begins otherwise" if "pickle" in str(error) else error
        raise LatentError(f"{file.name} is truncated or not a .npy array: {reason}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise LatentError(f"{file.name} is an .npz archive; save the one array with numpy.save")
    if not np.issubdtype(array.dtype, np.floating):
        what = "2-byte values without a type (bfloat16?)" if array.dtype == "V2" else array.dtype
        return f"{file.stem!r} holds {what}, not floats of 16, 32 or 64 bits"
    with np.errstate(over="ignore"):  # becomes infinite, which is refused by name
        return _Tensor(file.stem, np.array(array, np.float32))


def _raw(file: Path, wanted: LatentInput) -> _Tensor:
    raw = file.read_bytes()
    fitting = [
        (dtype, shape)
        for shape in dict.fromkeys(wanted.shapes)
        for dtype, width in (("<f4", 4), ("<f2", 2))
        if len(raw) == width * math.prod(shape)
    ]
    if len(fitting) > 1:
        what = " or ".join(f"{list(s)} as float{8 * int(d[-1])}" for d, s in fitting)
        raise LatentError(
            f"{file.name} has {len(raw)} bytes, which could be {what}: "
            "save it as .npy or .safetensors, which say what they hold"
        )
    for dtype, shape in fitting:
        return _Tensor(file.stem, np.frombuffer(raw, dtype).astype(np.float32).reshape(shape))
    sizes = ", ".join(f"{4 * math.prod(s)} ({list(s)} as float32)" for s in wanted.shapes)
    raise LatentError(
        f"{file.name} has {len(raw)} bytes; expected {sizes or 'a size to be known'}, "
        "or half of it for float16"
    )


def _as_maps(array: np.ndarray, reading: Reading) -> np.ndarray:
    """The array as maps (B, C, h, w), contiguous."""
    batch, channels, rows, columns = (
        reading.batch, reading.channels, reading.rows, reading.columns,
    )  # fmt: skip
    if reading.order == FIRST:
        return np.ascontiguousarray(array.reshape(batch, channels, rows, columns))
    maps = array.reshape(batch, rows, columns, channels).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(maps)


def _check_finite(file: Path, name: str, values: np.ndarray) -> None:
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise LatentError(
            f"{file.name}: {name!r} holds NaN or infinity (values: {bad}); "
            "whatever made it went wrong, and no decoder can recover it"
        )


def _listed(names: Sequence[str], most: int = 5) -> str:
    """Names for a sentence, the first few of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def size_of(latent: Latent, contract: LatentContract) -> str:
    """Image size of a latent, as ``--size`` takes it: ``1024`` or ``768x1344``."""
    height, width = (d * contract.scale for d in latent.values.shape[2:])
    return str(height) if height == width else f"{height}x{width}"


def space_metadata(contract: LatentContract) -> dict[str, str]:
    """Metadata for a safetensors file of latents, so that a wrong decoder refuses them."""
    return {SPACE_KEY: contract.space, "fluxvae.contract": json.dumps(contract.wants)}


def write_tensors(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    *,
    overwrite: bool,
) -> None:
    """A safetensors file, the same bytes for the same content.

    ``safetensors`` writes metadata in the order of a hash table that differs from process to
    process; the header is JSON, after its length in 8 bytes.
    """
    from safetensors.numpy import save

    data = save(dict(tensors), metadata=dict(metadata or {}) or None)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    content = len(text).to_bytes(8, "little") + text + data[8 + length :]
    # not save_file: it reports a full disk as an error of its own without a number
    write_file(path, lambda temporary: temporary.write_bytes(content), overwrite=overwrite)


def beyond_float16(values: np.ndarray) -> str | None:
    """Which value of an array float16 makes infinite, as the end of a sentence; None for none."""
    beyond = values[np.abs(values) >= _FLOAT16_INFINITE]
    if not beyond.size:
        return None
    largest = float(beyond[np.argmax(np.abs(beyond))])
    return (
        f"holds {largest:g}, and float16's largest value is {FLOAT16_LARGEST}: it becomes infinity "
        f"there (values: {beyond.size})"
    )


def float16_note(latent: Latent, recipe: Recipe) -> str | None:
    """A note where an artifact's float16 makes values of a latent infinite; None elsewhere."""
    if "float16" not in (recipe.precision, recipe.io_precision):
        return None
    beyond = beyond_float16(latent.values)
    return f"The latent {latent.name} {beyond}." if beyond else None
