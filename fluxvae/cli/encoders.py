"""Which encoder makes the photo latents: the rule that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxvae.weights import Weights


def choose_encoder(
    variant: str, spec: str | None, encoder: str | None, *, offline: bool, kind: str = "tiny"
) -> Weights | None:
    """``--encoder`` when given, else the one that belongs to ``--weights``; None without one.

    Raises WeightsError, UsageError or DownloadError when there is one that cannot be used.
    """
    from fluxvae.weights import find_encoder, load_weights

    if encoder is not None:
        return load_weights(variant, encoder, kind=kind, part="encoder", offline=offline)
    return find_encoder(variant, spec, kind=kind, offline=offline)
