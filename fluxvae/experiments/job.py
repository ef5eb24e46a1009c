"""One piece of work of a matrix as plain data: what a process of its own is given.

Four kinds: ``solve`` finds compressed weights, ``stage`` measures a program of the error budget
(both shared by several cells), ``cell`` makes, judges and measures an artifact, ``measure`` only
measures one that another machine made.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from fluxvae.device.host import chip, os_build, this_host
from fluxvae.errors import MatrixError
from fluxvae.experiments.file import Settings
from fluxvae.experiments.inputs import Tensor
from fluxvae.experiments.plan import folder_name
from fluxvae.files import write_text
from fluxvae.records.experiment import RESULT, Cell, Host, Result, Status, Thresholds
from fluxvae.schema import Header, Record, save

Kind = Literal["solve", "stage", "cell", "measure"]
SOLVED = "solved.safetensors"
STAGE = "stage.json"
CELL = "cell.toml"
OUT = "out"  # below a job's folder: all that it makes


@dataclass(frozen=True)
class Job(Record):
    """``key``: of the cell, the solution or the stage. ``recipe``: plain data; empty for a cell
    that has none. ``inputs``: the latents it uses, by name. ``files``: local paths by role
    (``weights``, ``latents``, ``solved``, ``stage:conversion``, ``made``, ``harness``, ``store``).
    ``measured``: whether this job also measures what it made."""

    header: ClassVar = Header(MatrixError, "a job of a matrix", "run the matrix again")
    kind: Kind
    key: str
    cell: Cell
    recipe: dict[str, Any]
    settings: Settings
    thresholds: Thresholds
    weights_digest: str
    inputs_digest: str
    versions: dict[str, str]
    inputs: dict[str, Tensor]
    files: dict[str, str]
    measured: bool = True

    @property
    def name(self) -> str:
        """For people and folders."""
        if self.kind in ("cell", "measure"):
            return folder_name(self.key, self.cell)
        return f"{self.kind}-{self.key[:16]}"


def result_of(job: Job, status: Status, reason: str | None = None, **figures: Any) -> Result:
    """A result of ``job`` from this machine; a figure that is not given is not there."""
    return Result(
        key=job.key,
        cell=job.cell,
        status=status,
        reason=reason and " ".join(reason.split()),
        weights_digest=job.weights_digest,
        inputs_digest=job.inputs_digest,
        versions=job.versions,
        host=host_here(job.versions["python"]),
        **figures,
    )


def host_here(python: str) -> Host:
    """This machine, as results describe it."""
    host = this_host()
    return Host(
        system=host.system,
        release=host.release,
        build=os_build(host),
        arch=host.arch,
        chip=chip(host),
        memory=host.memory,
        python=python,
    )


def cell_toml(cell: Cell) -> str:
    """A cell as TOML; a JSON string in ASCII is a TOML string."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in asdict(cell).items())


def write_cell(out: Path, result: Result) -> None:
    """``cell.toml`` and, last, ``result.json``. Raises OutputError."""
    write_text(out / CELL, cell_toml(result.cell), overwrite=True)
    save(result, out / RESULT)
