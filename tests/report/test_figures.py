"""Figures: percentiles, ranks, the front, and words for numbers."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fluxvae.errors import ReportError
from fluxvae.records.roundtrip import Metric, Roundtrip
from fluxvae.report.figures import (
    MISSING,
    number,
    on_front,
    pareto,
    percentile,
    read_report,
    shorten,
    size_words,
)
from fluxvae.report.roundtrip.ablation import attributions, summed_losses
from fluxvae.schema import load, save

PSNR = Metric("psnr", "PSNR", "dB", "higher", "numpy", None)
SSIM = Metric("ssim", "SSIM", "", "higher", "scikit-image", None)
FLIP = Metric("flip", "FLIP", "", "lower", "flip-evaluator", None)


@pytest.mark.parametrize("q", [0, 10, 50, 90, 100])
def test_percentiles_are_numpys_linear_ones(q: int):
    values = np.random.default_rng(3).normal(40, 5, 17).tolist()
    assert percentile(values, q) == np.percentile(values, q)


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([40.0, math.inf], 50, math.inf),
        ([math.inf, math.inf], 50, math.inf),
        ([30.0, 40.0, math.inf], 50, 40.0),
        ([30.0, 40.0, math.inf], 10, 32.0),
        ([30.0, 40.0, math.inf], 90, math.inf),
        ([31.0], 90, 31.0),
    ],
)
def test_infinite_figures_have_percentiles(values: list[float], q: int, expected: float):
    assert percentile(values, q) == expected


@pytest.mark.parametrize(
    ("value", "metric", "words"),
    [
        (None, SSIM, MISSING),
        (math.inf, PSNR, "∞"),
        (38.126, PSNR, "38.13"),
        (1.0, SSIM, "1.0000"),
        (0.999987, SSIM, "0.99999"),
        (0.9999999, SSIM, "0.9999999"),
        (0.0, FLIP, "0.0000"),
        (0.00002, FLIP, "0.00002"),
    ],
)
def test_only_perfect_figures_look_perfect(value: float | None, metric: Metric, words: str):
    assert number(value, metric) == words


def test_the_front_is_what_nothing_beats():
    cheap, good, beaten, same = (1.0, 30.0), (2.0, 40.0), (2.0, 35.0), (2.0, 40.0)
    assert pareto([cheap, good, beaten, same]) == [True, True, False, True]


def test_pictures_and_cases_come_worst_first(made: Path):
    report = read_report(made)
    loss = {(r.picture, r.variant): r.loss["psnr"] for r in report.record.results if r.loss}
    assert [(p.name, v.label) for p, v in report.cases()] == sorted(loss, key=loss.__getitem__)
    worst = {p.name: min(v for (name, _), v in loss.items() if name == p.name)
             for p in report.record.pictures}  # fmt: skip
    assert [p.name for p in report.worst_first] == sorted(worst, key=worst.__getitem__)


def test_a_spread_names_the_worst_picture(made: Path):
    report = read_report(made)
    (largest,) = (m for m in report.metrics if m.name == "max_abs")
    values = {r.picture: r.loss["max_abs"] for r in report.record.results if r.variant == "pal4"}
    spread = report.spread("pal4", largest, "loss")
    assert spread is not None
    assert spread.worst == max(values, key=values.__getitem__)
    assert (spread.p10, spread.median, spread.p90) == tuple(
        np.percentile(list(values.values()), (10, 50, 90))
    )


def test_front_of_a_record_leaves_out_what_is_larger_and_worse(made: Path):
    assert on_front(read_report(made)) == {"fp16": True, "pal6": True, "w8a8": False, "pal4": True}


def test_errors_of_parts_add_as_mean_squares(made: Path):
    report = read_report(made)
    parts = [a for a in report.record.ablations if a.part not in ("all", "fp32 program")]
    name = report.record.pictures[0].name
    squares = [10 ** (-a.loss[name]["psnr"] / 10) for a in parts]
    summed = summed_losses(report, parts)[name]
    assert summed["psnr"] == pytest.approx(-10 * math.log10(sum(squares)))
    assert 1 - summed["ssim"] == pytest.approx(sum(1 - a.loss[name]["ssim"] for a in parts))


def test_ablations_start_with_the_reference_and_end_with_sum_and_all(made: Path):
    (attribution,) = attributions(read_report(made))
    kinds = ["reference", "converted", "part", "part", "sum", "all"]
    assert [row.kind for row in attribution.rows] == kinds
    assert attribution.rows[0].medians == {"psnr": math.inf, "ssim": 1.0, "max_abs": 0.0}
    summed, together = (row.medians["psnr"] for row in attribution.rows[-2:])
    alone = (row.medians["psnr"] for row in attribution.rows if row.kind == "part")
    assert summed < min(alone)
    assert attribution.compounding is not None
    assert f"{summed - together:.2f} dB of PSNR more" in attribution.compounding


def test_a_record_without_its_reference_is_refused(own: Path):
    record = load(Roundtrip, own)
    save(replace(record, variants=record.variants[1:]), own)
    with pytest.raises(ReportError, match="first variant should be 'fp32'"):
        read_report(own)


def test_long_names_lose_their_middle():
    assert shorten("int8-block32-compensated", 11) == "int8-…sated"
    assert shorten("a\nb", 11) == "a b"


@pytest.mark.parametrize(
    ("count", "words"),
    [(None, MISSING), (999, "999 bytes"), (1_235_000, "1.24 MB"), (640_000, "640 kB")],
)
def test_sizes_have_three_digits(count: int | None, words: str):
    assert size_words(count) == words
