"""From a cell to what is done for it: its recipe, why it cannot be done, its key.

A key is a sha256 over all that decides a cell's figures, so that a finished cell is known again.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from platform import python_version
from statistics import fmean
from typing import Any

from fluxvae import __version__
from fluxvae.errors import UsageError
from fluxvae.experiments.file import Settings
from fluxvae.files import data_sha256
from fluxvae.recipes import Recipe, parse_label, parse_sizes
from fluxvae.records.experiment import NONE, Cell

MAC_UNITS = ("cpuAndGPU", "cpuAndNeuralEngine")


@dataclass(frozen=True)
class Abilities:
    """What the machines at hand have: Core ML; Swift's harness."""

    mac: bool
    harness: bool


def decoder_name(cell: Cell) -> str:
    """``flux2``, ``flux2-full``: what weights and inputs are listed under."""
    return cell.variant if cell.decoder == "tiny" else f"{cell.variant}-{cell.decoder}"


def recipe_of(cell: Cell) -> Recipe:
    """The cell's artifact. Raises UsageError, with what the recipe says, where it cannot be."""
    return Recipe(
        variant=cell.variant,
        precision=cell.precision,
        io_precision=cell.io_precision,
        layout=cell.layout,
        sizes=parse_sizes(cell.sizes),
        shapes=cell.shapes,
        compression=None if cell.compression == NONE else parse_label(cell.compression),
        decoder=cell.decoder,
        attention=cell.attention,
    )


def reason_not(cell: Cell, abilities: Abilities, *, calibrated: bool) -> str | None:
    """Why a cell is n/a here, None for one that can be done. ``calibrated``: whether there are
    latents to compress with."""
    try:
        recipe = recipe_of(cell)
    except UsageError as error:
        return str(error)
    compression = recipe.compression
    if compression is not None and compression.method == "trained":
        return "trained compressions need a checkpoint of `fluxvae qat`: convert them with --qat"
    if compression is not None and compression.needs_calibration and not calibrated:
        return (
            f"{compression.label()} looks at latents of photos, and no encoder belongs to these "
            "weights: name one in [matrix.encoders], or use the plain method"
        )
    if cell.compute_unit in MAC_UNITS and not abilities.mac:
        return f"compute unit {cell.compute_unit} needs a Mac"
    if cell.driver == "swift" and not abilities.harness:
        return "driver swift needs a built fluxvae-harness: pass --harness PATH"
    return None


def tool_versions() -> dict[str, str]:
    """What an artifact and its figures depend on, of this installation."""
    return {
        "fluxvae": __version__,
        "coremltools": version("coremltools"),
        "torch": version("torch"),
        "python": python_version(),
    }


def cell_key(
    cell: Cell,
    weights_digest: str,
    inputs_digest: str,
    calibration_digest: str | None,
    versions: dict[str, str],
    settings: Settings,
) -> str:
    """sha256 over recipe (or, where there is none, the cell), driver, digests, tools, measuring."""
    try:
        made: dict[str, Any] = recipe_of(cell).to_dict()
    except UsageError:
        made = asdict(cell)
    return data_sha256(
        {
            "recipe": made,
            "compute_unit": cell.compute_unit,
            "driver": cell.driver,
            "weights": weights_digest,
            "inputs": inputs_digest,
            "calibration": calibration_digest if needs_calibration(cell) else None,
            "versions": versions,
            "measuring": [
                *(settings.iterations, settings.warmup, settings.runs),
                *(settings.cooldown_s, settings.threads),
            ],
        }
    )


def needs_calibration(cell: Cell) -> bool:
    """Whether the cell's compression is found by looking at latents."""
    if cell.compression == NONE:
        return False
    return parse_label(cell.compression).needs_calibration


def solve_key(
    cell: Cell, weights_digest: str, calibration_digest: str | None, versions: dict[str, str]
) -> str | None:
    """What cells with the same compressed weights have in common; None without compression."""
    recipe = recipe_of(cell)
    if recipe.compression is None:
        return None
    return data_sha256(
        {
            "compression": asdict(recipe.compression),
            "granularity": recipe.granularity,
            "precision": recipe.precision,
            "weights": weights_digest,
            "calibration": calibration_digest if recipe.compression.needs_calibration else None,
            "versions": versions,
        }
    )


def stage_key(
    recipe: Recipe, weights_digest: str, inputs_digest: str, versions: dict[str, str]
) -> str:
    """What cells with this program in their error budget have in common."""
    return data_sha256(
        {
            "stage": recipe.to_dict(),
            "weights": weights_digest,
            "inputs": inputs_digest,
            "versions": versions,
        }
    )


def folder_name(key: str, cell: Cell) -> str:
    """A cell's folder below ``cells``."""
    return f"{key[:16]}-{cell.label()}"


def estimate(cells: Sequence[Cell], settings: Settings) -> tuple[float, float]:
    """Seconds on one core and bytes on the disk that ``cells`` may take: a rough guess.

    From TAEF2 at 256 pixels on a slow core: 40 s of imports and conversion, 20 s of judging and
    0.7 s a prediction, which grow with the pixels; 100 s a compression, shared by layouts. KL
    decoders: 30 times the arithmetic and 50 times the bytes.
    """
    seconds = size = 0.0
    solved = set()
    for cell in cells:
        sizes = parse_sizes(cell.sizes)
        heavy = 1.0 if cell.decoder == "tiny" else 30.0
        pixels = heavy * sum(s.height * s.width for s in sizes) / 256**2
        predictions = settings.runs * (settings.iterations + settings.warmup)
        seconds += 40 + 20 * pixels + 0.7 * pixels * predictions
        seconds += settings.runs * (8 + settings.cooldown_s)
        solved.add((cell.variant, cell.precision, cell.compression))
        width = 2.8e6 if cell.precision == "float16" else 5.6e6
        size += (width if cell.compression == NONE else 1.2e6) * (1.0 if heavy == 1.0 else 50.0)
    seconds += 100 * sum(compression != NONE for _, _, compression in solved)
    return seconds, size


@dataclass
class Pace:
    """Seconds that ended work took, by its kind, for an estimate of the rest."""

    spent: dict[str, list[float]] = field(default_factory=dict)

    def add(self, seconds: float, kind: str = "") -> None:
        """Some work has ended."""
        self.spent.setdefault(kind, []).append(seconds)

    def left(self, kinds: Iterable[str]) -> str:
        """In words how long work of ``kinds`` will take: as long as their kinds did so far."""
        todo = Counter(kinds)
        if not self.spent or not self.spent.keys() >= todo.keys():
            return "time left not known yet"
        seconds = sum(count * fmean(self.spent[kind]) for kind, count in todo.items())
        if seconds > 90:
            return f"about {seconds / 60:.0f} min left"
        return f"about {seconds:.0f} s left"
