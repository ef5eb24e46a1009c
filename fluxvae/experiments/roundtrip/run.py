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
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from fluxvae.data.calibration import encode
from fluxvae.data.images import Pixels, unique_names
from fluxvae.data.photos import as_planes
from fluxvae.errors import ImageError, ReportError
from fluxvae.experiments.roundtrip.candidates import Candidate
from fluxvae.experiments.roundtrip.job import GAIN, Job
from fluxvae.experiments.roundtrip.measure import Run, Task, run_here, write_picture
from fluxvae.experiments.roundtrip.record import record_of
from fluxvae.experiments.roundtrip.sources import Input, Source
from fluxvae.files import data_sha256
from fluxvae.records.experiment import cell_path
from fluxvae.records.roundtrip import (
    REFERENCE,
    Cell,
    Crop,
    Figures,
    Picture,
    Result,
    Roundtrip,
    Skipped,
)
from fluxvae.schema import load_kept

CROP = 128  # side of the square shown at 1:1

Tell = Callable[[int, int, str], None]  # steps done, steps in all, what was done


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
    return record_of(job, source, pictures, skipped, results, parts)


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
