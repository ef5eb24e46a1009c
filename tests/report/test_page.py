"""The page as people meet it: in a browser, from a file, by mouse and by keys alone."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fluxvae.records.roundtrip import Roundtrip
from fluxvae.report import write_report
from fluxvae.report.figures import MISSING, read_report
from fluxvae.schema import load
from tests.report import sample
from tests.report.contrast import contrast, luminance

Visit = Callable[..., Any]
HOSTILE = '</script><img src=x onerror="alert(1)"> "quoted"\nline & more'


@pytest.fixture
def page(made: Path, visit: Visit) -> Any:
    return visit(made.parent / "index.html")


@pytest.fixture
def stage(page: Any) -> Any:
    found = page.locator("#stage")
    found.focus()
    return found


def pixels(stage: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stage.screenshot())).convert("RGB"))


def middle(shot: np.ndarray, side: int) -> np.ndarray:
    """The square in the middle of a screenshot of the stage, where a small picture is at 100 %."""
    top, left = (round((n - side) / 2) for n in shot.shape[:2])
    return shot[top : top + side, left : left + side]


def shown(page: Any, stage: Any) -> np.ndarray:
    """The whole picture as the screen has it, one pixel for one."""
    page.get_by_role("button", name="100 %").click()
    stage.focus()
    return middle(pixels(stage), 96)


def png(made: Path, file: str | None) -> np.ndarray:
    assert file is not None
    return np.asarray(Image.open(made.parent / file))


def worst_result(made: Path) -> tuple[Roundtrip, str]:
    """The record, and the name of the picture that the page begins with."""
    return load(Roundtrip, made), read_report(made).worst_first[0].name


def result(record: Roundtrip, picture: str, variant: str) -> Any:
    (found,) = (r for r in record.results if (r.picture, r.variant) == (picture, variant))
    return found


def test_page_begins_with_the_worst_case_and_says_how_to_use_it(made: Path, page: Any):
    record, worst = worst_result(made)
    assert page.title() == f"Round trip of {record.family} at {record.size} px"
    assert page.locator("#name").inner_text() == worst
    assert page.locator("#tag-left").inner_text() == "fp32"
    assert page.locator("#tag-right").inner_text() == "pal4"
    assert page.locator("#cases tbody tr").first.inner_text().split()[:2] == [worst, "pal4"]
    keys = page.locator("#keys").inner_text()
    assert all(key in keys for key in ("←", "Shift", "Home", "zoom in", "swap sides"))


def test_the_ends_of_the_slider_show_each_side_pixel_for_pixel(made: Path, page: Any, stage: Any):
    record, worst = worst_result(made)
    assert shown(page, stage).shape == (96, 96, 3)
    page.keyboard.press("End")
    assert np.array_equal(middle(pixels(stage), 96), png(made, result(record, worst, "fp32").file))
    page.keyboard.press("Home")
    assert np.array_equal(middle(pixels(stage), 96), png(made, result(record, worst, "pal4").file))
    page.keyboard.press("1")
    original = next(p.file for p in record.pictures if p.name == worst)
    assert np.array_equal(middle(pixels(stage), 96), png(made, original))


def test_the_divider_splits_two_variants(made: Path, page: Any, stage: Any):
    record, worst = worst_result(made)
    both = shown(page, stage)
    page.keyboard.press("Shift+4")  # at the left: original, fp32, fp16, pal6
    both = middle(pixels(stage), 96)
    left, right = (png(made, result(record, worst, v).file) for v in ("pal6", "pal4"))
    # the handle and its shadow begin 25 pixels down
    assert np.array_equal(both[:20, :44], left[:20, :44])
    assert np.array_equal(both[:20, 52:], right[:20, 52:])


def test_difference_and_flip_map_are_the_records(made: Path, page: Any, stage: Any):
    record, worst = worst_result(made)
    shown(page, stage)
    page.keyboard.press("Home")
    page.keyboard.press("d")
    found = result(record, worst, "pal4")
    wanted = png(made, found.difference)
    assert wanted.max() == 255  # some of it is clipped, as it should be
    assert np.array_equal(middle(pixels(stage), 96), wanted)
    page.keyboard.press("f")
    assert np.array_equal(middle(pixels(stage), 96), png(made, found.flip))
    page.keyboard.press("f")
    assert np.array_equal(middle(pixels(stage), 96), png(made, found.file))


def test_slides_by_mouse(page: Any, stage: Any):
    box = stage.bounding_box()
    y = box["y"] + box["height"] / 3
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.3, y, steps=4)
    assert stage.get_attribute("aria-valuenow") == "30"
    page.mouse.up()
    page.mouse.move(box["x"] + box["width"] * 0.8, y)
    assert stage.get_attribute("aria-valuenow") == "30"


def test_slides_by_keys(page: Any, stage: Any):
    for key, expected in (
        ("ArrowRight", "51"),
        ("ArrowLeft", "50"),
        ("PageUp", "60"),
        ("End", "100"),
        ("ArrowRight", "100"),
        ("Home", "0"),
    ):
        page.keyboard.press(key)
        assert stage.get_attribute("aria-valuenow") == expected
    assert stage.get_attribute("aria-valuetext") == "0 % fp32, the rest pal4"


def test_keys_choose_sides_and_pictures(made: Path, page: Any, stage: Any):
    names = [p.name for p in read_report(made).worst_first]
    tags = page.locator("#tag-left"), page.locator("#tag-right")
    for key, left, right in (
        ("x", "pal4", "fp32"),
        ("r", "pal4", "fp16"),
        ("Shift+R", "pal4", "fp32"),
        ("l", "original", "fp32"),
        ("5", "original", "w8a8"),
        ("Shift+2", "fp32", "w8a8"),
    ):
        page.keyboard.press(key)
        assert [tag.inner_text() for tag in tags] == [left, right]
    for key, name in (("n", names[1]), ("p", names[0]), ("p", names[2])):
        page.keyboard.press(key)
        assert page.locator("#name").inner_text() == name


def test_zoom_shows_pixels_as_squares(made: Path, page: Any, stage: Any):
    record, worst = worst_result(made)
    page.keyboard.press("Home")
    while page.locator("#scale").inner_text() != "1600 %":
        page.keyboard.press("+")
    image = page.locator("#at-right img").first
    assert image.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"
    transform = image.evaluate("e => e.style.transform")
    x, y = (int(n) for n in re.findall(r"(-?\d+)px", transform))
    shot, whole = pixels(stage), png(made, result(record, worst, "pal4").file)
    for column, row in ((40, 40), (47, 50), (55, 55)):
        top, left = row * 16 + y, column * 16 + x
        # without its border, where a screen pixel may lie over two of the picture
        block = shot[top + 1 : top + 15, left + 1 : left + 15]
        assert (block == whole[row, column]).all()


def test_zoomed_pictures_pan_by_mouse_and_keys(page: Any, stage: Any):
    def at() -> str:
        return page.locator("#at-left img").evaluate("e => e.style.transform")

    stage.dblclick(position={"x": 100, "y": 100})
    start = at()
    stage.focus()
    page.keyboard.press("Shift+ArrowRight")
    assert at() != start
    split = stage.get_attribute("aria-valuenow")
    moved, box = at(), stage.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 180, steps=3)
    page.mouse.up()
    assert at() not in (moved, start)
    assert stage.get_attribute("aria-valuenow") == split
    page.keyboard.press("0")
    assert stage.get_attribute("class") in (None, "")


def test_wheel_zooms_with_ctrl_and_scrolls_without(page: Any, stage: Any):
    box = stage.bounding_box()
    before = page.locator("#scale").inner_text()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.wheel(0, 120)
    page.wait_for_function("scrollY > 0")
    assert page.locator("#scale").inner_text() == before
    page.keyboard.down("Control")
    page.mouse.wheel(0, -240)
    page.keyboard.up("Control")
    page.wait_for_function("t => document.getElementById('scale').textContent !== t", arg=before)


def test_tables_sort_by_numbers_and_words(page: Any):
    def column(number: int) -> list[str]:
        return page.locator(f"#cases tbody tr > :nth-child({number})").all_inner_texts()

    heads = page.locator("#cases thead th:visible")
    heads.nth(2).get_by_role("button").click()
    values = [float(v) for v in column(3)]
    assert values == sorted(values)
    assert heads.nth(2).get_attribute("aria-sort") == "ascending"
    heads.nth(2).get_by_role("button").press("Enter")
    assert [float(v) for v in column(3)] == sorted(values, reverse=True)
    heads.nth(0).get_by_role("button").click()
    assert column(1) == sorted(column(1))
    assert page.locator("#cases [aria-sort]").count() == 1


def test_what_has_no_figure_sorts_last_both_ways(page: Any):
    button = page.locator("#variants thead th").nth(1).get_by_role("button")
    order = ["640", "940", "1.26", "2.45"]
    for expected in ([*order, MISSING], [*order[::-1], MISSING]):
        button.click()
        weights = page.locator("#variants tbody tr > :nth-child(2)").all_inner_texts()
        assert [w.split()[0] for w in weights] == expected


def test_one_choice_of_reference_for_all_figures(made: Path, page: Any):
    record, worst = worst_result(made)
    page.locator("#variants").get_by_label("the original").check()
    total = result(record, worst, "pal4").total["psnr"]
    assert page.locator("#figures tbody tr").first.inner_text().split()[-1] == f"{total:.2f}"
    assert page.locator("#cases").get_by_label("the original").is_checked()
    cells = page.locator("#cases tbody tr").first.locator("td:visible").all_inner_texts()
    assert cells[1] == f"{total:.2f}"


def test_a_case_opens_in_the_viewer(page: Any):
    row = page.locator("#cases tbody tr").filter(has_text="w8a8").last
    name = row.locator("button").inner_text()
    row.locator("button").click()
    assert page.locator("#name").inner_text() == name
    assert page.locator("#tag-right").inner_text() == "w8a8"
    assert page.evaluate("document.activeElement.id") == "stage"


def test_everything_is_reached_by_tab_and_shows_focus(page: Any):
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("""() => {
                const e = document.activeElement;
                const seen = e.matches(".segments input") ? e.nextElementSibling : e;
                const style = getComputedStyle(seen);
                return [e.id || e.name || e.dataset.zoom || e.className || e.tagName,
                        parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== "none"];
            }""").__str__()
        )
    wanted = ("stage", "left", "right", "swap", "show", "against-viewer", "in", "worst", "sort")
    for name in (*wanted, "scroll"):
        assert f"['{name}', True]" in reached
    assert not any("False" in r for r in reached if "BODY" not in r)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_its_window_with_good_contrast(made: Path, visit: Visit, width: int, scheme: str):
    page = visit(made.parent / "index.html", width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    colours = page.evaluate("""() => {
        const style = getComputedStyle(document.documentElement);
        const names = ["page", "paper", "ink", "muted", "accent", "on-accent", "soft"];
        return Object.fromEntries(names.map((n) => [n, style.getPropertyValue("--" + n).trim()]));
    }""")
    assert (luminance(colours["page"]) > 0.5) == (scheme == "light")
    for text in ("ink", "muted", "accent"):
        for under in ("page", "paper", "soft"):
            assert contrast(colours[text], colours[under]) >= 4.5, (text, under)
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5


def test_hostile_names_are_only_text(own: Path, visit: Visit):
    sample.renamed(own, HOSTILE, HOSTILE)
    write_report(own)
    page = visit(own.parent / "index.html", width=360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("img[src=x]").count() == 0
    names = page.locator(".strip span").evaluate_all("all => all.map((e) => e.textContent)")
    assert HOSTILE in names
    page.locator(".strip button").nth(names.index(HOSTILE)).click()
    assert page.locator("#name").evaluate("e => e.textContent") == HOSTILE


def test_tables_are_there_without_javascript(made: Path, browser: Any):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((made.parent / "index.html").as_uri())
    assert page.locator("#cases tbody tr").count() == 12
    assert page.locator("#parts tbody tr").count() == 6
    context.close()
