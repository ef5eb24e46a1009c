"""Solved compressions in a folder, each under a key of everything that decides its bits.

Solving takes minutes and depends on neither the size, the layout nor the input and output of the
artifact: what was solved for one is read back for the others. An entry is a checksummed file as in
``compress.checkpoint``, of kind ``fluxvae-compression``; its ``data`` is that of ``to_arrays``, the
whole ``key`` and ``seconds``. A damaged entry is removed and solved again. Several processes may
use one folder: each writes a whole file and then renames it.
"""

import os
import platform
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fluxvae import __version__
from fluxvae.compress.checkpoint import from_arrays, read_checksummed, to_arrays, write_checksummed
from fluxvae.compress.forms import Solved
from fluxvae.compress.mixed import Allocation
from fluxvae.compress.plain import Log
from fluxvae.data.calibration import Calibration
from fluxvae.errors import CompressionError, OutputError
from fluxvae.files import data_sha256, file_sha256
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe

KIND = "fluxvae-compression"
LIMIT = 2_000_000_000  # bytes; entries of the demo decoders took 1.4 to 1.7 MB
SUFFIX = ".safetensors"
# Rooms whose source decides what is solved: the solvers, the networks' structure, the options.
ROOMS = ("compress", "networks", "recipes")


@dataclass(frozen=True)
class Store:
    """Entries in ``folder``, of ``limit`` bytes in all: the least recently used are removed."""

    folder: Path
    limit: int = LIMIT

    def path(self, key: str, weights: Weights, recipe: Recipe) -> Path:
        """Of an entry: ``flux2_tiny_decoder_pal4_float16_KEY.safetensors``, what it is."""
        assert recipe.compression is not None
        network = f"{weights.variant}_{weights.kind}_{weights.part}"
        what = (network, recipe.compression.label(), recipe.precision)
        return self.folder / f"{'_'.join(what)}_{key[:16]}{SUFFIX}"

    def find(self, key: str, weights: Weights, recipe: Recipe, log: Log) -> Solved | None:
        """What was kept under ``key``; None, with a note to ``log``, when that is damaged."""
        path = self.path(key, weights, recipe)
        if not path.exists():
            return None
        try:
            arrays, data = read_checksummed(path, KIND)
            if data.get("key") != key:
                raise CompressionError("it has another key")
            found = Solved(from_arrays(arrays, data, weights), float(data["seconds"]))
        except CompressionError:
            log(f"note: {path} is damaged: it is removed, and solved again")
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # a folder that is read-only
            os.utime(path)
        return found

    def keep(self, key: str, solved: Solved, weights: Weights, recipe: Recipe, log: Log) -> None:
        """Write an entry. Where that fails, the work goes on: ``log`` gets a note."""
        arrays, data = to_arrays(solved.compressed)
        data |= {"key": key, "seconds": solved.seconds}
        try:
            write_checksummed(self.path(key, weights, recipe), KIND, arrays, data, overwrite=True)
            self._prune()
        except (OutputError, OSError, ValueError) as error:  # ValueError: a note that is not finite
            reason = getattr(error.__cause__ or error, "strerror", None) or error
            log(f"note: the solved compression is not kept in {self.folder} ({reason})")

    def _prune(self) -> None:
        """Remove the least recently used, until at most ``limit`` bytes are left."""
        left = self.limit
        found = [(file.stat(), file) for file in self.folder.glob(f"*{SUFFIX}")]
        for stat, file in sorted(found, key=lambda one: one[0].st_mtime_ns, reverse=True):
            left -= stat.st_size
            if left < 0:
                file.unlink(missing_ok=True)


def key_of(
    weights: Weights,
    recipe: Recipe,
    calibration: Calibration | None,
    allocation: Allocation | None = None,
) -> str:
    """sha256 over all that decides the solution's bits: what it is made from, and what solves it.

    That includes the processor and the number of threads: they decide the order in which sums are
    made, and so their last bits.
    """
    assert recipe.compression is not None
    root = Path(__file__).parents[1]
    files = sorted(file for room in ROOMS for file in (root / room).rglob("*.py"))
    return data_sha256({
        "weights": [weights.variant, weights.kind, weights.part, weights.digest],
        "latents": None if weights.kind == "tiny" and not recipe.encodes else recipe.latent_form,
        "compression": asdict(replace(recipe.compression, granularity=recipe.granularity)),
        "precision": recipe.precision,
        "calibration": calibration and [calibration.name, calibration.digest],
        "allocation": allocation and allocation.to_dict(),
        "code": {file.relative_to(root).as_posix(): file_sha256(file) for file in files},
        "versions": [__version__, torch.__version__, np.__version__, sys.version],
        "machine": [
            *(sys.platform, platform.machine(), torch.backends.cpu.get_cpu_capability()),
            torch.get_num_threads(),
        ],
    })  # fmt: skip
