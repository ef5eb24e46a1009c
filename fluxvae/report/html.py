"""What every page is put together from: one file with its own style and script, and no network."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from fluxvae.report.drawing import FRONT, INK, OTHER, PALE

# Colours of plots that follow the page's, light or dark.
THEME = {INK: "ink", PALE: "line", FRONT: "accent", OTHER: "muted", "#ffffff": "paper"}


@dataclass(frozen=True)
class Entry:
    """A figure in a table: what is shown, and what it sorts by (None: always last)."""

    text: str
    sort: str | None
    note: str = ""


def dump_page(
    path: Path, template: str, styles: Iterable[str], scripts: Iterable[str], **values: Any
) -> None:
    """Write ``template`` to ``path`` with ``values``, the styles and the scripts in it.

    All are names of files of this package. The template gets ``css``, ``script`` and
    ``script_hash``, by which the page's policy allows this script and no other.
    """
    script = "\n".join(map(read_part, scripts))
    environment = Environment(
        loader=FunctionLoader(read_part),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    stream = environment.get_template(template).stream(
        css="".join(map(read_part, styles)), script=script, script_hash=_digest(script), **values
    )
    stream.enable_buffering(64)
    stream.dump(str(path), encoding="utf-8")


def read_part(name: str) -> str:
    """The text of a file of this package."""
    return resources.files("fluxvae.report").joinpath(name).read_text("utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def themed(svg: str, colours: Mapping[str, str] = THEME) -> str:
    """An SVG to stand in the page: no XML header, its colours the page's."""
    inner = svg[svg.index("<svg") :]
    for colour, name in colours.items():
        inner = inner.replace(colour, f"var(--{name})")
    return inner


def sortable(value: float) -> str:
    """A number as JavaScript reads it."""
    return ("" if value > 0 else "-") + "Infinity" if math.isinf(value) else repr(value)
