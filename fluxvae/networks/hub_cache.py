"""What is in huggingface_hub's cache, asked without torch and without the network."""

from dataclasses import dataclass
from pathlib import Path

from fluxvae.files import file_sha256
from fluxvae.networks.catalog import HubFile


@dataclass(frozen=True)
class CacheEntry:
    """Where one pinned file lies in the cache (``path``), or None when it is not there."""

    hub: HubFile
    path: Path | None

    def problem(self) -> str | None:
        """Why loading would refuse the cached file; None when it is as pinned, or not there.

        Reads the whole file.
        """
        if self.path is None:
            return None
        try:
            found = file_sha256(self.path)
        except OSError as error:
            return f"the cached file cannot be read ({error.strerror})"
        pinned = self.hub.sha256
        if pinned in (None, found):
            return None
        return (
            f"the cached file is damaged, or not the pinned one (sha256 {found[:12]}..., "
            f"expected {str(pinned)[:12]}...)"
        )

    def way_out(self, fetch: str) -> str:
        """What to do about a ``problem``; ``fetch`` is the command that fetches the file."""
        return f"delete {self.path and self.path.resolve()}, then run `{fetch}`"


def cache_folder() -> Path:
    """The folder huggingface_hub caches in: it reads ``HF_HOME`` and ``HF_HUB_CACHE`` itself.

    Raises ImportError when huggingface_hub is not installed.
    """
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def look_up(hub: HubFile, cache_dir: Path | None = None) -> CacheEntry:
    """Look for exactly the pinned revision. ``CacheEntry.problem`` verifies its content.

    Raises ImportError when huggingface_hub is not installed.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        hub.repo, hub.file, cache_dir=cache_dir or cache_folder(), revision=hub.revision
    )
    return CacheEntry(hub, Path(found) if isinstance(found, str) else None)
