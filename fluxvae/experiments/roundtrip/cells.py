"""Results of a round trip as small files, so that a run can be stopped and go on.

A cell is written when one picture went through one candidate and its pictures are there, with a key
over everything that decides it. A run takes a cell whose key is its own and does the rest.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from fluxvae.files import read_text, write_text
from fluxvae.records.roundtrip import Figures
from fluxvae.schema import StructureError, build, parse_json

FOLDER = "cells"


@dataclass(frozen=True)
class Cell:
    """Figures against the float32 decode (``loss``) and against the original (``total``)."""

    key: str
    loss: Figures
    total: Figures


def cell_path(out: Path, picture: str, candidate: str) -> Path:
    """Where a cell is kept; both names are fit for files."""
    return out / FOLDER / picture / f"{candidate}.json"


def keep_cell(path: Path, cell: Cell) -> None:
    """Write a cell, whole or not at all. Raises OutputError."""
    text = json.dumps(asdict(cell), indent=1, allow_nan=False) + "\n"
    write_text(path, text, overwrite=True)


def kept_cell(path: Path, key: str) -> Cell | None:
    """The cell with this very key; None when it is absent, damaged, or of another run."""
    try:
        cell = build(Cell, parse_json(read_text(path)))
    except (OSError, StructureError, ValueError):
        return None
    return cell if cell.key == key else None
