"""Fetch a pinned file of the Hugging Face Hub, and never trust it before its digest is right.

What is in the cache can be asked without torch and without the network. All through
huggingface_hub, which reads ``HF_HOME``, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and ``HF_TOKEN``
itself and is imported only when something is asked; nothing here reads or sets the environment.
Every failure becomes one line that names the way out, and ends within seconds: no failure is
retried for long.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack
from urllib.parse import urlsplit

from fluxvae.errors import DownloadError, WeightsError
from fluxvae.files import file_sha256
from fluxvae.networks.catalog import HubFile, find_decoder

if TYPE_CHECKING:
    from huggingface_hub.utils.tqdm import tqdm

Progress = Callable[[int, int | None], None]  # (bytes so far, bytes in all if known)

# huggingface_hub resumes a broken download for as long as any byte arrives, which is for ever
# when a server cuts each time and ignores Range.
_MOST_BYTES_OVER_SIZE = 3


class Fetching(TypedDict, total=False):
    """How a pinned file is had; each left out is as in ``fetch_file``.

    ``offline`` uses only huggingface_hub's cache; ``cache_dir`` and ``endpoint`` default to its
    own. ``progress`` is called with bytes so far and bytes in all; without it nothing is shown.
    """

    offline: bool
    cache_dir: Path | None
    endpoint: str | None
    progress: Progress | None


def fetch_weights(
    variant: str,
    *,
    kind: str = "tiny",
    **fetching: Unpack[Fetching],
) -> Path:
    """Path of the variant's pinned file in the cache, fetched when absent and always verified.

    Raises UsageError for an unknown variant; DownloadError and WeightsError as ``fetch_file``.
    """
    return fetch_file(find_decoder(variant, kind).hub, **fetching)


def fetch_file(
    hub: HubFile,
    *,
    offline: bool = False,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Path of the pinned file in huggingface_hub's cache; see ``Fetching``.

    Raises DownloadError when the file is neither cached nor to be had, WeightsError when its
    sha256 is not the pinned one.
    """
    path = _cached(hub, cache_dir)
    if path is not None:
        _verify(hub, path, "the cached copy is damaged, or not the pinned file")
        return path
    if offline:
        raise DownloadError(
            f"{_name(hub)} is not in the cache and fetching is off (--offline): "
            f"run once online, {_ways_out(hub)}"
        )
    path = _download(hub, cache_dir, endpoint, progress)
    _verify(hub, path, "what the server sent is not the pinned file")
    return path


def _cached(hub: HubFile, cache_dir: Path | None) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            hf_hub_download(
                hub.repo,
                hub.file,
                revision=hub.revision,
                cache_dir=cache_dir,
                local_files_only=True,
            )
        )
    except LocalEntryNotFoundError:
        return None


def _download(
    hub: HubFile, cache_dir: Path | None, endpoint: str | None, progress: Progress | None
) -> Path:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    url = hf_hub_url(hub.repo, hub.file, revision=hub.revision, endpoint=endpoint)
    host = urlsplit(url).netloc
    # huggingface_hub's, httpx's (1.x), httpx2's (2.x) and hf_xet's exceptions all come through
    # here and share no base class.
    with quiet_hub():
        try:
            # Asked first because hf_hub_download repeats a failed request for half a minute.
            get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT, endpoint=endpoint)
        except Exception as error:
            raise DownloadError(_refusal(hub, host, error)) from error
        try:
            path = hf_hub_download(
                hub.repo,
                hub.file,
                revision=hub.revision,
                cache_dir=cache_dir,
                endpoint=endpoint,
                tqdm_class=_progress_class(hub, progress),
            )
        except DownloadError:
            raise
        except Exception as error:
            raise DownloadError(_broken_off(hub, host, error)) from error
    return Path(path)


def _verify(hub: HubFile, path: Path, what: str) -> None:
    if hub.sha256 is None:  # pinned by its commit alone; what was seen goes into the artifact
        return
    actual = file_sha256(path)
    if actual != hub.sha256:
        raise WeightsError(
            f"{_name(hub)}: {what}: expected sha256 {hub.sha256}, got {actual}. "
            f"Nothing was loaded: delete {path.resolve()} and run again, {_ways_out(hub)}"
        )


def _refusal(hub: HubFile, host: str, error: Exception) -> str:
    """Why the request for the file's facts failed, and what to do, in one line."""
    from huggingface_hub import errors as hub_errors

    name, page = _name(hub), f"https://huggingface.co/{hub.repo}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub_errors.OfflineModeIsEnabled):
        reason = f"{name} is not in the cache and HF_HUB_OFFLINE is set: run once without it"
    elif isinstance(error, hub_errors.RevisionNotFoundError):
        reason = f"{host} has no revision {hub.revision} of {hub.repo} (404): its owner removed it"
    elif isinstance(error, hub_errors.EntryNotFoundError):
        reason = f"{host} has no file {hub.file} in {hub.repo} (404): its owner removed it"
    elif isinstance(error, hub_errors.GatedRepoError) or (hub.gated and status in (401, 403)):
        reason = (
            f"{hub.repo} is gated ({status}): accept its conditions at {page}, make a token at "
            "https://huggingface.co/settings/tokens and set HF_TOKEN to it (or run `hf auth login`)"
        )
    elif status in (401, 403):
        reason = (
            f"{host} refuses access to {hub.repo} ({status}): it is private, gated or gone; "
            "log in (`hf auth login` or HF_TOKEN)"
        )
    elif status == 404:
        reason = f"{host} has no repository {hub.repo} (404): its owner removed or renamed it"
    elif status is not None:
        reason = f"{host} answered {status} for {name}: try again later"
    else:
        reason = f"cannot reach {host} for {name} ({_one_line(error)}): check the network"
    return f"{reason}, {_ways_out(hub)}"


def _broken_off(hub: HubFile, host: str, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f"cannot write {_name(hub)} to the cache ({_one_line(error)}): free space or choose "
            f"another folder with HF_HOME, {_ways_out(hub)}"
        )
    return (
        f"the connection to {host} broke while fetching {_name(hub)} ({_one_line(error)}); "
        f"nothing was kept: try again, {_ways_out(hub)}"
    )


def _name(hub: HubFile) -> str:
    return f"{hub.repo}/{hub.file}"


def _ways_out(hub: HubFile) -> str:
    other = "random" if hub.repo.startswith("black-forest-labs/") else "demo"
    return f"or download {hub.page} and give it with --weights PATH, or try --weights {other}"


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _progress_class(hub: HubFile, progress: Progress | None) -> "type[tqdm]":
    """A bar that draws nothing: it reports to ``progress`` and ends a download that circles."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.size: int | None = kwargs.get("total")
            self.received = 0
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self.received += max(int(n or 0), 0)
            if self.size and self.received > _MOST_BYTES_OVER_SIZE * self.size:
                raise DownloadError(
                    f"the connection breaks each time while fetching {_name(hub)}; nothing was "
                    f"kept: try another network, {_ways_out(hub)}"
                )
            if progress is not None:
                done = self.received if self.size is None else min(self.received, self.size)
                progress(done, self.size)
            return None

    return Bar


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


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep huggingface_hub's retry warnings off stderr, unless the user asked for its log."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if logger.getEffectiveLevel() >= logging.WARNING:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
