"""Writing results: nothing half-written, nothing replaced unasked, nothing left by the killed.

Whatever is being made lies in a hidden folder in the same directory, ``.fluxvae-NAME``, beside a
lock file, ``.fluxvae-NAME.lock``. Its process holds the lock (flock) until both are removed. The
system releases a lock when its process ends, however that ends: a lock file that can be locked is
of a process that is gone, and the next one to write in that directory takes both away. Where files
cannot be locked (some network disks) nothing is taken away.

Finished results get their names in ``commit``, one process at a time in each directory. And reading
text, the inverse of ``write_text``; and sha256 as records keep it.
"""

import codecs
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any

from fluxvae.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing taken away
    fcntl = None  # type: ignore[assignment]

_HIDDEN, _LOCK = ".fluxvae-", ".lock"
_COMMITTING = f"{_HIDDEN}commit{_LOCK}"
_NEW, _REPLACING, _OLD = ".new", ".replacing", ".old"  # folders inside a hidden folder
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # renaming onto what is there
_ELSE = "pass --overwrite, or another path with --out"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise OutputError when ``path`` is taken, or when its parent is not a folder."""
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} exists already: {_ELSE}")
    parent = next((p for p in path.parents if p.exists()), None)
    if parent is not None and not parent.is_dir():
        raise OutputError(f"{parent} is a file; expected a folder to write {path.name} into")


def require_writable(path: Path) -> None:
    """Raise OutputError when nothing can be made at ``path``: before long work, not after it."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with scratch(folder):
            pass
    except OSError as error:
        raise OutputError(
            f"{disk_trouble(error, path)}: nothing can be made in {folder}; pass another --out"
        ) from error


def write_file(path: Path, write: Callable[[Path], object], *, overwrite: bool) -> Path:
    """Let ``write`` make a file of the same name in a hidden folder, then give it its path."""
    with staging(path, overwrite=overwrite) as folder:
        write(folder / path.name)
        commit(folder, path, overwrite=overwrite)
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
def staging(path: Path, *others: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden folder beside ``path`` for what ``commit`` will move there; gone afterwards.

    Without ``overwrite`` the name is claimed: of several processes one goes on. ``others`` come
    with ``path``, in the same directory. Raises OutputError when a path is taken, when another
    process is making it, and for errors of the file system.
    """

    def refuse() -> None:
        for one in (path, *others):
            refuse_existing(one, overwrite)

    refuse()
    claim = None if overwrite else hashlib.sha256(path.name.encode()).hexdigest()[:16]
    try:
        with parent_folder(path), scratch(path.parent, claim) as folder:
            refuse()  # made before the claim, or by a commit that was finished just now
            yield folder
    except BlockingIOError as error:
        raise OutputError(
            f"another process is making {path} at this moment: wait for it, or {_ELSE}"
        ) from error
    except OSError as error:
        raise OutputError(disk_trouble(error, path)) from error


@contextmanager
def scratch(parent: Path, claim: str | None = None) -> Iterator[Path]:
    """A hidden folder in ``parent`` for work under way; gone afterwards, come what may.

    First takes away what killed processes left there. Raises OSError; BlockingIOError when another
    process has the same ``claim``.
    """
    with _one_at_a_time(parent):  # so that nobody tries a lock file between its making and locking
        _sweep(parent)
        folder, lock = _reserve(parent, claim)
    try:
        folder.mkdir(0o700)
        yield folder
    finally:
        _remove(folder, lock)


def commit(folder: Path, *paths: Path, overwrite: bool) -> None:
    """Give the finished drafts in ``folder`` (of ``staging``) their paths: all of them, or none.

    A draft has its path's name; all paths are in the directory of ``folder``; several are folders.
    When the process is killed half-way, the next one that writes there moves the other drafts.
    Raises OutputError when a path is taken (without ``overwrite``), OSError when something cannot
    be moved; then everything is as it was.
    """
    with _one_at_a_time(folder.parent):
        _sweep(folder.parent)
        ready = folder / (_REPLACING if overwrite else _NEW)
        collected, olds = folder / ".collected", folder / _OLD
        try:
            for path in paths:
                if os.path.lexists(path) and not overwrite:
                    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            for made in (collected, olds):
                made.mkdir()
            for path in paths:
                (folder / path.name).rename(collected / path.name)
            collected.rename(ready)  # decided: what is in it gets its path, from whomever
            for path in paths:
                _move(ready / path.name, path, olds / path.name)
        except BaseException as error:
            if ready.exists():
                _undo(ready, paths, olds)
            if isinstance(error, OSError) and error.errno in _TAKEN and not overwrite:
                raise OutputError(
                    f"{path} exists already: another process made it meanwhile; {_ELSE}"
                ) from error
            raise


def _move(draft: Path, path: Path, old: Path) -> None:
    """Give one draft its path. ``old``: for a folder that it replaces, which takes two steps."""
    if draft.is_dir() or path.is_dir():
        if os.path.lexists(path) and draft.parent.name == _REPLACING:
            path.rename(old)
        draft.rename(path)  # an OSError where there is a file, or a folder that is not empty
    elif draft.parent.name == _REPLACING:
        draft.replace(path)
    else:
        _move_new_file(draft, path)


def _move_new_file(draft: Path, path: Path) -> None:
    """Rename without replacing, which POSIX has for links alone. Raises FileExistsError."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as exFAT
        if os.path.lexists(path):
            raise
        draft.rename(path)
    else:
        draft.unlink()


def _undo(ready: Path, paths: tuple[Path, ...], olds: Path) -> None:
    """Everything back to where it was, after a failed or interrupted ``commit``."""
    for path in paths:
        if not (ready / path.name).exists():
            path.rename(ready / path.name)
        if os.path.lexists(olds / path.name) and not os.path.lexists(path):
            (olds / path.name).rename(path)
    _withdraw(ready)


def _withdraw(ready: Path) -> None:
    """Before drafts are deleted: half of one must never be taken for one that is ready."""
    ready.rename(ready.with_name(".withdrawn"))


def _sweep(parent: Path) -> None:
    """Take away what processes that are gone left in ``parent``; finish their commits."""
    for path in sorted(parent.glob(f"{_HIDDEN}*{_LOCK}")):
        with suppress(OSError):  # the owner lives, is somebody else, or nothing can be locked here
            lock = _acquire(path, create=False)
            if path.name == _COMMITTING or os.fstat(lock).st_uid != os.geteuid():
                os.close(lock)
                continue
            folder = path.with_name(path.name.removesuffix(_LOCK))
            _finish_commit(folder)
            _remove(folder, lock)


def _finish_commit(folder: Path) -> None:
    """Move the drafts that a killed process was moving; what else has such a name now, stays."""
    for ready in (folder / _REPLACING, folder / _NEW):
        if folder.is_symlink() or not ready.is_dir():
            continue
        for draft in sorted(ready.iterdir()):
            path, old = folder.parent / draft.name, folder / _OLD / draft.name
            if os.path.lexists(path) and (os.path.lexists(old) or ready.name == _NEW):
                continue
            _move(draft, path, old)
        _withdraw(ready)


def _reserve(parent: Path, claim: str | None) -> tuple[Path, int | None]:
    """A hidden folder's path and its lock; None where files cannot be locked: never swept.

    Raises BlockingIOError when another process has the same ``claim``.
    """
    random = parent / f"{_HIDDEN}{secrets.token_hex(8)}"
    folder = parent / f"{_HIDDEN}{claim}" if claim else random
    try:
        lock = _acquire(_lock_of(folder))
    except BlockingIOError:
        if claim:
            raise
        return _reserve(parent, None)  # a sweep of another process was quicker
    except OSError:
        return random, None
    if os.path.lexists(folder):  # what could not be removed must not block the name for ever
        _release(_lock_of(folder), lock, keep=True)
        return _reserve(parent, None)
    return folder, lock


def _remove(folder: Path, lock: int | None) -> None:
    """A hidden folder and its lock file; that one last, and only when the folder is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        _release(_lock_of(folder), lock, keep=os.path.lexists(folder))


@contextmanager
def _one_at_a_time(parent: Path) -> Iterator[None]:
    """One process in here for each directory; it is held for moments. Elsewhere no lock at all."""
    path, lock = parent / _COMMITTING, None
    with suppress(OSError):
        lock = _acquire(path, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            _release(path, lock)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{_LOCK}")


def _acquire(path: Path, *, wait: bool = False, create: bool = True) -> int:
    """Lock a file; its descriptor, which no program started by us inherits.

    Raises BlockingIOError when another process has it, other OSErrors when it cannot be locked.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), str(path))
    while True:
        existed = os.path.lexists(path)
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if create else 0), 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            with suppress(FileNotFoundError):  # its owner removed it before we had the lock
                there, ours = os.lstat(path), os.fstat(lock)
                if os.path.samestat(there, ours) and S_ISREG(ours.st_mode):
                    return lock
        except BaseException as error:
            os.close(lock)
            if not existed and isinstance(error, OSError) and error.errno != errno.EWOULDBLOCK:
                path.unlink(missing_ok=True)  # files cannot be locked here
            raise
        os.close(lock)


def _release(path: Path, lock: int, *, keep: bool = False) -> None:
    """Remove the lock file, then unlock: a forked process may have the same descriptor."""
    with suppress(OSError):
        if not keep:
            path.unlink()
        fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


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
        return f"no space left while writing {path}: free some, or pass another path with --out"
    return f"cannot write {path}: {os.strerror(number) if number else error}"


def _number(error: OSError) -> int | None:
    """The error's number; ``shutil.Error`` of a copied folder has it only in its text."""
    if error.errno is not None:
        return error.errno
    found = re.search(r"\[Errno (\d+)\]", str(error))
    return int(found[1]) if found else None


def files_of(path: Path) -> list[Path]:
    """Every file below a folder, in the order of their paths; a file alone is the one."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder. Raises OSError."""
    return sum(file.stat().st_size for file in files_of(path))


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of the file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_sha256(parts: Any) -> str:
    """Hexadecimal sha256 over plain data as JSON, its keys in one order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
