"""How far a matrix is, from its folder alone."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fluxvae.errors import MatrixError
from fluxvae.experiments.file import read_matrix
from fluxvae.experiments.folder import MATRIX
from fluxvae.records.experiment import CELLS, RESULT, Result, Row
from fluxvae.records.summary import summarize
from fluxvae.schema import load


@dataclass(frozen=True)
class Line:
    """One cell of the matrix. ``status``: its result's, ``missing`` or ``damaged``."""

    label: str
    status: str
    row: Row | None


@dataclass(frozen=True)
class Status:
    """All cells of a matrix, in its order."""

    folder: Path
    name: str
    lines: tuple[Line, ...]

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(line.status for line in self.lines))


def require_folder(folder: Path) -> None:
    """Raise MatrixError when ``folder`` is not of ``matrix run``."""
    if not (folder / MATRIX).is_file():
        raise MatrixError(
            f"{folder} is not a folder of `fluxvae matrix run`: it has no {MATRIX}; give the "
            "folder that --out named"
        )


def read_status(folder: Path) -> Status:
    """Every cell of the folder's matrix. Raises MatrixError or UsageError for a damaged one."""
    require_folder(folder)
    matrix = read_matrix(folder / MATRIX, folder.name)
    results: dict[str, Result | None] = {}
    for cell_path in sorted((folder / CELLS).glob("[!.]*")):
        label = cell_path.name[17:]  # after the key
        try:
            results[label] = load(Result, cell_path / RESULT)
        except MatrixError:
            results.setdefault(label, None)
    whole = [r for r in results.values() if r is not None]
    rows = {row.label: row for row in summarize(whole).rows}
    lines = []
    for label in (cell.label() for cell in matrix.cells):
        row = rows.get(label)
        otherwise = "damaged" if label in results else "missing"
        lines.append(Line(label, row.status if row else otherwise, row))
    return Status(folder, matrix.name, tuple(lines))


def status_json(status: Status) -> dict[str, Any]:
    """Plain data: counts, and a row for each cell."""
    return {
        "folder": str(status.folder),
        "name": status.name,
        "counts": status.counts,
        "cells": [asdict(line) for line in status.lines],
    }
