"""A training run on disk: everything a killed process needs to go on as if nothing had happened.

One file with a checksum (see ``checkpoint``), written beside its final path and then renamed, holds
parameters, Adam's moments, the running average, the best parameters so far, the step, the seconds
spent and the curve. The random numbers need no state: a crop is a function of seed, step and index.
Below are the processes that train together and how they agree: plain all-reduce of the gradients
instead of DistributedDataParallel, as the student's custom rounding needs no hooks, and one sum a
step over five megabytes costs nothing beside the convolutions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from fluxvae.compress.checkpoint import read_checksummed, write_checksummed
from fluxvae.errors import CompressionError, UsageError

STATE = "fluxvae-qat-state"


@dataclass(frozen=True)
class Point:
    """One point of the curve. ``loss`` is the mean training loss since the point before (None at
    step 0); PSNRs in dB against the float32 decoder, mean over photos."""

    step: int
    loss: float | None
    validation_db: float
    held_out_db: float


@dataclass
class Run:
    """What changes while training. ``average`` and ``best`` are parameters by name.

    ``losses`` are the training losses since the last point of the curve.
    """

    student: nn.Module
    optimizer: torch.optim.Adam
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    curve: list[Point] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def parameters_of(student: nn.Module) -> dict[str, Tensor]:
    """A copy of the student's parameters by name."""
    return {name: value.detach().clone() for name, value in student.named_parameters()}


def save_run(run: Run, path: Path, identity: Mapping[str, Any]) -> None:
    """Write the state atomically. ``identity`` is plain data that says which run this is."""
    tensors = {f"student.{n}": p.detach() for n, p in run.student.named_parameters()}
    tensors |= {f"average.{n}": p for n, p in run.average.items()}
    tensors |= {f"best.{n}": p for n, p in run.best.items()}
    for name, parameter in run.student.named_parameters():
        for key, value in run.optimizer.state[parameter].items():
            tensors[f"adam.{key}.{name}"] = value
    data = {
        "identity": dict(identity),
        "step": run.step,
        "seconds": run.seconds,
        "best_step": run.best_step,
        "curve": [asdict(point) for point in run.curve],
        "losses": run.losses,
    }
    arrays = {name: value.cpu().numpy() for name, value in tensors.items()}
    write_checksummed(path, STATE, arrays, data, overwrite=True)


def load_run(run: Run, path: Path, identity: Mapping[str, Any]) -> None:
    """Bring a fresh ``run`` to the state in ``path``.

    Raises CompressionError when the file is damaged, or of a run with another identity.
    """
    arrays, data = read_checksummed(path, STATE)
    _expect_identity(path, data.get("identity", {}), identity)
    device = next(run.student.parameters()).device
    stored = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with torch.no_grad():
        for name, parameter in run.student.named_parameters():
            parameter.copy_(stored[f"student.{name}"])
            run.average[name] = stored[f"average.{name}"].to(device)
            run.best[name] = stored[f"best.{name}"].to(device)
            run.optimizer.state[parameter] = {
                # Adam keeps its step on the CPU, its moments beside the parameter.
                key: stored[f"adam.{key}.{name}"].to("cpu" if key == "step" else device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"adam.{key}.{name}" in stored
            }
    run.step, run.seconds = data["step"], data["seconds"]
    run.best_step, run.losses = data["best_step"], data["losses"]
    run.curve = [Point(**point) for point in data["curve"]]


def _expect_identity(path: Path, have: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    different = sorted(k for k in {*have, *want} if have.get(k) != want.get(k))
    if different:
        key = different[0]
        raise CompressionError(
            f"{path} is the state of another run ({key}: {have.get(key)}, now {want.get(key)}): "
            "give the same options to go on with it, another --out, or --overwrite to start anew"
        )


@dataclass(frozen=True)
class ProcessGroup:
    """This process among ``size``; ``rank`` 0 judges and writes. The caller has started
    torch.distributed's process group when there is more than one."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def share(batch: int, processes: ProcessGroup) -> range:
    """The places of a batch that this process computes. Raises UsageError for unequal shares."""
    if batch % processes.size:
        raise UsageError(
            f"a batch of {batch} cannot be split equally over {processes.size} processes: "
            f"give --batch a multiple of {processes.size}"
        )
    return range(processes.rank, batch, processes.size)


def average_gradients(
    parameters: Sequence[nn.Parameter], loss: Tensor, processes: ProcessGroup
) -> Tensor:
    """Replace each gradient, and give the loss, by the mean over all processes.

    Equal shares make it the gradient of the mean loss over the whole batch. A parameter without a
    gradient counts as zero.
    """
    if processes.size == 1:
        return loss
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([loss.reshape(1), *(g.reshape(-1) for g in gradients)])
    dist.all_reduce(flat)
    flat /= processes.size
    place = 1
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = flat[place : place + gradient.numel()].view_as(gradient).clone()
        place += gradient.numel()
    return flat[0]


def agree(value: float, processes: ProcessGroup) -> float:
    """Rank 0's value, for all: their clocks differ."""
    if processes.size == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=processes.device)
    dist.broadcast(shared, src=0)
    return float(shared)


def wait(processes: ProcessGroup) -> None:
    """Until every process has come here."""
    if processes.size > 1:
        dist.barrier()
