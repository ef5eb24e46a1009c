"""The record of ``fluxvae mac-report``: one cell a step, kept as files so that a run can go on.

A cell is written when its step has ended, whole or not at all, with a key over everything that
decides its result. A second run takes a cell whose key is its own and does the rest again.
docs/mac-report.schema.json describes the whole record.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fluxvae.errors import OutputError
from fluxvae.records.experiment import Host
from fluxvae.schema import Header, Record

EACH = "each"  # units of a step that runs all four in one call: drift, which compares them
Kind = Literal["convert", "compile", "executor", "validate", "bench", "plan", "drift"]
# "done" is what a Mac's Core ML or the step itself did; "rehearsed" ran on the reference executor
# instead of Core ML and says nothing about a Mac.
Status = Literal["done", "rehearsed", "failed", "not run"]


@dataclass(frozen=True)
class Task:
    """One step of one artifact. ``size`` and ``units`` are None where the step has none.

    ``units`` is one of ``harness.UNITS``, or ``EACH``.
    """

    artifact: str
    kind: Kind
    size: str | None = None
    units: str | None = None

    @property
    def name(self) -> str:
        """Unique in its artifact, and fit for a file name."""
        return "-".join(part for part in (self.kind, self.size, self.units) if part)


@dataclass(frozen=True)
class Cell:
    """What came of one task. ``seconds`` is 0 for what was not run."""

    task: Task
    status: Status
    reason: str | None
    seconds: float
    result: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Wholly, or on some compute units."""
        return self.status == "failed" or bool(self.result.get("failures"))


@dataclass(frozen=True)
class KeptCell(Record):
    """A finished cell as a file, with the key of what decides its result."""

    header: ClassVar = Header(OutputError, "a cell of `fluxvae mac-report`", "it is made again")
    key: str
    cell: Cell


@dataclass(frozen=True)
class Artifact:
    """One model of the report. ``cases``: the inputs it was validated with through Swift."""

    name: str
    recipe: dict[str, Any]
    weights_digest: str
    encoder_digest: str | None
    cases: tuple[str, ...]


@dataclass(frozen=True)
class MacRecord(Record):
    """A whole report. ``rehearsal`` is true for one made without a Mac."""

    header: ClassVar = Header(
        OutputError, "a record of `fluxvae mac-report`", "make it again", "fluxvae-mac-report", 2,
    )  # fmt: skip
    fluxvae: str
    rehearsal: bool
    host: Host
    settings: dict[str, Any]
    artifacts: tuple[Artifact, ...]
    cells: tuple[Cell, ...]

    def cell(self, task: Task) -> Cell | None:
        """The cell of a task, if it is in the record."""
        return next((c for c in self.cells if c.task == task), None)

    @property
    def failures(self) -> tuple[Cell, ...]:
        """Cells whose step failed, wholly or on some compute units, or whose verdict is one."""
        return tuple(c for c in self.cells if c.failed or c.result.get("verdict") == "fail")

    @property
    def verdict(self) -> Literal["pass", "incomplete", "fail"]:
        """``fail``: a model is outside its limits; ``incomplete``: a step failed."""
        if any(cell.status != "failed" for cell in self.failures):
            return "fail"
        return "incomplete" if self.failures else "pass"
