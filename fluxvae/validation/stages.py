"""Where an artifact's error comes from: stage by stage, and operation by operation.

A budget has the stages conversion, then precision, then compression. Each is a program of its own,
compared with the float32 torch decoder on the same cases: the float32 program without compression,
the same at the artifact's precision, the artifact itself. So each figure includes the stages before
it, and none compares a compressed model with itself.

Intermediates compare every operation with that of a float32 twin: the same recipe at float32 and
without compression, converted afresh from the same weights. Both programs advance operation by
operation, so that only two live sets of values exist at a time. What only a compressed program has
(operations that expand weights, and the rounding of convolutions' inputs) is passed over: its
effect shows in the convolution after it.
"""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from torch import Tensor

from fluxvae.artifact.backends import choose_backend, on_network, raw_runner
from fluxvae.artifact.open import open_artifact
from fluxvae.artifact.record import Record
from fluxvae.convert.fp16_safety import as_recorded, kept
from fluxvae.convert.program import write_model
from fluxvae.data.arrays import taken_by
from fluxvae.data.latents import Latent
from fluxvae.data.spaces import latent_transform
from fluxvae.errors import ArtifactError
from fluxvae.files import scratch
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Op
from fluxvae.networks.build import build_network
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe, Size
from fluxvae.validation.metrics import Metrics
from fluxvae.validation.validate import build_cases, measure, peak_of, torch_reference

# An operation departs when its signal-to-noise ratio falls below this, in dB. Measured on photo
# latents (chelsea, coffee, 256 px): fp16 rounding alone leaves 42.2 dB or more at every operation
# of TAEF1 (a late ReLU) and 46.7 of TAEF2. A sound float32 artifact is its twin's equal, bit for
# bit, so its bound only has to be far above any damage.
DEPARTS_BELOW = {"float16": 40.0, "float32": 100.0}
# Of a compressed artifact: an error a third of the signal. Compression is meant to cost, so this
# tells a broken weight from a rounded one, where there are bits enough (4 or more).
COMPRESSED_DEPARTS_BELOW = 10.0
# Casts exist in one program only; shape arithmetic only in flexible ones, rounding of inputs only
# in quantized ones.
_SKIPPED = (
    *("cast", "shape", "slice_by_size", "slice_by_index", "concat", "gather"),
    *("quantize", "dequantize"),
)


@dataclass(frozen=True)
class BudgetCase:
    """One case: distance from the torch decoder after each stage of ``Budget.stages``."""

    case: str
    kind: str
    metrics: tuple[Metrics, ...]


@dataclass(frozen=True)
class Budget:
    """All cases at one size. ``stages`` name what each program adds to the one before it."""

    size: Size
    stages: tuple[str, ...]
    cases: tuple[BudgetCase, ...]


def error_budget(
    path: Path,
    record: Record,
    weights: Weights,
    *,
    encoder: Weights | None,
    latents: tuple[Latent, ...] = (),
    backend: str = "auto",
    compute_units: str = "all",
) -> Budget:
    """Distance of every stage of the artifact at ``path``, at its smallest size.

    The cases are those of ``validate``. The programs before the artifact are converted afresh
    from ``weights`` into a temporary folder. Raises as ``validate`` and ``write_model`` do.
    """
    size, contract = min(record.recipe.sizes), record.contract
    transform = latent_transform(record.recipe, weights)
    cases = tuple(build_cases(record, size, encoder, latents, transform))
    decode = torch_reference(record.recipe, weights)
    images = {id(case): decode(case) for case in cases}
    chosen, columns = choose_backend(backend), []
    stages = record.recipe.stages()
    for recipe in stages.values():
        as_image = recipe is None and record.recipe.output == "image"
        span = contract.span if as_image else (-math.inf, math.inf)
        with scratch(Path(tempfile.gettempdir())) as folder:
            if recipe is None:
                artifact = open_artifact(path)
                function = next(f for f, s in artifact.functions_and_sizes() if s == size)
                run = artifact.runner(function, chosen, compute_units)
            else:
                twin = read_package(_convert(record, recipe, weights, folder))
                run = on_network(raw_runner(twin, None, chosen, compute_units), recipe, contract)
            clipped = {key: image.clip(*span) for key, image in images.items()}
            found = measure(run, cases, lambda c: clipped[id(c)], peak=peak_of(record))  # noqa: B023
            columns.append([one.metrics for one in found])
    rows = zip(cases, zip(*columns, strict=True), strict=True)
    return Budget(
        size,
        tuple(stages),
        tuple(BudgetCase(case.name, case.kind, metrics) for case, metrics in rows),
    )


def _convert(record: Record, recipe: Recipe, weights: Weights, folder: Path) -> Path:
    """A program of the artifact's own decoder by another recipe of one size, into ``folder``."""
    path = folder / f"twin{recipe.suffix}"
    network = as_recorded(build_network(weights), record.safety)
    keep = kept(record.safety) if recipe.precision == "float16" else {}
    write_model(network, recipe, weights.contract.channels, path, keep=keep)
    return path


@dataclass(frozen=True)
class Departure:
    """One operation of the artifact against the twin's. ``snr_db`` is infinite when equal."""

    index: int
    kind: str
    name: str
    shape: tuple[int, ...]
    max_abs: float
    snr_db: float
    largest: float  # largest finite magnitude of the artifact's values; fp16 ends at 65504
    nonfinite: int = 0  # values of the artifact that are NaN or infinite


@dataclass(frozen=True)
class Intermediates:
    """Every operation in program order; ``first`` is the first that departs, if any."""

    rows: tuple[Departure, ...]
    first: Departure | None
    bound_db: float

    @property
    def nonfinite(self) -> tuple[Departure, ...]:
        """The operations that give NaN or infinity, whether or not the image shows it."""
        return tuple(row for row in self.rows if row.nonfinite)


def require_comparable(path: Path, recipe: Recipe) -> None:
    """Raise ArtifactError when the values inside cannot be those of a float32 program."""
    compression = recipe.compression
    if compression is None or compression.kind != "w8a8" or compression.method == "plain":
        return
    raise ArtifactError(
        f"the operations of {path.name} cannot be compared one by one: W8A8 rescales the channels "
        "between its convolutions (equalization), so that only the image is the same; "
        "use --budget, which compares images"
    )


def compare_intermediates(
    path: Path, record: Record, weights: Weights, values: np.ndarray, size: Size
) -> Intermediates:
    """Run the artifact and its float32 twin on one case's ``values`` (see ``Case``).

    Raises ArtifactError when the two programs are not made of the same operations, or scale their
    channels differently.
    """
    recipe = record.recipe
    require_comparable(path, recipe)
    several = recipe.shapes == "multifunction"
    session = Session(read_package(path), size.function if several else None)
    with scratch(Path(tempfile.gettempdir())) as folder:
        twin = Session(read_package(_convert(record, recipe.exact(size), weights, folder)))
        array = taken_by(recipe, record.contract, values)
        rows = tuple(_rows(_compute(session, array), _compute(twin, array)))
    compressed = recipe.compression is not None
    bound = COMPRESSED_DEPARTS_BELOW if compressed else DEPARTS_BELOW[recipe.precision]
    first = next((r for r in rows if not r.snr_db >= bound), None)  # NaN departs too
    return Intermediates(rows, first, bound)


def _compute(session: Session, array: np.ndarray) -> Iterator[tuple[Op, Tensor]]:
    (feature,) = session.signature.inputs
    for operation, outputs in session.iterate({feature.name: array}):
        if operation.kind not in _SKIPPED and not operation.kind.startswith("constexpr_"):
            yield operation, next(iter(outputs.values()))


def _rows(
    ours: Iterator[tuple[Op, Tensor]], theirs: Iterator[tuple[Op, Tensor]]
) -> Iterator[Departure]:
    for index, (mine, twin) in enumerate(zip_longest(ours, theirs), start=1):
        if mine is None or twin is None:
            longer = "artifact" if twin is None else "float32 twin"
            raise ArtifactError(
                f"the {longer} has more than {index - 1} operations, the other has not: "
                "they are not the same program"
            )
        (operation, value), (other, reference) = mine, twin
        if operation.kind != other.kind:
            raise ArtifactError(
                f"the artifact's operation {index} is {operation.kind!r} ({operation.name}), its "
                f"float32 twin's is {other.kind!r}: they are not the same program"
            )
        yield _departure(index, operation, value, reference)


def _departure(index: int, operation: Op, value: Tensor, reference: Tensor) -> Departure:
    error = (value - reference).double()
    noise = float(error.square().sum())
    signal = float(reference.double().square().sum())
    if math.isnan(noise) or math.isinf(noise):
        snr = math.nan
    elif noise == 0:
        snr = math.inf
    else:
        snr = 10 * math.log10(signal / noise) if signal else -math.inf
    finite = value[value.isfinite()]
    return Departure(
        index=index,
        kind=operation.kind,
        name=operation.name,
        shape=tuple(value.shape),
        max_abs=float(error.abs().max()),
        snr_db=snr,
        largest=float(finite.abs().max()) if finite.numel() else math.nan,
        nonfinite=value.numel() - finite.numel(),
    )
