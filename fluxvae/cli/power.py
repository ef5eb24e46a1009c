"""``fluxvae power probe``."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fluxvae.cli.options import json_option, print_json, say
from fluxvae.cli.text import hanging
from fluxvae.errors import PowerError

if TYPE_CHECKING:
    from fluxvae.device.host import Host
    from fluxvae.device.power import Window
    from fluxvae.device.power_plist import Recording
    from fluxvae.device.powermetrics import Check

_STATUS, _NAME = 9, 13


@click.group()
def command() -> None:
    """Energy on a Mac: say whether it can be measured.

    \b
    Example:
      fluxvae power probe
    """


@command.command(short_help="Say whether energy can be measured here, and if not, why.")
@click.option("--ask/--no-ask", default=None,
              help="Let sudo ask for your password. [default: on a terminal]")  # fmt: skip
@click.option("--samples", type=click.IntRange(1, 500), default=20, show_default=True,
              help="Samples of the idle Mac, of 100 ms each.")  # fmt: skip
@json_option
@click.pass_context
def probe(context: click.Context, ask: bool | None, samples: int, as_json: bool) -> None:
    """Say whether energy can be measured here and now, and if not, why.

    Needs a Mac with Apple silicon, on mains power, low-power mode off, quiet (load average at most
    2), not throttled, not under Rosetta; and the right to run powermetrics, which root alone may
    run. sudo asks for a password if it has to; the right serves that one run and is not kept.
    Records the idle Mac for two seconds and shows each engine's power. Exit code 1 when energy
    cannot be measured. Not yet run on a Mac.

    \b
    Example:
      fluxvae power probe
    """
    from fluxvae.device.host import this_host
    from fluxvae.device.power import RELATIVE, Window
    from fluxvae.device.powermetrics import check_host

    host = this_host()
    checks = list(check_host(host))
    recording = None
    if all(check.met for check in checks):
        may_ask = sys.stdin.isatty() if ask is None else ask
        check, recording = _rights(host, Window(samples), may_ask)
        checks.append(check)
    can = all(check.met for check in checks)
    idle = None if recording is None else recording.mean_mw()
    notes = [] if recording is None else [*recording.notes, RELATIVE]
    if as_json:
        print_json({"can": can, "checks": [asdict(c) for c in checks], "idle_mw": idle,
                    "notes": notes})  # fmt: skip
    else:
        click.echo(_text(checks, recording, notes))
    context.exit(0 if can else 1)


def _rights(host: "Host", window: "Window", ask: bool) -> "tuple[Check, Recording | None]":
    """A short recording of the idle Mac, which is the only sure test of the rights."""
    from fluxvae.device.power import command as command_of
    from fluxvae.device.power import record
    from fluxvae.device.powermetrics import Check

    met = Check("rights", True, "powermetrics may be run, and tells every engine's power")
    try:
        return met, record(host, window)
    except PowerError as error:
        if not ask or "administrator" not in str(error):
            return Check("rights", False, str(error)), None
    say(
        "powermetrics tells what CPU, GPU and Neural Engine take, and only root may run it.\n"
        "sudo asks for your password now, for this one command; nothing else is run with it,\n"
        f"and it is not kept:\n  {' '.join(command_of(window))}"
    )
    try:
        return met, record(host, window, ask=True)
    except PowerError as error:
        return Check("rights", False, str(error)), None


def _text(checks: "list[Check]", recording: "Recording | None", notes: list[str]) -> str:
    lines = [line for check in checks for line in _lines(check)]
    unmet = [check.name for check in checks if not check.met]
    if unmet:
        return "\n".join([*lines, f"\nEnergy cannot be measured here and now: {', '.join(unmet)}."])
    lines.append("\nEnergy can be measured here.")
    if recording is not None:
        power = ", ".join(f"{name} {value:.0f} mW" for name, value in recording.mean_mw().items())
        lines.append(f"Idle, over {recording.seconds:.1f} s: {power}")
    return "\n".join([*lines, *(f"Note: {note}" for note in notes)])


def _lines(check: "Check") -> list[str]:
    word, colour = ("ok", "green") if check.met else ("refused", "red")
    indent = _STATUS + _NAME
    status = click.style(word.ljust(_STATUS), fg=colour)
    lines = [f"{status}{check.name.ljust(_NAME)}{hanging(check.what, indent)}"]
    if check.advice:
        lines.append(" " * indent + hanging(f"-> {check.advice}", indent))
    return lines
