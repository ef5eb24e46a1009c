"""An artifact against the float32 torch decoder: cases, metrics, a verdict.

Real photo latents come first, seeded noise second, extreme ones third: noise flatters fp16 by up
to 10 dB. The reference is always the plain torch decoder with the artifact's own weights
(checked by digest), never another artifact.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fluxvae.artifact.backends import choose_backend
from fluxvae.artifact.open import open_artifact
from fluxvae.artifact.record import Record
from fluxvae.data.latents import Latent, float16_note
from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.data.spaces import Passage, passage
from fluxvae.errors import LatentError, WeightsError
from fluxvae.mil.program import Op
from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.source import Weights
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Size
from fluxvae.recipes.axes import latent_input
from fluxvae.validation.limits import compressed_floor
from fluxvae.validation.metrics import Metrics, compare

STRIDED_DB = 38.0  # what tiles with strided statistics promise; see fluxvae.validation.tile_costs
SATURATED = 8.0  # far beyond the decoder's own soft clamp at 3


@dataclass(frozen=True)
class Limit:
    """One bound on one metric: ``at_most`` for max_abs, ``at_least`` for psnr_db."""

    metric: str
    bound: float

    def holds(self, metrics: Metrics) -> bool:
        """False for NaN, so that a non-finite output never passes."""
        value = getattr(metrics, self.metric)
        if math.isnan(value):
            return False
        return bool(value >= self.bound if self.metric == "psnr_db" else value <= self.bound)

    def __str__(self) -> str:
        if self.metric == "psnr_db":
            return f">= {self.bound:g} dB"
        return f"max <= {self.bound:g}"


@dataclass(frozen=True)
class Case:
    """One input: its name, its kind (photo, normal, nasty or user), latent (1, C, h, w)."""

    name: str
    kind: str
    latent: np.ndarray


@dataclass(frozen=True)
class NonFinite:
    """Operations that gave NaN or infinity on one case: how many, and the first.

    A GroupNorm that overflows gives a finite, wrong picture: so the image alone tells nothing.
    """

    operations: int
    first: str
    kind: str


class Watch:
    """Sees every operation's outputs and keeps those that are not finite."""

    def __init__(self) -> None:
        self.found: list[Op] = []

    def __call__(self, op: Op, outputs: Mapping[str, Tensor]) -> None:
        for value in outputs.values():
            # A sum needs no second array; float32 holds that of any sound float16 map.
            if (
                value.is_floating_point()
                and not math.isfinite(float(value.sum()))
                and not bool(value.isfinite().all())
            ):
                self.found.append(op)
                return

    def take(self) -> NonFinite | None:
        """What was found since the last time."""
        found, self.found = self.found, []
        return NonFinite(len(found), found[0].name, found[0].kind) if found else None


@dataclass(frozen=True)
class CaseResult:
    """One case on one function at one size."""

    case: str
    kind: str
    function: str
    size: Size
    metrics: Metrics
    limit: Limit
    nonfinite: NonFinite | None = None

    @property
    def passed(self) -> bool:
        return self.limit.holds(self.metrics) and self.nonfinite is None


@dataclass(frozen=True)
class Report:
    """All cases of one artifact. ``backend`` is ``reference`` or ``coreml``."""

    path: Path
    record: Record
    backend: str
    compute_units: str | None
    cases: tuple[CaseResult, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return bool(self.cases) and all(c.passed for c in self.cases)


def limit_for(record: Record, kind: str) -> Limit:
    """The bound for one kind of case: see docs/validation.md for the measurements behind it."""
    plain = _limit_without_compression(record, kind)
    if record.recipe.compression is None:
        return plain
    floor = compressed_floor(record.recipe.compression, kind)
    return Limit("psnr_db", min(floor, plain.bound) if plain.metric == "psnr_db" else floor)


def _limit_without_compression(record: Record, kind: str) -> Limit:
    if record.recipe.decoder != "tiny":
        return _kl_limit(record, kind)
    if record.recipe.output == "image":
        # A flat image may lie half a level off everywhere: rounding is not averaged out there.
        return Limit("psnr_db", 48.0 if kind == "nasty" else 57.0)
    if record.recipe.precision == "float32":
        return Limit("max_abs", 5e-5 if kind == "nasty" else 2e-5)
    return Limit("psnr_db", {"photo": 60.0, "user": 60.0, "normal": 68.0}.get(kind, 50.0))


def _kl_limit(record: Record, kind: str) -> Limit:
    """The same for the KL decoders: three times as many operations, and an image of -1..1."""
    if record.tiles is not None and (record.tiles.stride or 1) > 1:
        # Strided statistics: 41 dB and more on photos and noise, 31 on flat latents, whose borders
        # are all there is to measure (random KL weights, 192 x 224 px).
        return Limit("psnr_db", 26.0 if kind == "nasty" else STRIDED_DB)
    nasty = kind == "nasty"
    if record.recipe.output == "image":
        return Limit("psnr_db", 48.0 if nasty else 55.0)
    if record.recipe.precision == "float32":
        return Limit("max_abs", 5e-5 if nasty else 2e-5)
    return Limit("psnr_db", 58.0 if nasty else 60.0)


def resolve_weights(
    record: Record, spec: str | None, *, offline: bool = False
) -> tuple[Weights, str | None]:
    """The artifact's own weights and the ``--weights`` value that gives them, checked by digest.

    Demo, random and Hub weights are found from the record; a file has to be named again. Raises
    WeightsError when other weights are given, or when a file has to be named.
    """
    source = record.source
    if spec is None and source.kind == "file":
        raise WeightsError(
            f"this artifact was converted from the file {source.name!r} "
            f"(sha256 {(source.file_sha256 or 'unknown')[:12]}…): pass it again with --weights PATH"
        )
    chosen = spec if spec is not None else {"hub": None}.get(source.kind, source.name)
    kind = record.recipe.decoder
    weights = load_weights(record.recipe.variant, chosen, kind=kind, offline=offline)
    if weights.digest != record.weights_digest:
        raise WeightsError(
            f"these weights ({weights.source.name}, digest {weights.digest[:12]}) are not the "
            f"artifact's own ({source.name}, digest {record.weights_digest[:12]}): "
            "pass the file it was converted from with --weights PATH"
        )
    return weights, chosen


def validate(
    path: Path,
    weights: Weights,
    *,
    encoder: Weights | None,
    latents: tuple[Latent, ...] = (),
    backend: str = "auto",
    compute_units: str = "all",
    on_case: Callable[[CaseResult], None] = lambda _: None,
) -> Report:
    """Run every case through every function and size of the artifact at ``path``.

    Photo latents are made with ``encoder``, or are ``latents`` when given. Raises ArtifactError,
    LatentError or ToolError when the artifact cannot be run at all; bad numbers are in the report.
    """
    artifact = open_artifact(path)
    record = artifact.record
    chosen = choose_backend(backend)
    decoder = build_decoder(weights)
    network = None if encoder is None or latents else build_encoder(encoder)
    way, watch = passage(record.recipe, weights), Watch()
    results: list[CaseResult] = []
    for function, size in artifact.functions_and_sizes():
        if not results or results[-1].function != function:  # one runner for all its sizes
            runner = artifact.runner(function, chosen, compute_units, on_op=watch)
        for case in build_cases(record, size, network, latents, way):
            with torch.no_grad():
                reference = decoder(torch.from_numpy(way.inwards(case.latent))).numpy()
            if record.recipe.output == "image":
                reference = reference.clip(*record.contract.span)
            metrics = compare(runner(case.latent), reference, peak=record.contract.peak)
            limit = limit_for(record, case.kind)
            results.append(
                CaseResult(case.name, case.kind, function, size, metrics, limit, watch.take())
            )
            on_case(results[-1])
    if not results:
        raise LatentError("no latents of a size this artifact takes; nothing was validated")
    units = compute_units if chosen == "coreml" else None
    notes = _notes(record, chosen, encoder, latents)
    return Report(path, record, chosen, units, tuple(results), notes)


def _notes(
    record: Record, backend: str, encoder: Weights | None, latents: tuple[Latent, ...]
) -> tuple[str, ...]:
    notes = []
    if backend == "reference":
        notes.append(
            "Judged by fluxvae's reference executor: it proves the saved program (graph, weights, "
            "dtypes), not Apple's kernels. Devices were reported at 1.5 to 2 times its fp16 rmse."
        )
    else:
        notes.append(
            "Core ML shows no values inside: whether all of them are finite is for --backend "
            "reference to say."
        )
    if encoder is None and not latents:
        notes.append(
            "Photo latents were NOT tested: no encoder belongs to these weights. "
            "Pass --encoder PATH or --latents FILE; noise flatters fp16 by up to 10 dB."
        )
    sizes, unused = latent_input(record.recipe, record.contract, record.recipe.sizes).sides, []
    for latent in latents:
        if latent.values.shape[2:] not in sizes:
            unused.append(latent.name)
        elif beyond := float16_note(latent, record.recipe):
            notes.append(beyond)
    if unused:
        notes.append(f"These latents fit no size of the artifact: {', '.join(unused)}.")
    return tuple(notes)


def build_cases(
    record: Record,
    size: Size,
    encoder: Weights | nn.Module | None,
    latents: tuple[Latent, ...],
    way: Passage,
) -> Iterator[Case]:
    """The inputs for one size: photos (or the user's latents), noise, then extreme ones.

    ``encoder`` as weights is built here; who asks for several sizes builds it once. ``way`` leads
    from its latents to the artifact's.
    """
    contract = record.contract
    sides = (size.height // contract.scale, size.width // contract.scale)
    shape = (1, contract.channels, *sides)
    if latents:
        for latent in latents:
            if latent.values.shape == shape:
                yield Case(latent.name, "user", latent.values)
    elif encoder is not None:
        network = build_encoder(encoder) if isinstance(encoder, Weights) else encoder
        for photo in EVALUATION_PHOTOS:
            image = torch.from_numpy(photo_image(photo, size.height, size.width))
            with torch.no_grad():
                latent = network(image).numpy()
            yield Case(photo.name, "photo", way.outwards(latent))
    noise = np.random.Generator(np.random.PCG64(0)).standard_normal(shape, np.float32)
    yield Case("normal", "normal", noise)
    yield Case("saturated", "nasty", np.copysign(np.float32(SATURATED), noise))
    yield Case("constant", "nasty", np.ones(shape, np.float32))
    yield Case("zero", "nasty", np.zeros(shape, np.float32))
