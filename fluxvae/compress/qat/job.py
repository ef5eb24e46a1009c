"""One `fluxvae qat` from its start to its checkpoint, across kills.

Beside the checkpoint-to-be, ``NAME.run`` holds the compressed decoder that training starts from
and the state of the training. It goes away when the checkpoint is there; the same call finds it
and goes on.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fluxvae.compress import compress
from fluxvae.compress.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from fluxvae.compress.forms import CompressedDecoder
from fluxvae.compress.qat.data import (
    Pictures,
    calibration_images,
    calibration_pictures,
    folder_pictures,
)
from fluxvae.compress.qat.state import ProcessGroup, wait
from fluxvae.compress.qat.train import Progress, Settings, Trained, train
from fluxvae.compress.store import Store
from fluxvae.data.calibration import Calibration, encode, load_calibration
from fluxvae.errors import CompressionError, OutputError, UsageError
from fluxvae.files import disk_trouble, refuse_existing
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Compression, Recipe


@dataclass(frozen=True)
class Job:
    """What to train: ``start`` is a way to compress after training, or an earlier checkpoint.

    ``encoder``: what makes a decoder's latents; None for an encoder, which takes the images.
    ``images`` is ``photos`` or a folder; ``calibration`` too, or None for the images that are
    trained on; ``out`` is the checkpoint's path; ``store``: of solved compressions, for the start.
    """

    weights: Weights
    encoder: Weights | None
    start: Compression | Path
    calibration: str | None
    images: str
    settings: Settings
    out: Path
    overwrite: bool = False
    save_every: float = 60.0
    store: Store | None = None


def run_folder(out: Path) -> Path:
    """Where a training that is under way keeps its start and its state."""
    return out.with_name(f"{out.name}.run")


def run_job(
    job: Job,
    *,
    processes: ProcessGroup = ProcessGroup(),  # noqa: B008 - frozen
    say: Callable[[str], None] = lambda _: None,
    watch: Callable[[Progress], object] = lambda _: None,
) -> Trained:
    """Train, or go on training, and write ``job.out``. Raises OutputError, CompressionError."""
    refuse_existing(job.out, job.overwrite)
    pictures = load_pictures(job.images, say)
    folder = run_folder(job.out)
    with _only_here(folder, processes):
        refuse_existing(job.out, job.overwrite)  # of a training that ended while we came here
        start, compression = _start(job, pictures, folder / "start.safetensors", processes, say)
        state = folder / "state.safetensors"
        if state.exists():
            say(f"going on with the training in {folder}")
        trained = train(
            start,
            job.weights,
            job.encoder,
            pictures,
            job.settings,
            state,
            processes=processes,
            save_every=job.save_every,
            watch=watch,
        )
        if processes.rank == 0:
            save_checkpoint(
                job.out,
                trained.compressed,
                job.weights,
                compression,
                trained.record,
                overwrite=job.overwrite,
            )
            shutil.rmtree(folder, ignore_errors=True)
    return trained


def load_pictures(images: str, say: Callable[[str], None] = lambda _: None) -> Pictures:
    """``photos``, or a folder of images. Raises CompressionError."""
    return calibration_pictures() if images == "photos" else folder_pictures(Path(images), say)


def calibrate(job: Job, pictures: Pictures) -> Calibration:
    """What the start looks at: never a held-out photo, nor (by default) one that is judged by."""
    if job.calibration is not None:
        weights = job.weights
        return load_calibration(
            job.calibration,
            weights.variant,
            job.encoder,
            contract=weights.contract,
            kind=weights.kind,
            part=weights.part,
        )
    latents = encode(job.encoder, calibration_images(pictures))
    return Calibration(f"{pictures.name}, those trained on", pictures.digest, tuple(latents))


def _compressed(
    job: Job, compression: Compression, calibration: Calibration, say: Callable[[str], None]
) -> CompressedDecoder:
    """The best that is found without gradients. Raises UsageError for a kind without a trainer."""
    if compression.kind not in ("w8a8", "palette"):
        raise UsageError(
            f"{compression.label()} cannot be trained: expected a kind of w8a8 or a palette, "
            "such as w8a8, w8a8-85 or pal4"
        )
    precision = job.settings.precision
    weights = job.weights
    recipe = Recipe(
        weights.variant,
        decoder=weights.kind,
        part=weights.part,
        precision=precision,
        compression=compression,
    )
    return compress(weights, recipe, calibration, store=job.store, log=say).compressed


def _start(
    job: Job, pictures: Pictures, path: Path, processes: ProcessGroup, say: Callable[[str], None]
) -> tuple[CompressedDecoder, Compression]:
    """The decoder to start from; found once, by rank 0, and kept in ``path``."""
    if isinstance(job.start, Path):
        found = read_checkpoint(job.start)
        return load_checkpoint(job.start, job.weights), found.compression
    seen = {
        "calibration": job.calibration,
        "photos": pictures.digest,
        "encoder": job.encoder and job.encoder.digest,
        "precision": job.settings.precision,
    }
    if processes.rank == 0 and not path.exists():
        say(f"compressing without gradients, to start from: {job.start.label()}")
        calibration = calibrate(job, pictures)
        for note in calibration.notes:
            say(f"note: {note}")
        made = _compressed(job, job.start, calibration, say)
        save_checkpoint(path, made, job.weights, job.start, seen)
    wait(processes)
    found = read_checkpoint(path)
    if (found.compression, found.training) != (job.start, seen):
        raise CompressionError(
            f"{path.parent} holds another training ({found.compression.label()}, now "
            f"{job.start.label()}; or other photos): give the same options to go on with it, "
            "another --out, or delete that folder to start anew"
        )
    return load_checkpoint(path, job.weights), job.start


@contextmanager
def _only_here(folder: Path, processes: ProcessGroup) -> Iterator[None]:
    """Two trainings must not write one state; a killed one's lock goes with its process."""
    if processes.rank != 0:
        wait(processes)
        yield
        return
    lock = FileLock(folder / "lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise CompressionError(
            f"another process is training in {folder}: wait for it, or give another --out"
        ) from error
    except OSError as error:
        raise OutputError(disk_trouble(error, folder)) from error
    try:
        wait(processes)
        yield
    finally:
        if not any(folder.glob("*.safetensors")):  # it failed before there was anything to keep
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()  # last: the folder is another process's from now on
