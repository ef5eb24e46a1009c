"""Images through an encoder and every variant of a decoder: what people see, and by how much.

original -> encoder -> latent -> float32 torch decode, and the same latent through each artifact by
the reference executor. Every result is kept as a file when it is there, so that a run that was
stopped goes on; its record has the same bytes as an unbroken run's.

Memory does not grow with the number of images. Two are held at a time, each with its latent and its
float32 decode: the next is decoded while results of the one before it are waited for. With worker
processes each result under way (at most two for each worker) holds its own decode as well, and one
more waits for its turn; a worker has copies of the three images that it compares.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fluxvae import __version__
from fluxvae.data.calibration import encode
from fluxvae.data.images import Pixels, unique_names
from fluxvae.data.photos import as_planes
from fluxvae.errors import ImageError, ReportError
from fluxvae.experiments.roundtrip.candidates import (
    Candidate,
    EncoderArtifact,
    with_encoder,
    with_fractions,
)
from fluxvae.experiments.roundtrip.measure import Run, Task, run_here, write_picture
from fluxvae.experiments.roundtrip.sources import Input, Source
from fluxvae.files import data_sha256
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Size
from fluxvae.records.ablation import ALL, Part
from fluxvae.records.experiment import cell_path
from fluxvae.records.roundtrip import (
    REFERENCE,
    Ablation,
    Cell,
    Crop,
    Figures,
    Picture,
    Result,
    Roundtrip,
    Skipped,
    Variant,
)
from fluxvae.schema import load_kept
from fluxvae.validation.metrics import Meter

GAIN = 16.0  # of difference pictures: fp16's error shows as a level or two, four bits' as grey
CROP = 128  # side of the square shown at 1:1
ENCODER = "encoder"  # the part that an encoder's artifact is
TOOLS = ("coremltools", "numpy", "pillow", "scikit-image", "torch")

Tell = Callable[[int, int, str], None]  # steps done, steps in all, what was done


@dataclass(frozen=True, eq=False)  # networks have no useful ==
class Job:
    """Everything a run needs.

    ``ablations`` are labels of variants, each with its parts; ``extra`` the candidates of parts
    that are no variant themselves, labelled as ``part_label`` says. ``artifact``: of the encoder,
    for trips by artifacts alone.
    """

    family: str
    size: Size
    weights: Weights
    encoder: Weights
    candidates: tuple[Candidate, ...]
    ablations: tuple[tuple[str, tuple[Part, ...]], ...]
    extra: tuple[Candidate, ...]
    meter: Meter
    out: Path
    artifact: EncoderArtifact | None = None

    @cached_property
    def parts(self) -> tuple[Candidate, ...]:
        """Candidates that are parts only: those of ablations, and trips through the encoder's
        artifact, by the float32 decoder and by each variant.
        """
        if self.artifact is None:
            return self.extra
        first = self.candidates[0]
        torch_decoder = replace(first, digest=REFERENCE, decode=self.decode)
        alone = with_encoder(torch_decoder, self.artifact, part_label(ENCODER))
        both = (
            with_encoder(c, self.artifact, part_label(f"{ENCODER}-{c.label}"))
            for c in self.candidates
        )
        return (*self.extra, alone, *both)

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """The float32 reference's image (1, 3, H, W) of its latent (1, C, h, w)."""
        with torch.no_grad():
            image: np.ndarray = self.decoder(torch.from_numpy(latent)).numpy()
        return image

    @cached_property
    def decoder(self) -> nn.Module:
        """The float32 reference."""
        return build_decoder(self.weights)

    @cached_property
    def setting(self) -> dict[str, Any]:
        """What decides every cell, besides the picture and the candidate."""
        return {
            "weights": self.weights.digest,
            "encoder": self.encoder.digest,
            "size": str(self.size),
            "metrics": [asdict(metric) for metric in self.meter.metrics],
            "gain": GAIN,
            "tools": tools(),
        }


def tools() -> dict[str, str]:
    """Versions of what makes the figures; the metrics' libraries are named with the metrics."""
    return {"fluxvae": __version__, **{name: version(name) for name in TOOLS}}


def run_roundtrip(
    job: Job,
    source: Source,
    *,
    progress: Tell = lambda *_: None,
    check: Callable[[], None] = lambda: None,
    run: Run = run_here,
) -> Roundtrip:
    """Send every input through every candidate. Pictures and cells go below ``job.out``.

    ``progress`` is called for every picture and candidate; ``check`` runs between them and may
    raise. ``run`` measures, here or elsewhere (``measure.run_in``) while the next is decoded.
    Raises ReportError when no input can be used, OutputError when nothing can be written.
    """
    names = unique_names([Path(one.name).stem for one in source.inputs])
    steps = 1 + len(job.candidates) + len(job.parts)
    pictures: list[Picture] = []
    results: list[Result] = []
    skipped = list(source.skipped)
    parts: dict[str, dict[str, Figures]] = {}
    walks: list[_ImageRun] = []

    def finish(walk: _ImageRun) -> None:
        results.extend(walk.results())
        parts[walk.one.name] = walk.parts()
        pictures.append(walk.picture())

    for index, (one, name) in enumerate(zip(source.inputs, names, strict=True)):
        done = index * steps

        def step(number: int, text: str, done: int = done, name: str = one.name) -> None:
            check()
            progress(done + number, steps * len(source.inputs), f"{name}: {text}")

        try:
            image = one.read(job.size)
        except ImageError as error:
            skipped.append(Skipped(one.name, _without_path(error, one.name)))
            step(steps, f"skipped, {skipped[-1].reason}")
            continue
        walks.append(_ImageRun(job, one, name, image))
        walks[-1].begin(run, step)
        if len(walks) > 1:  # so that there is always something to measure
            finish(walks.pop(0))
    for walk in walks:
        finish(walk)
    total = steps * len(source.inputs)
    progress(total, total, "done")
    if not pictures:
        reasons = "; ".join(f"{s.name}: {s.reason}" for s in skipped[:3])
        raise ReportError(
            f"none of the images can be used ({reasons}): give others, or use --images photos"
        )
    return _record(job, source, pictures, skipped, results, parts)


def _without_path(error: ImageError, name: str) -> str:
    """The reason alone: a record says nothing about paths of this machine."""
    words = str(error)
    return words.split(f"{name} ", 1)[1] if f"{name} " in words else words


class _ImageRun:
    """One picture through everything; the latent and its decode are made when first needed."""

    def __init__(self, job: Job, one: Input, name: str, image: Pixels) -> None:
        self.job, self.one, self.name, self.image = job, one, name, image
        pixels = np.ascontiguousarray(image.pixels)
        self.digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        self.original = pixels.astype(np.float32) / 255
        self.begun: dict[str, Callable[[], Cell]] = {}  # by the candidate's label

    @cached_property
    def latent(self) -> np.ndarray:
        return encode(self.job.encoder, [as_planes(self.image.pixels)])[0]

    @cached_property
    def reference(self) -> np.ndarray:
        """(H, W, 3) float32, not clamped."""
        return self._shape(self.job.decode(self.latent))

    @cached_property
    def encoded(self) -> np.ndarray:
        """The latent by the encoder's artifact."""
        assert self.job.artifact is not None
        return self.job.artifact.encode(as_planes(self.image.pixels))

    def begin(self, run: Run, step: Callable[[int, str], None]) -> None:
        """Decode by the reference, every variant and every part, and have each measured."""
        changes = f" ({'; '.join(self.image.changes)})" if self.image.changes else ""
        step(0, f"float32 decode{changes}")
        write_picture(self.job.out / self._file("original"), self.image.pixels)
        self.begun[REFERENCE] = self._cell(run, None)
        for number, candidate in enumerate((*self.job.candidates, *self.job.parts), start=1):
            step(number, candidate.label)
            self.begun[candidate.label] = self._cell(run, candidate)

    def results(self) -> list[Result]:
        """The reference and every variant, in order."""
        return [self._result(label) for label in self._labels()]

    def parts(self) -> dict[str, Figures]:
        """Losses of the candidates that are parts only, by label."""
        return {c.label: self.begun[c.label]().loss for c in self.job.parts}

    def picture(self) -> Picture:
        height, width = self.image.pixels.shape[:2]
        shots = (_read_png(self.job.out / self._file(label)) for label in self._labels())
        return Picture(
            self.one.name, self.one.source, self.digest, height, width, self._file("original"),
            self.image.changes, most_different(shots),
        )  # fmt: skip

    def _labels(self) -> tuple[str, ...]:
        return (REFERENCE, *(c.label for c in self.job.candidates))

    def _result(self, label: str) -> Result:
        file, *others = self._files(label)
        difference, flip = others or (None, None)
        cell = self.begun[label]()
        return Result(self.one.name, label, file, difference, flip, cell.loss, cell.total)

    def _files(self, label: str) -> list[str]:
        """Pictures of a variant, as paths in the record; none of what is a part only."""
        if label not in self._labels():
            return []
        kinds = ("",) if label == REFERENCE else ("", "-difference", "-flip")
        return [self._file(label + kind) for kind in kinds]

    def _cell(self, run: Run, candidate: Candidate | None) -> Callable[[], Cell]:
        """What was kept, or the result made from now on with its pictures: call it to wait."""
        label = REFERENCE if candidate is None else candidate.label
        names = self._files(label)
        files = tuple(self.job.out / name for name in names)
        digest = None if candidate is None else candidate.digest
        key = data_sha256(
            {**self.job.setting, "picture": self.digest, "candidate": digest, "files": names}
        )
        path = cell_path(self.job.out, self.name, unique_names([label])[0])
        kept = load_kept(Cell, path, key, files)
        if kept is not None:
            return lambda: kept
        task = Task(
            key=key,
            cell=path,
            files=files,
            image=self._decoded(candidate),
            reference=None if candidate is None else self.reference,
            original=self.original,
            meter=self.job.meter,
            gain=GAIN,
        )
        return run(task)

    def _decoded(self, candidate: Candidate | None) -> np.ndarray:
        if candidate is None:
            return self.reference
        return self._shape(candidate.decode(self.encoded if candidate.encoded else self.latent))

    def _shape(self, image: np.ndarray) -> np.ndarray:
        """(1, 3, H, W) in the contract's range as (H, W, 3) in about [0, 1]."""
        low, high = self.job.weights.contract.low, self.job.weights.contract.high
        return np.ascontiguousarray(((image[0] - low) / (high - low)).transpose(1, 2, 0))

    def _file(self, label: str) -> str:
        return f"images/{self.name}/{unique_names([label])[0]}.png"


def _read_png(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def most_different(images: Iterable[np.ndarray], side: int = CROP) -> Crop:
    """The square (or the whole of a smaller image) where images uint8 (H, W, 3) differ most.

    By the sum of each value's range over the images; the first such square in reading order.
    """
    low = high = None
    for image in images:
        low = image if low is None else np.minimum(low, image)
        high = image if high is None else np.maximum(high, image)
    assert low is not None
    assert high is not None
    spread = (high - low).astype(np.int64).sum(2)
    side = min(side, *spread.shape)
    table = np.pad(spread, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    sums = table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return Crop(int(top), int(left), side)


def part_label(recipe_name: str) -> str:
    """How the candidate of an ablation's part is called among cells."""
    return f"part-{recipe_name}"


def _record(
    job: Job,
    source: Source,
    pictures: Sequence[Picture],
    skipped: Sequence[Skipped],
    results: Sequence[Result],
    parts: dict[str, dict[str, Figures]],
) -> Roundtrip:
    reference = Variant(REFERENCE, "the float32 PyTorch decoder", None, None, None, None, None)
    return Roundtrip(
        family=job.family,
        size=str(job.size),
        weights=job.weights.source.name,
        weights_digest=job.weights.digest,
        encoder=job.encoder.source.name,
        encoder_digest=job.encoder.digest,
        source=source.name,
        gain=GAIN,
        tools=tools(),
        metrics=job.meter.metrics,
        pictures=tuple(pictures),
        skipped=tuple(skipped),
        variants=(reference, *with_fractions([c.variant for c in job.candidates])),
        results=tuple(results),
        ablations=tuple(_ablations(job, results, parts)),
    )


def _ablations(
    job: Job, results: Sequence[Result], parts: dict[str, dict[str, Figures]]
) -> Iterable[Ablation]:
    """Each variant's parts in order; those that are variants themselves have their results."""
    labels = {c.recipe: c.label for c in job.candidates}
    for variant, own in job.ablations:
        for part in own:
            label = labels.get(part.recipe)
            if label is not None:
                loss = {r.picture: r.loss for r in results if r.variant == label}
            else:
                loss = {p: figures[part_label(part.recipe.name())] for p, figures in parts.items()}
            yield Ablation(variant, part.name, part.recipe.to_dict(), loss)
    if job.artifact is not None:
        yield from _trips(job, job.artifact, results, parts)


def _trips(
    job: Job,
    encoder: EncoderArtifact,
    results: Sequence[Result],
    parts: dict[str, dict[str, Figures]],
) -> Iterator[Ablation]:
    """For each variant: the encoder's artifact alone, the decoder's alone, and both."""
    for candidate in job.candidates:
        name = f"{candidate.label} behind the encoder's artifact"
        recipe, label = candidate.recipe.to_dict(), candidate.label
        alone, both = (part_label(n) for n in (ENCODER, f"{ENCODER}-{label}"))
        decoder = {r.picture: r.loss for r in results if r.variant == label}
        losses = ({p: found[key] for p, found in parts.items()} for key in (alone, both))
        first, together = losses
        yield Ablation(name, ENCODER, encoder.recipe.to_dict(), first)
        yield Ablation(name, "decoder", recipe, decoder)
        yield Ablation(name, ALL, recipe, together)
