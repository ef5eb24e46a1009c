"""An artifact as one network, however many programs it has."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fluxvae.artifact.backends import Runner, on_network, raw_runner
from fluxvae.artifact.record import Record, read_record
from fluxvae.artifact.tiles import TiledDecoder
from fluxvae.errors import ArtifactError
from fluxvae.mil.executor import OnOp
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Program
from fluxvae.recipes import Size
from fluxvae.recipes.capabilities import refuse_command

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
        return functions_and_sizes(self.programs[0], self.record)

    @property
    def any_size(self) -> bool:
        """Whether it makes images of every size, from the tiles' on: a tiny decoder in tiles."""
        return self.record.tiles is not None and self.record.recipe.decoder == "tiny"

    def raw_runner(
        self, function: str | None, backend: str, units: str = "all", *, on_op: OnOp | None = None
    ) -> Runner:
        """From the model's own input array to its own output array, unchanged.

        ``on_op`` sees every operation of every program, where the executor runs.
        """
        first = self.programs[0]
        if self.record.tiles is not None:
            return TiledDecoder(first, self.record, backend, units, on_op=on_op)
        steps = [raw_runner(p, function, backend, units, on_op) for p in self.programs]

        def run(array: np.ndarray) -> np.ndarray:
            for step in steps:
                array = step(array)
            return array

        return run

    def runner(
        self, function: str | None, backend: str, units: str = "all", *, on_op: OnOp | None = None
    ) -> Runner:
        """``on_network`` of ``raw_runner``: between latent and image as float32 maps in NCHW."""
        run = self.raw_runner(function, backend, units, on_op=on_op)
        return on_network(run, self.record.recipe, self.record.contract)


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
            "and latent space it holds, so there is nothing to compare it with"
        )
    return record


def functions_and_sizes(program: Program, record: Record) -> Iterator[tuple[str, Size]]:
    """Every function with every size it takes, in the recipe's order; ``TILED`` for tiles."""
    for size in record.recipe.sizes:
        if record.tiles is not None:
            yield TILED, size
        else:
            several = record.recipe.shapes == "multifunction"
            yield (size.function if several else program.default_function), size


def require_command(name: str, record: Record, command: str) -> None:
    """Raise UsageError when ``command`` does not take an artifact such as ``name``."""
    refuse_command(command, record.recipe.decoder, record.recipe.part, name)


def refuse_parts(name: str, record: Record, what: str) -> None:
    """Raise ArtifactError for ``what`` works on one program, given an artifact of several."""
    if record.part is not None or record.tiles is not None:
        kind = "half a decoder" if record.part is not None else "a decoder in tiles"
        raise ArtifactError(
            f"{what} looks into a decoder of one program, and {name} is {kind}: convert the same "
            "decoder without --chunks and --tile"
        )
