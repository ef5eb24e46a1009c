"""The four pages: written from the record and its pictures alone, whole, and the same each time."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fluxvae.errors import ReportError
from fluxvae.records.roundtrip import Roundtrip
from fluxvae.report import PAGES, write_report
from fluxvae.report.figures import DASH, MISSING, read_report
from fluxvae.report.roundtrip.embed import embed
from fluxvae.report.roundtrip.page import write_page
from fluxvae.report.roundtrip.plot import plot_svg
from fluxvae.report.roundtrip.sheet import ROWS, draw_sheet
from fluxvae.report.roundtrip.summary import summary_text
from fluxvae.schema import load, save
from tests.cli.run import run
from tests.report import sample

HOSTILE = '</script><script>alert("x")</script> | `a`\n<img src=x onerror=alert(1)> $x$ & *b*'
SVG = "{http://www.w3.org/2000/svg}"


def cells(line: str) -> list[str]:
    """A Markdown table's row: split at bars that no backslash escapes."""
    return [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]


def table(text: str, heading: str) -> list[list[str]]:
    """The rows below a heading, without the two of the head."""
    section = text.split(f"## {heading}")[1].split("\n## ")[0]
    return [cells(line) for line in section.splitlines() if line.startswith("|")][2:]


def test_pages_are_the_same_bytes_from_a_folder_elsewhere(made: Path, own: Path):
    assert write_report(own) == tuple(own.parent / name for name in PAGES)
    for name in PAGES:
        assert (own.parent / name).read_bytes() == (made.parent / name).read_bytes()


def test_pages_replace_older_ones_and_leave_nothing_else(own: Path):
    (own.parent / "index.html").write_text("older")
    before = {p.name for p in own.parent.iterdir()}
    write_report(own)
    assert {p.name for p in own.parent.iterdir()} == before | set(PAGES)
    assert "older" not in (own.parent / "index.html").read_text("utf-8")[:10]


def test_command_prints_the_pages_paths(own: Path, capsys: pytest.CaptureFixture[str]):
    ran = run(capsys, "report", str(own.parent))
    assert ran.code == 0
    assert ran.out.splitlines() == [str(own.parent / name) for name in PAGES]
    assert run(capsys, "report", str(own), "--json").json == {
        "record": str(own),
        "pages": [str(own.parent / name) for name in PAGES],
    }


def test_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    ran = run(capsys, "report", str(tmp_path / "record.json"))
    assert (ran.code, ran.out) == (1, "")
    assert "has neither record.json nor matrix.toml; expected a folder of" in ran.err


def test_a_missing_picture_is_named_and_no_page_is_written(own: Path):
    gone = own.parent / load(Roundtrip, own).results[1].file
    gone.unlink()
    with pytest.raises(ReportError, match=f"{gone.name}.*has no such picture"):
        write_report(own)
    assert not any((own.parent / name).exists() for name in PAGES)


def test_a_damaged_picture_is_named(own: Path):
    broken = own.parent / load(Roundtrip, own).pictures[0].file
    broken.write_bytes(broken.read_bytes()[:400])
    with pytest.raises(ReportError, match=rf"{broken.name} cannot be read as a picture"):
        write_report(own)


def test_a_picture_of_another_run_is_refused(own: Path):
    other = own.parent / load(Roundtrip, own).pictures[0].file
    Image.new("RGB", (50, 40)).save(other)
    with pytest.raises(ReportError, match=r"is 50.40; the record says 96.96"):
        write_report(own)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname"])
def test_a_record_cannot_bring_in_files_from_elsewhere(own: Path, name: str):
    Image.new("RGB", (96, 96)).save(own.parent.parent / "secret.png")
    record = load(Roundtrip, own)
    pictures = (replace(record.pictures[0], file=name), *record.pictures[1:])
    save(replace(record, pictures=pictures), own)
    with pytest.raises(ReportError, match="outside"):
        write_report(own)


def test_summary_has_numpys_percentiles(made: Path):
    record, text = load(Roundtrip, made), (made.parent / "summary.md").read_text("utf-8")
    rows = {row[0]: row for row in table(text, "Against the fp32 decode")}
    assert list(rows) == ["fp16", "pal6", "w8a8", "pal4"]
    for label, row in rows.items():
        values = {r.picture: r.loss["psnr"] for r in record.results if r.variant == label}
        low, middle, high = np.percentile(list(values.values()), (10, 50, 90))
        assert row[1] == f"{middle:.2f} [{low:.2f}{DASH}{high:.2f}]"
        worst = min(values, key=values.__getitem__)
        assert row[-1] == f"{worst} ({values[worst]:.2f} dB)"
    against_original = {row[0] for row in table(text, "Against the original")}
    assert against_original == {"fp32", *rows}


def test_summary_names_what_was_left_out(made: Path):
    text = (made.parent / "summary.md").read_text("utf-8")
    assert "- notes.txt: not a picture" in text
    assert "- LPIPS: its weights are not in the cache" in text
    assert "- chelsea: cropped from 512 x 512" in text


def test_summary_keeps_hostile_names_in_their_cell(own: Path):
    sample.renamed(own, HOSTILE, HOSTILE)
    text = summary_text(read_report(own))
    assert not re.search(r"(?<!\\)<", text)
    rows = table(text, "Against the fp32 decode")
    assert {len(row) for row in rows} == {5}
    assert len(rows) == 4


def test_figures_that_are_missing_or_infinite_are_said(own: Path):
    record = load(Roundtrip, own)
    equal = {"psnr": None, "ssim": 1.0, "max_abs": 0.0}
    results = tuple(replace(r, loss=equal) if r.variant == "fp16" else
                    replace(r, loss={}) if r.variant == "pal6" else r
                    for r in record.results)  # fmt: skip
    save(replace(record, results=results), own)
    write_report(own)
    rows = {r[0]: r for r in table((own.parent / "summary.md").read_text(), "Against the fp32")}
    assert rows["fp16"][1:4] == [f"{one} [{one}{DASH}{one}]" for one in ("∞", "1.0000", "0.0")]
    assert rows["pal6"][1:] == [MISSING] * 4
    assert "fp16 (∞)" in (own.parent / "plot.svg").read_text("utf-8")


def test_a_record_without_pictures_or_metrics_has_pages(own: Path):
    record = load(Roundtrip, own)
    empty = replace(record, pictures=(), results=(), ablations=(), metrics=())
    save(empty, own)
    assert all(path.stat().st_size > 0 for path in write_report(own))


def where(sheet: np.ndarray, piece: np.ndarray) -> tuple[int, int]:
    """Top and left of the only place where ``piece`` is in ``sheet``, pixel for pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (1, 12, 3))[:, :, 0, 0]
    starts = np.argwhere((windows == piece[0, :12]).all(axis=(2, 3)))
    height, width = piece.shape[:2]
    (found,) = {
        (int(y), int(x)) for y, x in starts
        if np.array_equal(sheet[y : y + height, x : x + width], piece)
    }  # fmt: skip
    return found


def test_sheet_has_the_crops_pixel_for_pixel_in_rows_and_columns(made: Path):
    record = load(Roundtrip, made)
    sheet = np.asarray(Image.open(made.parent / "sheet.png"))
    rows = []
    for picture in record.pictures:
        c = picture.crop
        files = [picture.file, *(r.file for r in record.results if r.picture == picture.name)]
        pieces = [np.asarray(Image.open(made.parent / f)) for f in files]
        places = [where(sheet, p[c.top : c.top + c.side, c.left : c.left + c.side]) for p in pieces]
        assert len({y for y, _ in places}) == 1
        assert [x for _, x in places] == sorted(x for _, x in places)
        rows.append((places[0][0], picture.name))
    ranked = [p.name for p in read_report(made).worst_first]
    assert [name for _, name in sorted(rows)] == ranked


def test_sheet_is_bounded_and_says_so(made: Path):
    report = read_report(made)
    picture = report.record.pictures[0]
    many = tuple(replace(picture, name=f"{picture.name} {n}") for n in range(ROWS + 5))
    larger = replace(report, record=replace(report.record, pictures=many))
    full = replace(report, record=replace(report.record, pictures=many[:ROWS]))
    assert draw_sheet(larger).height == draw_sheet(full).height


def test_plot_is_well_formed_and_names_every_variant(own: Path):
    sample.renamed(own, "a", "pal4 <b> $x$ & more")
    tree = ET.fromstring(plot_svg(read_report(own)))
    words = ["".join(e.itertext()) for e in tree.iter(f"{SVG}text")]
    for label in ("fp16", "pal6", "w8a8", "pal4 <b> $x$ & more"):
        assert words.count(label) == 2  # a panel each
    assert "Against the original" in words


def test_page_holds_the_worst_pictures_that_fit(own: Path):
    report = read_report(own)
    sizes = [e.bytes for e in embed(report)[0]]
    page = own.parent / "small.html"
    write_page(report, page, "<svg></svg>", limit=sizes[0] + sizes[1])
    text = page.read_text("utf-8")
    worst = [p.name for p in report.worst_first]
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert [p["name"] for p in data["pictures"]] == worst[:2]
    assert f"Left out: {worst[2]}." in " ".join(text.split())
    assert len(re.findall("data:image/", text)) == 2 * (1 + 5 + 4)  # original, variants, FLIP maps


def test_page_needs_no_other_file(made: Path):
    text = (made.parent / "index.html").read_text("utf-8")
    assert re.findall(r'(?:src|href)="(?!#|data:)([^"]*)"', text) == []
    assert re.findall(r"url\((?!#)[^)]*\)", text) == []


def test_hostile_names_are_text_in_the_page(own: Path):
    sample.renamed(own, HOSTILE, HOSTILE)
    write_report(own)
    text = (own.parent / "index.html").read_text("utf-8")
    assert "<img src=x" not in text
    assert "alert(&#34;x&#34;)" in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert HOSTILE in [p["name"] for p in data["pictures"]]
    assert data["sides"][-1] == HOSTILE


def test_pages_are_made_beside_a_record_that_moved(own: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere with spaces"
    shutil.move(own.parent, moved)
    assert all(path.is_file() for path in write_report(moved / "record.json"))
