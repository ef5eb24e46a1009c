"""Writes docs/capabilities.md, the table of what can be made of which network.

Run from the root of the checkout: ``python scripts/generate_capabilities_doc.py``.
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from fluxvae.recipes.capabilities import NETWORKS, ROWS, Row, command_rows, reason

INTRO = """# What works for which network

<!-- Written by scripts/generate_capabilities_doc.py from fluxvae/recipes/capabilities.py. Do not
edit. -->

`yes`: works. A number: it cannot be, for the reason below, which the command prints too. Every
`yes` of a recipe is made at a small size and held against PyTorch by tests/test_capabilities.py,
several at once where one model can have them; compressed ones by the plain method there, by the
compensated one and by training in tests/compress. FLUX.2's small decoder has the full one's
encoder. Z-Image and HiDream use FLUX.1's VAE: their columns are flux1's.

"""


def document() -> str:
    """Text of docs/capabilities.md."""
    reasons: dict[str, int] = {}
    tables = [
        "\n".join(_table(topic, list(rows), reasons))
        for topic, rows in groupby((*ROWS, *command_rows()), key=lambda row: row.topic)
    ]
    notes = "\n".join(f"{number}. {text}" for text, number in reasons.items())
    return INTRO + "\n\n".join(tables) + f"\n\n## Reasons\n\n{notes}\n"


def _table(topic: str, rows: list[Row], reasons: dict[str, int]) -> Iterator[str]:
    yield f"## {topic}\n"
    yield "|  | " + " | ".join(network.title for network in NETWORKS) + " |"
    yield "|---" * (len(NETWORKS) + 1) + "|"
    for row in rows:
        cells = (_cell(reason(row, network), reasons) for network in NETWORKS)
        yield f"| {row.text} | " + " | ".join(cells) + " |"


def _cell(why: str | None, reasons: dict[str, int]) -> str:
    return "yes" if why is None else str(reasons.setdefault(why, len(reasons) + 1))


def main() -> None:
    target = Path(__file__).resolve().parents[1] / "docs" / "capabilities.md"
    target.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
