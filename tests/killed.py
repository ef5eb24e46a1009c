"""What a process leaves that is killed before its n-th change of the file system, for each n.

``python -m tests.killed FOLDER CASE`` prints one JSON list for each n: what lies in the folder
after the kill, and what after another process has written a file there. Light: it forks.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluxvae.files import commit, staging, write_text

CHANGES = ("link", "mkdir", "open", "rename", "replace", "rmdir", "unlink")
CASES = {
    "new folder": (("x",), False),
    "replaced folder": (("x",), True),
    "new halves": (("x1", "x2"), False),
    "replaced halves": (("x1", "x2"), True),
    "new file": (("x.txt",), False),
    "replaced file": (("x.txt",), True),
}


def make(folder: Path, names: tuple[str, ...], text: str, *, overwrite: bool) -> None:
    """Folders of two files each; or one file, for a name with a suffix."""
    paths = [folder / name for name in names]
    if paths[0].suffix:
        write_text(paths[0], text, overwrite=overwrite)
        return
    with staging(*paths, overwrite=overwrite) as drafts:
        for name in names:
            (drafts / name).mkdir()
            for file in ("a", "b"):
                (drafts / name / file).write_text(text)
        commit(drafts, *paths, overwrite=overwrite)


def contents(folder: Path) -> dict[str, str]:
    """Text by path of every file, and None by path of every empty folder."""
    return {
        str(p.relative_to(folder)): p.read_text() if p.is_file() else ""
        for p in sorted(folder.rglob("*"))
        if p.is_file() or not any(p.iterdir())
    }


def killing(change: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    """``change``, or the end of this process when ``left`` counts down to nothing."""

    def counted(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*arguments, **named)

    return counted


def survives(number: int, act: Callable[[], None]) -> bool:
    """Do ``act`` in a forked process that is killed before its change ``number``, from 1."""
    child = os.fork()
    if child == 0:
        left = [number]
        for name in CHANGES:
            setattr(os, name, killing(getattr(os, name), left))
        act()
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def main(folder: Path, case: str) -> None:
    names, overwrite = CASES[case]
    for number in range(1, 1000):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if overwrite:
            make(folder, names, "old", overwrite=False)
        survived = survives(number, lambda: make(folder, names, "new", overwrite=overwrite))
        killed = contents(folder)
        write_text(folder / "next.txt", "next", overwrite=False)
        after = contents(folder)
        print(json.dumps([killed, after]))
        if survived:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
