"""Making the artifacts of a comparison, each with a note of what it was found from."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from fluxvae import __version__
from fluxvae.artifact.save import Record, save_artifact
from fluxvae.compress import compress
from fluxvae.compress.checkpoint import load_checkpoint
from fluxvae.compress.forms import CompressedDecoder
from fluxvae.compress.store import Store
from fluxvae.data.calibration import Calibration
from fluxvae.files import file_sha256
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe


@dataclass(frozen=True)
class Maker:
    """Compresses, converts and saves one recipe after the other.

    ``checkpoint`` serves the recipes whose method is ``trained``, ``calibration`` those that look
    at latents. ``check`` runs before an artifact gets its name, ``log`` hears of progress. What was
    compressed once is kept in ``solved``, for other recipes with the same weights inside, and in
    ``store``.
    """

    weights: Weights
    calibration: Calibration | None
    checkpoint: Path | None
    overwrite: bool
    verbose: bool
    check: Callable[[], None]
    log: Callable[[str], None]
    store: Store | None = None
    solved: dict[tuple[object, ...], CompressedDecoder] = field(default_factory=dict)

    def save(self, recipe: Recipe, path: Path) -> Path:
        """The artifact of ``recipe`` at ``path``. Raises as compression and saving do."""
        compressed = None if recipe.compression is None else self._compress(recipe)
        return save_artifact(
            self.weights,
            recipe,
            path,
            compressed=compressed,
            overwrite=self.overwrite,
            check=lambda _: self.check(),
            verbose=self.verbose,
        )

    def made_alike(self, record: Record) -> bool:
        """Whether an artifact was made by this version, from the same latents or checkpoint."""
        wanted = self._source(record.recipe)
        found = {key: record.compression.get(key) for key in wanted}
        return record.versions.get("fluxvae") == __version__ and found == wanted

    def solution_of(self, recipe: Recipe) -> tuple[object, ...]:
        """Equal for recipes whose compressed weights are the same."""
        return (recipe.compression, recipe.granularity, recipe.precision)

    def _compress(self, recipe: Recipe) -> CompressedDecoder:
        compression = recipe.compression
        assert compression is not None
        key = self.solution_of(recipe)
        if key not in self.solved:
            if compression.method == "trained":
                assert self.checkpoint is not None
                found = load_checkpoint(self.checkpoint, self.weights, compression)
            else:
                seen = self.calibration if compression.needs_calibration else None
                found = compress(
                    self.weights, recipe, seen, store=self.store, log=self.log
                ).compressed
            self.solved[key] = replace(found, notes={**found.notes, **self._source(recipe)})
        return self.solved[key]

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
