"""The run folder of a matrix: where cells lie, how one is committed, which are there already.

``cells/KEY16-LABEL`` appears whole, by one rename; beside its ``result.json`` lies that file's
sha256, in sha256sum's format. ``old`` has cells that the matrix, the weights or the tools have
left behind. Hidden entries are of a run under way.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fluxvae.errors import MatrixError, OutputError
from fluxvae.experiments.inputs import sha256_of
from fluxvae.experiments.job import Job
from fluxvae.experiments.plan import folder_name
from fluxvae.files import disk_trouble, read_text, write_text
from fluxvae.records.experiment import CELLS, RESULT, Cell, Result, read_results
from fluxvae.records.summary import summarize, summary_json
from fluxvae.schema import load, load_kept

DIGEST = "result.sha256"
WORK = ".work"  # everything unfinished
MATRIX = "matrix.toml"
PAGES = ("summary.json", "index.html", "summary.md")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder for one run alone, without what a killed one left half-done.

    Raises MatrixError when another run has it, OutputError when it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; expected a folder for the matrix")
    lock = FileLock(folder / ".lock")
    try:
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise MatrixError(
            f"another `fluxvae matrix run` is at work in {folder}: wait for it, or give another "
            "folder with --out"
        ) from error
    except OSError as error:
        raise OutputError(disk_trouble(error, folder)) from error
    try:
        shutil.rmtree(folder / WORK, ignore_errors=True)
        (folder / WORK).mkdir()
        yield
    except OSError as error:
        raise OutputError(disk_trouble(error, folder)) from error
    finally:
        shutil.rmtree(folder / WORK, ignore_errors=True)
        lock.release()


def kept(folder: Path, key: str, cell: Cell) -> Result | None:
    """A cell that was finished before and is still whole; None when it is to be done.

    One that lies in ``old`` is taken back. A result that was changed afterwards counts as none;
    its folder is set aside and not removed.
    """
    cell_path = folder / CELLS / folder_name(key, cell)
    old = folder / "old" / cell_path.name
    if not cell_path.exists() and old.exists():
        old.rename(cell_path)
    if not cell_path.exists():
        return None
    found = load_kept(Result, cell_path / RESULT, key)
    if (
        found is not None
        and recorded_digest(cell_path) == sha256_of(cell_path / RESULT)
        and all((cell_path / file).is_file() for file in found.artifact_sha256)
    ):
        return found
    archive(folder, [cell_path])
    return None


def recorded_digest(cell_path: Path) -> str | None:
    """What ``result.json`` was when it was put there; None when nothing says so."""
    try:
        return read_text(cell_path / DIGEST).split()[0]
    except (OSError, IndexError, ValueError):
        return None


def write_digest(cell_path: Path) -> None:
    """Keep the digest of ``result.json`` beside it. Raises OutputError."""
    text = f"{sha256_of(cell_path / RESULT)}  {RESULT}\n"
    write_text(cell_path / DIGEST, text, overwrite=True)


def verify_delivery(job: Job, out: Path) -> Result:
    """What came of a cell, its files compared with their digests. Raises MatrixError."""
    result = load(Result, out / RESULT)
    if (result.key, result.cell) != (job.key, job.cell):
        raise MatrixError(f"{job.name}: what came back is of another cell ({result.cell.label()})")
    for file, digest in result.artifact_sha256.items():
        if sha256_of(out / file) != digest:
            raise MatrixError(f"{job.name}: {file} arrived damaged; run the matrix again")
    return result


def commit_cell(folder: Path, job: Job, out: Path) -> Result:
    """Move a finished cell below ``cells``, replacing a failed one.

    Raises MatrixError or OutputError; then nothing changed.
    """
    result = verify_delivery(job, out)
    write_digest(out)
    cell_path, aside = folder / CELLS / job.name, out.parent / "before"
    try:
        if cell_path.exists():  # a failed one; a folder cannot be replaced in one step
            cell_path.rename(aside)
        out.rename(cell_path)
    except OSError as error:
        raise OutputError(disk_trouble(error, cell_path)) from error
    finally:
        if aside.exists() and not cell_path.exists():
            aside.rename(cell_path)
    return result


def archive(folder: Path, paths: Iterable[Path]) -> int:
    """Move cells to ``old``, replacing what is there of the same name; how many."""
    count = 0
    for cell_path in paths:
        target = folder / "old" / cell_path.name
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        cell_path.rename(target)
        count += 1
    return count


def orphans(folder: Path, names: Iterable[str]) -> list[Path]:
    """Folders of cells that are not among ``names``."""
    known = set(names)
    return [p for p in sorted((folder / CELLS).glob("[!.]*")) if p.name not in known]


def is_reported(folder: Path) -> bool:
    """Whether the pages are there and are of the cells as they are."""
    try:
        written = read_text(folder / "summary.json")
    except (OSError, ValueError):
        return False
    current = written == summary_json(summarize(read_results(folder)))
    return current and all((folder / page).exists() for page in PAGES)


def write_report(folder: Path) -> tuple[Path, ...]:
    """``summary.json``, ``summary.md`` and ``index.html``, from the cells alone.

    Raises MatrixError when a cell is damaged or there is none, OutputError when the disk is full.
    """
    from fluxvae.report.matrix.report import write_matrix_report  # matplotlib, jinja2

    text = summary_json(summarize(read_results(folder)))
    path = folder / "summary.json"
    write_text(path, text, overwrite=True)
    return (path, *write_matrix_report(folder))
