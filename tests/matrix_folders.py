"""Run folders of a matrix, put together from an artifact that is there and figures made up here."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fluxvae.artifact.record import read_record
from fluxvae.experiments.folder import write_digest
from fluxvae.experiments.inputs import sha256_of
from fluxvae.experiments.plan import folder_name
from fluxvae.mil.package import read_package
from fluxvae.records.experiment import Cell, Energy, ErrorFigures, Host, Latency, Result
from fluxvae.schema import plain
from tests.matrix_results import done

MAC = Host("Darwin", "15.5", "24F74", "arm64", "Apple M4", 16 << 30, "3.12.4")
ENERGY = Energy({"cpu": 100.0, "gpu": 20.0, "ane": 3.5}, {"cpu": 50.0}, 10, 4.0, "relative only")
CELL = Cell("flux2", sizes="64x64")


@dataclass(frozen=True)
class Made:
    """A cell to write: ``artifact`` is copied into its folder under its own name."""

    artifact: Path
    result: Result
    compiled: Path | None = None


def result(artifact: Path | None, cell: Cell = CELL, **fields: Any) -> Result:
    """A cell that passed on Linux: photos 31.5 and 40.25 dB, noise 28.75; 10, 20 and 30 ms."""
    record = read_record(read_package(artifact)) if artifact else None
    runs = tuple(Latency(0.5, 0.1, (m - 1.0, m, m + 1.0), 200_000_000) for m in (10.0, 20.0, 30.0))
    made = done(
        cell,
        weights_digest=record.weights_digest if record else "",
        seconds={"convert": 1.0},
        bytes=1000,
        artifact=artifact.name if artifact else None,
        errors=(
            ErrorFigures("chelsea", "photo", 40.25, 0.01, 0.99, "30 dB", True),
            ErrorFigures("coffee", "photo", 31.5, 0.02, 0.98, "30 dB", True),
            ErrorFigures("normal", "normal", 28.75, 0.03, None, "20 dB", True),
        ),
        budget={"conversion": 90.0},
        runs=runs,
    )
    made = replace(made, **fields)
    text = json.dumps([asdict(cell), made.weights_digest])
    return replace(made, key=hashlib.sha256(text.encode()).hexdigest())


def write_run(folder: Path, cells: Sequence[Made | Result]) -> Path:
    """The run folder, as far as publishing reads it; results of failed cells have no artifact."""
    for given in cells:
        made = given if isinstance(given, Made) else None
        found: Result = given if made is None else made.result  # type: ignore[assignment]
        place = folder / "cells" / folder_name(found.key, found.cell)
        place.mkdir(parents=True)
        if made is not None:
            for source in filter(None, (made.artifact, made.compiled)):
                shutil.copytree(source, place / source.name)
            files = (path for path in place.rglob("*") if path.is_file())
            digests = {path.relative_to(place).as_posix(): sha256_of(path) for path in files}
            found = replace(found, artifact_sha256=digests)
        (place / "result.json").write_text(json.dumps(plain(found)), encoding="utf-8")
        write_digest(place)
    return folder
