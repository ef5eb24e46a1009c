"""``fluxvae publish``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxvae.cli.options import json_option, overwrite_option, print_json, say
from fluxvae.cli.text import size_text
from fluxvae.errors import PublishError

if TYPE_CHECKING:
    from fluxvae.publish.folder import HubFolder


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--repo", required=True, metavar="USER/NAME",
              help="Repository of the Hugging Face Hub; made where there is none.")  # fmt: skip
@click.option("--only", metavar="PATTERN", multiple=True,
              help="Cells whose label fits, such as 'flux2-*'; repeatable.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Make and show the folder; upload nothing.")
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--endpoint", metavar="URL",
              help="Another Hub. [default: HF_ENDPOINT, or huggingface.co]")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="PATH",
              help="The folder to make. [default: hub in FOLDER]")  # fmt: skip
@overwrite_option
@json_option
def command(
    folder: Path,
    repo: str,
    only: tuple[str, ...],
    dry_run: bool,
    private: bool,
    endpoint: str | None,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Publish cells of the run FOLDER of `fluxvae matrix` on the Hugging Face Hub.

    Makes a folder of packages, config.json, manifest.json and a model card with the measured table,
    and uploads it. The token comes from HF_TOKEN or `hf auth login`, and must allow writing. A cell
    that failed or is outside its limits, or whose files are not the measured ones, is refused.

    \b
    Examples:
      fluxvae publish runs/today --repo me/flux2-tiny-coreml --dry-run
      fluxvae publish runs/today --repo me/flux2-tiny-coreml --only 'flux2-nchw-*'
    """
    from huggingface_hub import get_token

    from fluxvae.publish.folder import make_folder
    from fluxvae.publish.upload import Target, check_repo, upload

    check_repo(repo)
    token = None if dry_run else get_token()
    if not dry_run and token is None:
        raise PublishError(
            "uploading needs a token: set HF_TOKEN, or run `hf auth login`; --dry-run needs none"
        )
    made = make_folder(folder, repo, out or folder / "hub", only=only, overwrite=overwrite)
    for line in made.choice.left_out:
        say(f"left out: {line}")
    url = None
    if token is not None:
        say(f"uploading {len(made.files)} files, {size_text(made.bytes)}, to {repo}")
        url = upload(made.folder, Target(repo, token, private, endpoint))
    if as_json:
        print_json(_data(made, repo, url))
    else:
        click.echo(_text(made, url))


def _data(made: "HubFolder", repo: str, url: str | None) -> dict[str, object]:
    return {
        "folder": str(made.folder),
        "repo": repo,
        "url": url,
        "bytes": made.bytes,
        "files": [asdict(file) for file in made.files],
        "cells": [r.cell.label() for model in made.choice.models for r in model.cells],
        "left_out": list(made.choice.left_out),
    }


def _text(made: "HubFolder", url: str | None) -> str:
    lines = [f"{size_text(file.bytes):>12}  {file.path}" for file in made.files]
    total = f"{size_text(made.bytes):>12}  in {len(made.files)} files: {made.folder}"
    last = f"Published: {url}" if url else "Nothing was uploaded (--dry-run)."
    return "\n".join([*lines, total, last])
