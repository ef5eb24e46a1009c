"""A matrix' summary, on results made up so that every figure can be worked out by hand."""

import json
import math
from dataclasses import asdict, replace

import pytest

from fluxvae.records.experiment import Cell, Energy, ErrorFigures, Latency, Result, Summary
from fluxvae.records.summary import NOT_A_MAC, summarize, summary_json
from fluxvae.schema import build, parse_json
from tests.matrix_results import LINUX, done


def result(cell: Cell, psnr: float | None, medians: tuple[float, ...], size: int) -> Result:
    runs = tuple(Latency(0.4, 0.2, (m - 1, m, m + 5), 10**8 + i) for i, m in enumerate(medians))
    errors = (
        ErrorFigures("chelsea", "photo", 80.0, 0.1, 0.9, ">= 20 dB", True),
        ErrorFigures("coffee", "photo", psnr, 0.2 if psnr else 0.0, 0.9, ">= 20 dB", True),
    )
    versions = {"fluxvae": "0.1.0", "torch": "2.13.0"}
    return done(cell, errors=errors, runs=runs, bytes=size, versions=versions)


BASE = Cell("flux2")
CELLS = (
    result(BASE, 60.0, (10.0, 12.0, 11.0), 1000),
    result(replace(BASE, compression="pal4"), 40.0, (14.0, 14.0, 14.0), 250),
    result(replace(BASE, layout="nhwc"), 59.0, (9.0, 9.0, 9.0), 1010),
    result(replace(BASE, layout="nhwc", compression="pal4"), 38.0, (13.5, 13.5, 13.5), 260),
)


def test_rows_are_medians_of_runs_and_worst_inputs() -> None:
    row = summarize(CELLS).rows[0]
    # numpy's percentiles of 10, 11, 12 are linear: 10.2, 11 and 11.8
    assert row.runs_ms == (10.0, 12.0, 11.0)
    assert (row.latency_p10_ms, row.latency_ms, row.latency_p90_ms) == pytest.approx(
        (10.2, 11, 11.8)
    )
    assert (row.first_load_s, row.later_load_s) == (0.4, 0.2)
    assert row.peak_memory_bytes == 10**8 + 2
    assert row.psnr_db == 60.0
    assert [r.fraction for r in summarize(CELLS).rows] == [1.0, 0.25, 1.0, 260 / 1010]


def test_without_runs_or_errors_there_are_no_figures() -> None:
    bare = replace(CELLS[0], runs=(), errors=(), status="failed", reason="why", bytes=None)
    row = summarize([bare]).rows[0]
    assert (row.latency_ms, row.psnr_db, row.bytes, row.fraction) == (None,) * 4
    assert (row.status, row.reason) == ("failed", "why")
    assert summarize([bare]).ablation == ()
    assert summarize([]).rows == ()


def test_what_is_not_finite_has_no_worst_psnr() -> None:
    broken = ErrorFigures("coffee", "photo", None, None, None, ">= 20 dB", False)
    row = summarize([replace(CELLS[0], errors=(*CELLS[0].errors, broken))]).rows[0]
    assert row.psnr_db is None


def test_one_run_apart_is_flagged_and_stays_in() -> None:
    odd = result(BASE, 60.0, (10.0, 10.1, 9.9, 10.0, 50.0), 1000)
    row = summarize([odd]).rows[0]
    assert row.outliers == (5,)
    assert row.latency_p90_ms == pytest.approx(10.1 + 0.6 * (50 - 10.1))


def test_one_axis_at_a_time_and_what_adds_up() -> None:
    (ablation,) = summarize(CELLS).ablation
    assert ablation.base.label == "flux2-nchw-float16-none-256"
    singles = {tuple(change.axes.items()): change for change in ablation.single}
    pal4, nhwc = singles[("compression", "pal4"),], singles[("layout", "nhwc"),]
    assert (pal4.psnr_db, pal4.latency_ms, pal4.bytes) == (-20.0, 3.0, -750)
    assert (nhwc.psnr_db, nhwc.latency_ms, nhwc.bytes) == (-1.0, -2.0, 10)
    (both,) = ablation.compounding
    assert both.together.axes == {"layout": "nhwc", "compression": "pal4"}
    assert both.together.psnr_db == -22.0
    # Of the base's squared error: 100 times as much by the palettes, 1.259 times by the layout.
    assert both.sum_psnr_db == pytest.approx(-10 * math.log10(1 + 99 + 0.2589), abs=1e-4)
    assert (both.together.latency_ms, both.sum_latency_ms) == (2.5, 1.0)
    assert (both.together.bytes, both.sum_bytes) == (-740, -740)


def test_the_base_is_the_cell_with_most_fellows() -> None:
    cells = [result(Cell("flux2", precision="float32"), 90.0, (9.0,), 2000)]
    cells += [result(Cell("flux2", precision="float32", compression=c), 50.0, (9.0,), 500)
              for c in ("pal4", "pal6", "int8")]  # fmt: skip
    cells += [result(Cell("flux2"), 60.0, (5.0,), 1000), result(Cell("flux1"), 61.0, (5.0,), 1000)]
    labels = [a.base.label for a in summarize(cells).ablation]
    assert labels == ["flux2-nchw-float32-none-256", "flux1-nchw-float16-none-256"]


def test_provenance_says_what_linux_s_times_are_worth() -> None:
    found = summarize(CELLS).provenance
    assert found.hosts == (LINUX,)
    assert found.notes == (NOT_A_MAC,)
    assert found.commands[0] == "pip install fluxvae==0.1.0 torch==2.13.0  # Python ?"
    mac = [replace(r, host=replace(LINUX, system="Darwin")) for r in CELLS]
    assert summarize(mac).provenance.notes == ()
    energy = Energy({"ane": 1.5, "gpu": 0.25}, {"ane": 10.0}, 100, 4.0, "relative")
    measured = summarize([replace(mac[0], energy=energy)])
    assert measured.rows[0].energy_mj == 1.75
    assert "relative only" in measured.provenance.notes[0]


def test_a_summary_survives_its_file() -> None:
    text = summary_json(summarize(CELLS))
    data = parse_json(text)
    assert build(Summary, data) == summarize(CELLS)
    assert json.loads(text) == json.loads(json.dumps(asdict(summarize(CELLS))))
