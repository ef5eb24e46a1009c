"""Files of a saved model: named without leaving its folder, and read with the reason in words."""

from pathlib import Path, PureWindowsPath

from fluxvae.errors import ArtifactError, git_lfs_problem


def path_inside(folder: Path, name: str) -> Path | None:
    """``folder / name`` for a relative name, written by a model, that goes downwards; else None.

    Looks at the name alone, by the rules of Windows as well. Links on the user's disk may lead
    anywhere: the Hugging Face cache consists of links from ``snapshots`` into ``blobs``.
    """
    parts = PureWindowsPath(name)
    if parts.anchor or not parts.parts or ".." in parts.parts or "\\" in name or "\0" in name:
        return None
    return folder / name


def read_file(path: Path, what: str) -> bytes:
    """The bytes of a file that should be ``what``, as in "the model".

    Raises ArtifactError when it cannot be read or is a Git LFS pointer.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    refuse_pointer(path, content[:64], what)
    return content


def refuse_pointer(path: Path, start: bytes, what: str) -> None:
    """Raise ArtifactError when a file that begins with ``start`` is a Git LFS pointer."""
    if problem := git_lfs_problem(start, what):
        raise ArtifactError(f"{path} {problem}")


def unreadable(path: Path, error: OSError | ValueError) -> ArtifactError:
    """The error about a file that cannot be opened: missing, a folder, a link to nothing."""
    why = getattr(error, "strerror", None) or str(error)
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        why = f"it is a link to {path.readlink()}, which does not exist"
    return ArtifactError(f"{path} cannot be read: {why}")
