"""The property lists of macOS' ``powermetrics`` as samples: power of each engine.

``-f plist`` prints one XML property list a sample, NUL-separated (powermetrics(1),
https://man.imzye.com/MacOS/powermetrics/). On Apple silicon each has ``elapsed_ns``, and under
``processor`` for every engine a mean power in mW (``ane_power``) and an energy in mJ
(``ane_energy``); newer systems have the GPU's under ``gpu`` as well:
https://docs.rs/crate/pumas/latest/source/src/modules/powermetrics/plist_parsing.rs,
https://github.com/fleetcmdr/fleetcmdr (server/types.go), https://github.com/okuvshynov/cubestat.
We have not seen a Mac's own output yet.
"""

import math
import plistlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.parsers.expat import ExpatError

from fluxvae.errors import PowerError

ENGINES = ("cpu", "gpu", "ane")

# What plistlib raises for text that is not a property list; more than it documents.
_DAMAGE = (ExpatError, ValueError, TypeError, AttributeError, LookupError, OverflowError)


@dataclass(frozen=True)
class Sample:
    """Mean power in mW of each of ``ENGINES`` over ``seconds``."""

    seconds: float
    mw: dict[str, float]


@dataclass(frozen=True)
class Recording:
    """Consecutive samples, at least one. ``notes``: what was left out, in sentences."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Time that the samples cover."""
        return math.fsum(sample.seconds for sample in self.samples)

    def mean_mw(self) -> dict[str, float]:
        """Mean power in mW of each engine, every sample weighted by its own length."""
        return {
            engine: math.fsum(s.mw[engine] * s.seconds for s in self.samples) / self.seconds
            for engine in ENGINES
        }


def parse_recording(text: str) -> Recording:
    """What ``powermetrics`` printed, as samples.

    A last sample that was cut off is dropped with a note where there are others. Raises PowerError
    when there is no whole sample, when one before the last is damaged, or when an engine's channel
    is missing.
    """
    blocks = [block.strip() for block in text.split("\0")]
    blocks = [block for block in blocks if block]
    if not blocks:
        raise PowerError(
            "powermetrics printed no sample; expected property lists (-f plist): try "
            "`fluxvae power probe`"
        )
    samples, notes = [], []
    for number, block in enumerate(blocks, start=1):
        where = f"sample {number} of {len(blocks)}"
        try:
            data = plistlib.loads(block.encode())
        except _DAMAGE as error:
            if number < len(blocks) or number == 1:
                raise PowerError(
                    f"{where} of powermetrics is cut off or damaged ({error}): measure again"
                ) from error
            notes.append("the last sample was cut off and is left out")
            break
        samples.append(_sample(data, where))
    return Recording(tuple(samples), tuple(notes))


def _sample(data: Any, where: str) -> Sample:
    if not isinstance(data, Mapping):
        raise PowerError(f"{where} of powermetrics is not a dictionary: measure again")
    seconds = (_number(data, "elapsed_ns") or 0.0) / 1e9
    if not seconds:
        raise PowerError(f"{where} of powermetrics has no elapsed_ns; expected nanoseconds over 0")
    return Sample(seconds, {engine: _power(data, engine, seconds, where) for engine in ENGINES})


def _power(data: Mapping[str, Any], engine: str, seconds: float, where: str) -> float:
    """Mean power in mW; where two dictionaries have the GPU's, one of them may have stayed at 0."""
    sections = ("processor", "gpu") if engine == "gpu" else ("processor",)
    found = [_of_section(data.get(section), engine, seconds) for section in sections]
    known = [value for value in found if value is not None]
    if not known:
        raise PowerError(
            f"{where} of powermetrics has no {engine.upper()} channel (processor.{engine}_power "
            f"or {engine}_energy): this Mac or this macOS does not report what its engines take, "
            "so energy cannot be measured on it"
        )
    return max(known)


def _of_section(section: Any, engine: str, seconds: float) -> float | None:
    if not isinstance(section, Mapping):
        return None
    power = _number(section, f"{engine}_power")  # mW
    if power is not None:
        return power
    energy = _number(section, f"{engine}_energy")  # mJ over the sample
    return None if energy is None else energy / seconds


def _number(section: Mapping[str, Any], key: str) -> float | None:
    """A finite number from 0 on; None for what is not there or is none."""
    value = section.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
