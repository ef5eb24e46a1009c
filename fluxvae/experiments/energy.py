"""Energy of a cell's decode, on machines where it can be measured. Not run on a Mac yet."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fluxvae.artifact.backends import choose_backend
from fluxvae.artifact.open import open_artifact
from fluxvae.data.latents import to_model
from fluxvae.device.host import Host
from fluxvae.device.power import Window, measure_energy
from fluxvae.errors import PowerError
from fluxvae.experiments.job import Job
from fluxvae.recipes import parse_sizes
from fluxvae.records.experiment import Energy

PATIENCE_S = 300.0  # for the load of the conversion before to fade

Decode = Callable[[], object]


def cell_energy(
    host: Host, prepare: Callable[[], Decode], say: Callable[[str], object]
) -> Energy | None:
    """Energy above the idle Mac's of what ``prepare`` makes ready; None where it cannot be had.

    Other systems are passed over in silence; a Mac that is not fit says why, and the cell goes on.
    """
    if host.system != "Darwin":
        return None
    try:
        return measure_energy(host, Window(), prepare(), patience_s=PATIENCE_S)
    except PowerError as error:
        say(f"energy was not measured: {error}")
        return None


def ready_decode(job: Job, package: Path, latent: np.ndarray) -> Decode:
    """One decode of ``latent`` (1, C, h, w) by the cell's artifact on its compute units."""
    artifact = open_artifact(package)
    size = parse_sizes(job.cell.sizes)[0]
    function = next(f for f, s in artifact.functions_and_sizes() if s == size)
    record = artifact.record
    array = to_model(latent, record.recipe.layout, tokens=record.contract.tokens)
    run = artifact.raw_runner(function, choose_backend("auto"), job.cell.compute_unit)
    ready = np.ascontiguousarray(array, np.float32)
    return lambda: run(ready)
