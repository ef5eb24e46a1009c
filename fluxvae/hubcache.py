"""What is in huggingface_hub's cache, asked without torch and without the network."""

from dataclasses import dataclass
from pathlib import Path

from fluxvae.catalog import HubFile


@dataclass(frozen=True)
class CacheEntry:
    """Where one pinned file lies in the cache (``path``), or None when it is not there."""

    hub: HubFile
    path: Path | None


def cache_folder() -> Path:
    """The folder huggingface_hub caches in: it reads ``HF_HOME`` and ``HF_HUB_CACHE`` itself.

    Raises ImportError when huggingface_hub is not installed.
    """
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def look_up(hub: HubFile, cache_dir: Path | None = None) -> CacheEntry:
    """Look for exactly the pinned revision. The content is not verified here: loading does.

    Raises ImportError when huggingface_hub is not installed.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        hub.repo, hub.file, cache_dir=cache_dir or cache_folder(), revision=hub.revision
    )
    return CacheEntry(hub, Path(found) if isinstance(found, str) else None)
