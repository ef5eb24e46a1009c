"""Files that hold a compressed decoder: checkpoints of ``fluxvae qat``, entries of the store.

A checkpoint is one ``.safetensors`` file. Its tensors are

- ``decoder.NAME``: float32, every entry of the decoder's state dict but the compressed weights;
- ``form.CONV.data`` int8 (O, I, kh, kw) and ``form.CONV.scale`` float32 of a Quantized weight;
- ``form.CONV.indices`` uint8 (O, I, kh, kw), ``form.CONV.lut`` float32 (groups, 2 ** bits) and,
  where there are some, ``form.CONV.scale`` float32 (O,) of a Palettized one.

Its metadata has one entry, ``fluxvae``: a JSON object with ``kind`` (``fluxvae-qat``), ``version``
(1), ``seal`` and ``data``. ``seal`` is the sha256 over kind, version, ``data`` as canonical JSON
and every tensor, so that a damaged file is refused. ``data`` holds ``variant``, ``weights`` (digest
and name of what was trained from), ``compression`` (the options), ``forms`` (kind and bits of each
compressed convolution), ``activations`` (scale, zero point and type of each rounded input),
``notes`` (how the start was found) and ``training`` (steps, seed, photos and the curve: step, mean
train loss, validation and held-out PSNR in dB). No times, names of users or paths: equal runs make
equal bytes. (One entry, because safetensors writes several in no fixed order.)
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fluxvae.compress.forms import Activation, CompressedDecoder, Palettized, Quantized, dense
from fluxvae.convert.rewrite.attention import pointwise
from fluxvae.errors import CompressionError, UsageError
from fluxvae.files import write_file
from fluxvae.networks.build import build_network
from fluxvae.networks.weights import Weights
from fluxvae.recipes.compression import Compression
from fluxvae.schema import parse_json

CHECKPOINT = "fluxvae-qat"
VERSION = 1
_KEY = "fluxvae"

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of itself, its tensors checked but not yet made a decoder.

    ``training`` is the plain data described above; empty for a start that nothing was trained on.
    """

    name: str
    variant: str
    digest: str
    source: str
    compression: Compression
    training: Mapping[str, Any]
    data: Mapping[str, Any]
    tensors: Arrays


def write_checksummed(
    path: Path, kind: str, tensors: Arrays, data: Mapping[str, Any], *, overwrite: bool
) -> Path:
    """Write arrays and plain data as one file that ``read_checksummed`` can check; atomic.

    Equal contents make equal bytes. Raises OutputError when the path is taken or cannot be
    written.
    """
    # (np.ascontiguousarray would make vectors of single numbers.)
    arrays = {name: np.array(array, order="C") for name, array in tensors.items()}
    record = {"kind": kind, "version": VERSION, "seal": _checksum(kind, arrays, data), "data": data}
    metadata = {_KEY: _canonical(record)}
    return write_file(path, lambda p: save_file(arrays, p, metadata), overwrite=overwrite)


def read_checksummed(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and data of such a file. CompressionError when it is damaged or another kind."""
    if not path.is_file():
        raise CompressionError(f"{path}: there is no such file; `fluxvae qat` makes checkpoints")
    try:
        with safe_open(path, framework="numpy") as file:
            record = parse_json((file.metadata() or {}).get(_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CompressionError(
            f"{path}: cannot be read ({error}); expected an undamaged file of `fluxvae qat`"
        ) from error
    if not isinstance(record, dict) or record.get("kind") != kind:
        raise CompressionError(f"{path}: expected a {kind} file of `fluxvae qat`")
    if record.get("version") != VERSION:
        raise CompressionError(
            f"{path}: version {record.get('version')} of the format, expected {VERSION}: "
            "use the fluxvae that made it, or train again"
        )
    data = record.get("data")
    if not isinstance(data, dict) or record.get("seal") != _checksum(kind, tensors, data):
        raise CompressionError(
            f"{path}: the file is damaged (its contents do not match its checksum): "
            "copy it again, or train again"
        )
    return tensors, data


def save_checkpoint(
    path: Path,
    compressed: CompressedDecoder,
    weights: Weights,
    compression: Compression,
    training: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Path:
    """Write ``compressed``, made from ``weights`` as ``compression`` asks. Raises OutputError."""
    tensors, described = to_arrays(compressed)
    data = {
        "variant": weights.variant,
        "weights": {"digest": weights.digest, "name": weights.source.name},
        "compression": dataclasses.asdict(compression),
        "training": dict(training),
        **described,
    }
    return write_checksummed(path, CHECKPOINT, tensors, data, overwrite=overwrite)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check a file. Raises CompressionError when it is damaged or not a checkpoint."""
    tensors, data = read_checksummed(path, CHECKPOINT)
    try:
        return Checkpoint(
            name=path.name,
            variant=data["variant"],
            digest=data["weights"]["digest"],
            source=data["weights"]["name"],
            compression=Compression(**data["compression"]),
            training=data["training"],
            data=data,
            tensors=tensors,
        )
    except (KeyError, TypeError, UsageError) as error:
        raise CompressionError(
            f"{path}: an entry is missing or not understood ({error})"
        ) from error


def load_checkpoint(
    path: Path, weights: Weights, compression: Compression | None = None
) -> CompressedDecoder:
    """The decoder that ``fluxvae qat`` trained from ``weights``.

    Its notes hold the start's and, under ``qat``, the training record. ``compression``: what the
    caller was asked for, checked where given. Raises CompressionError when the file is damaged,
    of another variant, of other weights, or compressed in another way.
    """
    found = read_checkpoint(path)
    if found.variant != weights.variant:
        raise CompressionError(
            f"{path.name} holds a decoder of {found.variant}, expected {weights.variant}: "
            f"pass --variant {found.variant}, or train with `fluxvae qat --variant "
            f"{weights.variant}`"
        )
    if found.digest != weights.digest:
        raise CompressionError(
            f"{path.name} was trained from {found.source} (digest {found.digest[:12]}), expected "
            f"these weights ({weights.source.name}, digest {weights.digest[:12]}): "
            "pass those with --weights, or train again"
        )
    if compression is not None:
        _expect_same(found, compression)
    made = from_arrays(found.tensors, found.data, weights)
    if "curve" not in found.training:  # a start, nothing was trained yet
        return made
    return dataclasses.replace(made, notes={**made.notes, "qat": dict(found.training)})


def _expect_same(found: Checkpoint, asked: Compression) -> None:
    """The method apart, which says how it was found and not what it is."""
    have = dataclasses.replace(found.compression, method=asked.method)
    if have != asked:
        raise CompressionError(
            f"{found.name} was trained as {found.compression.label()}, expected {asked.label()}: "
            f"convert it as {have.label()}, or train again"
        )


def to_arrays(compressed: CompressedDecoder) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A compressed decoder as arrays and plain data; ``from_arrays`` is the way back."""
    skipped = {f"{name}.weight" for name in compressed.weights}
    arrays = {
        f"decoder.{name}": value.detach().cpu().float().numpy()
        for name, value in compressed.decoder.state_dict().items()
        if name not in skipped
    }
    forms: dict[str, dict[str, Any]] = {}
    for name, form in compressed.weights.items():
        forms[name] = {"form": "quantized" if isinstance(form, Quantized) else "palettized"}
        for part, value in vars(form).items():
            if isinstance(value, np.ndarray):
                arrays[f"form.{name}.{part}"] = value
            elif value is not None:
                forms[name][part] = value
    data = {
        "forms": forms,
        "activations": {n: dataclasses.asdict(a) for n, a in compressed.activations.items()},
        "notes": dict(compressed.notes),
    }
    return arrays, data


def digest_of(compressed: CompressedDecoder) -> str:
    """sha256 over all that a compressed decoder computes with: not its notes."""
    arrays, data = to_arrays(compressed)
    return _checksum("compressed", arrays, {key: data[key] for key in ("forms", "activations")})


def from_arrays(arrays: Arrays, data: Mapping[str, Any], weights: Weights) -> CompressedDecoder:
    """The compressed decoder of ``to_arrays``. ``weights`` gives the structure, not the values.

    Raises CompressionError when an array is missing or does not fit.
    """
    decoder = pointwise(build_network(weights))
    try:
        forms = {name: _form(name, entry, arrays) for name, entry in data["forms"].items()}
        activations = {name: Activation(**entry) for name, entry in data["activations"].items()}
        notes = dict(data["notes"])
        # a compressed weight is what its form expands to in float32
        state = _below("decoder.", arrays) | {
            f"{name}.weight": dense(form, "float32") for name, form in forms.items()
        }
        state = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
        decoder.load_state_dict(state, strict=True)
    except (KeyError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        text = " ".join(str(error).split())
        raise CompressionError(f"the compressed decoder's parts do not fit ({text})") from error
    return CompressedDecoder(decoder, forms, activations, notes)


def _form(name: str, entry: Mapping[str, Any], arrays: Arrays) -> Quantized | Palettized:
    kind = Quantized if entry["form"] == "quantized" else Palettized
    plain = {part: value for part, value in entry.items() if part != "form"}
    return kind(**plain, **_below(f"form.{name}.", arrays))


def _below(prefix: str, arrays: Arrays) -> dict[str, Any]:
    """The arrays whose names begin with ``prefix``, without it."""
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _canonical(data: object) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checksum(kind: str, tensors: Arrays, data: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(f"{kind} {VERSION} {_canonical(data)}\n".encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
