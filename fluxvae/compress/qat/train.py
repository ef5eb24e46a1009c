"""Quantization-aware training: the float32 network distilled into the compressed one.

The teacher is the plain network, the student the compressed one with its rounding in place; both
decode latents of photo crops, and the student's error against the teacher falls by gradient
descent (Adam, warm-up, cosine decay). What is judged, and kept when it is the best on parts of
photos that are not trained on, is a running average of the parameters, exported and simulated
exactly as it will be stored. The start is a candidate too, so the result is never worse there.

Several processes split each batch and average their gradients (``ProcessGroup``); only rank 0
judges and writes.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fluxvae.compress.checkpoint import digest_of
from fluxvae.compress.fake import simulate
from fluxvae.compress.forms import CompressedDecoder
from fluxvae.compress.qat.data import Pictures, crops, held_out_pieces, pieces
from fluxvae.compress.qat.state import (
    Point,
    ProcessGroup,
    Run,
    agree,
    average_gradients,
    load_run,
    parameters_of,
    save_run,
    share,
)
from fluxvae.compress.qat.student import Rates, learning_rates, make_compressed, make_student
from fluxvae.errors import CompressionError, UsageError
from fluxvae.networks.build import build_encoder, build_network
from fluxvae.networks.weights import Weights
from fluxvae.records.statistics import decibels


@dataclass(frozen=True)
class Settings:
    """How to train: until ``steps`` or for ``seconds``, exactly one of them.

    ``batch`` crops of ``crop`` pixels a step, over all processes. The rates rise over ``warmup``
    steps and fall to 0 as a cosine; ``average`` is the decay of the running average. The
    photos are judged at ``side`` pixels every ``judge_every`` steps, in what ``precision`` stores.
    With ``seconds`` the decay follows the clock, so only runs by ``steps`` repeat exactly.
    Raises UsageError.
    """

    steps: int | None = None
    seconds: float | None = None
    batch: int = 4
    crop: int = 128
    seed: int = 0
    rates: Rates = field(default_factory=Rates)
    warmup: int = 20
    average: float = 0.98
    side: int = 256
    judge_every: int = 50
    precision: str = "float16"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise UsageError("train for a number of steps or for a time: give exactly one of them")
        if self.crop < 16 or self.crop % 8 or self.side < 16 or self.side % 8:
            raise UsageError(
                f"crops and judged photos have sides of a multiple of 8, 16 or more; got "
                f"{self.crop} and {self.side}"
            )
        if min(self.batch, self.judge_every) < 1 or min(self.steps or 0, self.seconds or 0) < 0:
            raise UsageError("steps, minutes, batch and the steps between judgements are positive")


@dataclass(frozen=True)
class Progress:
    """One step, as ``watch`` gets it. ``point`` is set where the photos were judged."""

    step: int
    loss: float | None
    seconds: float
    seconds_left: float
    point: Point | None


@dataclass(frozen=True)
class Trained:
    """The best decoder found and how: ``record`` is the checkpoint's ``training`` entry."""

    compressed: CompressedDecoder
    curve: tuple[Point, ...]
    best_step: int
    steps: int
    seconds: float
    record: dict[str, Any]


@dataclass(frozen=True)
class _Bench:
    """What does not change while training: networks, photos to judge by, settings."""

    teacher: nn.Module
    encoder: nn.Module
    start: CompressedDecoder
    pictures: Pictures
    validation: tuple[tuple[Tensor, Tensor], ...]  # latents and what the teacher makes of them
    held_out: tuple[tuple[Tensor, Tensor], ...]
    peak: float | None  # of the teacher's output, as ``psnr`` takes it
    rates: dict[str, float]
    settings: Settings
    processes: ProcessGroup


def train(
    start: CompressedDecoder,
    weights: Weights,
    encoder: Weights | None,
    pictures: Pictures,
    settings: Settings,
    state: Path,
    *,
    processes: ProcessGroup = ProcessGroup(),  # noqa: B008 - frozen
    save_every: float = 60.0,
    watch: Callable[[Progress], object] = lambda _: None,
) -> Trained:
    """Train ``start`` towards the float32 network of ``weights``; go on from ``state`` if there.

    ``encoder`` makes a decoder's latents of photos; None for an encoder, which takes them itself.
    ``state`` is written every ``save_every`` seconds and at the end (by rank 0). Raises
    CompressionError when it belongs to another run or is damaged, or when a form cannot be trained.
    """
    with _deterministic():
        bench = _prepare(start, weights, encoder, pictures, settings, processes)
        identity = _identity(weights, encoder, bench)
        run = _fresh_run(bench)
        if state.exists():
            load_run(run, state, identity)
        saved = time.monotonic()
        for progress in _steps(bench, run):
            watch(progress)
            if processes.rank == 0 and time.monotonic() - saved >= save_every:
                save_run(run, state, identity)
                saved = time.monotonic()
        if processes.rank == 0:
            save_run(run, state, identity)
        return _result(bench, run, identity)


def _prepare(
    start: CompressedDecoder,
    weights: Weights,
    encoder: Weights | None,
    pictures: Pictures,
    settings: Settings,
    processes: ProcessGroup,
) -> _Bench:
    share(settings.batch, processes)  # refuses a batch that cannot be split
    teacher = build_network(weights).to(processes.device)
    encode = nn.Identity() if encoder is None else build_encoder(encoder).to(processes.device)

    def targets(images: Sequence[np.ndarray]) -> tuple[tuple[Tensor, Tensor], ...]:
        with torch.no_grad():
            latents = [encode(torch.from_numpy(i).to(processes.device)) for i in images]
            return tuple((latent, teacher(latent)) for latent in latents)

    judges = processes.rank == 0
    return _Bench(
        teacher=teacher,
        encoder=encode,
        start=start,
        pictures=pictures,
        validation=targets(pieces(pictures.validation, settings.side)) if judges else (),
        held_out=targets(held_out_pieces(settings.side)) if judges else (),
        peak=None if weights.part == "encoder" else weights.contract.peak,
        rates=learning_rates(make_student(start), settings.rates),
        settings=settings,
        processes=processes,
    )


def _identity(weights: Weights, encoder: Weights | None, bench: _Bench) -> dict[str, Any]:
    """Which run this is: all that decides its course."""
    return {
        "variant": weights.variant,
        "weights": weights.digest,
        "encoder": encoder and encoder.digest,
        "photos": bench.pictures.name,
        "photos_digest": bench.pictures.digest,
        "start": digest_of(bench.start),
        "processes": bench.processes.size,
        **asdict(bench.settings),
    }


def _fresh_run(bench: _Bench) -> Run:
    student = make_student(bench.start).to(bench.processes.device)
    groups = [{"params": [p], "lr": 0.0} for p in student.parameters()]
    return Run(
        student=student,
        optimizer=torch.optim.Adam(groups, foreach=False),
        average=parameters_of(student),
        best=parameters_of(student),
    )


def _steps(bench: _Bench, run: Run) -> Iterator[Progress]:
    """Train to the end of the budget; one Progress for the start and for each step."""
    settings = bench.settings
    if not run.curve:
        yield Progress(run.step, None, run.seconds, math.inf, _judge(bench, run))
    begun, before, first = time.monotonic(), run.seconds, run.step
    while True:
        spent = before + time.monotonic() - begun
        fraction = agree(_fraction(settings, run.step, spent), bench.processes)
        if fraction >= 1:
            run.seconds = spent  # a resumed run must not find time left by the last judgement
            break
        loss = _step(bench, run, fraction)
        run.losses.append(loss)
        run.seconds = before + time.monotonic() - begun
        point = _judge(bench, run) if run.step % settings.judge_every == 0 else None
        if settings.seconds is not None:
            left = settings.seconds - run.seconds
        else:
            pace = (run.seconds - before) / (run.step - first)
            left = pace * ((settings.steps or 0) - run.step)
        yield Progress(run.step, loss, run.seconds, max(0.0, left), point)
    if run.losses:
        yield Progress(run.step, None, run.seconds, 0.0, _judge(bench, run))


def _fraction(settings: Settings, step: int, spent: float) -> float:
    if settings.steps is not None:
        return step / settings.steps if settings.steps else 1.0
    return spent / settings.seconds if settings.seconds else 1.0


def _step(bench: _Bench, run: Run, fraction: float) -> float:
    """One step of Adam on one batch; the loss over the whole batch, of all processes."""
    settings, processes = bench.settings, bench.processes
    indices = share(settings.batch, processes)
    images = crops(bench.pictures.training, settings.crop, settings.seed, run.step, indices)
    with torch.no_grad():
        latent = bench.encoder(torch.from_numpy(images).to(processes.device))
        target = bench.teacher(latent)
    run.optimizer.zero_grad(set_to_none=True)
    loss = distance(run.student(latent), target)
    loss.backward()
    value = float(average_gradients(list(run.student.parameters()), loss.detach(), processes))
    if not math.isfinite(value):
        raise CompressionError(
            f"the loss of step {run.step + 1} is {value}: the training diverged; "
            "expected finite weights and photos, or lower learning rates"
        )
    factor = min(1.0, (run.step + 1) / max(1, settings.warmup)) * (
        0.5 + 0.5 * math.cos(math.pi * fraction)
    )
    for group, rate in zip(run.optimizer.param_groups, bench.rates.values(), strict=True):
        group["lr"] = rate * factor
    run.optimizer.step()
    run.step += 1
    # A short run's average must not be held back by its start: the decay grows with the steps.
    decay = min(settings.average, (1 + run.step) / (10 + run.step))
    for name, parameter in run.student.named_parameters():
        run.average[name].lerp_(parameter.detach(), 1 - decay)
    return value


def distance(images: Tensor, targets: Tensor) -> Tensor:
    """The loss: root mean squared error of each (B, 3, H, W) image, mean over the batch.

    Plain squared errors of crops differ by a factor of 60, and the few roughest textures would
    decide every step; what is judged is a mean over photos of decibels.
    """
    errors = (images - targets).square().mean((1, 2, 3))
    return (errors + 1e-12).sqrt().mean()  # differentiable at 0 too


def _judge(bench: _Bench, run: Run) -> Point | None:
    """Measure the averaged student as it would be stored; keep it when it is the best so far."""
    if bench.processes.rank != 0:
        run.losses = []
        return None
    candidate = simulate(_export(bench, run.average), bench.settings.precision)
    candidate = candidate.to(bench.processes.device)
    point = Point(
        step=run.step,
        loss=sum(run.losses) / len(run.losses) if run.losses else None,
        validation_db=psnr(candidate, bench.validation, bench.peak),
        held_out_db=psnr(candidate, bench.held_out, bench.peak),
    )
    if not run.curve or point.validation_db > max(p.validation_db for p in run.curve):
        run.best = {name: value.clone() for name, value in run.average.items()}
        run.best_step = run.step
    run.curve.append(point)
    run.losses = []
    return point


def psnr(
    network: nn.Module, cases: Sequence[tuple[Tensor, Tensor]], peak: float | None = 1.0
) -> float:
    """Mean PSNR in dB over (input, reference) cases, in float64; ``peak`` None: of the reference's
    own range, as latents have no common one.

    At most 200 dB, so that equal outputs stay a number.
    """
    found = []
    for given, wanted in cases:
        with torch.no_grad():
            error = (network(given).double() - wanted.double()).square().mean().item()
        span = float(wanted.max() - wanted.min()) if peak is None else peak
        found.append(min(decibels(error / span**2), 200.0))
    return float(np.mean(found))


def _export(bench: _Bench, parameters: dict[str, Tensor]) -> CompressedDecoder:
    student = make_student(bench.start)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            parameter.copy_(parameters[name])
    return make_compressed(student, bench.start)


def _result(bench: _Bench, run: Run, identity: dict[str, Any]) -> Trained:
    record: dict[str, Any] = {
        "steps": run.step,
        "best_step": run.best_step,
        "identity": identity,
        "curve": [asdict(point) for point in run.curve],
    }
    return Trained(
        compressed=_export(bench, run.best),
        curve=tuple(run.curve),
        best_step=run.best_step,
        steps=run.step,
        seconds=run.seconds,
        record=record,
    )


@contextmanager
def _deterministic() -> Iterator[None]:
    """Only algorithms that give the same bits each time, and full float32, while training."""
    before = torch.are_deterministic_algorithms_enabled()
    flags = torch.backends.cudnn
    with flags.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
