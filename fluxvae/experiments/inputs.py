"""The latents that all cells share, and the weights they are for: found once, digested, kept.

``inputs/latents.safetensors`` holds every latent, ``inputs/inputs.json`` their digests,
``weights.json`` what the decoders are. Whoever reads them checks them; a mismatch ends the run,
since figures on other inputs cannot be compared.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from fluxvae import __version__
from fluxvae.errors import MatrixError
from fluxvae.files import data_sha256, file_sha256, write_file
from fluxvae.schema import Header, Record, load, save

CALIBRATION = "calibration"
LATENTS = "latents.safetensors"


@dataclass(frozen=True)
class Tensor:
    """One latent. ``kind``: photo, normal or nasty (what limits hold), or calibration."""

    kind: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class Inputs(Record):
    """``inputs.json``. Names are ``flux2/256x256/chelsea`` and ``flux2/calibration/00``."""

    header: ClassVar = Header(
        MatrixError, "a list of a matrix's inputs", "put the right one back, or start a new folder",
        "fluxvae-matrix-inputs",
    )  # fmt: skip
    tensors: dict[str, Tensor]

    def digest(self, decoder: str, sizes: str) -> str:
        """Of what a cell of these sizes is judged on; same latents, same digest."""
        names = [n for s in sizes.split(",") for n in self.names(decoder, s)]
        return data_sha256([[n, self.tensors[n].sha256] for n in names])

    def calibration(self, decoder: str) -> str | None:
        """Digest of the latents that compression looks at; None when there are none."""
        names = self.names(decoder, CALIBRATION)
        return data_sha256([[n, self.tensors[n].sha256] for n in names]) if names else None

    def names(self, decoder: str, group: str) -> list[str]:
        """In the order they are used in: as they were made, which is that of their names' ends."""
        return [n for n in self.tensors if n.startswith(f"{decoder}/{group}/")]


@dataclass(frozen=True)
class DecoderWeights:
    """One decoder's weights. ``spec``: as asked for; ``files``: local files it was read from, with
    their sha256 (none for demo, random and the Hub's)."""

    spec: str | None
    encoder_spec: str | None
    name: str
    kind: str
    digest: str
    encoder_digest: str | None
    files: dict[str, str]


@dataclass(frozen=True)
class WeightsRecord(Record):
    """``weights.json``."""

    header: ClassVar = Header(
        MatrixError, "a list of a matrix's weights",
        "put the right one back, or start a new folder", "fluxvae-matrix-weights",
    )  # fmt: skip
    fluxvae: str
    decoders: dict[str, DecoderWeights]


def read_inputs(folder: Path) -> Inputs | None:
    """``inputs.json``, and every latent compared with it; None when it is not there.

    Raises MatrixError when they are damaged or do not belong together.
    """
    page = folder / "inputs" / "inputs.json"
    if not page.exists():  # latents without it: a first run was killed before there were cells
        return None
    inputs = load(Inputs, page)
    load_tensors(folder / "inputs" / LATENTS, inputs.tensors)
    return inputs


def read_weights(folder: Path) -> WeightsRecord | None:
    """``weights.json``; None when it is not there. Raises MatrixError when it is damaged."""
    page = folder / "weights.json"
    return load(WeightsRecord, page) if page.exists() else None


def write_weights(folder: Path, decoders: Mapping[str, DecoderWeights]) -> WeightsRecord:
    """Keep what the decoders are. Raises OutputError."""
    record = WeightsRecord(__version__, dict(decoders))
    save(record, folder / "weights.json")
    return record


def keep_inputs(
    folder: Path, old: Inputs | None, new: Mapping[str, tuple[str, np.ndarray]]
) -> Inputs:
    """Add ``new`` latents (name to kind and values) to those that are there. Raises OutputError.

    The latents come before the list, so that a crash leaves the old, valid list.
    """
    from safetensors.numpy import save as to_bytes

    file = folder / "inputs" / LATENTS
    tensors = dict(old.tensors) if old is not None else {}
    arrays = load_tensors(file, tensors) if tensors else {}
    for name, (kind, values) in new.items():
        arrays[name] = np.ascontiguousarray(values, np.float32)
        tensors[name] = Tensor(kind, values.shape, array_sha256(arrays[name]))
    write_file(file, lambda draft: draft.write_bytes(to_bytes(arrays)), overwrite=True)
    inputs = Inputs(tensors)
    save(inputs, folder / "inputs" / "inputs.json")
    return inputs


def load_tensors(file: Path, wanted: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Latents (1, C, h, w) float32 of ``file``, each compared with its digest. MatrixError."""
    from safetensors import SafetensorError, safe_open

    arrays = {}
    try:
        with safe_open(file, "numpy") as source:
            for name in wanted:
                arrays[name] = source.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise MatrixError(
            f"the shared inputs {file} are damaged or incomplete ({error}): put the right file "
            "back, or start a new folder with --out"
        ) from error
    for name, tensor in wanted.items():
        found = array_sha256(arrays[name])
        if found != tensor.sha256:
            raise MatrixError(
                f"the shared input {name} of {file} is not the one this matrix was measured with "
                f"(sha256 {found[:12]}, expected {tensor.sha256[:12]}): put the right file back, "
                "or start a new folder with --out"
            )
    return arrays


def missing_groups(
    inputs: Inputs | None, wanted: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Of (decoder, size or ``calibration``), those that no latents are there for yet."""
    unique = list(dict.fromkeys(wanted))
    return [pair for pair in unique if inputs is None or not inputs.names(*pair)]


def unchanged(entry: DecoderWeights, spec: str | None, encoder: str | None, version: str) -> bool:
    """Whether weights asked for in the same words are still the same, without reading them.

    Local files are hashed; what ships with a fluxvae or is pinned by it follows its ``version``.
    """
    if (entry.spec, entry.encoder_spec) != (spec, encoder) or version != __version__:
        return False
    local = [s for s in (spec, encoder) if s is not None and _is_local(s)]
    if any(str(Path(s)) not in entry.files for s in local):
        return False  # a folder: whoever looks into it reads it
    return all(
        Path(path).is_file() and sha256_of(Path(path)) == digest
        for path, digest in entry.files.items()
    )


def describe(
    spec: str | None,
    encoder_spec: str | None,
    source: tuple[str, str],
    digests: tuple[str, str | None],
) -> DecoderWeights:
    """``source``: name and kind; ``digests``: of decoder and encoder."""
    files = [Path(s) for s in (spec, encoder_spec) if s is not None and Path(s).is_file()]
    if spec is not None and encoder_spec is None and Path(spec).is_file():
        name = Path(spec).name.replace("decoder", "encoder").replace("Decoder", "Encoder")
        sibling = Path(spec).with_name(name)
        files += [sibling] if sibling.is_file() and sibling != Path(spec) else []
    hashes = {str(file): sha256_of(file) for file in files}
    return DecoderWeights(spec, encoder_spec, *source, *digests, hashes)


def check_same(name: str, old: DecoderWeights, new: DecoderWeights) -> None:
    """Raise MatrixError when a folder's decoder is to be another one from now on."""
    for what, before, after in (
        ("weights", old.digest, new.digest),
        ("encoder", old.encoder_digest, new.encoder_digest),
    ):
        if before != after:
            raise MatrixError(
                f"this folder was measured with other {what} of {name} (digest "
                f"{(before or 'none')[:12]}, now {(after or 'none')[:12]}): give those again, or "
                "start a new folder with --out"
            )


def sha256_of(path: Path) -> str:
    """Of a file's bytes. Raises MatrixError when it cannot be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise MatrixError(f"{path} cannot be read: {error.strerror}") from error


def array_sha256(array: np.ndarray) -> str:
    """Of shape and little-endian float32 values."""
    digest = hashlib.sha256(f"{tuple(array.shape)}\n".encode())
    digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()


def _is_local(spec: str) -> bool:
    return spec not in ("demo", "random") and not spec.startswith("random:")
