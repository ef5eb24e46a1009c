"""A Hub folder from chosen cells of a matrix: packages, config, model card, manifest.

The same run folder gives the same bytes. Making the folder uses no network; ``publish_upload``
sends it.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fluxvae.errors import OutputError
from fluxvae.experiments.inputs import sha256_of
from fluxvae.files import commit, files_of, staging
from fluxvae.publish.card import FORMAT, VERSION, card_text, config_text
from fluxvae.publish.models import Choice, Model, choose
from fluxvae.records.experiment import read_results
from fluxvae.schema import json_text

MANIFEST = "manifest.json"
PACKAGES, COMPILED = "packages", "compiled"


@dataclass(frozen=True)
class HubFile:
    """One file of the folder: path from it, size in bytes, sha256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class HubFolder:
    """The folder that was made, and of what. ``files`` by path, the manifest among them."""

    folder: Path
    files: tuple[HubFile, ...]
    choice: Choice

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)


def make_folder(
    run: Path, repo: str, out: Path, *, only: Sequence[str] = (), overwrite: bool = False
) -> HubFolder:
    """Make the Hub folder ``out`` from the run folder ``run``, for the repository ``repo``.

    A folder that is there already stays when it holds exactly the same. Raises OutputError when it
    holds anything else (without ``overwrite``) or cannot be written; MatrixError when a result is
    damaged; UsageError and PublishError as ``choose``.
    """
    choice = choose(run, read_results(run), only)
    with staging(out, overwrite=True) as folder:  # what is there is compared below
        draft = folder / out.name
        _fill(draft, repo, choice.models)
        files = list_files(draft)
        if out.exists() and not overwrite:
            if not out.is_dir() or list_files(out) != files:
                raise OutputError(
                    f"{out} holds something else than would be published: look at it, then pass "
                    "--overwrite, or another path with --out"
                )
        else:
            commit(folder, out, overwrite=overwrite)
    return HubFolder(out, files, choice)


def _fill(draft: Path, repo: str, models: Sequence[Model]) -> None:
    for model in models:
        for path in model.files:
            top = PurePosixPath(path).parts[0]
            target = draft / (COMPILED if top == model.compiled else PACKAGES) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.folder / path, target)
    (draft / "config.json").write_text(config_text(models), encoding="utf-8")
    (draft / "README.md").write_text(card_text(repo, models), encoding="utf-8")
    (draft / MANIFEST).write_text(_manifest(list_files(draft)), encoding="utf-8")


def _manifest(files: Sequence[HubFile]) -> str:
    data = {
        "format": f"{FORMAT}-manifest",
        "version": VERSION,
        "files": {file.path: {"bytes": file.bytes, "sha256": file.sha256} for file in files},
    }
    return json_text(data, indent=2)


def list_files(folder: Path) -> tuple[HubFile, ...]:
    """Every file below ``folder``, by path."""
    named = {path.relative_to(folder).as_posix(): path for path in files_of(folder)}
    return tuple(
        HubFile(name, named[name].stat().st_size, sha256_of(named[name])) for name in sorted(named)
    )
