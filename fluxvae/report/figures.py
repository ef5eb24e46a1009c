"""A record as the pages need it: figures looked up, summarised, ranked and put into words."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from fluxvae.errors import ReportError
from fluxvae.records.roundtrip import (
    REFERENCE,
    Figures,
    Metric,
    Picture,
    Result,
    Roundtrip,
    Variant,
)
from fluxvae.records.statistics import percentile
from fluxvae.schema import load

Against = Literal["loss", "total"]
AGAINST: dict[Against, str] = {"loss": "the fp32 decode", "total": "the original"}
INFINITY, TIMES, DASH = "∞", "\u00d7", "\u2013"
MISSING = DASH
MOST_DECIMALS = 9
_DECIMALS = {"psnr": 2, "ssimulacra2": 2, "max_abs": 1, "clip": 2}  # others 4


@dataclass(frozen=True)
class Spread:
    """One metric over all pictures that have it. ``worst`` is a picture's name."""

    median: float
    p10: float
    p90: float
    worst: str
    worst_value: float
    count: int


@dataclass(frozen=True)
class Report:
    """A record, and the folder its PNGs are in."""

    record: Roundtrip
    folder: Path

    @cached_property
    def results(self) -> dict[tuple[str, str], Result]:
        """Results by names of picture and variant."""
        return {(r.picture, r.variant): r for r in self.record.results}

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Those that were computed."""
        return tuple(m for m in self.record.metrics if m.left_out is None)

    @property
    def main(self) -> Metric | None:
        """What cases are ranked by: the record's first metric that was computed."""
        return self.metrics[0] if self.metrics else None

    @cached_property
    def candidates(self) -> tuple[Variant, ...]:
        """Every variant but the reference."""
        return tuple(v for v in self.record.variants if v.label != REFERENCE)

    def value(self, picture: str, variant: str, metric: Metric, against: Against) -> float | None:
        """One figure: infinite for the PSNR of equal images, None where there is none."""
        result = self.results.get((picture, variant))
        return None if result is None else figure(getattr(result, against), metric)

    def spread(self, variant: str, metric: Metric, against: Against) -> Spread | None:
        """A variant's figures over all pictures; None when no picture has one."""
        pairs = [
            (value, picture.name)
            for picture in self.record.pictures
            if (value := self.value(picture.name, variant, metric, against)) is not None
        ]
        if not pairs:
            return None
        values = [value for value, _ in pairs]
        worst_value, worst = max(pairs, key=lambda pair: badness(pair[0], metric))
        low, middle, high = (percentile(values, q) for q in (10, 50, 90))
        return Spread(middle, low, high, worst, worst_value, len(values))

    @cached_property
    def worst_first(self) -> tuple[Picture, ...]:
        """Pictures by the worst main figure that any variant has on them, worst first."""
        return tuple(sorted(self.record.pictures, key=lambda p: -self._worst(p)))

    def _worst(self, picture: Picture) -> float:
        if self.main is None:
            return -math.inf
        values = [self.value(picture.name, v.label, self.main, "loss") for v in self.candidates]
        return max((badness(v, self.main) for v in values if v is not None), default=-math.inf)

    def cases(self) -> Iterator[tuple[Picture, Variant]]:
        """Every picture through every variant, the worst main figure first."""
        pairs = [(p, v) for p in self.record.pictures for v in self.candidates
                 if (p.name, v.label) in self.results]  # fmt: skip
        return iter(sorted(pairs, key=lambda pair: -self._badness(*pair)))

    def _badness(self, picture: Picture, variant: Variant) -> float:
        if self.main is None:
            return -math.inf
        value = self.value(picture.name, variant.label, self.main, "loss")
        return -math.inf if value is None else badness(value, self.main)

    def undefined(self) -> Iterator[tuple[Metric, int]]:
        """Metrics that some pictures have no figure of, and how many such pictures."""
        for metric in self.metrics:
            lacking = [
                p
                for p in self.record.pictures
                if all(self.value(p.name, v.label, metric, "loss") is None for v in self.candidates)
            ]
            if lacking and self.candidates:
                yield metric, len(lacking)

    def file(self, name: str) -> Path:
        """A PNG of the record. Raises ReportError when it is not there, or not in the folder."""
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ReportError(f"the record names {name!r}, which is outside {self.folder}")
        if not path.is_file():
            raise ReportError(
                f"the record names {name!r}, and {self.folder} has no such picture: run "
                "`fluxvae roundtrip` again, or put it back"
            )
        return path


def read_report(record_path: Path) -> Report:
    """A record to make pages of. Raises ReportError with what is wrong."""
    record = load(Roundtrip, record_path)
    if not record.variants or record.variants[0].label != REFERENCE:
        raise ReportError(f"{record_path} is damaged: its first variant should be {REFERENCE!r}")
    return Report(record, record_path.parent)


def figure(figures: Figures, metric: Metric) -> float | None:
    """A metric among figures. A PSNR of None is infinity: the images are equal."""
    if metric.name not in figures:
        return None
    value = figures[metric.name]
    return math.inf if value is None and metric.name == "psnr" else value


def badness(value: float, metric: Metric) -> float:
    """Larger is worse."""
    return value if metric.better == "lower" else -value


def pareto(points: Iterable[tuple[float, float]]) -> list[bool]:
    """Which (cost, quality) points no other one beats: as cheap, as good, and better in one."""
    listed = list(points)
    return [
        not any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in listed)
        for cost, quality in listed
    ]


def on_front(report: Report) -> dict[str, bool]:
    """Variants with bytes by label: whether none is both smaller and better (median, main)."""
    main = report.main
    if main is None:
        return {}
    found = {v.label: (v.bytes, report.spread(v.label, main, "loss")) for v in report.candidates}
    points = {
        label: (float(size), -badness(spread.median, main))
        for label, (size, spread) in found.items()
        if size is not None and spread is not None
    }
    return dict(zip(points, pareto(points.values()), strict=True))


def number(value: float | None, metric: Metric) -> str:
    """A figure for people. What is not quite 0 or 1 gets the decimals to show it."""
    if value is None:
        return MISSING
    if math.isinf(value):
        return INFINITY if value > 0 else f"-{INFINITY}"
    decimals = round(-math.log10(resolution(metric)))
    text = f"{value:.{decimals}f}"
    while float(text) in (0, 1) and float(text) != value and decimals < MOST_DECIMALS:
        decimals += 1
        text = f"{value:.{decimals}f}"
    return text


def resolution(metric: Metric) -> float:
    """The step that a metric's figures are shown in."""
    return 10.0 ** -_DECIMALS.get(metric.name, 4)


def with_unit(value: float | None, metric: Metric) -> str:
    """``number`` followed by the metric's unit, if both are there."""
    text = number(value, metric)
    return f"{text} {metric.unit}" if metric.unit and text != MISSING else text


def size_words(count: int | None) -> str:
    """Bytes for people, decimal, three digits: 1.23 MB."""
    if count is None:
        return MISSING
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            value = count / size
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{count} bytes"


def shorten(text: str, limit: int) -> str:
    """One line of at most ``limit`` characters; what is too long loses its middle."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    tail = (limit - 1) // 2
    return f"{line[: limit - 1 - tail]}…{line[len(line) - tail :]}"
