"""``fluxvae qat``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.cache import compressions
from fluxvae.cli.interrupt import CtrlC
from fluxvae.cli.options import (
    OUT,
    FiniteRange,
    json_option,
    option_group,
    overwrite_option,
    print_json,
    say,
)
from fluxvae.cli.sources import AnySources
from fluxvae.errors import UsageError

if TYPE_CHECKING:
    from fluxvae.compress.qat.state import ProcessGroup
    from fluxvae.compress.qat.train import Progress, Trained
    from fluxvae.recipes import Compression

SAY_EVERY = 10.0  # seconds between two lines of progress


@click.command("qat")
@option_group("sources", AnySources)
@click.option(
    "--from",
    "start",
    default="w8a8",
    show_default=True,
    metavar="START",
    help="Where to start: a recipe (w8a8, w8a8-85, w8a8-symmetric, w8a8-plain, pal4), or the "
    "checkpoint of an earlier training.",
)
@click.option("--minutes", type=FiniteRange(min=0, min_open=True),
              help="How long to train. [default: 60]")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), help="Steps instead of minutes; repeatable.")
@click.option("--calibration", metavar="SOURCE",
              help="What the start looks at: photos, or a folder. "
              "[default: the images that are trained on]")  # fmt: skip
@click.option("--images", default="photos", show_default=True, metavar="DIR",
              help="What to train on: photos (shipped), or a folder of images.")  # fmt: skip
@click.option("--batch", type=click.IntRange(min=1), default=4, show_default=True,
              help="Crops a step, over all processes.")  # fmt: skip
@click.option("--crop", type=click.IntRange(min=16), default=128, show_default=True,
              help="Side of a crop in pixels.")  # fmt: skip
@click.option("--judge-every", type=click.IntRange(min=1), default=50, show_default=True,
              help="Steps between two points of the curve.")  # fmt: skip
@click.option("--judge-size", type=click.IntRange(min=16), default=256, show_default=True,
              help="Side of the photos that are judged, in pixels.")  # fmt: skip
@click.option("--weight-rate", type=FiniteRange(min=0, min_open=True), default=1e-5,
              show_default=True, help="Learning rate of weights.")  # fmt: skip
@click.option("--scale-rate", type=FiniteRange(min=0, min_open=True), default=3e-3,
              show_default=True, help="Learning rate of scales (their logarithms).")  # fmt: skip
@click.option("--bias-rate", type=FiniteRange(min=0, min_open=True), default=1e-3,
              show_default=True, help="Learning rate of biases and GroupNorms.")  # fmt: skip
@click.option("--save-every", type=FiniteRange(min=0), default=60.0, show_default=True,
              help="Seconds between two saved states.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True,
              help="Which crops.")  # fmt: skip
@click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto",
              show_default=True, help="auto takes CUDA where it is.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path),
              help="The checkpoint. [default: coreml_out/qat/NAME.safetensors]")  # fmt: skip
@overwrite_option
@json_option
def command(
    sources: AnySources,
    start: str,
    minutes: float | None,
    steps: int | None,
    calibration: str | None,
    images: str,
    batch: int,
    crop: int,
    judge_every: int,
    judge_size: int,
    weight_rate: float,
    scale_rate: float,
    bias_rate: float,
    save_every: float,
    seed: int,
    device: str,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train a network for int8 or small tables: fewer bits, the same pictures.

    Distils the float32 decoder (or encoder) into the compressed one and writes a checkpoint that
    `fluxvae convert --w8a8 --qat PATH` takes. A run that was killed goes on where it was when the
    same command is given again. Evaluation photos are measured on, never trained on.

    \b
    Examples:
      fluxvae qat --variant flux2 --minutes 60
      fluxvae qat --variant flux2 --from pal4 --steps 200
      torchrun --nproc-per-node 2 -m fluxvae qat --variant flux2 --device cuda
    """
    from fluxvae.files import refuse_existing

    if minutes is not None and steps is not None:
        raise UsageError("--minutes and --steps contradict each other: give one of them")
    begin = _start(start)
    path = out or _default_path(sources, begin)
    refuse_existing(path, overwrite)
    if path.suffix != ".safetensors":
        raise UsageError(f"a checkpoint is a .safetensors file: expected such a name, got {path}")

    from fluxvae.compress.qat.job import Job, run_job
    from fluxvae.compress.qat.student import Rates
    from fluxvae.compress.qat.train import Settings

    settings = Settings(
        steps=steps,
        seconds=None if steps else 60 * (60.0 if minutes is None else minutes),
        batch=batch,
        crop=crop,
        seed=seed,
        rates=Rates(weight=weight_rate, scale=scale_rate, bias=bias_rate),
        side=judge_size,
        judge_every=judge_every,
    )
    with _process_group(device) as processes:
        first = processes.rank == 0
        log = say if first else _quiet
        weights, network = sources.load_with_encoder("training needs latents of photos", log)
        job = Job(weights, network, begin, calibration, images, settings, path, overwrite,
                  save_every, compressions())  # fmt: skip
        trained = run_job(job, processes=processes, say=log, watch=_watcher(first))
        if first:
            _report(path, trained, as_json)


def _start(text: str) -> Compression | Path:
    from fluxvae.recipes import parse_label

    path = Path(text)
    if path.suffix == ".safetensors" or path.exists():
        return path
    return parse_label(text)


def _default_path(sources: AnySources, start: Compression | Path) -> Path:
    label = f"_{sources.label}" if sources.label in ("demo", "random") else ""
    kind = "" if sources.decoder == "tiny" else f"_{sources.decoder}"
    part = "" if sources.part == "decoder" else f"_{sources.part}"
    own = f"{sources.variant}{kind}{part}{label}"
    name = f"{start.stem}_more" if isinstance(start, Path) else f"{own}_{start.label()}"
    return OUT / "qat" / f"{name}.safetensors"


@contextmanager
def _process_group(device: str) -> Iterator[ProcessGroup]:
    """This process's part: alone, or among those that torchrun started."""
    # cuBLAS repeats itself only with a workspace of fixed size, asked for before its first use:
    # https://docs.nvidia.com/cuda/cublas/index.html#results-reproducibility
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    from fluxvae.compress.qat.state import ProcessGroup

    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise UsageError("--device cuda: torch finds no CUDA device here; expected auto or cpu")
    use_cuda = cuda and device != "cpu"
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup(device=torch.device("cuda" if use_cuda else "cpu"))
        return
    from torch import distributed

    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = torch.device("cuda", local) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if use_cuda else "gloo")
    try:
        yield ProcessGroup(distributed.get_rank(), size, where)
    finally:
        distributed.destroy_process_group()


def _watcher(first: bool) -> Callable[[Progress], None]:
    """Says how it goes every ``SAY_EVERY`` seconds and at each point of the curve."""
    ctrl_c = click.get_current_context().find_object(CtrlC) or CtrlC()
    last = time.monotonic()

    def watch(progress: Progress) -> None:
        nonlocal last
        ctrl_c.check()
        if not first:
            return
        point = progress.point
        if point is not None:
            say(
                f"step {point.step}: {point.validation_db:.2f} dB on parts kept to judge by, "
                f"{point.held_out_db:.2f} dB on held-out photos"
            )
        elif progress.loss is not None and time.monotonic() - last >= SAY_EVERY:
            say(f"step {progress.step}: loss {progress.loss:.2e}, {_left(progress.seconds_left)}")
            last = time.monotonic()

    return watch


def _left(seconds: float) -> str:
    return f"{seconds:.0f} s left" if seconds < 90 else f"{seconds / 60:.0f} min left"


def _quiet(text: str) -> None:
    """Only rank 0 prints."""


def _report(path: Path, trained: Trained, as_json: bool) -> None:
    begun, points = trained.curve[0], {p.step: p for p in trained.curve}
    best = points[trained.best_step]
    if as_json:
        result: dict[str, Any] = {
            "path": str(path),
            "steps": trained.steps,
            "seconds": round(trained.seconds, 1),
            "start": asdict(begun),
            "best": asdict(best),
            "curve": [asdict(p) for p in trained.curve],
        }
        print_json(result)
        return
    say(
        f"held-out photos: {begun.held_out_db:.2f} dB at the start, {best.held_out_db:.2f} dB "
        f"after {best.step} steps (the best of {trained.steps} on parts kept to judge by)"
    )
    click.echo(str(path))
