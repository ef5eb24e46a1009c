"""Apple's own compiled models, in ``../shared/golden`` beside the checkout (never copied in)."""

import shutil
import struct
from pathlib import Path

import pytest

from fluxvae.mil.blobs import DTYPES, SENTINEL
from fluxvae.mil.compiler.program import document_blobs, program_document
from fluxvae.mil.package import parse_model
from fluxvae.mil.program import Constant, TensorType
from fluxvae.mil.text.document import Blob

PAIRS = ("silero_palette2", "silero_int8", "silero_ios15")


def samples(shared: Path) -> Path:
    """The folder of samples, or a skip that says what is missing."""
    folder = shared / "golden" / "mlmodelc-samples"
    if not folder.is_dir():
        pytest.skip(f"Apple's compiled models are not on this machine (looked for {folder})")
    return folder


def texts(shared: Path) -> list[Path]:
    """Every ``model.mil``-like text Apple's compiler wrote."""
    samples(shared)
    return sorted((shared / "golden").rglob("*.mil"))


def pair(shared: Path, name: str, folder: Path) -> tuple[Path, Path]:
    """A source and Apple's bundle of it, copied into ``folder``.

    Of two pairs the weights are not there: both sides get a file of zeros with the records that
    the program refers to, which is enough to compile, and to compare programs up to the values.
    """
    found = samples(shared) / name
    (apple,) = found.glob("*.mlmodelc")
    bundle = Path(shutil.copytree(apple, folder / "apple" / apple.name))
    source = folder / "model.mlmodel"
    shutil.copy(found / "model.mlmodel", source)
    weights = bundle / "weights" / "weight.bin"
    if not weights.exists():
        weights.parent.mkdir()
        weights.write_bytes(_stand_in(source))
    shutil.copytree(weights.parent, folder / "weights")
    return source, bundle


def _stand_in(source: Path) -> bytes:
    """A weight file with every blob of a model, all zeros."""
    blobs = {
        blob.offset: value.type
        for op, _, value in document_blobs(program_document(parse_model(source))[0])
        if isinstance(blob := value.body, Blob) and isinstance(value.type, TensorType)
    }
    codes = {dtype: code for code, dtype in DTYPES.items()} | {"bool": 3}
    content = bytearray(struct.pack("<II", len(blobs), 2).ljust(64, b"\0"))
    for offset, kind in sorted(blobs.items()):
        size = Constant(kind).nbytes
        record = struct.pack("<IIQQ", SENTINEL, codes[kind.dtype], size, offset + 64)
        content = content.ljust(offset, b"\0") + record.ljust(64 + size, b"\0")
    return bytes(content)
