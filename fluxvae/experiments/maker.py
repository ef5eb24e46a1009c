"""Artifacts of recipes in a folder: made, or found there from an earlier run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from fluxvae import __version__
from fluxvae.artifact.record import read_record
from fluxvae.artifact.save import save_artifact
from fluxvae.compress import compress
from fluxvae.compress.checkpoint import load_checkpoint
from fluxvae.compress.forms import CompressedDecoder
from fluxvae.compress.store import Store
from fluxvae.data.calibration import Calibration, load_calibration
from fluxvae.errors import OutputError
from fluxvae.files import file_sha256
from fluxvae.mil.package import read_package
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe, artifact_name

PLAIN = "float16"  # how a table names the recipe without compression
PLAIN_NAMES = ("fp16", PLAIN)


def ignore(*_: object) -> None:
    """Where nobody asks; worker processes can be sent it."""


@dataclass(frozen=True)
class Maker:
    """Compresses, converts and saves one recipe after the other in ``folder``.

    ``checkpoint`` serves the recipes whose method is ``trained``, ``calibration`` those that look
    at latents; ``store`` has what was compressed before, for recipes with the same weights inside.
    ``check`` runs before an artifact gets its name, ``log`` is called with notes of progress.
    """

    weights: Weights
    folder: Path
    calibration: Calibration | None = None
    checkpoint: Path | None = None
    overwrite: bool = False
    verbose: bool = False
    check: Callable[[], None] = ignore
    log: Callable[[str], None] = ignore
    store: Store | None = None

    def path(self, recipe: Recipe) -> Path:
        """Where the artifact of ``recipe`` is, or will be."""
        return self.folder / artifact_name(recipe, self.weights.source.kind)

    def save(self, recipe: Recipe) -> Path:
        """The artifact of ``recipe``, made. Raises as compression and saving do."""
        compressed = None if recipe.compression is None else self._compress(recipe)
        (saved,) = save_artifact(
            self.weights,
            recipe,
            self.path(recipe),
            compressed=compressed,
            overwrite=self.overwrite,
            check=lambda _: self.check(),
            verbose=self.verbose,
        )
        return saved

    def is_there(self, recipe: Recipe) -> bool:
        """Whether its path holds what would be made there; never with ``overwrite``.

        That is an artifact by this version, from the same weights and latents or checkpoint.
        Raises OutputError for anything else.
        """
        path = self.path(recipe)
        if self.overwrite or not path.exists():
            return False
        record, source = read_record(read_package(path)), self._source(recipe)
        wanted = (recipe.resolved(), self.weights.digest, __version__, source)
        if record is None or wanted != (
            record.recipe,
            record.weights_digest,
            record.versions.get("fluxvae"),
            {key: record.compression.get(key) for key in source},
        ):
            raise OutputError(
                f"{path} was made otherwise (other weights, calibration or version): pass "
                "--overwrite, or another folder with --out"
            )
        return True

    def _compress(self, recipe: Recipe) -> CompressedDecoder:
        compression = recipe.compression
        assert compression is not None
        if compression.method == "trained":
            assert self.checkpoint is not None
            found = load_checkpoint(self.checkpoint, self.weights, compression)
        else:
            found = compress(
                self.weights, recipe, self.calibration, store=self.store, log=self.log
            ).compressed
        return replace(found, notes={**found.notes, **self._source(recipe)})

    def _source(self, recipe: Recipe) -> dict[str, object]:
        """Notes that say what a recipe is found from; empty where nothing is looked at."""
        compression = recipe.compression
        if compression is None:
            return {}
        if compression.method == "trained" and self.checkpoint is not None:
            return {"checkpoint": file_sha256(self.checkpoint)}
        if compression.needs_calibration and self.calibration is not None:
            source = {"name": self.calibration.name, "digest": self.calibration.digest}
            return {"calibration": source}
        return {}


def calibration_for(
    recipes: Iterable[Recipe],
    source: str,
    weights: Weights,
    encoder: Weights | None,
    log: Callable[[str], None],
) -> Calibration | None:
    """``source``'s latents if one of ``recipes`` needs some. Raises as ``load_calibration``."""
    if not any(r.compression is not None and r.compression.needs_calibration for r in recipes):
        return None
    seen = load_calibration(
        source,
        weights.variant,
        encoder,
        contract=weights.contract,
        kind=weights.kind,
        part=weights.part,
    )
    for note in seen.notes:
        log(f"note: {note}")
    return seen


def label_of(recipe: Recipe) -> str:
    """``float16``, or the compression's label."""
    return recipe.compression.label() if recipe.compression else PLAIN


def weight_bytes(path: Path) -> int:
    """Bytes of an artifact's weight files, with their headers and padding; of the whole file for an
    ``.mlmodel``."""
    if path.is_file():
        return path.stat().st_size
    return sum(f.stat().st_size for f in path.rglob("weights/*") if f.is_file())
