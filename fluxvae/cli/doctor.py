"""``fluxvae doctor``."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fluxvae.cli.options import OUT, json_option, print_json
from fluxvae.cli.text import hanging

if TYPE_CHECKING:
    from fluxvae.device.doctor import Finding

COLOURS = {"ok": "green", "info": "blue", "warn": "yellow", "missing": "red"}
_STATUS, _NAME = 9, 23


@click.command()
@click.option("--hub", is_flag=True, help="Also ask whether the Hugging Face Hub is reachable.")
@json_option
def command(hub: bool, as_json: bool) -> None:
    """Say what this machine can and cannot do, and what to do about it.

    Looks at the system, Xcode, the installed packages, the weights cache, memory and disk.
    Changes nothing, and uses the network only with --hub.

    \b
    Example:
      fluxvae doctor
    """
    from fluxvae.device.doctor import TASKS, abilities, examine

    findings = examine(check_hub=hub, out=OUT)
    can = abilities(findings)
    if as_json:
        print_json({"can": can, "findings": [asdict(finding) for finding in findings]})
        return
    for finding in findings:
        click.echo(_describe(finding))
    click.echo("\nThis machine can:")
    for task, words in TASKS.items():
        reasons = [finding.name for finding in findings if task in finding.blocks]
        click.echo(_ability(words, reasons))


def _ability(words: str, reasons: list[str]) -> str:
    if not reasons:
        return click.style("yes".ljust(_STATUS), fg="green") + words
    text = hanging(f"{words} (see: {', '.join(reasons)})", _STATUS)
    return click.style("no".ljust(_STATUS), fg="red") + text


def _describe(finding: "Finding") -> str:
    """Status, name and fact on one line, advice below, nothing wider than 100 columns."""
    status = click.style(finding.status.ljust(_STATUS), fg=COLOURS[finding.status])
    indent = _STATUS + _NAME
    lines = [f"{status}{finding.name.ljust(_NAME)}{hanging(finding.what, indent)}"]
    if finding.advice:
        lines.append(" " * indent + hanging(f"-> {finding.advice}", indent))
    return "\n".join(lines)
