"""Apple's own compiled models, in ``../shared/golden`` beside the checkout (never copied in)."""

import shutil
from pathlib import Path

import pytest

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

    Of two pairs the weights are not there: both sides get a file that only has their header, which
    is enough to compile, and to compare programs up to the weights' values.
    """
    found = samples(shared) / name
    (apple,) = found.glob("*.mlmodelc")
    bundle = Path(shutil.copytree(apple, folder / "apple" / apple.name))
    source = folder / "model.mlmodel"
    shutil.copy(found / "model.mlmodel", source)
    weights = bundle / "weights" / "weight.bin"
    if not weights.exists():
        weights.parent.mkdir()
        weights.write_bytes(b"\1\0\0\0\2\0\0\0".ljust(64, b"\0"))
    shutil.copytree(weights.parent, folder / "weights")
    return source, bundle
