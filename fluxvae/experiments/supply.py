"""What a job's process is given to read: the weights as one file, and the latents."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fluxvae.errors import MatrixError
from fluxvae.experiments.inputs import CALIBRATION, Tensor, load_tensors
from fluxvae.experiments.job import Job
from fluxvae.networks.catalog import LatentContract
from fluxvae.networks.weights import Weights, WeightSource, tensor_digest
from fluxvae.recipes import Size
from fluxvae.schema import build, json_text, parse_json
from fluxvae.validation.validate import Case

_INFO = "fluxvae"  # the one entry of the file's metadata


@dataclass(frozen=True)
class _About:
    """What a ``Weights`` says beside its tensors."""

    variant: str
    part: str
    kind: str
    source: WeightSource
    contract: LatentContract


def save_weights_file(weights: Weights, path: Path) -> None:
    """Weights as one file that any worker can read, wherever they came from."""
    from safetensors.torch import save

    about = _About(weights.variant, weights.part, weights.kind, weights.source, weights.contract)
    tensors = {name: tensor.contiguous() for name, tensor in weights.tensors.items()}
    path.write_bytes(save(tensors, {_INFO: json_text(asdict(about))}))  # an OSError for a full disk


def load_weights_file(job: Job) -> Weights:
    """The inverse, checked against the job's digest. Raises MatrixError."""
    from safetensors import safe_open

    with safe_open(job.files["weights"], "pt") as file:
        about = build(_About, parse_json((file.metadata() or {})[_INFO]))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    ordered = dict(sorted(tensors.items()))
    if tensor_digest(ordered) != job.weights_digest:
        raise MatrixError("the weights this cell was given are not those the matrix is of")
    return Weights(tensors=ordered, digest=job.weights_digest, **vars(about))


def cases(job: Job, size: Size) -> Iterator[Case]:
    """What a cell is judged on at one size, in the order of the shared inputs. MatrixError."""
    group = f"{size.height}x{size.width}"
    for name, values in latents(job, group=group).items():
        yield Case(name.rpartition("/")[2], job.inputs[name].kind, values)


def latents(
    job: Job, *, group: str | None = None, calibration: bool = False
) -> dict[str, np.ndarray]:
    """The job's latents (1, C, h, w) float32 by name: those to judge on, of all sizes or of one
    (``group``: ``256x256``), or those to compress with. Raises MatrixError."""
    wanted: dict[str, Tensor] = {
        name: tensor
        for name, tensor in job.inputs.items()
        if (tensor.kind == CALIBRATION) == calibration
        and (group is None or name.split("/")[1] == group)
    }
    return load_tensors(Path(job.files["latents"]), wanted)
