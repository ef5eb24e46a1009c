"""The artifact of a command that is given none: the newest one in ``coreml_out/``."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.options import ARTIFACT, OUT, say, say_path_note
from fluxvae.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from fluxvae.artifact.open import Artifact

COMPILED = ".mlmodelc"
SUFFIXES = (".mlpackage", ".mlmodel", COMPILED)


def artifact_argument(name: str, *, compiled: bool = False) -> Callable[[Any], Any]:
    """A path of a saved model, as the parameter ``name``; without it the newest in ``OUT``.

    ``compiled``: the command has Core ML load a ``.mlmodelc``; the newest is compiled when it is
    not, and a path that may keep it off the Neural Engine is noted.
    """

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def with_artifact(**values: Any) -> Any:
            if values[name] is None:
                values[name] = newest_compiled() if compiled else newest_path()
            if compiled:
                say_path_note(values[name])
            return command(**values)

        return click.argument(name, type=ARTIFACT, required=False)(with_artifact)

    return decorate


def newest_artifact() -> Artifact:
    """The artifact of ours that was made last, announced with its decoder, weights and sizes.

    Models of others and damaged ones are passed over, each with a note; subfolders are not
    searched: what ``roundtrip`` and others make for themselves lies there. A compiled model counts
    only where the package it was made from is not beside it. Raises UsageError when none is left.
    """
    for path in _by_age(OUT):
        from fluxvae.artifact.open import open_artifact  # torch: not before there is a reason

        try:
            opened = open_artifact(path)
        except ArtifactError as error:
            say(f"passing over {path}: {error}")
            continue
        recipe, source = opened.record.recipe, opened.record.source
        say(
            f"taking the newest artifact, {opened.programs[0].path}: {recipe.variant}, "
            f"{recipe.decoder} decoder, weights {source.name}, size "
            f"{', '.join(map(str, recipe.sizes))}"
        )
        return opened
    raise UsageError(
        f"no artifact in {OUT}/: run `fluxvae convert --variant flux2` first, or name an artifact"
    )


def newest_path() -> Path:
    """``newest_artifact`` as the path to name; of two halves, the first one's."""
    return newest_artifact().programs[0].path


def newest_compiled() -> Path:
    """``newest_artifact`` compiled: by an earlier run, or now beside it.

    A compiled model of another conversion stays as it is; then the compilation is temporary, until
    the command ends.
    """
    from fluxvae.device.compile import compile_model, compiled_path
    from fluxvae.mil.compiler import is_compiled_from

    paths = [program.path for program in newest_artifact().programs]
    if paths[0].suffix == COMPILED:
        return paths[0]
    missing = [path for path in paths if not compiled_path(path).exists()]
    out = None
    for path in paths:
        if path not in missing and not is_compiled_from(compiled_path(path), path):
            say(
                f"{compiled_path(path)} was compiled from another conversion: compiling again, for "
                f"this run only; `fluxvae compile {path} --overwrite` replaces it"
            )
            temporary = tempfile.TemporaryDirectory(prefix="fluxvae-compiled-")
            out = Path(click.get_current_context().with_resource(temporary))
            missing = paths
            break
    for path in missing:
        compile_model(path, out, report=say)
    chosen = compiled_path(paths[0], out)
    say(f"{'compiled it as' if missing else 'taking what was compiled from it,'} {chosen}")
    return chosen


def _by_age(folder: Path) -> Iterator[Path]:
    """The models in ``folder``, the one made last first; hidden ones are unfinished."""
    found = [p for p in folder.glob("*") if p.suffix in SUFFIXES and not p.name.startswith(".")]
    sources = {p.with_suffix("") for p in found if p.suffix != COMPILED}
    found = [p for p in found if p.suffix != COMPILED or p.with_suffix("") not in sources]
    yield from sorted(found, key=lambda path: (_made(path), path.name), reverse=True)


def _made(path: Path) -> int:
    """When the newest file in ``path`` was written, ns. A folder's own time says less: looking
    into it with the Finder can change that."""
    files = [path] if path.is_file() else path.rglob("[!.]*")
    return max((f.stat().st_mtime_ns for f in files if f.is_file()), default=0)
