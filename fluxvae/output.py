"""Writing results: nothing half-written, nothing replaced unasked. Files only (see package).

And reading text, the inverse of ``write_text``.
"""

import codecs
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fluxvae.errors import OutputError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise OutputError when ``path`` is taken, or when its parent is no folder."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already: pass --overwrite, or another place with --out")
    parent = next((p for p in path.parents if p.exists()), None)
    if parent is not None and not parent.is_dir():
        raise OutputError(f"{parent} is a file; expected a folder to write {path.name} into")


def require_writable(path: Path) -> None:
    """Raise OutputError when nothing can be made at ``path``: before long work, not after it."""
    place = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".fluxvae-", dir=place):
            pass
    except OSError as error:
        raise OutputError(
            f"{disk_trouble(error, path)}: nothing can be made in {place}; pass another --out"
        ) from error


def write_file(path: Path, write: Callable[[Path], object], *, overwrite: bool) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then give it its final name."""
    refuse_existing(path, overwrite)
    try:
        with parent_folder(path), _temporary_file(path) as temporary:
            write(temporary)
            temporary.chmod(0o644)  # mkstemp makes files private
            temporary.replace(path)
    except OSError as error:
        raise OutputError(disk_trouble(error, path)) from error
    return path


def write_text(path: Path, text: str, *, overwrite: bool) -> Path:
    """Text in UTF-8 as a file, whole or not at all. Raises OutputError."""
    return write_file(path, lambda draft: draft.write_text(text, "utf-8"), overwrite=overwrite)


def read_text(path: Path) -> str:
    """A text file in UTF-8, whatever the locale. A byte order mark before it is dropped: Windows'
    editors write one.

    Raises OSError, and ValueError for text in another encoding; its message leaves the file's name
    to the caller's.
    """
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        seen = "is UTF-16" if raw.startswith(_UTF16) else f"byte {error.start} is not UTF-8"
        raise ValueError(f"expected text in UTF-8, {seen}: save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as a text stream does


@contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    """An empty hidden file beside ``path``, gone afterwards."""
    handle, name = tempfile.mkstemp(prefix=".fluxvae-", suffix=path.suffix, dir=path.parent)
    try:
        os.close(handle)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def parent_folder(path: Path) -> Iterator[None]:
    """Make the folder of ``path``. After a failure, remove what was made here and is empty."""
    missing = [folder for folder in path.parents if not folder.exists()]  # the deepest first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:  # Ctrl-C too
        for folder in missing:
            with suppress(OSError):  # somebody else's file is in it by now
                folder.rmdir()
        raise


def disk_trouble(error: OSError, path: Path) -> str:
    """One sentence for an error of the file system while ``path`` was being written."""
    number = _number(error)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no space left while writing {path}: free some, or pass another place with --out"
    return f"cannot write {path}: {os.strerror(number) if number else error}"


def _number(error: OSError) -> int | None:
    """The error's number; ``shutil.Error`` of a copied folder has it only in its text."""
    if error.errno is not None:
        return error.errno
    found = re.search(r"\[Errno (\d+)\]", str(error))
    return int(found[1]) if found else None
