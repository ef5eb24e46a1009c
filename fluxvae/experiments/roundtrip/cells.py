"""Results of a round trip as small files, so that a run can be stopped and go on.

A cell is written when one picture went through one candidate and its pictures are there, with a key
over everything that decides it. A run takes a cell whose key is its own and does the rest.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fluxvae.errors import ReportError
from fluxvae.records.roundtrip import Figures
from fluxvae.schema import Header, Record

FOLDER = "cells"


@dataclass(frozen=True)
class Cell(Record):
    """Figures against the float32 decode (``loss``) and against the original (``total``)."""

    header: ClassVar = Header(ReportError, "a cell of `fluxvae roundtrip`", "it is made again")
    key: str
    loss: Figures
    total: Figures


def cell_path(out: Path, picture: str, candidate: str) -> Path:
    """Where a cell is kept; both names are fit for files."""
    return out / FOLDER / picture / f"{candidate}.json"
