"""How far activations go: the float32 program on latents, operation by operation.

float16 ends at 65504. What a float32 program computes beyond that becomes infinite in a float16
one, and a GroupNorm whose squares do makes its group zero: the image stays finite and is wrong.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from fluxvae.convert.program import write_packages
from fluxvae.data.arrays import taken_by
from fluxvae.data.latents import Latent
from fluxvae.errors import LatentError
from fluxvae.files import scratch
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Op
from fluxvae.networks.catalog import LatentContract
from fluxvae.recipes import Recipe, Size
from fluxvae.recipes.plan import plan_of

FP16_LIMIT = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Tap:
    """One operation: the largest magnitude of its output over all latents, and on which one."""

    index: int
    kind: str
    name: str
    shape: tuple[int, ...]
    largest: float
    latent: str

    @property
    def headroom(self) -> float:
        """float16's limit over the largest magnitude: below 1 it overflows."""
        return FP16_LIMIT / self.largest if self.largest else math.inf


@dataclass(frozen=True)
class Census:
    """Every operation of one program in order, over all latents of one size."""

    size: Size
    latents: tuple[str, ...]
    taps: tuple[Tap, ...]

    def beyond(self, limit: float = FP16_LIMIT) -> tuple[Tap, ...]:
        """The operations whose output goes beyond ``limit``, in program order."""
        return tuple(tap for tap in self.taps if not tap.largest <= limit)


def take_census(
    decoder: nn.Module, recipe: Recipe, channels: int, latents: Sequence[Latent]
) -> Census:
    """Convert ``recipe`` at float32 for the latents' size, run it on each, and keep the ranges.

    ``latents`` (1, C, h, w), or images (1, 3, H, W) for an encoder, are of the form the recipe
    takes, and of its first size; ``channels`` are those of the network's own latent. Values have
    the names that they have in the artifact which ``recipe`` makes. Raises LatentError without
    latents or for several sizes.
    """
    shapes = {latent.values.shape for latent in latents}
    if len(shapes) != 1:
        raise LatentError(f"a census takes latents of one size, got {sorted(shapes) or 'none'}")
    one = recipe.resolved().exact(recipe.sizes[0])
    with scratch(Path(tempfile.gettempdir())) as folder:
        path = folder / "census.mlpackage"
        plan = plan_of(one, channels=channels)
        write_packages(decoder, plan, path)
        session = Session(read_package(path))
        taps = _taps(session, plan.recipe, plan.contract, latents)
    return Census(one.sizes[0], tuple(latent.name for latent in latents), taps)


def _taps(
    session: Session, recipe: Recipe, contract: LatentContract, latents: Sequence[Latent]
) -> tuple[Tap, ...]:
    (feature,) = session.signature.inputs
    found: dict[str, Tap] = {}
    for latent in latents:
        steps = session.iterate({feature.name: taken_by(recipe, contract, latent.values)})
        for index, (operation, outputs) in enumerate(steps, start=1):
            for name, value in outputs.items():
                if not value.is_floating_point():
                    continue
                tap = _tap(index, operation, name, value, latent.name)
                if name not in found or not tap.largest <= found[name].largest:
                    found[name] = tap
    return tuple(found.values())


def _tap(index: int, operation: Op, name: str, value: Tensor, latent: str) -> Tap:
    low, high = value.aminmax()
    largest = max(-float(low), float(high), 0.0)
    if math.isnan(float(low)) or math.isnan(float(high)):
        largest = math.inf
    return Tap(index, operation.kind, name, tuple(value.shape), largest, latent)
