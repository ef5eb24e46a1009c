"""Names of models that are not entries of the catalogue: those that share a VAE, and newer ones.

Standard library only. Sources: https://huggingface.co/Tongyi-MAI/Z-Image-Turbo and
https://huggingface.co/HiDream-ai/HiDream-I1-Full, whose pipelines load FLUX.1's autoencoder.
"""

import re
from collections.abc import Mapping
from pathlib import Path

ALIASES = {"hidream": "flux1", "z-image": "flux1"}  # the same weights, contract and artifacts
# FLUX 3, however it is spelt: flux3, flux-3, FLUX.3, flux_3_dev, AutoencoderKLFlux3.
_NEWER = re.compile(r"flux[\s._-]*3(?!\d)", re.IGNORECASE)


def resolved(name: str) -> str:
    """The catalogue's name of a model's VAE; other names come back as they are."""
    return ALIASES.get(name.lower(), name)


def why_unknown(name: str) -> str:
    """What to say of a name beside that it is unknown; empty for any but FLUX 3's."""
    if not _NEWER.search(name):
        return ""
    return (
        "FLUX 3 is newer than this fluxvae, which knows neither its latent space nor its "
        "statistics; flux1 and flux2 would give wrong pictures"
    )


def newer_model(path: Path, metadata: Mapping[str, str], config: str) -> str | None:
    """Where a checkpoint says that it is FLUX 3's: its name, its metadata or its ``config.json``.

    None where nothing says so. ``metadata``: of a safetensors file; ``config``: the text of the
    config beside it, or nothing.
    """
    found = (
        ("name", path.name),
        *((f"metadata ({key})", value[:200]) for key, value in sorted(metadata.items())),
        ("config.json", config),
    )
    return next((where for where, text in found if _NEWER.search(text)), None)
