"""Send a Hub folder to the Hugging Face Hub, by huggingface_hub.

The address and the token are the caller's; huggingface_hub reads ``HF_HUB_OFFLINE`` itself.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import HfApi
from huggingface_hub import errors as hub_errors

from fluxvae.errors import PublishError, UsageError
from fluxvae.networks.hub import quiet_hub

# Ours alone: what is left of an earlier publication goes, whatever else is there stays.
OUR_FOLDERS = ["packages/*", "compiled/*"]


@dataclass(frozen=True)
class Target:
    """Where to: ``repo`` is USER/NAME; ``endpoint`` None: huggingface_hub's own.

    Raises UsageError when ``repo`` is not such a name.
    """

    repo: str
    token: str
    private: bool = False
    endpoint: str | None = None

    def __post_init__(self) -> None:
        check_repo(self.repo)


def check_repo(repo: str) -> None:
    """Raise UsageError when ``repo`` is not USER/NAME by the Hub's rules.

    Letters, digits, ``-``, ``_`` and ``.``; neither doubled ``-`` or ``.``, nor one at an end, nor
    ``.git``; 96 characters at most (huggingface_hub's ``validate_repo_id``).
    """
    word = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
    fits = re.fullmatch(f"{word}/{word}", repo, re.ASCII) and len(repo) <= 96
    if not fits or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise UsageError(
            f"--repo {repo!r} is not the name of a repository: expected USER/NAME, of letters, "
            "digits, '-', '_' and '.'"
        )


def upload(folder: Path, target: Target) -> str:
    """Make the repository where there is none, and upload ``folder``. Gives the page's address.

    Packages and compiled models of an earlier upload that are not in ``folder`` are removed; other
    files of the repository stay. Raises PublishError, in one line, when the Hub cannot be reached
    or refuses, and when ``private`` was asked for and the repository is public.
    """
    api = HfApi(endpoint=target.endpoint, token=target.token)
    with quiet_hub():
        try:
            url = api.create_repo(target.repo, private=target.private or None, exist_ok=True)
            if target.private and not api.model_info(target.repo).private:
                raise PublishError(
                    f"{target.repo} is there already and is public: nothing was uploaded; make it "
                    "private on its page, or leave --private out"
                )
            api.upload_folder(
                repo_id=target.repo,
                folder_path=folder,
                commit_message="Published by fluxvae",
                delete_patterns=OUR_FOLDERS,
            )
        except PublishError:
            raise
        except Exception as error:  # huggingface_hub's, httpx's and hf_xet's share no base class
            raise PublishError(_trouble(target, api.endpoint, error)) from error
    return str(url)


def _trouble(target: Target, endpoint: str, error: Exception) -> str:
    """Why the upload failed and what to do, in one line."""
    host = urlsplit(endpoint).netloc
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, hub_errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: run without it to upload, or with --dry-run"
    tokens = f"make one that may write, at {endpoint}/settings/tokens"
    if status == 401:
        return f"{host} does not know the token (401): {tokens}"
    if status == 403:
        return (
            f"{host} does not let this token write to {target.repo} (403): USER must be you or an "
            f"organization of yours, and the token must allow writing; {tokens}"
        )
    if status is not None:
        answer = f"{status}: {_line(error)}"
        return f"{host} refused the upload to {target.repo} ({answer}): try again later"
    return f"cannot reach {host} to upload {target.repo} ({_line(error)}): check the network"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
