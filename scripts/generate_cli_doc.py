"""Write docs/cli.md: the help text of every command, as the terminal shows it at 100 columns."""

from collections.abc import Iterator
from pathlib import Path

import click

from fluxvae.cli.main import group

PATH = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
WIDTH = 100

HEADER = """\
# The command line

Written by `scripts/generate_cli_doc.py` (`make docs`); do not edit.

Results go to stdout (one JSON object with `--json`), progress and notes to stderr. Exit codes:
0 ok, 1 error, 2 usage, 3 validation failed. `python -m fluxvae` is the same as `fluxvae`.
"""


def commands(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """(full name, help text) of a command and, depth first, of all below it."""
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH
    )
    context.help_option_names = ["-h", "--help"]
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            if child is not None:
                yield from commands(child, child_name, context)


def document() -> str:
    """The whole page."""
    parts = [HEADER]
    for name, text in commands(group, "fluxvae"):
        lines = "\n".join(line.rstrip() for line in text.splitlines())
        parts.append(f"## {name}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PATH.write_text(document(), encoding="utf-8")
    click.echo(str(PATH))
