"""One decoded image measured, its pictures written and the result kept: the part without models.

It needs nothing but what a ``Task`` holds, so that other processes can do it meanwhile.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluxvae.data.arrays import pixels as to_pixels
from fluxvae.files import write_file
from fluxvae.records.roundtrip import Cell, Figures
from fluxvae.schema import save
from fluxvae.validation.metrics import Meter, flip_and_map, shown

DIGITS = 7  # of a figure in the record: what a float32 metric carries
PNG = 3  # compression level: a third of the time of the default for a twentieth more bytes

Run = Callable[["Task"], Callable[[], Cell]]  # begins a task; call what it gives to wait for it


@dataclass(frozen=True, eq=False)  # arrays have no useful ==
class Task:
    """What to measure: images (H, W, 3) float32 in about [0, 1], not clamped.

    ``cell`` is where the result is kept under ``key``. ``reference`` is None for the float32 decode
    itself. ``files`` are for the image, its difference times ``gain`` and its FLIP map: the first
    alone for the float32 decode, none for what is measured without pictures (against the reference
    only).
    """

    key: str
    cell: Path
    files: tuple[Path, ...]
    image: np.ndarray
    reference: np.ndarray | None
    original: np.ndarray
    meter: Meter
    gain: float


def run_here(task: Task) -> Callable[[], Cell]:
    """Measure at once, in this process."""
    cell = measure_cell(task)
    return lambda: cell


def run_in(pool: Executor, most: int) -> Run:
    """Measure in a pool; beginning another one waits while ``most`` are under way."""
    free = threading.Semaphore(most)

    def run(task: Task) -> Callable[[], Cell]:
        free.acquire()
        future = pool.submit(measure_cell, task)
        future.add_done_callback(lambda _: free.release())
        return future.result

    return run


def measure_cell(task: Task) -> Cell:
    """All of a task. Raises OutputError when something cannot be written."""
    measure, image, reference = task.meter.measure, task.image, task.reference
    loss: Figures = {}
    if reference is not None:
        mean, colours = flip_and_map(image, reference)
        loss = _rounded(measure(image, reference, known={"flip": mean}))
        if task.files:
            difference = np.abs(shown(image) - shown(reference)) * task.gain
            write_picture(task.files[1], as_bytes(difference))
            write_picture(task.files[2], colours)
    total: Figures = {}
    if task.files:
        write_picture(task.files[0], as_bytes(image))
        total = _rounded(measure(image, task.original))
    cell = Cell(task.key, loss, total)
    save(cell, task.cell)
    return cell


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Float (H, W, 3) to uint8, as ``fluxvae decode`` does."""
    return to_pixels(image.transpose(2, 0, 1)[None])


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """uint8 (H, W, 3) as a PNG. Raises OutputError."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    write_file(path, lambda draft: picture.save(draft, "PNG", compress_level=PNG), overwrite=True)


def _rounded(figures: Figures) -> Figures:
    return {k: None if v is None else float(f"{v:.{DIGITS}g}") for k, v in figures.items()}
