"""The page of a matrix as people meet it: in a browser, from a file, by mouse and by keys."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fluxvae.report.figures import MISSING
from fluxvae.report.matrix.report import write_matrix_report
from tests.report import matrix_sample as made_up
from tests.report.contrast import contrast, luminance

Visit = Callable[..., Any]
LEAST_TEXT = 10.0  # CSS pixels of any text in a figure, on a phone too


@pytest.fixture
def page(matrix: Path, visit: Visit) -> Any:
    return visit(matrix / "index.html")


def column(page: Any, number: int) -> list[str]:
    found: list[str] = page.locator(
        f"#all tbody tr:visible > :nth-child({number})"
    ).all_inner_texts()
    return [text.split("\n")[0] for text in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_its_window_and_can_be_read(matrix: Path, visit: Visit, width: int, scheme: str):
    page = visit(matrix / "index.html", width=width, scheme=scheme)
    page.locator("details").evaluate_all("all => all.forEach((d) => (d.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    names = ["paper", "page", "good", "bad", "warn", *(f"c{n}" for n in range(8))]
    colours = page.evaluate("""(names) => {
        const style = getComputedStyle(document.documentElement);
        return Object.fromEntries(names.map((n) => [n, style.getPropertyValue("--" + n).trim()]));
    }""", names)  # fmt: skip
    assert (luminance(colours["paper"]) > 0.5) == (scheme == "light")
    for text in ("good", "bad", "warn"):
        assert min(contrast(colours[text], colours[u]) for u in ("paper", "page")) >= 4.5, text
    for dot in range(8):  # 3 is what WCAG asks for graphics
        assert contrast(colours[f"c{dot}"], colours["paper"]) >= 3, dot
    sizes = page.locator(".chart svg:visible text").evaluate_all("""all => all.map((t) => {
        const { a, b } = t.getScreenCTM(); // of axes that stand upright too
        return parseFloat(getComputedStyle(t).fontSize) * Math.hypot(a, b);
    })""")
    assert len(sizes) > 60
    assert min(sizes) >= LEAST_TEXT


@pytest.mark.parametrize("width", [360, 1280])
def test_labels_in_figures_do_not_cover_each_other(matrix: Path, visit: Visit, width: int):
    page = visit(matrix / "index.html", width=width)
    for picture in page.locator(".chart svg:visible").all():
        boxes = picture.locator("text").evaluate_all("""all => all.map((t) => {
            const b = t.getBoundingClientRect();
            return [b.left + 1, b.top + 2, b.right - 1, b.bottom - 2, t.textContent];
        })""")
        frame = picture.bounding_box()
        for n, (left, top, right, bottom, words) in enumerate(boxes):
            assert left >= frame["x"] - 2, words
            assert right <= frame["x"] + frame["width"] + 2, words
            for other in boxes[:n]:
                apart = (
                    left >= other[2] or other[0] >= right or top >= other[3] or other[1] >= bottom
                )
                assert apart, (words, other[4])


def test_worst_cells_come_first_and_say_why(page: Any):
    assert page.title() == "Matrix of 24 cells"
    states = column(page, 2)
    assert states[:4] == ["failed", "limits not met", "flagged", "pass"]
    assert states[-1] == "n/a"
    first = page.locator("#all tbody tr").first.inner_text()
    assert "MemoryError: the cell's limit of 6 GB was reached" in first
    assert "int4 of channels last needs macOS" in page.locator("#trouble").inner_text()
    outlier = page.locator(f"#all tr[data-label={made_up.OUTLIER}]").inner_text()
    assert "outlier: run 5 took 260 ms" in outlier


def test_sorts_by_click_and_by_key(page: Any):
    head = page.locator("#all thead th").filter(has_text="latency")
    head.get_by_role("button").click()
    values = [float(v) for v in column(page, 4) if v != MISSING]
    assert len(values) == 22
    assert values == sorted(values)
    assert column(page, 4)[-2:] == [MISSING, MISSING]
    head.get_by_role("button").press("Enter")
    assert [float(v) for v in column(page, 4)[:22]] == sorted(values, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    page.locator("#all thead th").filter(has_text="state").get_by_role("button").press("Space")
    assert column(page, 2)[0] == "failed"


def test_filters_by_words_and_axes(page: Any):
    shown = page.locator("#shown")
    page.get_by_label("compression").select_option("pal4")
    assert shown.inner_text() == "4 of 24"
    assert all(name.endswith("pal4") for name in column(page, 1))
    page.get_by_label("Find").fill("NHWC float16")
    assert column(page, 1) == ["nhwc fp16 pal4"]
    page.get_by_label("state").select_option("failed")
    assert shown.inner_text() == "0 of 24"
    assert page.locator("#none").is_visible()
    page.get_by_role("button", name="Clear").click()
    page.wait_for_function("document.getElementById('shown').textContent === '24 of 24'")
    assert page.locator("#none").is_hidden()


@pytest.mark.parametrize("width", [360, 1280])
def test_a_dot_tells_its_cell(matrix: Path, visit: Visit, width: int):
    page = visit(matrix / "index.html", width=width)
    kind = "n" if width < 640 else "w"
    row = page.locator(f"#all tr[data-label={made_up.FLAGGED}]")
    number = row.get_attribute("id").removeprefix("row-")
    dot = page.locator(f"[id={kind}latency-error-{number}]")
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    readout = page.locator(".readout").first
    assert readout.inner_text().startswith(f"{made_up.FLAGGED}: 41.66 dB, ")
    readout.get_by_role("link").click()
    assert page.evaluate("location.hash") == f"#row-{number}"
    assert "at" in row.get_attribute("class")


def test_a_link_to_a_hidden_row_shows_it(page: Any):
    page.get_by_label("state").select_option("failed")
    page.evaluate("location.hash = 'row-5'")
    page.wait_for_function("!document.getElementById('row-5').hidden")


def test_every_control_is_reached_by_tab_and_shows_focus(page: Any):
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("""() => {
            const e = document.activeElement, style = getComputedStyle(e);
            const seen = parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== "none";
            return `${e.id || e.className || e.dataset.filter || e.tagName} ${seen}`;
        }"""))  # fmt: skip
    for name in ("find", "state", "compression", "BUTTON", "scroll", "sort", "SUMMARY"):
        assert f"{name} true" in reached
    assert not [r for r in reached if r.endswith("false") and "BODY" not in r]


def test_a_cell_has_its_raw_figures(page: Any):
    one = page.locator("details").filter(has_text=made_up.WITH_ENERGY)
    one.locator("summary").press("Enter")
    words = one.inner_text()
    assert "CPU 412 mJ (idle 80.0 mW)" in words or "CPU 413 mJ (idle 80.0 mW)" in words
    assert "relative only" in words
    assert "Sample CPU" in words
    assert one.locator("tbody tr").count() == 2


def test_page_says_what_its_figures_are_worth(page: Any):
    for place in ("header", "#made"):
        words = page.locator(place).inner_text()
        assert "tell nothing of a Mac" in words
        assert "Energy is relative only" in words
    made = page.locator("#made").inner_text()
    assert "fluxvae matrix run matrix.toml" in made
    assert all(digest in made for digest in ("a1" * 32, "b2" * 32))


def test_hostile_names_are_only_text(tmp_path: Path, visit: Visit):
    bad, hostile = made_up.result(made_up.cells()[0]), made_up.HOSTILE
    results = [
        made_up.without(replace(bad, key="0" * 64), "failed", hostile),
        *(
            replace(
                made_up.result(replace(bad.cell, precision=p, compression=hostile)),
                flags=(hostile,),
                host=replace(made_up.LINUX, chip=hostile),
                versions={hostile: hostile},
            )
            for p in ("float16", "float32")
        ),
    ]
    place = tmp_path / "cells"
    for number, found in enumerate(results):
        made_up.write_one(place / str(number), found)
    write_matrix_report(tmp_path)
    page = visit(tmp_path / "index.html", width=360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("img").count() == 0
    assert hostile in page.locator("#all").evaluate("e => e.textContent")
    page.get_by_label("compression").select_option(hostile)
    assert page.locator("#shown").inner_text() == "2 of 3"


def test_tables_are_there_without_javascript(matrix: Path, browser: Any):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((matrix / "index.html").as_uri())
    assert page.locator("#all tbody tr").count() == 24
    assert page.locator(".filter").is_hidden()
    assert page.locator("#ablation tbody tr").count() > 7
    context.close()
