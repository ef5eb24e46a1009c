"""Recordings of ``powermetrics`` made up here. NOT RECORDED ON A MAC.

Shaped as powermetrics(1) and the programs named in ``fluxvae.device.power_plist`` describe them:
one XML property list a sample, a NUL before every one but the first, energies rounded to whole mJ.
"""

import plistlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fluxvae.device.host import Answer, Host

QUIET = {
    "pmset -g batt": "Now drawing from 'AC Power'\n -InternalBattery-0 (id=1)\t97%; charged; 0:00",
    "pmset -g": "System-wide power settings:\nCurrently in use:\n lowpowermode  0\n sleep  1",
    "pmset -g therm": (
        "Note: No thermal warning level has been recorded\n"
        "Note: No performance warning level has been recorded\n"
        "Note: No CPU power status has been recorded"
    ),
    "sysctl -n vm.loadavg": "{ 1.52 1.60 1.71 }",
    "sysctl -n sysctl.proc_translated": "0",
}


def sample(seconds: float, drop: Sequence[str] = (), **mw: float) -> dict[str, Any]:
    """One sample with mean powers in mW; ``drop``: engines whose channels are left out."""
    engines: dict[str, Any] = {}
    for engine in ("cpu", "gpu", "ane"):
        if engine not in drop:
            power = mw.get(engine, 0.0)
            engines |= {f"{engine}_energy": round(power * seconds), f"{engine}_power": power}
    clusters = [{"name": "E-Cluster", "freq_hz": 1.02e9, "idle_ratio": 0.9, "cpus": []}]
    return {
        "is_delta": True,
        "elapsed_ns": round(seconds * 1e9),
        "hw_model": "Mac16,10",
        "processor": {"clusters": clusters, **engines},
        "gpu": {"freq_hz": 338.0, "idle_ratio": 0.99},
    }


def printed(samples: Sequence[Mapping[str, Any]]) -> str:
    """What powermetrics prints for them."""
    return "\0".join(plistlib.dumps(dict(s)).decode() for s in samples)


def mac(
    powermetrics: Callable[[Sequence[str]], Answer | None] = lambda command: None,
    **answers: str | None,
) -> Host:
    """A made-up Mac: ``QUIET``'s answers, changed by ``answers`` (by command, None: fails)."""
    known = QUIET | answers

    def run(command: Sequence[str]) -> Answer | None:
        words = [command[0].rsplit("/", 1)[-1], *command[1:]]
        if words[0] == "sudo":
            return powermetrics(command)
        out = known.get(" ".join(words))
        return Answer(1, "", "no") if out is None else Answer(0, out, "")

    return Host(
        system="Darwin",
        release="15.5",
        arch="arm64",
        python=(3, 12, 4),
        memory=16 << 30,
        run=run,
        version=lambda name: None,
        files=lambda name: [],
        free=lambda folder: 100 << 30,
        compilers=list,
    )
