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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import filelock
from torch import nn

from fluxvae.convert import parts as convert_parts
from fluxvae.convert import program as convert
from fluxvae.recipes import Recipe, Size

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

    def write(drafts: Sequence[Path]) -> None:
        convert.write_model(decoder, recipe, channels, drafts[0], verbose=verbose)

    _remember(write, _digest(decoder, recipe, channels), (path,))


def write_halves(
    decoder: nn.Module, recipe: Recipe, channels: int, paths: tuple[Path, Path], *, verbose: bool
) -> None:
    """As ``fluxvae.convert.parts.write_halves``."""

    def write(drafts: Sequence[Path]) -> None:
        two = (drafts[0], drafts[1])
        convert_parts.write_halves(decoder, recipe, channels, two, verbose=verbose)

    _remember(write, _digest(decoder, recipe, channels), paths)


def write_tiled(
    decoder: nn.Module, recipe: Recipe, channels: int, path: Path, *, verbose: bool
) -> None:
    """As ``fluxvae.convert.parts.write_tiled``."""

    def write(drafts: Sequence[Path]) -> None:
        convert_parts.write_tiled(decoder, recipe, channels, drafts[0], verbose=verbose)

    _remember(write, _digest(decoder, recipe, channels), (path,))


def _remember(write: Callable[[Sequence[Path]], None], digest: str, paths: Sequence[Path]) -> None:
    """Put into ``paths`` what ``write`` puts into drafts, from the library where it is there."""
    if FOLDER not in os.environ:
        write(paths)
        return
    place = Path(os.environ[FOLDER]) / digest
    known = [place / f"model{i or ''}{path.suffix}" for i, path in enumerate(paths)]
    place.parent.mkdir(exist_ok=True)
    with filelock.FileLock(f"{place}.lock"):
        if not all(path.exists() for path in known):
            place.mkdir(exist_ok=True)
            drafts = [path.with_stem(f"draft-{path.stem}") for path in known]
            write(drafts)
            for draft, path in zip(drafts, known, strict=True):
                draft.rename(path)
    for source, path in zip(known, paths, strict=True):
        if source.is_dir():
            shutil.copytree(source, path)
        else:
            shutil.copyfile(source, path)


@contextmanager
def remembered() -> Iterator[None]:
    """Inside, ``save_artifact`` and ``compare_intermediates`` convert by way of the library."""
    with (
        patch("fluxvae.artifact.save.write_model", write_model),
        patch("fluxvae.validation.intermediates.write_model", write_model),
        patch("fluxvae.artifact.save_parts.write_halves", write_halves),
        patch("fluxvae.artifact.save_parts.write_tiled", write_tiled),
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
