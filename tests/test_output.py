"""Writing files: whole or not at all, and nothing replaced unasked."""

import ast
import errno
import os
import shutil
from pathlib import Path

import pytest

import fluxvae
from fluxvae.errors import OutputError
from fluxvae.files import disk_trouble, read_text, refuse_existing, write_file


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_file_is_written_with_its_missing_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.png"
    assert write_file(path, lambda p: p.write_bytes(b"new"), overwrite=False) == path
    assert path.read_bytes() == b"new"
    assert tree(tmp_path) == ["a", "a/b", "a/b/x.png"]
    assert path.stat().st_mode & 0o777 == 0o644  # readable by others, unlike temporary files


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_text_is_read_as_utf_8_with_or_without_a_byte_order_mark(
    tmp_path: Path, mark: bytes
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(mark + "grün\r\n\ufeff\n".encode())
    assert read_text(path) == "grün\n\ufeff\n"  # a mark elsewhere is text


@pytest.mark.parametrize(
    ("encoding", "words"), [("utf-16", "is UTF-16"), ("latin-1", "byte 2 is not UTF-8")]
)
def test_text_in_another_encoding_says_what_to_do(
    tmp_path: Path, encoding: str, words: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("grün".encode(encoding))
    with pytest.raises(ValueError, match=f"{words}: save it as UTF-8"):
        read_text(path)


def test_no_text_of_the_package_is_read_or_written_by_the_locale() -> None:
    """Every text file is opened with its encoding, every program's output decoded with one."""
    package = Path(fluxvae.__file__).parent
    found = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and _by_the_locale(node):
                found.append(f"{path.relative_to(package)}:{node.lineno}")
    assert found == []


def _by_the_locale(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    texts = [a.value for a in call.args if isinstance(a, ast.Constant)]
    if "encoding" in given or "utf-8" in texts:
        return False
    if name == "read_text":  # ours takes a path, pathlib's none
        return not call.args
    if name == "open" and isinstance(call.func, ast.Name):
        return not any("b" in str(text) for text in texts[-1:])
    if name == "open":
        return not any("b" in str(text) for text in texts) and _of_a_path(call.func)
    as_text = getattr(given.get("text"), "value", False) is True  # of a subprocess
    return as_text or (name == "write_text" and _of_a_path(call.func))


def _of_a_path(function: ast.expr) -> bool:
    """Not a function of a module: ``Image.open``, ``tarfile.open``, ours by its bare name."""
    owner = getattr(function, "value", None)
    modules = ("Image", "archive", "os", "tarfile", "webbrowser")  # archive: a zip file
    return owner is not None and getattr(owner, "id", None) not in modules


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
