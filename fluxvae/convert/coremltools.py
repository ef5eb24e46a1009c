"""coremltools as conversions use it: quiet, its errors in our words, its files in their place."""

import contextlib
import errno
import gc
import io
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from fluxvae.errors import ConvertError
from fluxvae.files import scratch
from fluxvae.recipes import Recipe


@contextlib.contextmanager
def coremltools(verbose: bool) -> Iterator[Any]:
    """coremltools, with its notices, warnings and progress bars out of sight unless verbose.

    On import it logs missing macOS frameworks and untested torch versions; while converting it
    draws four progress bars and warns of renamed outputs.
    """
    if verbose:
        with _without_unused():
            import coremltools as ct

        yield ct
        return
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            with no_garbage_collection(), _without_unused():
                import coremltools as ct

            yield ct
        finally:
            logger.setLevel(level)


@contextlib.contextmanager
def _without_unused() -> Iterator[None]:
    """For importing coremltools 9.0, which imports scikit-learn (to find that it is too new) and
    its own ``optimize.torch`` (for training): we use neither, and they are 2 of its 3 seconds.

    Afterwards both can be imported as ever. To be removed when coremltools imports them lazily.
    """
    stubs = {"sklearn": None, "coremltools.optimize.torch": ModuleType("torch")}
    hidden = {name: stub for name, stub in stubs.items() if name not in sys.modules}
    if "coremltools" in sys.modules:
        hidden = {}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None: as if it were not installed
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        if hidden:
            vars(sys.modules.get("coremltools.optimize", ModuleType(""))).pop("torch", None)


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """For importing coremltools and for one function's conversion: both make millions of objects
    that live on, and looking at them again and again takes 0.6 of 1.8 seconds, and 1.3 of 22 for a
    KL decoder at 1024 px. Memory peaks 10 MB higher without.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextlib.contextmanager
def in_own_words(recipe: Recipe, folder: Path) -> Iterator[None]:
    """coremltools' errors as ConvertError, and those of its C++ file code as OSError.

    coremltools 9.0 says "[MIL FileWriter]: Unknown error" of a full disk when it writes weights,
    and "filesystem error: cannot copy: Input/output error" when it copies them; neither has a
    number. ``folder`` is on the disk where it was writing; what it wrote must still be there.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # many kinds, all from coremltools' own depths
        text = str(error)
        if "[MIL FileWriter]" in text or text.startswith("filesystem error"):
            full = "FileWriter" in text or shutil.disk_usage(folder).free < 1 << 20
            number = errno.ENOSPC if full else errno.EIO
            raise OSError(number, os.strerror(number), str(folder)) from error
        raise ConvertError(
            f"coremltools could not convert {recipe.name()}: {_first_line(error)} "
            "(-v shows its messages)"
        ) from error


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Let coremltools 9.0 put its temporary packages into ``folder``, and remove them.

    It leaves them behind when it fails half-way or is interrupted. torch must not see this: it
    would remember the place as its cache (TORCHINDUCTOR_CACHE_DIR).
    """
    before = tempfile.tempdir
    with scratch(folder) as hidden:
        tempfile.tempdir = str(hidden)
        try:
            yield
        finally:
            tempfile.tempdir = before


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
