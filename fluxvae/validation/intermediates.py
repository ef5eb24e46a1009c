"""Where an artifact starts to depart from float32: every operation against a float32 twin.

The twin is the same recipe at float32 and without compression, converted afresh from the same
weights. Both programs advance operation by operation, so that only two live sets of values exist at
a time. What only a compressed program has (operations that expand weights, and the rounding of
convolutions' inputs) is passed over: its effect shows in the convolution after it.
"""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
from torch import Tensor

from fluxvae.artifact.record import Record
from fluxvae.convert.fp16_safety import as_recorded
from fluxvae.convert.program import write_model
from fluxvae.data.latents import to_model
from fluxvae.errors import ArtifactError
from fluxvae.files import scratch
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Op
from fluxvae.networks.build import build_decoder
from fluxvae.networks.source import Weights
from fluxvae.recipes import Recipe, Size

# An operation departs when its signal-to-noise ratio falls below this, in dB. Measured on photo
# latents (chelsea, coffee, 256 px): fp16 rounding alone leaves 42.2 dB or more at every operation
# of TAEF1 (a late ReLU) and 46.7 of TAEF2. A sound float32 artifact is its twin's equal, bit for
# bit, so its bound only has to be far above any damage.
DEPARTS_BELOW = {"float16": 40.0, "float32": 100.0}
# Of a compressed artifact: an error a third of the signal. Compression is meant to cost, so this
# tells a broken weight from a rounded one, where there are bits enough (4 or more).
COMPRESSED_DEPARTS_BELOW = 10.0


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
    path: Path, record: Record, weights: Weights, latent: np.ndarray, size: Size
) -> Intermediates:
    """Run the artifact and its float32 twin on one latent (1, C, h, w).

    Raises ArtifactError when the two programs are not made of the same operations, or scale their
    channels differently.
    """
    recipe = record.recipe
    require_comparable(path, recipe)
    several = recipe.shapes == "multifunction"
    session = Session(read_package(path), size.function if several else None)
    twin_recipe = replace(
        recipe,
        precision="float32",
        io_precision="auto",
        sizes=(size,),
        shapes="fixed",
        compression=None,
        fp16_safety="report",  # for float32 takes no other; rescaled weights come with the decoder
    )
    with scratch(Path(tempfile.gettempdir())) as folder:
        twin_path = folder / f"twin{twin_recipe.suffix}"
        decoder = as_recorded(build_decoder(weights), record.safety)
        write_model(decoder, twin_recipe, weights.contract.channels, twin_path)
        twin = Session(read_package(twin_path))
        array = to_model(latent, recipe.layout, tokens=record.contract.tokens)
        rows = tuple(_rows(_compute(session, array), _compute(twin, array)))
    compressed = recipe.compression is not None
    bound = COMPRESSED_DEPARTS_BELOW if compressed else DEPARTS_BELOW[recipe.precision]
    first = next((r for r in rows if not r.snr_db >= bound), None)  # NaN departs too
    return Intermediates(rows, first, bound)


# Casts exist in one program only; shape arithmetic only in flexible ones, rounding of inputs only
# in quantized ones.
_SKIPPED = (
    *("cast", "shape", "slice_by_size", "slice_by_index", "concat", "gather"),
    *("quantize", "dequantize"),
)


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
