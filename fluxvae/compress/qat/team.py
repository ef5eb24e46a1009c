"""Several processes that train together: who they are, and how they agree.

Plain all-reduce of the gradients instead of DistributedDataParallel: the student's custom rounding
needs no hooks, and one sum a step over five megabytes costs nothing beside the convolutions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch import distributed as dist

from fluxvae.errors import UsageError


@dataclass(frozen=True)
class Team:
    """This process among ``size``; ``rank`` 0 judges and writes. The caller has started
    torch.distributed's process group when there is more than one."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def share(batch: int, team: Team) -> range:
    """The places of a batch that this process computes. Raises UsageError for unequal shares."""
    if batch % team.size:
        raise UsageError(
            f"a batch of {batch} cannot be split equally over {team.size} processes: "
            f"give --batch a multiple of {team.size}"
        )
    return range(team.rank, batch, team.size)


def average_gradients(parameters: Sequence[nn.Parameter], loss: Tensor, team: Team) -> Tensor:
    """Replace each gradient, and give the loss, by the mean over all processes.

    Equal shares make it the gradient of the mean loss over the whole batch. A parameter without a
    gradient counts as zero.
    """
    if team.size == 1:
        return loss
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([loss.reshape(1), *(g.reshape(-1) for g in gradients)])
    dist.all_reduce(flat)
    flat /= team.size
    place = 1
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = flat[place : place + gradient.numel()].view_as(gradient).clone()
        place += gradient.numel()
    return flat[0]


def agree(value: float, team: Team) -> float:
    """The first process's value, for all: their clocks differ."""
    if team.size == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=team.device)
    dist.broadcast(shared, src=0)
    return float(shared)


def wait(team: Team) -> None:
    """Until every process has come here."""
    if team.size > 1:
        dist.barrier()
