"""Writing files: whole or not at all, and nothing replaced unasked."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from fluxvae.errors import OutputError
from fluxvae.output import disk_trouble, refuse_existing, write_file


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_file_is_written_with_its_missing_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.png"
    assert write_file(path, lambda p: p.write_bytes(b"new"), overwrite=False) == path
    assert path.read_bytes() == b"new"
    assert tree(tmp_path) == ["a", "a/b", "a/b/x.png"]
    assert path.stat().st_mode & 0o777 == 0o644  # readable by others, unlike temporary files


def test_temporary_file_has_the_suffix_that_writers_look_at(tmp_path: Path) -> None:
    seen: list[str] = []

    def write(path: Path) -> None:
        seen.append(path.suffix)
        path.touch()

    write_file(tmp_path / "x.png", write, overwrite=False)
    assert seen == [".png"]


def test_existing_file_is_kept_unless_overwriting(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists already: pass --overwrite"):
        write_file(path, lambda p: p.write_bytes(b"new"), overwrite=False)
    assert path.read_bytes() == b"old"
    write_file(path, lambda p: p.write_bytes(b"new"), overwrite=True)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "full"), ValueError("bug"), KeyboardInterrupt()]
)
def test_failed_write_leaves_nothing_new_and_keeps_the_old(
    tmp_path: Path, failure: BaseException
) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise failure

    (tmp_path / "old.png").write_bytes(b"old")
    expected = OutputError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected):
        write_file(tmp_path / "old.png", write, overwrite=True)
    with pytest.raises(expected):
        write_file(tmp_path / "new" / "folders" / "x.png", write, overwrite=False)
    assert tree(tmp_path) == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


def test_folder_that_somebody_else_filled_meanwhile_is_kept(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        (tmp_path / "a" / "b" / "theirs").touch()
        raise OSError(errno.EIO, "no")

    with pytest.raises(OutputError):
        write_file(tmp_path / "a" / "b" / "x.png", write, overwrite=False)
    assert tree(tmp_path) == ["a", "a/b", "a/b/theirs"]


def test_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for path in (tmp_path / "a" / "x.png", tmp_path / "a" / "b" / "x.png"):
        with pytest.raises(OutputError, match="a is a file; expected a folder"):
            refuse_existing(path, overwrite=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="Permission denied"):
        write_file(tmp_path / "x.png", lambda p: p.touch(), overwrite=False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_says_what_to_do(number: int) -> None:
    text = disk_trouble(OSError(number, os.strerror(number)), Path("out/x"))
    assert text == "no space left while writing out/x: free some, or pass another path with --out"


def test_other_trouble_is_told_in_the_systems_words() -> None:
    error = OSError(errno.EROFS, os.strerror(errno.EROFS), "x")
    assert disk_trouble(error, Path("out/x")) == "cannot write out/x: Read-only file system"


def test_trouble_of_a_copied_folder_is_one_short_sentence(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    for name in "ab":
        (tmp_path / "from" / name).touch()

    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source, None, target)

    with pytest.raises(shutil.Error) as caught:  # what shutil makes of it is the oracle's part
        shutil.copytree(tmp_path / "from", tmp_path / "to", copy_function=full)
    assert disk_trouble(caught.value, Path("x")).startswith("no space left while writing x: ")
