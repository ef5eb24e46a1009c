"""Energy of a decode, engine by engine, from macOS' ``powermetrics``.

Two windows of equal length: the idle Mac, then the same Mac decoding without a pause. The
difference of the mean powers times the time of one decode is that decode's energy. Samples lie
wholly inside steady work, so nothing has to be aligned with them; powermetrics' timestamps have
whole seconds only.

Relative only: "average power values reported by powermetrics are estimated and may be inaccurate -
hence they should not be used for any comparison between devices"
(powermetrics(1), https://keith.github.io/xcode-man-pages/powermetrics.1.html).

Rehearsed on Linux with recordings made by tests; not yet run on a Mac.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fluxvae.device.host import Answer, Host
from fluxvae.device.power_plist import ENGINES, Recording, parse_recording
from fluxvae.device.powermetrics import check_host, require_host
from fluxvae.errors import PowerError, UsageError
from fluxvae.records.experiment import Energy

RELATIVE = (
    "relative only: powermetrics estimates these; compare artifacts measured on one Mac, never Macs"
)
SUDO, POWERMETRICS = "/usr/bin/sudo", "/usr/bin/powermetrics"
PROMPT = "Password, for this one run of powermetrics: "
HOW_TO_ALLOW = (
    "powermetrics needs administrator rights: run `sudo -v` first, or allow it alone by the line "
    f"`YOURNAME ALL=(root) NOPASSWD: {POWERMETRICS}` in sudoers (`sudo visudo`)"
)
_LOOK_AGAIN = 5.0  # seconds; macOS renews the load average as often
_LONGEST = 50.0  # seconds; Host.run waits a minute


@dataclass(frozen=True)
class Window:
    """How many samples of which length. Raises UsageError for none, or over 50 seconds."""

    samples: int = 40
    interval_ms: int = 100

    def __post_init__(self) -> None:
        seconds = self.samples * self.interval_ms / 1000
        if self.samples < 1 or self.interval_ms < 1 or seconds > _LONGEST:
            raise UsageError(
                f"a window of {self.samples} samples of {self.interval_ms} ms is not possible: "
                f"expected at least one of each, and {_LONGEST:g} seconds at most"
            )


def measure_energy(
    host: Host,
    window: Window,
    decode: Callable[[], object],
    *,
    patience_s: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Energy:
    """Energy of one ``decode()`` in mJ for each of cpu, gpu and ane, above the idle Mac's.

    Refuses, by PowerError, a host that is not on mains power, quiet and cool, before or after;
    missing rights; and a recording that cannot be used. Where nothing but the load average stands
    in the way, as after a conversion, it waits for up to ``patience_s`` seconds. Never asks for a
    password. Whatever ``decode`` raises comes through.
    """
    wait_for_quiet(host, patience_s, clock, sleep)
    require_host(host)
    decode()  # loads and warms up; its caches are no part of the idle window
    idle = record(host, window)
    with ThreadPoolExecutor(1) as pool:
        start, decodes = clock(), 0
        active = pool.submit(record, host, window)
        while not active.done():
            decode()
            decodes += 1
        seconds = clock() - start
        busy = active.result()
    require_host(host, load=False)
    return energy(idle, busy, decodes, seconds)


def wait_for_quiet(
    host: Host,
    patience_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Wait while the load average alone is unfit, for ``patience_s`` seconds at most."""
    start = clock()
    while clock() - start < patience_s:
        if [check.name for check in check_host(host) if not check.met] != ["load"]:
            return
        sleep(_LOOK_AGAIN)


def energy(idle: Recording, active: Recording, decodes: int, seconds: float) -> Energy:
    """Energy per decode: (active - idle) mW x seconds / decodes, which is mJ.

    ``decodes`` were done one after the other in ``seconds``, while ``active`` was recorded. An
    engine that did nothing may come out a little under zero: that is the noise, and it stays.
    Raises PowerError when nothing was decoded.
    """
    if decodes < 1 or seconds <= 0:
        raise PowerError(
            f"{decodes} decodes in {seconds:g} s were recorded: a decode must fit into the window; "
            "use a longer one"
        )
    before, during = idle.mean_mw(), active.mean_mw()
    notes = [RELATIVE, *dict.fromkeys((*idle.notes, *active.notes))]
    if not any(sample.mw["ane"] for sample in (*idle.samples, *active.samples)):
        notes.append("the Neural Engine's channel stayed at 0: unused, or not reported here")
    return Energy(
        engines_mj={e: (during[e] - before[e]) * seconds / decodes for e in ENGINES},
        idle_mw=before,
        decodes=decodes,
        seconds=seconds,
        note="; ".join(notes),
    )


def command(window: Window, *, ask: bool = False) -> list[str]:
    """The one command that is run as root. Without ``ask`` sudo asks nothing and fails instead.

    With it, ``-k`` makes sudo neither use nor keep rights: they serve this one run and nothing
    else (sudo(8)).
    """
    rights = ["-k", "-p", PROMPT] if ask else ["-n"]
    samplers = ["--samplers", "cpu_power,gpu_power,ane_power", "-f", "plist"]
    length = ["-i", str(window.interval_ms), "-n", str(window.samples)]
    return [SUDO, *rights, POWERMETRICS, *samplers, *length]


def record(host: Host, window: Window, *, ask: bool = False) -> Recording:
    """Record one window. ``ask`` lets sudo ask for a password on the terminal.

    Raises PowerError without the rights, when powermetrics fails, and when fewer than half of the
    samples came.
    """
    answer = host.run(command(window, ask=ask))
    if answer is None:
        raise PowerError(
            f"{POWERMETRICS} could not be run through {SUDO}, or gave no answer for a minute"
        )
    if answer.code != 0:
        raise PowerError(_complaint(answer))
    recording = parse_recording(answer.out)
    if 2 * len(recording.samples) < window.samples:
        raise PowerError(
            f"powermetrics gave {len(recording.samples)} samples of {window.samples}: measure again"
        )
    return recording


def _complaint(answer: Answer) -> str:
    lines = [line for line in answer.err.splitlines() if line.strip()]
    reason = lines[-1].strip()[:200] if lines else f"exit code {answer.code}"
    if reason.startswith("sudo:") or "superuser" in reason:
        return f"{HOW_TO_ALLOW} ({reason})"
    return f"powermetrics failed: {reason}"
