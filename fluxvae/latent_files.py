"""Latents from ``.safetensors``, ``.npy`` and ``.bin`` files, brought to (1, C, h, w) float32."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluxvae.catalog import LatentContract
from fluxvae.errors import LatentError

SCALE = 8  # image pixels per latent pixel of an unpacked latent
SPACE_KEY = "fluxvae.latent_space"  # safetensors metadata: which space the latents are in


@dataclass(frozen=True)
class Latent:
    """One latent (1, C, h, w), float32, and the name it goes by."""

    name: str
    values: np.ndarray


def read_latents(
    path: Path,
    contract: LatentContract,
    shapes: tuple[tuple[int, ...], ...],
    layout: str,
    *,
    sides: tuple[tuple[int, int], ...] = (),
) -> tuple[Latent, ...]:
    """Every latent of a file, a batch split into its members.

    ``shapes`` are the model's input shapes in ``layout``: a raw ``.bin`` (little-endian float32 or
    float16, in the model's own layout) is recognised by its length. ``sides``: rows and columns of
    the maps the model takes, which tokens do not tell. Raises LatentError with what was expected
    for anything that is no latent of this contract.
    """
    if not path.is_file():
        raise LatentError(f"{path} does not exist or is no file; expected latents")
    readers = {".safetensors": _safetensors, ".npy": _npy}
    if path.suffix == ".bin":
        planes = _raw(path, contract, shapes, layout, sides)
        _check_finite(path, path.stem, planes)
        return (Latent(path.stem, planes),)
    if path.suffix not in readers:
        raise LatentError(f"{path.name}: latents come as .safetensors, .npy or .bin")
    latents: list[Latent] = []
    for name, array in readers[path.suffix](path, contract):
        planes = _as_nchw(name, array, contract, sides)
        _check_finite(path, name, planes)
        several = len(planes) > 1
        latents += [
            Latent(f"{name}-{i}" if several else name, planes[i : i + 1])
            for i in range(len(planes))
        ]
    if not latents:
        raise LatentError(f"{path.name} holds no tensors")
    return tuple(latents)


def _safetensors(path: Path, contract: LatentContract) -> Iterator[tuple[str, np.ndarray]]:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            _check_space(path, file.metadata() or {}, contract)
            for name in file.keys():  # noqa: SIM118 (not a dict)
                tensor = file.get_tensor(name)
                if not tensor.is_floating_point():
                    raise LatentError(f"{path.name}: {name!r} holds {tensor.dtype}, not floats")
                yield name, tensor.to(torch.float32).numpy()
    except (SafetensorError, OSError) as error:
        raise LatentError(f"{path.name} is truncated or no safetensors file: {error}") from error


def _check_space(path: Path, metadata: dict[str, str], contract: LatentContract) -> None:
    space = metadata.get(SPACE_KEY)
    if space is not None and space != contract.space:
        raise LatentError(
            f"{path.name} holds latents of the space {space!r}, but this decoder wants "
            f"{contract.space!r}: {contract.wants} The picture would have wrong colours"
        )


def _npy(path: Path, contract: LatentContract) -> Iterator[tuple[str, np.ndarray]]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise LatentError(f"{path.name} is truncated or no .npy array: {error}") from error
    if not isinstance(array, np.ndarray):
        raise LatentError(f"{path.name} is an .npz archive; save the one array with numpy.save")
    if not np.issubdtype(array.dtype, np.floating):
        raise LatentError(f"{path.name} holds {array.dtype}, not floats")
    yield path.stem, array.astype(np.float32)


def _raw(
    path: Path,
    contract: LatentContract,
    shapes: tuple[tuple[int, ...], ...],
    layout: str,
    sides: tuple[tuple[int, int], ...],
) -> np.ndarray:
    raw = path.read_bytes()
    fitting = [
        (dtype, shape)
        for shape in dict.fromkeys(shapes)
        for dtype, width in (("<f4", 4), ("<f2", 2))
        if len(raw) == width * math.prod(shape)
    ]
    if len(fitting) > 1:
        what = " or ".join(f"{list(s)} as float{8 * int(d[-1])}" for d, s in fitting)
        raise LatentError(
            f"{path.name} has {len(raw)} bytes, which could be {what}: "
            "save it as .npy or .safetensors, which say what they hold"
        )
    for dtype, shape in fitting:
        values = np.frombuffer(raw, dtype).astype(np.float32).reshape(shape)
        if contract.tokens:
            return _from_tokens(path.stem, values, sides)
        planes = values.transpose(0, 3, 1, 2) if layout == "nhwc" else values
        return np.ascontiguousarray(planes)
    sizes = ", ".join(f"{4 * math.prod(s)} ({list(s)} as float32)" for s in shapes)
    raise LatentError(
        f"{path.name} has {len(raw)} bytes; expected {sizes}, or half of it for float16"
    )


def _as_nchw(
    name: str, array: np.ndarray, contract: LatentContract, sides: tuple[tuple[int, int], ...]
) -> np.ndarray:
    channels = contract.channels
    # A pipeline hands packed latents on as tokens, FLUX.2's too.
    packed = contract.tokens or contract.scale > SCALE
    if packed and array.ndim == 2 and array.shape[1] == channels:
        return _from_tokens(name, array[None], sides)
    if packed and array.ndim == 3 and array.shape[2] == channels != array.shape[0]:
        return _from_tokens(name, array, sides)
    if contract.tokens:
        raise LatentError(
            f"{name!r} has the shape {list(array.shape)}; expected (1, H/{contract.scale} * "
            f"W/{contract.scale}, {channels}).{_hint(array, contract)}"
        )
    given = array
    if array.ndim == 3:
        array = array[None]
    if array.ndim == 4 and array.shape[1] == channels:
        return np.ascontiguousarray(array)
    if array.ndim == 4 and array.shape[3] == channels:
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    raise LatentError(
        f"{name!r} has the shape {list(given.shape)}; expected (1, {channels}, H/{contract.scale}, "
        f"W/{contract.scale}) or the same channels-last.{_hint(given, contract)}"
    )


def _from_tokens(name: str, tokens: np.ndarray, sides: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(B, S, C) tokens to (B, C, rows, columns), for the one of ``sides`` that has S places."""
    count = tokens.shape[1]
    fitting = list(dict.fromkeys(pair for pair in sides if pair[0] * pair[1] == count))
    if len(fitting) == 1:
        maps = tokens.transpose(0, 2, 1).reshape(len(tokens), -1, *fitting[0])
        return np.ascontiguousarray(maps)
    if fitting:
        what = " or ".join(f"{16 * rows}x{columns * 16}" for rows, columns in fitting)
        raise LatentError(f"{name!r} has {count} tokens, which could be {what}: give --size")
    wanted = ", ".join(str(rows * columns) for rows, columns in dict.fromkeys(sides))
    raise LatentError(f"{name!r} has {count} tokens; expected {wanted or 'a size to be known'}")


def _check_finite(path: Path, name: str, values: np.ndarray) -> None:
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise LatentError(
            f"{path.name}: {name!r} holds NaN or infinity (values: {bad}); "
            "whatever made it went wrong, and no decoder can mend it"
        )


def _hint(array: np.ndarray, contract: LatentContract) -> str:
    channels, packed = contract.channels, contract.scale > SCALE
    width = array.shape[-1] if array.ndim == 3 else 0
    if not packed and 4 * channels in (width, array.shape[1] if array.ndim == 4 else 0):
        return (
            f" These look packed (2 x 2 patches in {4 * channels} channels): convert with "
            "--latents packed, or unpatchify them first"
            + (", torch.nn.functional.pixel_shuffle(latent, 2)." if not width else ".")
        )
    if packed and array.ndim == 4 and 4 * array.shape[1] == channels:
        return " These look unpacked: convert with --latents sampler or vae, or pack them first."
    if packed and width:
        return f" The transformer of this decoder's model gives {channels} numbers a token."
    if array.ndim == 4 and array.shape[1] in (4, 16, 32, 128):
        return f" A latent of {array.shape[1]} channels belongs to another model."
    return ""


def size_of(latent: Latent, contract: LatentContract) -> str:
    """Image size of a latent, as ``--size`` takes it: ``1024`` or ``768x1344``."""
    height, width = (d * contract.scale for d in latent.values.shape[2:])
    return str(height) if height == width else f"{height}x{width}"


def space_metadata(contract: LatentContract) -> dict[str, str]:
    """Metadata for a safetensors file of latents, so that a wrong decoder refuses them."""
    return {SPACE_KEY: contract.space, "fluxvae.contract": json.dumps(contract.wants)}
