"""Hidden folders and their locks: kill -9 at any moment, several processes to one path."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fluxvae.files
from fluxvae.errors import OutputError
from fluxvae.files import commit, scratch, staging, write_text
from tests.killed import CASES, contents, make

HOLD = """
import subprocess, sys
from pathlib import Path
from fluxvae.files import staging
with staging(Path(sys.argv[1]), overwrite=sys.argv[2] == "True") as folder:
    (folder / "draft").write_text("half")
    helper = subprocess.Popen(["sleep", "60"], stdout=-3, stderr=-3)  # DEVNULL
    print(folder, helper.pid, flush=True)
    sys.stdin.read()
"""
RACE = """
import sys
from pathlib import Path
from fluxvae.errors import OutputError
from tests.killed import make
sys.stdin.read()
try:
    for _ in range(int(sys.argv[4])):
        make(Path(sys.argv[1]), ("x1", "x2"), sys.argv[2], overwrite=sys.argv[3] == "True")
except OutputError as error:
    sys.exit(f"fluxvae: {error}")
"""


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )


@contextmanager
def held(path: Path, *, overwrite: bool) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that is making ``path``, with a process of its own; its hidden folder."""
    process = python(HOLD, path, overwrite)
    assert process.stdout is not None
    folder, helper = process.stdout.readline().split()
    try:
        yield process, Path(folder)
    finally:
        process.kill()
        process.communicate()
        os.kill(int(helper), 9)


@pytest.mark.parametrize("case", CASES)
def test_killed_at_any_moment_the_next_run_there_finds_all_of_it_or_nothing(
    case: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.killed", str(tmp_path / "out"), case]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    names, overwrite = CASES[case]

    def finished(text: str) -> dict[str, str]:
        files = names if Path(names[0]).suffix else [f"{n}/{f}" for n in names for f in "ab"]
        return dict.fromkeys(files, text) | {"next.txt": "next"}

    before = finished("old") if overwrite else {"next.txt": "next"}
    ends = [after for _, after in rows]
    changed = ends.index(finished("new"))
    assert ends[:changed] == [before] * changed
    assert ends[changed:] == [finished("new")] * (len(ends) - changed)
    hidden = [any(path.startswith(".fluxvae-") for path in killed) for killed, _ in rows]
    assert hidden.count(True) >= len(rows) - 3  # but for the first and the last: so it was swept


def test_folder_of_a_living_process_stays_and_goes_when_that_is_killed(tmp_path: Path) -> None:
    """The process that it started lives on, and has not inherited the lock."""
    with held(tmp_path / "theirs", overwrite=True) as (process, folder):
        write_text(tmp_path / "a", "ours", overwrite=False)
        assert (folder / "draft").read_text() == "half"
        process.kill()
        process.wait()
        assert (folder / "draft").exists()
        write_text(tmp_path / "b", "ours", overwrite=False)
        assert contents(tmp_path) == {"a": "ours", "b": "ours"}


def test_name_that_another_process_is_making_is_refused_until_that_is_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x"
    with held(path, overwrite=False) as (process, _):
        with pytest.raises(OutputError, match="another process is making "):
            write_text(path, "ours", overwrite=False)
        process.kill()
        process.wait()
        write_text(path, "ours", overwrite=False)
    assert contents(tmp_path) == {"x": "ours"}


def test_name_that_came_to_be_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with staging(path, overwrite=False) as folder:
        (folder / "x").write_text("ours")
        write_text(path, "theirs", overwrite=True)  # it has no claim, and needs none
        with pytest.raises(OutputError, match="exists already: another process made it meanwhile"):
            commit(folder, path, overwrite=False)
    assert contents(tmp_path) == {"x": "theirs"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_processes_with_one_name_the_result_is_whole(overwrite: bool, tmp_path: Path) -> None:
    """Without ``overwrite`` one wins and the others say why not; with it all of them succeed."""
    rounds = 20 if overwrite else 1
    racers = [python(RACE, tmp_path, text, overwrite, rounds) for text in "abcde"]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
        racer.stdin = None
    errors = [racer.communicate(timeout=60)[1] for racer in racers]
    codes = [racer.returncode for racer in racers]
    assert sorted(codes) == ([0] * 5 if overwrite else [0, 1, 1, 1, 1])
    for code, error in zip(codes, errors, strict=True):
        said = "another process is making" in error or "exists already" in error
        assert (said, len(error.splitlines())) == ((True, 1) if code else (False, 0))
    texts = contents(tmp_path)
    assert sorted(texts) == ["x1/a", "x1/b", "x2/a", "x2/b"]
    assert len(set(texts.values())) == 1
    if not overwrite:
        assert texts["x1/a"] == "abcde"[codes.index(0)]


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "disk"), KeyboardInterrupt()])
def test_failure_at_any_rename_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    make(tmp_path, ("x1", "x2"), "old", overwrite=False)
    before, rename = contents(tmp_path), os.rename
    number, failures = 0, 0
    while failures == number:
        number += 1
        calls = 0

        def failing(source: Path, target: Path) -> None:
            nonlocal calls, failures
            calls += 1
            if calls == number:  # noqa: B023 - used in this round alone
                failures += 1
                raise failure
            rename(source, target)

        monkeypatch.setattr(os, "rename", failing)
        expected = OutputError if isinstance(failure, OSError) else type(failure)
        try:
            make(tmp_path, ("x1", "x2"), "new", overwrite=True)
        except expected:
            assert contents(tmp_path) == before
        monkeypatch.undo()
    assert number > 5
    assert set(contents(tmp_path).values()) == {"new"}


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "no locks")


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "no links")


def test_where_files_cannot_be_locked_nothing_is_taken_away_and_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path / "x", overwrite=False) as (process, folder):
        process.kill()
        process.wait()
    left = {f"{folder.name}/draft": "half", f"{folder.name}.lock": ""}
    monkeypatch.setattr(fluxvae.files.fcntl, "flock", no_locks)
    make(tmp_path, ("x",), "new", overwrite=False)
    with pytest.raises(OutputError, match="exists already"):
        make(tmp_path, ("x",), "newer", overwrite=False)
    assert contents(tmp_path) == {**left, "x/a": "new", "x/b": "new"}
    monkeypatch.setattr(fluxvae.files, "fcntl", None)  # Windows
    write_text(tmp_path / "x.txt", "new", overwrite=False)
    assert contents(tmp_path) == {**left, "x/a": "new", "x/b": "new", "x.txt": "new"}


@pytest.mark.parametrize("names", [("x",), ("x.txt",), ("x1", "x2")])
def test_nothing_is_replaced_even_by_who_saw_nothing_there(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where locks do not work: the renaming itself must refuse."""
    make(tmp_path, names[-1:], "theirs", overwrite=False)
    before = contents(tmp_path)
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    with pytest.raises(OutputError, match="another process made it meanwhile"):
        make(tmp_path, names, "ours", overwrite=False)
    monkeypatch.undo()
    assert {p: t for p, t in contents(tmp_path).items() if p[0] != "."} == before


def test_files_get_their_names_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    write_text(tmp_path / "x", "new", overwrite=False)
    assert contents(tmp_path) == {"x": "new"}


def abandoned(folder: Path) -> None:
    """A lock file that nobody holds."""
    folder.with_name(f"{folder.name}.lock").touch()


def test_what_is_not_a_hidden_folder_of_ours_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    make(tmp_path / "elsewhere" / ".replacing", ("x",), "precious", overwrite=False)
    outside.mkdir()
    (outside / ".fluxvae-link").symlink_to(tmp_path / "elsewhere")
    abandoned(outside / ".fluxvae-link")
    make(outside, (".fluxvae-mine",), "mine", overwrite=False)  # no lock file: not of a run
    (outside / ".fluxvae-odd.lock").symlink_to(tmp_path / "elsewhere" / ".replacing" / "x" / "a")
    before = contents(tmp_path)
    with scratch(outside):
        pass
    assert contents(tmp_path) == before


def test_half_of_what_was_deleted_is_never_taken_for_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Undone, then killed while the drafts are deleted: the next run must not move the rest."""
    make(tmp_path, ("x",), "old", overwrite=False)
    rename: Callable[[Path, Path], None] = os.rename

    def failing(source: Path, target: Path) -> None:
        if source.parent.name == ".replacing":
            raise OSError(errno.EIO, "disk")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing)
        patch.setattr(fluxvae.files.shutil, "rmtree", lambda *_, **__: None)  # as if killed here
        with pytest.raises(OutputError):
            make(tmp_path, ("x",), "new", overwrite=True)
    (hidden,) = tmp_path.glob(".fluxvae-*/")
    next(hidden.rglob("a")).unlink()
    fluxvae.files.shutil.rmtree(tmp_path / "x")
    write_text(tmp_path / "next", "", overwrite=False)
    assert contents(tmp_path) == {"next": ""}
