"""Plain text that lines up and stays within 100 columns."""

import textwrap
from collections.abc import Iterable

WIDTH = 100


def hanging(text: str, indent: int) -> str:
    """Wrap ``text`` for a position ``indent`` columns in; long paths and digests stay whole."""
    lines = textwrap.wrap(text, WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(lines)


def rows(pairs: Iterable[tuple[str, str]], indent: int = 2, label: int = 10) -> str:
    """Labelled lines, the values in one column."""
    margin = " " * indent
    return "\n".join(
        f"{margin}{name.ljust(label)}{hanging(value, indent + label)}" for name, value in pairs
    )


def duration_text(seconds: float) -> str:
    """``40 minutes``, ``7 hours``, ``3 days``: a guess needs no more."""
    for unit, length in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}s"
    return f"{seconds:.0f} seconds"


def size_text(count: int) -> str:
    """Bytes for people: ``2.7 MB`` (decimal, as shops and Finder count)."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
