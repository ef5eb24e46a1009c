"""Which cells of a matrix become models of a Hub folder: chosen by name, held to their digests.

What is published is exactly what was measured: a cell's artifact has the sha256 that its result
recorded, file by file, or nothing is published.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from fluxvae.artifact.record import Record, read_record
from fluxvae.device.compile import SUFFIX
from fluxvae.errors import PublishError, UsageError
from fluxvae.experiments.folder import recorded_digest
from fluxvae.experiments.inputs import sha256_of
from fluxvae.experiments.plan import folder_name
from fluxvae.files import files_of
from fluxvae.mil.package import read_package
from fluxvae.records.experiment import CELLS, RESULT, Result


@dataclass(frozen=True)
class Model:
    """One artifact of the Hub folder, and every chosen cell that measured it.

    ``files`` are its own and its compiled model's, if there is one, by path from ``folder`` (the
    first cell's), with the sha256 that they have and had.
    """

    name: str
    folder: Path
    files: dict[str, str]
    compiled: str | None
    record: Record
    cells: tuple[Result, ...]


@dataclass(frozen=True)
class Choice:
    """What is published, and what is left out, with its reason, as there is nothing to publish."""

    models: tuple[Model, ...]
    left_out: tuple[str, ...]


def choose(folder: Path, results: Sequence[Result], only: Sequence[str] = ()) -> Choice:
    """The models of the cells whose labels fit one of the patterns ``only`` (all without any).

    Raises UsageError when none matches; PublishError, naming every such cell, when one failed, is
    outside its limits, or has an artifact other than the recorded one.
    """
    found = [
        r for r in results if not only or any(fnmatchcase(r.cell.label(), one) for one in only)
    ]
    if not found:
        labels = ", ".join(r.cell.label() for r in results[:8])
        raise UsageError(
            f"no cell of {folder} fits --only {' '.join(only)!r}; it has {labels}"
            if results
            else f"{folder} has no results: expected the folder of a `fluxvae matrix run`"
        )
    refusals = [f"{r.cell.label()} {why}" for r in found if (why := _unfit(r))]
    if refusals:
        raise PublishError(
            f"what is published must have passed, and {'; '.join(refusals)}: choose others with "
            "--only"
        )
    models: dict[str, Model] = {}
    for result in (r for r in found if r.status == "done"):
        model = _model(folder, result)
        known = models.get(model.name)
        models[model.name] = model if known is None else _same(known, model)
    left_out = [f"{r.cell.label()} (n/a: {r.reason})" for r in found if r.status == "n/a"]
    if not models:
        raise PublishError(f"nothing to publish: {'; '.join(left_out)}")
    return Choice(tuple(models[name] for name in sorted(models)), tuple(left_out))


def _unfit(result: Result) -> str | None:
    """Why a cell cannot be published; None when it can, or when nothing came of it (n/a)."""
    if result.status == "n/a":
        return None
    if result.status != "done":
        return f"failed ({result.reason})"
    if result.verdict != "pass":
        judged = "is outside its limits" if result.verdict == "fail" else "was not judged"
        return f"{judged} (verdict {result.verdict})"
    return None if result.artifact else "has no artifact"


def _model(folder: Path, result: Result) -> Model:
    label, name = result.cell.label(), result.artifact or ""
    cell = folder / CELLS / folder_name(result.key, result.cell)
    if not (cell / RESULT).is_file() or recorded_digest(cell) != sha256_of(cell / RESULT):
        raise PublishError(
            f"{label}: {cell / RESULT} is not what the run left there (its sha256 is not the one "
            "beside it): run the cell again"
        )
    if PurePosixPath(name).name != name:
        raise PublishError(f"{label} records the artifact {name!r}; expected a plain file name")
    files = _checked(cell, name, result)
    record = read_record(read_package(cell / name))
    if record is None:
        raise PublishError(f"{label}: {name} was not made by fluxvae, which publishes its own only")
    if record.weights_digest != result.weights_digest:
        raise PublishError(f"{label}: {name} is of other weights than the result says")
    compiled = PurePosixPath(name).with_suffix(SUFFIX).name
    if any(path.startswith(f"{compiled}/") for path in result.artifact_sha256):
        files |= _checked(cell, compiled, result)
        return Model(name, cell, files, compiled, record, (result,))
    return Model(name, cell, files, None, record, (result,))


def _checked(cell: Path, name: str, result: Result) -> dict[str, str]:
    """Digests of all files of one artifact, equal to the recorded ones; or PublishError."""
    recorded = {
        path: digest
        for path, digest in result.artifact_sha256.items()
        if PurePosixPath(path).parts[0] == name
    }
    root = cell / name
    files = files_of(root) if root.exists() else []
    found = {path.relative_to(cell).as_posix(): sha256_of(path) for path in files}
    wrong = sorted(
        path for path in {*recorded, *found} if recorded.get(path) != found.get(path)
    ) or ([] if found else [name])
    if wrong:
        path = wrong[0]
        what = "is missing" if path not in found else "is not what was measured"
        raise PublishError(
            f"{result.cell.label()}: {cell / path} {what} (its sha256 is not the recorded one): "
            "run the cell again"
        )
    return found


def _same(known: Model, other: Model) -> Model:
    """One model measured by several cells, on several compute units say."""
    if known.files != other.files:
        labels = " and ".join(m.cells[0].cell.label() for m in (known, other))
        raise PublishError(
            f"{labels} both made {known.name}, with different content: publish one of them (--only)"
        )
    return Model(
        *(known.name, known.folder, known.files, known.compiled, known.record),
        (*known.cells, *other.cells),
    )
