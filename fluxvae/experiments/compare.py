"""Several recipes of one decoder in one table, on the same photos.

Every recipe is converted and saved; the saved package is run by the reference executor and compared
with the float32 torch decoder. Compression did not look at any of the photos.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from fluxvae import __version__
from fluxvae.artifact.backends import make_runner
from fluxvae.artifact.record import Record, read_record
from fluxvae.artifact.save import save_artifact
from fluxvae.compress import compress
from fluxvae.compress.checkpoint import load_checkpoint
from fluxvae.compress.forms import CompressedDecoder
from fluxvae.compress.store import Store
from fluxvae.data.calibration import Calibration, encode, load_calibration, read_folder
from fluxvae.data.photos import EVALUATION_PHOTOS, crop_image, photo_image
from fluxvae.errors import OutputError, UsageError
from fluxvae.files import file_sha256, size_of
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe, Size, artifact_name, parse_label
from fluxvae.validation.evidence import Evidence
from fluxvae.validation.inspect import quantization_evidence
from fluxvae.validation.validate import Case, measure

PLAIN = "float16"  # how a table names the recipe without compression
PLAIN_NAMES = ("fp16", PLAIN)


@dataclass(frozen=True, eq=False)  # arrays have no useful ==
class View(Case):
    """A held-out picture's latent, and the float32 torch image (1, 3, H, W) of it."""

    reference: np.ndarray


@dataclass(frozen=True)
class ViewResult:
    """One picture through one artifact. PSNR of the unclamped output; SSIM of it clamped."""

    name: str
    psnr_db: float
    max_abs: float
    ssim: float


@dataclass(frozen=True)
class Row:
    """One recipe. ``bytes`` of the weight file, ``fraction`` of float16's; figures are means."""

    label: str
    recipe: Recipe
    path: Path
    kept: bool  # made by an earlier run
    bytes: int
    package_bytes: int
    fraction: float
    psnr_db: float
    ssim: float
    evidence: Evidence
    views: tuple[ViewResult, ...]


@dataclass(frozen=True)
class Comparison:
    """All rows, the uncompressed one first."""

    weights: Weights
    size: Size
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Maker:
    """Compresses, converts and saves one recipe after the other.

    ``checkpoint`` serves the recipes whose method is ``trained``, ``calibration`` those that look
    at latents. ``check`` runs before an artifact gets its name, ``log`` is called with notes of
    progress. What was compressed once is kept in ``solved``, for other recipes with the same
    weights inside, and in ``store`` for other runs.
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

    @classmethod
    def load(
        cls,
        recipes: Iterable[Recipe],
        calibration: str,
        weights: Weights,
        encoder: Weights,
        checkpoint: Path | None = None,
        *,
        overwrite: bool,
        verbose: bool,
        check: Callable[[], None],
        log: Callable[[str], None],
        store: Store,
    ) -> "Maker":
        """With the latents of ``calibration`` if one of ``recipes`` needs some. Raises as
        ``load_calibration``."""
        seen = None
        if any(r.compression is not None and r.compression.needs_calibration for r in recipes):
            seen = load_calibration(
                calibration, weights.variant, encoder, contract=weights.contract
            )
            for note in seen.notes:
                log(f"note: {note}")
        return cls(weights, seen, checkpoint, overwrite, verbose, check, log, store)

    def save(self, recipe: Recipe, path: Path) -> Path:
        """The artifact of ``recipe`` at ``path``. Raises as compression and saving do."""
        compressed = None if recipe.compression is None else self._compress(recipe)
        (saved,) = save_artifact(
            self.weights,
            recipe,
            path,
            compressed=compressed,
            overwrite=self.overwrite,
            check=lambda _: self.check(),
            verbose=self.verbose,
        )
        return saved

    def is_reusable(self, record: Record) -> bool:
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
                found = compress(
                    self.weights, recipe, self.calibration, store=self.store, log=self.log
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


def parse_recipes(text: str, base: Recipe) -> tuple[Recipe, ...]:
    """``fp16,int8,pal4-plain`` to recipes like ``base``; ``fp16`` comes first, asked for or not.

    Raises UsageError for unknown names, names that come twice, or that ``base``'s target is too
    old for.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    compressions = [parse_label(name) for name in names if name not in PLAIN_NAMES]
    for compression in compressions:
        if compressions.count(compression) > 1:
            raise UsageError(f"recipe {compression.label()!r} is given twice in {text!r}")
    return (base, *(replace(base, compression=c) for c in compressions))


def load_views(
    images: str,
    weights: Weights,
    encoder: Weights,
    size: Size,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[View, ...]:
    """The pictures to measure on. ``photos``: those for evaluation, which nothing is trained on or
    calibrated with; else a folder, of whose images it is the middle, in the order of names.

    ``say`` is called with notes. Raises CompressionError.
    """
    if images == "photos":
        found = [(p.name, photo_image(p, size.height, size.width)) for p in EVALUATION_PHOTOS]
    else:
        read = read_folder(Path(images), "use --images photos", say)
        found = [(name, _middle(pixels, size)) for name, pixels in read]
    decoder, views = build_decoder(weights), []
    latents = encode(encoder, [image for _, image in found])
    for (name, _), latent in zip(found, latents, strict=True):
        with torch.no_grad():
            views.append(View(name, "photo", latent, decoder(torch.from_numpy(latent)).numpy()))
    return tuple(views)


def compare_variants(
    weights: Weights,
    recipes: Sequence[Recipe],
    views: Sequence[View],
    folder: Path,
    *,
    save: Callable[[Recipe, Path], object],
    reusable: Callable[[Record], bool] = lambda _: True,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Make (or find) each recipe's artifact in ``folder``, run it on ``views``, and tabulate.

    ``recipes`` start with the uncompressed one and have one size. ``save`` makes an artifact at a
    path; an artifact that is there already, of the same recipe and weights and ``reusable``, is
    measured again and not made again, unless ``overwrite``.
    Raises OutputError when another artifact has the path, and what ``save`` raises.
    """
    paths = [folder / artifact_name(recipe, weights.source.kind) for recipe in recipes]
    kept = [not overwrite and is_up_to_date(p, r, weights, reusable)
            for p, r in zip(paths, recipes, strict=True)]  # fmt: skip
    rows: list[Row] = []
    for recipe, path, there in zip(recipes, paths, kept, strict=True):
        label = label_of(recipe)
        say(f"{label}: {'already there' if there else 'converting'}")
        if not there:
            save(recipe, path)
        rows.append(_row(label, recipe, path, there, weights, views, rows[0] if rows else None))
        say(f"{label}: {rows[-1].psnr_db:.2f} dB, {rows[-1].bytes} bytes")
    return Comparison(weights, recipes[0].sizes[0], tuple(rows))


def label_of(recipe: Recipe) -> str:
    """``float16``, or the compression's label."""
    return recipe.compression.label() if recipe.compression else PLAIN


def weight_bytes(path: Path) -> int:
    """Bytes of an artifact's weight files, with their headers and padding; of the whole file for an
    ``.mlmodel``."""
    if path.is_file():
        return path.stat().st_size
    return sum(f.stat().st_size for f in path.rglob("weights/*") if f.is_file())


def _row(
    label: str,
    recipe: Recipe,
    path: Path,
    kept: bool,
    weights: Weights,
    views: Sequence[View],
    plain: Row | None,
) -> Row:
    program, contract = read_package(path), weights.contract
    run = make_runner(program, None, recipe.layout, "reference")
    measured = measure(run, views, lambda view: view.reference, peak=contract.peak)
    results = tuple(
        ViewResult(one.case.name, one.metrics.psnr_db, one.metrics.max_abs, one.ssim(contract))
        for one in measured
    )
    size = weight_bytes(path)
    return Row(
        label=label,
        recipe=recipe,
        path=path,
        kept=kept,
        bytes=size,
        package_bytes=size_of(path),
        fraction=size / plain.bytes if plain else 1.0,
        psnr_db=math.fsum(r.psnr_db for r in results) / len(results),
        ssim=math.fsum(r.ssim for r in results) / len(results),
        evidence=quantization_evidence(program),
        views=results,
    )


def is_up_to_date(
    path: Path, recipe: Recipe, weights: Weights, reusable: Callable[[Record], bool]
) -> bool:
    """Whether ``path`` holds what would be made there. Raises OutputError for anything else."""
    if not path.exists():
        return False
    record = read_record(read_package(path))
    same = record is not None and (record.recipe, record.weights_digest) == (recipe, weights.digest)
    if not same or record is None or not reusable(record):
        raise OutputError(
            f"{path} was made otherwise (other weights, calibration or version): pass "
            "--overwrite, or another folder with --out"
        )
    return True


def _middle(pixels: np.ndarray, size: Size) -> np.ndarray:
    wanted = (size.height, size.width)
    room = (max(0, have - want) // 2 for have, want in zip(pixels.shape, wanted, strict=False))
    top, left = room
    return crop_image(pixels, top, left, *wanted)
