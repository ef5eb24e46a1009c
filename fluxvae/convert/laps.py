"""How long the steps inside a conversion take, for whoever asks; nobody else pays for it.

A context variable and no argument: the steps lie five calls below the one that wants to know.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LAPS: ContextVar[dict[str, float] | None] = ContextVar("laps", default=None)


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds by name of every ``lap`` inside; laps of one name add up."""
    laps: dict[str, float] = {}
    token = _LAPS.set(laps)
    try:
        yield laps
    finally:
        _LAPS.reset(token)


@contextmanager
def lap(name: str) -> Iterator[None]:
    """One step of that name, if somebody is timing."""
    laps = _LAPS.get()
    began = time.monotonic()
    try:
        yield
    finally:
        if laps is not None:
            laps[name] = laps.get(name, 0.0) + time.monotonic() - began
