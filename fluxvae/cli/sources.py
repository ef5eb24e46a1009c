"""Option groups that commands share: whose weights, whose latents, and what runs a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.options import LATENT_FILES, Variant, option, say
from fluxvae.errors import UsageError, WeightsError
from fluxvae.networks.catalog import DECODERS, PARTS

if TYPE_CHECKING:
    from fluxvae.artifact.record import Record
    from fluxvae.data.latents import LatentFile
    from fluxvae.networks.catalog import LatentContract
    from fluxvae.networks.weights import Weights
    from fluxvae.recipes import Recipe

# The units are the keys of fluxvae.artifact.backends.COMPUTE_UNITS; help must not wait for its
# numpy.
BACKENDS = ("auto", "reference", "coreml")
UNITS = ("all", "cpuOnly", "cpuAndGPU", "cpuAndNeuralEngine")
_WEIGHTS = (
    "A .safetensors or .pth file, the index of several, or a folder; 'demo' (shipped, not "
    "FLUX's latent space); or 'random[:SEED]'. Default: the pinned file of the Hugging Face Hub."
)
_OWN_WEIGHTS = "The weights the artifact was made from; needed when they came from a file."
_ENCODER = "Encoder that makes latents of photos. [default: the one that belongs to --weights]"
STRICT = "Refuse latents that look like those of another space or order, instead of noting it."
_OFFLINE: dict[str, Any] = {
    "is_flag": True, "help": "Never use the network; take weights from the cache only."
}  # fmt: skip
_DECODER: dict[str, Any] = {
    "type": click.Choice(DECODERS),
    "default": "tiny",
    "show_default": True,
    "help": "The tiny network, or a KL network: full, or (FLUX.2) small.",
}

Log = Callable[[str], None]  # gets a line of progress or a note

weights_option = click.option("--weights", metavar="SOURCE", help=_WEIGHTS)
decoder_option = click.option("--decoder", **_DECODER)
offline_option = click.option("--offline", **_OFFLINE)


@dataclass(frozen=True)
class Sources:
    """Where a tiny decoder's weights come from, and the encoder's that makes its photo latents."""

    variant: str = option(
        "--variant",
        type=Variant(),
        required=True,
        help="Whose VAE. z-image and hidream are names for flux1, whose VAE those models use.",
    )
    weights: str | None = option("--weights", metavar="SOURCE", help=_WEIGHTS)
    encoder: str | None = option("--encoder", metavar="PATH", help=_ENCODER)
    offline: bool = option("--offline", **_OFFLINE)

    @property
    def kind(self) -> str:
        """``tiny``, ``full`` or ``small``."""
        return "tiny"

    @property
    def half(self) -> str:
        """``decoder`` or ``encoder``: which part of the VAE is made."""
        return "decoder"

    @property
    def label(self) -> str:
        """``demo`` or ``random`` where the weights are that, else the file's name or nothing."""
        return (self.weights or "").partition(":")[0]

    def load(self, log: Log = say) -> Weights:
        """The weights; ``log`` gets what was taken of a file that holds more."""
        from fluxvae.networks.weights import load_weights

        log(f"loading {self.weights or 'pinned'} weights of {self.variant}")
        weights = load_weights(
            self.variant, self.weights, kind=self.kind, part=self.half, offline=self.offline
        )
        say_notes(weights.notes, log)
        return weights

    def find_encoder(self, log: Log = say) -> Weights | None:
        """``--encoder`` when given, else the one that belongs to ``--weights``; None without one.

        An encoder needs no other: then it is None. Raises WeightsError, UsageError or
        DownloadError when there is one that cannot be used.
        """
        from fluxvae.networks.weights import find_encoder, load_weights

        variant, kind, offline = self.variant, self.kind, self.offline
        if self.half == "encoder":
            if self.encoder is not None:
                raise UsageError("--encoder is for decoders: give an encoder's own with --weights")
            return None
        if self.encoder is None:
            return find_encoder(variant, self.weights, kind=kind, offline=offline)
        chosen = load_weights(variant, self.encoder, kind=kind, part="encoder", offline=offline)
        say_notes(chosen.notes, log)
        return chosen

    def load_pair(self, purpose: str, log: Log = say) -> tuple[Weights, Weights]:
        """Decoder and encoder, for commands that cannot go without one.

        ``purpose``: what it is needed for, as in "a round trip begins with one". Raises
        WeightsError when there is none, and as ``load``.
        """
        weights, encoder = self.load(log), self.find_encoder(log)
        if encoder is None:
            raise WeightsError(
                f"no encoder belongs to these weights, and {purpose}: pass it with --encoder PATH"
            )
        return weights, encoder

    def load_with_encoder(self, purpose: str, log: Log = say) -> tuple[Weights, Weights | None]:
        """``load_pair`` of a decoder; an encoder's weights alone, which need no other."""
        if self.half == "encoder":
            return self.load(log), self.find_encoder(log)
        return self.load_pair(purpose, log)


@dataclass(frozen=True)
class AnySources(Sources):
    """The same of any network."""

    decoder: str = option("--decoder", **_DECODER)
    part: str = option(
        "--part",
        type=click.Choice(PARTS),
        default="decoder",
        show_default=True,
        help="Latents to images, or images to latents: the encoder that belongs to the decoder.",
    )

    @property
    def kind(self) -> str:
        return self.decoder

    @property
    def half(self) -> str:
        return self.part


@dataclass(frozen=True)
class OwnSources:
    """The weights of an artifact, and an encoder."""

    weights: str | None = option("--weights", metavar="SOURCE", help=_OWN_WEIGHTS)
    encoder: str | None = option("--encoder", metavar="PATH", help=_ENCODER)
    offline: bool = option("--offline", **_OFFLINE)

    def resolve(self, record: Record) -> tuple[Weights, AnySources]:
        """The artifact's own weights, and where they and its encoder come from.

        Raises WeightsError as ``fluxvae.validation.validate.resolve_weights``.
        """
        from fluxvae.validation.validate import resolve_weights

        weights, spec = resolve_weights(record, self.weights, offline=self.offline)
        say_notes(weights.notes)
        recipe = record.recipe
        return weights, AnySources(
            recipe.variant, spec, self.encoder, self.offline, recipe.decoder, recipe.part
        )


@dataclass(frozen=True)
class UserLatents:
    """A file of latents instead of the photos'."""

    latents: Path | None = option(
        "--latents",
        type=click.Path(path_type=Path),
        help=f"Your own latents ({LATENT_FILES}) instead of the photos'.",
    )
    strict: bool = option("--strict", is_flag=True, help=STRICT)

    def read(self, recipe: Recipe, contract: LatentContract) -> LatentFile | None:
        """What of the file an artifact of ``recipe`` takes, its notes printed; None without a file.

        ``contract``: the artifact's. Raises LatentError as ``read_latents``.
        """
        from fluxvae.data.latents import read_latents
        from fluxvae.recipes.axes import latent_input

        if self.latents is None:
            return None
        wanted = latent_input(recipe, contract, recipe.sizes)
        given = read_latents(self.latents, wanted, strict=self.strict)
        say_notes(given.notes)
        return given


@dataclass(frozen=True)
class Runner:
    """What runs an artifact."""

    backend: str = option(
        "--backend",
        type=click.Choice(BACKENDS),
        default="auto",
        show_default=True,
        help="Who runs the artifact: Core ML on a Mac, our executor anywhere.",
    )
    compute_units: str = option(
        "--compute-units",
        type=click.Choice(UNITS),
        default="all",
        show_default=True,
        help="For Core ML on a Mac.",
    )


def say_notes(notes: tuple[str, ...], log: Log = say) -> None:
    """On stderr, what was taken and what was passed over."""
    for note in notes:
        log(f"note: {note}")
