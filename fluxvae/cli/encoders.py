"""Weights of a decoder with the encoder that makes its photo latents: what commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxvae.cli.options import say
from fluxvae.errors import WeightsError

if TYPE_CHECKING:
    from fluxvae.networks.weights import Weights


def load_decoder(variant: str, spec: str | None, *, offline: bool, kind: str = "tiny") -> Weights:
    """A decoder's weights; says what was taken of a file or folder that holds more."""
    from fluxvae.networks.weights import load_weights

    weights = load_weights(variant, spec, kind=kind, offline=offline)
    say_notes(weights)
    return weights


def say_notes(weights: Weights) -> None:
    """On stderr, what was taken and what was passed over."""
    for note in weights.notes:
        say(f"note: {note}")


def choose_encoder(
    variant: str, spec: str | None, encoder: str | None, *, offline: bool, kind: str = "tiny"
) -> Weights | None:
    """``--encoder`` when given, else the one that belongs to ``--weights``; None without one.

    Raises WeightsError, UsageError or DownloadError when there is one that cannot be used.
    """
    from fluxvae.networks.weights import find_encoder, load_weights

    if encoder is not None:
        chosen = load_weights(variant, encoder, kind=kind, part="encoder", offline=offline)
        say_notes(chosen)
        return chosen
    return find_encoder(variant, spec, kind=kind, offline=offline)


def load_pair(
    variant: str, spec: str | None, encoder: str | None, *, offline: bool, purpose: str
) -> tuple[Weights, Weights]:
    """A tiny decoder and its encoder, for commands that cannot go without one.

    ``purpose``: what it is needed for, as in "a round trip begins with one". Raises WeightsError
    when there is none, and as ``load_weights``.
    """
    weights = load_decoder(variant, spec, offline=offline)
    found = choose_encoder(variant, spec, encoder, offline=offline)
    if found is None:
        raise WeightsError(
            f"no encoder belongs to these weights, and {purpose}: pass it with --encoder PATH"
        )
    return weights, found
