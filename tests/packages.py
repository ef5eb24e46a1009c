"""Saved packages taken apart: copies, edits and damage, through coremltools' own messages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.weights import load_weights

MODEL = Path("Data", "com.apple.CoreML", "model.mlmodel")
WEIGHTS = Path("Data", "com.apple.CoreML", "weights", "weight.bin")


def copy_of(package: Path, folder: Path) -> Path:
    """A copy to change, under the same name."""
    return Path(shutil.copytree(package, folder / package.name))


@contextmanager
def edited(package: Path) -> Iterator[Any]:
    """The package's Model message, written back afterwards."""
    from coremltools.proto import Model_pb2

    file = package / MODEL
    model = Model_pb2.Model()
    model.ParseFromString(file.read_bytes())
    yield model
    file.write_bytes(model.SerializeToString())


def change_one_weight(package: Path, value: float) -> None:
    """Overwrite one weight of a flux2 demo package: a corner of the last convolution's kernel
    from the channel that is loudest on the photo ``coffee``, to green.

    Not just any: units that are silent on every test latent exist, and then nothing changes.
    """
    decoder = build_decoder(load_weights("flux2", "demo"))
    encoder = build_encoder(load_weights("flux2", "demo", part="encoder"))
    coffee = next(p for p in EVALUATION_PHOTOS if p.name == "coffee")
    with torch.no_grad():
        latent = encoder(torch.from_numpy(photo_image(coffee, 64, 64)))
        loudest = int(decoder[:-1](latent).mean((0, 2, 3)).argmax())
    kernel = decoder[-1].weight.numpy().astype(np.float16)  # (3, 64, 3, 3), last in the file
    file = package / WEIGHTS
    content = np.fromfile(file, "<f2")
    stored = content[-kernel.size :].reshape(kernel.shape)  # a view
    assert np.array_equal(stored, kernel)
    stored[1, loudest, 0, 0] = value
    content.tofile(file)


def tree(folder: Path) -> dict[str, int]:
    """Every path below a folder with its size: what a failed command must leave as it was."""
    return {
        str(p.relative_to(folder)): p.stat().st_size if p.is_file() else -1
        for p in sorted(folder.rglob("*"))
    }
