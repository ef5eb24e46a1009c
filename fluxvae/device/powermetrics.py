"""Whether energy can be measured on this machine, here and now: one finding a condition.

The answers of ``pmset`` and ``sysctl`` that are looked for:
``Now drawing from 'AC Power'`` (https://stackoverflow.com/a/42361337); ``lowpowermode 0`` or
``powermode 0``; ``Note: No thermal warning level has been recorded`` and ``CPU_Speed_Limit = 100``
(https://github.com/fmorrisey/mac_sys_utils); ``vm.loadavg``'s ``{ 1.52 1.60 1.71 }``. Written from
these and not yet run on a Mac; an answer that is not understood refuses.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fluxvae.device.host import Host, sysctl
from fluxvae.errors import PowerError

MOST_LOAD = 2.0  # of the last minute


@dataclass(frozen=True)
class Check:
    """One condition: what was found and, where it is not met, what to do."""

    name: str
    met: bool
    what: str
    advice: str = ""


def check_host(host: Host, *, load: bool = True) -> tuple[Check, ...]:
    """Every condition of a measurement but the rights, in the order to read them.

    ``load`` False leaves the load average out, for after a measurement: that made its own load.
    On anything but a Mac the first is the only one.
    """
    system = _system(host)
    if not system.met:
        return (system,)
    found = [system, _rosetta(host), _mains(host), _low_power(host), _throttling(host)]
    return (*found, _load(host)) if load else tuple(found)


def require_host(host: Host, *, load: bool = True) -> None:
    """Raise PowerError with every condition of ``check_host`` that is not met."""
    refuse(check_host(host, load=load))


def refuse(checks: Sequence[Check]) -> None:
    """Raise PowerError when one of ``checks`` is not met."""
    unmet = [f"{c.what} ({c.advice})" if c.advice else c.what for c in checks if not c.met]
    if unmet:
        raise PowerError(f"energy cannot be measured here and now: {'; '.join(unmet)}")


def _system(host: Host) -> Check:
    if host.system != "Darwin":
        return Check(
            "system",
            False,
            f"this is {host.system}, and energy is measured by powermetrics, which only macOS has",
            "use a Mac with Apple silicon",
        )
    return Check("system", True, f"macOS {host.release}, {host.arch}")


def _rosetta(host: Host) -> Check:
    translated = sysctl(host, "sysctl.proc_translated")
    if translated == "1":
        return Check(
            "Rosetta",
            False,
            "this Python runs under Rosetta, which costs energy of its own",
            "make the environment again with an arm64 Python",
        )
    if host.arch != "arm64":
        return Check(
            "Rosetta",
            False,
            f"this Mac is {host.arch}: powermetrics tells engines apart on Apple silicon only",
            "use a Mac with Apple silicon",
        )
    return Check("Rosetta", True, "not under Rosetta")


def _mains(host: Host) -> Check:
    output = _pmset(host, "batt")
    source = re.search(r"drawing from '([^']*)'", output or "")
    if source is None:
        return _unknown("mains", "pmset -g batt", output)
    if source[1] != "AC Power":
        return Check("mains", False, f"power comes from {source[1]!r}", "plug the Mac in")
    return Check("mains", True, "on mains power")


def _low_power(host: Host) -> Check:
    output = _pmset(host)
    if not output:
        return _unknown("low power", "pmset -g", output)
    modes = dict(re.findall(r"^\s*(lowpowermode|powermode)\s+(\d+)\s*$", output, re.MULTILINE))
    if "1" in modes.values():  # of powermode 0 is automatic and 2 high
        return Check(
            "low power",
            False,
            "low-power mode is on",
            "turn it off in System Settings, Battery or Energy",
        )
    return Check("low power", True, "low-power mode off" if modes else "has no low-power mode")


def _throttling(host: Host) -> Check:
    output = _pmset(host, "therm")
    if not output:
        return _unknown("throttling", "pmset -g therm", output)
    limits = re.findall(r"(CPU_(?:Speed|Scheduler)_Limit)\s*=\s*(\d+)", output)
    low = [f"{name} {value}" for name, value in limits if int(value) < 100]
    lines = [line.strip() for line in output.splitlines()]
    low += [ln for ln in lines if "warning level" in ln and not re.match(r"(Note: )?No ", ln)]
    if low:
        return Check(
            "throttling", False, f"the Mac is throttled: {low[0]}", "let it cool down, then go on"
        )
    if not limits and not any("warning level" in line for line in lines):
        return _unknown("throttling", "pmset -g therm", output)
    return Check("throttling", True, "not throttled")


def _load(host: Host) -> Check:
    output = sysctl(host, "vm.loadavg")
    # Some locales write 1,52.
    found = re.match(r"\{?\s*(\d+)[.,](\d+)\s", f"{output or ''} ")
    if found is None:
        return _unknown("load", "sysctl vm.loadavg", output)
    load = float(f"{found[1]}.{found[2]}")
    if load > MOST_LOAD:
        return Check(
            "load",
            False,
            f"load average {load:g}, at most {MOST_LOAD:g} is quiet enough",
            "end other programs, wait a minute",
        )
    return Check("load", True, f"load average {load:g}")


def _pmset(host: Host, what: str | None = None) -> str | None:
    """What ``pmset -g [what]`` says; None when it is not there or fails."""
    answer = host.run(["/usr/bin/pmset", "-g", *([what] if what else [])])
    return answer.out if answer is not None and answer.code == 0 else None


def _unknown(name: str, command: str, output: str | None) -> Check:
    text = f"gave {' '.join(output.split())[:80]!r}" if output else "gave no answer"
    return Check(name, False, f"`{command}` {text}, which says nothing of {name}", "please report")
