"""An artifact against the float32 torch network: cases, metrics, a verdict.

Real photo latents come first, seeded noise second, extreme ones third: noise flatters fp16 by up
to 10 dB. The reference is always the plain torch network with the artifact's own weights
(checked by digest), never another artifact.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fluxvae.artifact.backends import Runner, choose_backend
from fluxvae.artifact.open import Artifact, open_artifact, require_command
from fluxvae.artifact.record import Record
from fluxvae.data.latents import Latent, float16_note
from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.data.spaces import LatentTransform, latent_transform
from fluxvae.errors import LatentError, WeightsError
from fluxvae.mil.program import Op
from fluxvae.networks.build import build_encoder, build_network
from fluxvae.networks.catalog import LatentContract
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Recipe, Size
from fluxvae.recipes.axes import latent_input
from fluxvae.validation.limits import Limit, limit_for
from fluxvae.validation.metrics import Metrics, compare, similarity

SATURATED = 8.0  # far beyond the decoder's own soft clamp at 3


@dataclass(frozen=True)
class Case:
    """One input: its name, its kind (photo, normal, extreme or user), and its values.

    ``values``: a latent (1, C, h, w) for a decoder, an image (1, 3, H, W) for an encoder.
    """

    name: str
    kind: str
    values: np.ndarray


AnyCase = TypeVar("AnyCase", bound=Case)


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
    variant, part = record.recipe.variant, record.recipe.part
    weights = load_weights(variant, chosen, kind=kind, part=part, offline=offline)
    if weights.digest != record.weights_digest:
        raise WeightsError(
            f"these weights ({weights.source.name}, digest {weights.digest[:12]}) are not the "
            f"artifact's own ({source.name}, digest {record.weights_digest[:12]}): "
            "pass the file it was converted from with --weights PATH"
        )
    return weights, chosen


@dataclass(frozen=True, eq=False)  # arrays have no useful ==
class Measured:
    """One case through an artifact: its output, torch's, and the distance.

    Both are images (1, 3, H, W), or latents (1, C, h, w) of an encoder.
    """

    case: Case
    image: np.ndarray
    reference: np.ndarray
    metrics: Metrics

    def ssim(self, contract: LatentContract) -> float:
        """Of both images clamped to the contract's range; NaN of one that is not finite."""
        if self.metrics.nan or self.metrics.inf:
            return math.nan
        images = (self.image, self.reference)
        return similarity(*((x - contract.low) / contract.peak for x in images))


def measure(
    run: Runner,
    cases: Iterable[AnyCase],
    reference: Callable[[AnyCase], np.ndarray],
    *,
    peak: float | None = 1.0,
) -> Iterator[Measured]:
    """Every case by ``run`` against its reference; one at a time.

    ``peak`` is the reference's range; None takes each one's own, as latents have no common one.
    """
    for case in cases:
        expected = reference(case)
        image = run(case.values)
        span = float(np.ptp(expected)) if peak is None else peak
        yield Measured(case, image, expected, compare(image, expected, peak=span))


def torch_reference(recipe: Recipe, weights: Weights) -> Callable[[Case], np.ndarray]:
    """What the float32 torch network makes of a case of an artifact of ``recipe``."""
    network, transform = build_network(weights), latent_transform(recipe, weights)

    def run(case: Case) -> np.ndarray:
        with torch.no_grad():
            output = network(torch.from_numpy(transform.into_network(case.values)))
        return transform.out_of_network(output.numpy())

    return run


def judge(
    artifact: Artifact,
    weights: Weights,
    cases: Callable[[Size], Iterable[Case]],
    *,
    backend: str,
    compute_units: str = "all",
) -> Iterator[tuple[CaseResult, Measured]]:
    """Every case of every function and size of an artifact against torch, with its limit.

    An 8-bit image is compared with torch's image clamped to its range.
    """
    record, watch = artifact.record, Watch()
    peak = peak_of(record)
    decode, function = torch_reference(record.recipe, weights), None
    span = record.contract.span if record.recipe.output == "image" else (-math.inf, math.inf)
    for name, size in artifact.functions_and_sizes():
        if function != name:  # one runner for all sizes of a function
            runner, function = artifact.runner(name, backend, compute_units, on_op=watch), name
        for found in measure(runner, cases(size), lambda case: decode(case).clip(*span), peak=peak):
            case, limit = found.case, limit_for(record, found.case.kind)
            yield (
                CaseResult(case.name, case.kind, name, size, found.metrics, limit, watch.take()),
                found,
            )


def peak_of(record: Record) -> float | None:
    """Range of an artifact's output, as ``measure`` takes it."""
    return None if record.recipe.encodes else record.contract.peak


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
    if latents:
        require_command(path.name, record, "--latents FILE")
    chosen = choose_backend(backend)
    network = None if encoder is None or latents else build_encoder(encoder)
    transform = latent_transform(record.recipe, weights)

    def cases(size: Size) -> Iterator[Case]:
        return build_cases(record, size, network, latents, transform)

    results: list[CaseResult] = []
    for result, _ in judge(artifact, weights, cases, backend=chosen, compute_units=compute_units):
        results.append(result)
        on_case(result)
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
    if encoder is None and not latents and not record.recipe.encodes:
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
    transform: LatentTransform,
) -> Iterator[Case]:
    """The inputs for one size: photos (or the user's latents), noise, then extreme ones.

    For an encoder they are images in [0, 1], of 256 levels where it takes those. ``encoder`` as
    weights is built here; pass a built module to reuse it over sizes. ``transform`` leads from its
    latents to the artifact's.
    """
    if record.recipe.encodes:
        levels = record.recipe.input == "image"
        for case in _image_cases(size):
            rounded = np.rint(case.values * 255) / np.float32(255)
            yield replace(case, values=rounded) if levels else case
        return
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
            yield Case(photo.name, "photo", transform.from_decoder(latent))
    noise = np.random.Generator(np.random.PCG64(0)).standard_normal(shape, np.float32)
    yield Case("normal", "normal", noise)
    yield Case("saturated", "extreme", np.copysign(np.float32(SATURATED), noise))
    yield Case("constant", "extreme", np.ones(shape, np.float32))
    yield Case("zero", "extreme", np.zeros(shape, np.float32))


def _image_cases(size: Size) -> Iterator[Case]:
    """Photos, uniform noise, black and white pixels, grey, black: (1, 3, H, W) in [0, 1]."""
    for photo in EVALUATION_PHOTOS:
        yield Case(photo.name, "photo", photo_image(photo, size.height, size.width))
    shape = (1, 3, size.height, size.width)
    noise = np.random.Generator(np.random.PCG64(0)).random(shape, np.float32)
    yield Case("noise", "normal", noise)
    yield Case("saturated", "extreme", np.rint(noise))
    yield Case("constant", "extreme", np.full(shape, 0.5, np.float32))
    yield Case("zero", "extreme", np.zeros(shape, np.float32))
