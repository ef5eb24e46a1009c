"""The ablation of a matrix in words: single changes, and changes together beside their sum."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fluxvae.records.experiment import Ablation, Change, Compounding
from fluxvae.report.matrix.figures import (
    Matrix,
    decibels,
    decoder_name,
    short_name,
    short_value,
    signed_bytes,
    signed_db,
    signed_ms,
    within_spread,
)

_EQUAL_DB = 0.005  # what the tables' two decimals show as none


@dataclass(frozen=True)
class Difference:
    """A change's figure: in words, and as a number; ``note`` puts it into relation."""

    text: str
    value: float | None
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A cell against the base: its changes in words, and differences of error, latency, bytes."""

    changes: str
    label: str
    cells: tuple[Difference, ...]


@dataclass(frozen=True)
class Table:
    """The ablation of one decoder. ``together`` has for each figure the change of all together,
    with the sum of the single ones as its note, and what goes beyond that sum; the worst first."""

    title: str
    base: str
    base_label: str
    single: tuple[Line, ...]
    together: tuple[Line, ...]
    check: str


def tables(matrix: Matrix) -> tuple[Table, ...]:
    """One table for each ablation of the summary that has anything to show."""
    return tuple(_table(matrix, a) for a in matrix.summary.ablation if a.single)


def _table(matrix: Matrix, ablation: Ablation) -> Table:
    base = matrix.item(ablation.base.key)
    together = sorted(ablation.compounding, key=_beyond_psnr)
    return Table(
        title=decoder_name(base.cell),
        base=short_name(base.cell, matrix.axes),
        base_label=base.row.label,
        single=tuple(_single(matrix, ablation, change) for change in ablation.single),
        together=tuple(_together(c) for c in together),
        check=_check(matrix, together),
    )


def _words(change: Change) -> str:
    return ", ".join(f"{a.replace('_', ' ')} {short_value(v)}" for a, v in change.axes.items())


def _single(matrix: Matrix, ablation: Ablation, change: Change) -> Line:
    same = within_spread(matrix.item(change.key).row, ablation.base)
    latency = Difference(
        signed_ms(change.latency_ms), change.latency_ms, "within the spread" if same else ""
    )
    return Line(
        _words(change),
        change.label,
        (
            Difference(signed_db(change.psnr_db), change.psnr_db),
            latency,
            Difference(signed_bytes(change.bytes), change.bytes),
        ),
    )


def _together(found: Compounding) -> Line:
    change = found.together
    figures: tuple[tuple[float | None, float | None, Callable[[float | None], str]], ...] = (
        (change.psnr_db, found.sum_psnr_db, signed_db),
        (change.latency_ms, found.sum_latency_ms, signed_ms),
        (change.bytes, found.sum_bytes, signed_bytes),
    )
    cells = []
    for value, total, words in figures:
        beyond = None if value is None or total is None else value - total
        cells.append(Difference(words(value), value, f"sum {words(total)}"))
        cells.append(Difference(words(beyond), beyond))
    return Line(_words(change), change.label, tuple(cells))


def _beyond_psnr(found: Compounding) -> float:
    """Decibels beyond the sum of the single changes; negative: worse than they add up to."""
    together, total = found.together.psnr_db, found.sum_psnr_db
    return math.inf if together is None or total is None else together - total


def _check(matrix: Matrix, together: Sequence[Compounding]) -> str:
    """The compounding check in one sentence; ``together`` has the worst first."""
    if not together:
        return "No cell has several of these changes at once, so compounding was not checked."
    worst, beyond = together[0].together, _beyond_psnr(together[0])
    count = f"{len(together)} cell{'' if len(together) == 1 else 's'}"
    if math.isinf(beyond):
        return f"{count} with several changes at once: no error to check compounding by."
    name = short_name(matrix.item(worst.key).cell, matrix.axes)
    if beyond >= -_EQUAL_DB:
        return (
            f"{count} with several changes at once: none loses more PSNR than its single changes "
            "add up to."
        )
    return (
        f"{count} with several changes at once: the worst, {name}, loses "
        f"{decibels(-beyond)} dB more than its single changes add up to."
    )
