"""Conversions, each done once a test run: most of the suite's time was the same ones again.

``write_model`` here is the converter's own, remembered by what goes in: the recipe, the number of
channels, the network's structure and every weight. Who asks again gets a copy of what it wrote.
The folder is named by the environment (tests/conftest.py), so that xdist's processes and scripts
share it; without one nothing is remembered. What is done to a model afterwards (metadata, reading
it again, checks, publishing) is done each time, and tests of the converter do not come here.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import filelock
from torch import nn

from fluxvae.convert import program as convert
from fluxvae.recipes import Recipe, Size
from fluxvae.recipes.functions import artifact_paths

FOLDER = "FLUXVAE_TEST_LIBRARY"


def write_model(
    decoder: nn.Module,
    recipe: Recipe,
    channels: int,
    path: Path,
    *,
    keep: Mapping[Size, frozenset[str]] | None = None,
    verbose: bool = False,
) -> None:
    """As ``fluxvae.convert.program.write_model``; ``path`` is the caller's own to change."""
    if keep:
        convert.write_model(decoder, recipe, channels, path, keep=keep, verbose=verbose)
        return

    def write(draft: Path) -> None:
        convert.write_model(decoder, recipe, channels, draft, verbose=verbose)

    _remember(write, _digest(decoder, recipe, channels), path, recipe.chunks)


def _remember(write: Callable[[Path], None], digest: str, path: Path, chunks: int) -> None:
    """Put at ``path`` what ``write`` puts at a draft, from the library where it is there."""
    if FOLDER not in os.environ:
        write(path)
        return
    place = Path(os.environ[FOLDER]) / digest
    known = artifact_paths(place / f"model{path.suffix}", chunks)
    place.parent.mkdir(exist_ok=True)
    with filelock.FileLock(f"{place}.lock"):
        if not all(path.exists() for path in known):
            place.mkdir(exist_ok=True)
            draft = place / f"draft{path.suffix}"
            write(draft)
            for made, to in zip(artifact_paths(draft, chunks), known, strict=True):
                made.rename(to)
    for source, to in zip(known, artifact_paths(path, chunks), strict=True):
        if source.is_dir():
            shutil.copytree(source, to)
        else:
            shutil.copyfile(source, to)


@contextmanager
def remembered() -> Iterator[None]:
    """Inside, ``save_artifact`` and ``compare_intermediates`` convert by way of the library."""
    with (
        patch("fluxvae.artifact.save.write_model", write_model),
        patch("fluxvae.validation.stages.write_model", write_model),
    ):
        yield


def _digest(decoder: nn.Module, recipe: Recipe, channels: int) -> str:
    # Forms of compression are written in afterwards; of conversion they change only the target,
    # and for image outputs the passes.
    target = None if recipe.format == "neuralnetwork" else recipe.deployment_target
    plain = replace(recipe, compression=None, target=target)
    passes = recipe.compression is not None and recipe.output == "image"
    digest = hashlib.sha256(f"{plain!r} {passes} {channels} {decoder!r}".encode())
    for name, tensor in decoder.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
