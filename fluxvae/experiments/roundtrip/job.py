"""Everything that a round trip needs, and what decides its cells."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fluxvae import __version__
from fluxvae.experiments.roundtrip.candidates import Candidate, EncoderArtifact, with_encoder
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Size
from fluxvae.records.ablation import Part
from fluxvae.records.roundtrip import REFERENCE
from fluxvae.validation.metrics import Meter

GAIN = 16.0  # of difference pictures: fp16's error shows as a level or two, four bits' as grey
ENCODER = "encoder"  # the part that an encoder's artifact is
TOOLS = ("coremltools", "numpy", "pillow", "scikit-image", "torch")


@dataclass(frozen=True, eq=False)  # networks have no useful ==
class Job:
    """Everything a run needs.

    ``ablations`` are labels of variants, each with its parts; ``extra`` the candidates of parts
    that are no variant themselves, labelled as ``part_label`` says. ``artifact``: of the encoder,
    for trips by artifacts alone.
    """

    family: str
    size: Size
    weights: Weights
    encoder: Weights
    candidates: tuple[Candidate, ...]
    ablations: tuple[tuple[str, tuple[Part, ...]], ...]
    extra: tuple[Candidate, ...]
    meter: Meter
    out: Path
    artifact: EncoderArtifact | None = None

    @cached_property
    def parts(self) -> tuple[Candidate, ...]:
        """Candidates that are parts only: those of ablations, and trips through the encoder's
        artifact, by the float32 decoder and by each variant.
        """
        if self.artifact is None:
            return self.extra
        first = self.candidates[0]
        torch_decoder = replace(first, digest=REFERENCE, decode=self.decode)
        alone = with_encoder(torch_decoder, self.artifact, part_label(ENCODER))
        both = (
            with_encoder(c, self.artifact, part_label(f"{ENCODER}-{c.label}"))
            for c in self.candidates
        )
        return (*self.extra, alone, *both)

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """The float32 reference's image (1, 3, H, W) of its latent (1, C, h, w)."""
        with torch.no_grad():
            image: np.ndarray = self.decoder(torch.from_numpy(latent)).numpy()
        return image

    @cached_property
    def decoder(self) -> nn.Module:
        """The float32 reference."""
        return build_decoder(self.weights)

    @cached_property
    def setting(self) -> dict[str, Any]:
        """What decides every cell, besides the picture and the candidate."""
        return {
            "weights": self.weights.digest,
            "encoder": self.encoder.digest,
            "size": str(self.size),
            "metrics": [asdict(metric) for metric in self.meter.metrics],
            "gain": GAIN,
            "tools": tools(),
        }


def tools() -> dict[str, str]:
    """Versions of what makes the figures; the metrics' libraries are named with the metrics."""
    return {"fluxvae": __version__, **{name: version(name) for name in TOOLS}}


def part_label(recipe_name: str) -> str:
    """How the candidate of an ablation's part is called among cells."""
    return f"part-{recipe_name}"
