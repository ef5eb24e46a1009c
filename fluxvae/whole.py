"""An artifact as one decoder, however many programs it has."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fluxvae.backends import Runner, raw_runner, to_planes
from fluxvae.errors import ArtifactError
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Program
from fluxvae.package import Record, read_record
from fluxvae.recipes import Size
from fluxvae.tiling import TiledDecoder

# A tiled package runs several functions for one image; this stands for all of them.
TILED = "tiled"


@dataclass(frozen=True)
class Artifact:
    """Programs in the order they run (two for halves), and what they say of themselves.

    ``path`` is what the user named; the record of halves is the first one's.
    """

    path: Path
    record: Record
    programs: tuple[Program, ...]

    def functions_and_sizes(self) -> Iterator[tuple[str, Size]]:
        """Every function with every size it is made for, in the recipe's order."""
        recipe = self.record.recipe
        for size in recipe.sizes:
            if self.record.tiles is not None:
                yield TILED, size
            else:
                several = recipe.shapes == "multifunction"
                yield (size.function if several else self.programs[0].default_function), size

    def takes(self, size: Size) -> bool:
        """Whether images of ``size`` can be made: tiles of a tiny decoder make any."""
        recipe = self.record.recipe
        anything = self.record.tiles is not None and recipe.decoder == "tiny"
        return anything or size in recipe.sizes

    def raw_runner(self, function: str | None, backend: str, units: str = "all") -> Runner:
        """From the decoder's own input array to its own output array, unchanged."""
        first = self.programs[0]
        if self.record.tiles is not None:
            return TiledDecoder(first, self.record, backend, units)
        steps = [raw_runner(program, function, backend, units) for program in self.programs]

        def run(array: np.ndarray) -> np.ndarray:
            for step in steps:
                array = step(array)
            return array

        return run

    def runner(self, function: str | None, backend: str, units: str = "all") -> Runner:
        """From latent (1, C, h, w) to image (1, 3, H, W), both float32."""
        run = self.raw_runner(function, backend, units)
        layout, span = self.record.recipe.layout, self.record.contract.span

        def decode(latent: np.ndarray) -> np.ndarray:
            array = latent.transpose(0, 2, 3, 1) if layout == "nhwc" else latent
            return to_planes(run(np.ascontiguousarray(array, np.float32)), layout, span)

        return decode


def open_artifact(path: Path) -> Artifact:
    """The artifact at ``path``; for half a decoder also the other half, which lies beside it.

    Raises ArtifactError when it cannot be read, was not made by fluxvae, or its other half is
    missing or another decoder's.
    """
    program = read_package(path)
    record = require_record(program)
    if record.part is None:
        return Artifact(path, record, (program,))
    other = other_half(path, record)
    beside = read_package(other)
    found = require_record(beside)
    expected = replace(record.part, number=3 - record.part.number, other="")
    if found.part is None or replace(found.part, other="") != expected:
        raise ArtifactError(
            f"{other.name} is not the other half of {path.name}, but of another conversion: "
            "convert again with --overwrite, and keep the two together"
        )
    pair = sorted(((record, program), (found, beside)), key=lambda p: p[0].part.number)  # type: ignore[union-attr]
    return Artifact(path, pair[0][0], tuple(program for _, program in pair))


def other_half(path: Path, record: Record) -> Path:
    """Where the other half of ``path`` lies: beside it, compiled if it is.

    Raises ArtifactError when it is not there.
    """
    if record.part is None:
        raise ArtifactError(f"{path.name} is a whole decoder")
    name = Path(record.part.other).with_suffix(path.suffix).name
    other = path.parent / name
    if not other.exists():
        raise ArtifactError(
            f"{path.name} is part {record.part.number} of {record.part.of} of a decoder: expected "
            f"the other part beside it as {name}"
        )
    return other


def require_record(program: Program) -> Record:
    """The record of an artifact, or ArtifactError that says why it is needed."""
    record = read_record(program)
    if record is None:
        raise ArtifactError(
            f"{program.path.name} was not made by fluxvae: it does not say which decoder, weights "
            "and latent space it holds, so there is nothing to hold it against"
        )
    return record


def refuse_parts(record: Record, what: str, why: Callable[[str], str] | None = None) -> None:
    """Raise ArtifactError for a command that looks into one program, given several."""
    if record.part is not None or record.tiles is not None:
        kind = "half a decoder" if record.part is not None else "a decoder in tiles"
        raise ArtifactError(f"{what} takes a decoder of one program; this is {kind}")
