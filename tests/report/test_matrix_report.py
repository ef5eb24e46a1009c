"""The page and the summary of a matrix: from the results alone, whole, the same each time."""

import json
import math
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fluxvae.errors import MatrixError
from fluxvae.records.experiment import RESULT, Ablation, Change, Compounding, Result
from fluxvae.records.summary import summarize
from fluxvae.report.figures import DASH, INFINITY, MISSING
from fluxvae.report.matrix.ablation import tables
from fluxvae.report.matrix.charts import (
    CHARTS,
    MOST_COLOURS,
    MOST_MARKS,
    drawn,
    look,
    missing_words,
    points,
)
from fluxvae.report.matrix.figures import Matrix, significant
from fluxvae.report.matrix.page import write_page
from fluxvae.report.matrix.plot import chart_svg, runs_svg
from fluxvae.report.matrix.report import MATRIX_PAGES, write_matrix_report
from fluxvae.report.matrix.summary import matrix_text
from tests.report import matrix_sample as made_up
from tests.report.test_report import table

SVG = "{http://www.w3.org/2000/svg}"


def matrix_of(results: list[Result]) -> Matrix:
    return Matrix(tuple(results), summarize(results))


def rows(text: str) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in table(text, "Cells")}


def own(matrix: Path, tmp_path: Path) -> Path:
    """The same cells elsewhere, without pages."""
    shutil.copytree(matrix / "cells", tmp_path / "own" / "cells")
    return tmp_path / "own"


def test_pages_are_the_same_bytes_from_a_folder_elsewhere(matrix: Path, tmp_path: Path):
    folder = own(matrix, tmp_path)
    assert write_matrix_report(folder) == tuple(folder / name for name in MATRIX_PAGES)
    for name in MATRIX_PAGES:
        assert (folder / name).read_bytes() == (matrix / name).read_bytes()
    assert {p.name for p in folder.iterdir()} == {"cells", *MATRIX_PAGES}


def test_a_damaged_result_is_named_and_older_pages_stay(matrix: Path, tmp_path: Path):
    folder = own(matrix, tmp_path)
    (folder / "index.html").write_text("older")
    broken = next(folder.glob(f"cells/*/{RESULT}"))
    broken.write_text(broken.read_text()[:-20])
    with pytest.raises(MatrixError, match=broken.parent.name):
        write_matrix_report(folder)
    assert (folder / "index.html").read_text() == "older"
    assert not (folder / "summary.md").exists()


def test_a_folder_without_results_says_what_to_run(tmp_path: Path):
    with pytest.raises(MatrixError, match="no result of a cell: run `fluxvae matrix run"):
        write_matrix_report(tmp_path)


def test_summary_has_every_cell_with_figures_that_follow_from_its_samples(matrix: Path):
    text = (matrix / "summary.md").read_text("utf-8")
    found = rows(text)
    paths = sorted(matrix.glob(f"cells/*/{RESULT}"))
    assert len(found) == len(paths) == 24
    for path in paths:
        data = json.loads(path.read_text())
        figures = found[path.parent.name[17:]]
        if data["status"] != "done":
            assert set(figures[1:]) == {MISSING}
            continue
        medians = [np.median(run["samples_ms"]) for run in data["runs"]]
        low, middle, high = np.percentile(medians, (10, 50, 90))
        shown = [float(v) for v in re.split(rf" \[|{DASH}|\]", figures[2])[:3]]
        assert shown == pytest.approx([middle, low, high], abs=0.5)
        assert float(figures[1]) == pytest.approx(
            min(e["psnr_db"] for e in data["errors"]), abs=0.005
        )
        assert figures[3] == "5"
        assert int(figures[4].replace(",", "")) == data["bytes"]
        assert float(figures[5]) == pytest.approx(data["bytes"] / 2.45e6, abs=5e-4)


def test_summary_names_what_did_not_work_with_its_reason(matrix: Path):
    text = (matrix / "summary.md").read_text("utf-8")
    section = text.split("## What to look at")[1].split("\n## ")[0]
    assert f"- {made_up.FAILED} (failed): MemoryError: the cell's limit of 6 GB" in section
    assert f"- {made_up.NOT_HERE} (n/a): int4 of channels last needs macOS" in section
    assert f"- {made_up.FLAGGED} (flagged): worst PSNR 41.66 dB is below 42 dB" in section
    assert f"- {made_up.OUTLIER} (pass): outlier: run 5 took 260 ms" in section
    assert "limit not met (PSNR at least 39.2 dB)" in section
    assert "tell nothing of a Mac" in text.split("## What to look at")[0]


def test_fronts_are_those_of_a_plain_search():
    matrix = matrix_of(made_up.sample())
    (group,) = matrix.groups
    for chart in CHARTS:
        shown = points(group, chart)
        sign = 1 if chart.y.better == "higher" else -1
        for p in shown:
            beaten = any(
                q.x <= p.x and sign * q.y >= sign * p.y and (q.x, q.y) != (p.x, p.y) for q in shown
            )
            assert p.front is not beaten
        assert any(p.front for p in shown)


def test_a_dot_for_each_cell_and_its_runs():
    matrix = matrix_of(made_up.sample())
    (group,) = matrix.groups
    drawn = [i.index for i in group.items]
    for chart, kind in zip(CHARTS[:3], "wnw", strict=True):
        root = ET.fromstring(chart_svg(group, chart, narrow=kind == "n"))
        ids = [g.get("id", "") for g in root.iter(f"{SVG}g")]
        dots = [int(i.rsplit("-", 1)[1]) for i in ids if i.startswith(f"{kind}{chart.id}-")]
        assert sorted(dots) == sorted(drawn)
    text = runs_svg(group)
    assert re.search(r"<dc:date>|20\d\d-\d\d", text) is None
    # a dot or a cross for each run; groups of the cells' ticks are named wruns-N
    axes = next(g for g in ET.fromstring(text).iter(f"{SVG}g") if g.get("id") == "axes_1")
    lines = [g for g in axes if g.get("id", "").startswith("line2d_")]
    assert sum(len(list(g.iter(f"{SVG}use"))) for g in lines) == 22 * 5


def test_energy_is_left_out_with_its_reason(tmp_path: Path):
    results = [replace(r, energy=None) for r in made_up.sample()]
    matrix = matrix_of(results)
    reason = "Left out: no cell here has its energy: that is measured on macOS alone"
    assert f"- Energy against latency: {reason}" in matrix_text(matrix)
    write_page(matrix, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text("utf-8")
    assert reason in page
    assert "wenergy-latency" not in page
    assert "Not measured in any cell: energy." in page


def test_nothing_measured_leaves_figures_out_and_keeps_the_tables(tmp_path: Path):
    results = [replace(r, runs=(), energy=None) for r in made_up.sample()]
    matrix = matrix_of(results)
    write_page(matrix, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text("utf-8")
    assert page.count("Left out: no cell here has") == 3
    assert "werror-bytes-" in page
    assert "Every run" not in page
    assert len(rows(matrix_text(matrix))) == 24
    none = matrix_of([made_up.without(r, "failed", "no room") for r in results])
    write_page(none, tmp_path / "none.html")
    assert "No cell was done." in (tmp_path / "none.html").read_text("utf-8")


def test_equal_images_and_images_that_are_not_finite():
    equal, broken, *others = made_up.sample()
    blank = replace(equal.errors[0], psnr_db=None, max_abs=0.0)
    equal = replace(equal, errors=(blank,))
    broken = replace(broken, errors=(replace(blank, max_abs=None),), verdict="fail")
    matrix = matrix_of([equal, broken, *others])
    found = rows(matrix_text(matrix))
    assert found[equal.cell.label()][1] == INFINITY
    assert found[broken.cell.label()][1] == MISSING
    assert "the image is not finite" in matrix_text(matrix)
    shown = points(matrix.groups[0], CHARTS[0])
    assert math.inf in [p.y for p in shown]
    assert "equal images" in chart_svg(matrix.groups[0], CHARTS[0])


def test_other_sizes_and_hosts_have_fronts_of_their_own():
    results = made_up.sample()
    larger = [made_up.result(replace(r.cell, sizes="512x512")) for r in results[:3]]
    mac = [replace(r, host=made_up.MAC, key="f" * 63 + str(n)) for n, r in enumerate(results[:2])]
    matrix = matrix_of([*results, *larger, *mac])
    titles = [g.title for g in matrix.groups]
    assert sorted(titles) == [
        "flux2 at 256x256, Darwin on Sample M9",
        "flux2 at 256x256, Linux on Sample CPU",
        "flux2 at 512x512, Linux on Sample CPU",
    ]
    assert all(f"### {title}" in matrix_text(matrix) for title in titles)


def test_compounding_is_told_of_the_worst_cell():
    results = made_up.sample()
    found = summarize(results)
    base, one, two, both = (
        next(row for row in found.rows if row.label == f"flux2-{rest}-256")
        for rest in ("nchw-float16-none", "nhwc-float16-none", "nchw-float16-pal8",
                     "nhwc-float16-pal8")
    )  # fmt: skip
    nhwc, pal8 = {"layout": "nhwc"}, {"compression": "pal8"}
    alone = (Change(one.key, one.label, nhwc, -1.0, 5.0, 0),
             Change(two.key, two.label, pal8, -20.0, -8.0, -1_200_000))  # fmt: skip
    together = Change(both.key, both.label, nhwc | pal8, -23.5, -2.0, -1_150_000)
    ablation = Ablation(base, alone, (Compounding(together, -21.25, -3.0, -1_200_000),))
    matrix = Matrix(tuple(results), replace(found, ablation=(ablation,)))
    (told,) = tables(matrix)
    assert told.check == (
        "1 cell with several changes at once: the worst, nhwc fp16 pal8, loses 2.25 dB more than "
        "its single changes add up to."
    )
    (line,) = told.together
    assert [c.text for c in line.cells] == [
        "-23.50", "-2.25", "-2.00", "+1.00", "-1.15 MB", "+50.0 kB"
    ]  # fmt: skip
    assert [c.note for c in line.cells[::2]] == ["sum -21.25", "sum -3.00", "sum -1.20 MB"]


def test_latencies_that_overlap_are_said_to():
    found = tables(matrix_of(made_up.sample()))[0]
    notes = {line.changes: line.cells[1].note for line in found.single}
    assert notes["compression pal8"] == "within the spread"  # 180 [178-182] against 180 [178-181]
    assert notes["precision fp32"] == ""


def test_many_values_still_get_colours_and_marks():
    names = [f"pal{bits}g{group}" for bits in (1, 2, 3, 4, 6, 8) for group in (8, 16)]
    results = [
        made_up.result(replace(made_up.cells()[0], compression=n, layout=layout, attention=a))
        for n in names
        for layout in ("nchw", "nhwc")
        for a in ("auto", "4", "8", "16")
    ]
    (group,) = matrix_of(results).groups
    style = look(group)
    assert style.colour_axis == "attention"  # 12 compressions are more than there are colours
    assert {style.colour(i) for i in group.items} == set(range(4))
    assert max(style.colour(i) for i in group.items) < MOST_COLOURS
    assert max(style.mark(i) for i in group.items) < MOST_MARKS
    ET.fromstring(chart_svg(group, CHARTS[0], narrow=True))


def test_a_crowded_chart_keeps_its_front(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fluxvae.report.matrix.charts.MOST_POINTS", 9)
    (group,) = matrix_of(made_up.sample()).groups
    shown = points(group, CHARTS[0])
    kept = drawn(shown)
    assert len(kept) == 9
    assert {p.item.index for p in shown if p.front} <= {p.item.index for p in kept}
    assert "13 of 22 cells, none on the front" in missing_words(group, CHARTS[0], shown)


def test_hostile_words_stay_on_their_line():
    results = made_up.sample()
    hostile = f"{made_up.HOSTILE}\nsecond line"
    results[0] = made_up.without(results[0], "failed", hostile)
    results[1] = replace(results[1], flags=(hostile,), weights_digest=hostile)
    text = matrix_text(matrix_of(results))
    assert len(rows(text)) == 24
    assert not re.search(r"(?<!\\)<", text)
    assert "\nsecond line" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, MISSING), (0.0, "0"), (1234.5, "1234"), (99.95, "100.0"), (12.34, "12.3"),
     (0.01234, "0.0123"), (math.inf, INFINITY), (-5.0, "-5.00")],
)  # fmt: skip
def test_three_digits(value: float | None, text: str):
    assert significant(value) == text
