"""sheet.png: rows of pictures, columns of variants, as crops at one pixel to a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fluxvae.errors import ReportError
from fluxvae.records.roundtrip import Picture, Variant
from fluxvae.report.figures import TIMES, Report, shorten, size_words, with_unit

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

ROWS = 8  # pictures on a sheet
GAP, MARGIN, LINE = 8, 20, 22  # pixels
LEAST = 112  # pixels of a column: room for a label
PAPER, INK, QUIET = "#ffffff", "#1c1d20", "#5b5f66"


@dataclass(frozen=True)
class Grid:
    """Pixels: width of a column, height of a row's pictures, top of the first row."""

    column: int
    side: int
    top: int

    @property
    def row(self) -> int:
        """A row: its name, the crops, figures, and the differences below."""
        return LINE + self.side + LINE + GAP // 2 + self.side + 2 * GAP

    def left(self, number: int) -> int:
        return MARGIN + number * (self.column + GAP)


def draw_sheet(report: Report) -> Image:
    """The sheet as an RGB picture: the worst pictures, at most ``ROWS`` of them.

    Below each crop its main figure and its difference from the fp32 decode. Raises ReportError when
    a picture of the record is missing or damaged.
    """
    from PIL import Image, ImageDraw

    shown = report.worst_first[:ROWS]
    side = max((p.crop.side for p in shown), default=LEAST)
    column = max(side, LEAST)
    width = max(2 * MARGIN + (1 + len(report.record.variants)) * (column + GAP) - GAP, 640)
    heading = _heading(report, len(shown), width - 2 * MARGIN)
    grid = Grid(column, side, MARGIN + (len(heading) + 3) * LINE + GAP)
    sheet = Image.new("RGB", (width, grid.top + len(shown) * grid.row + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (line, size, colour) in enumerate(heading):
        pen.text((MARGIN, MARGIN + number * LINE), line, colour, _font(size))
    for number, (name, words) in enumerate(_columns(report)):
        at = grid.left(number), grid.top - 2 * LINE - GAP
        pen.text(at, fit(name, grid.column, 15), INK, _font(15))
        pen.text((at[0], at[1] + LINE), fit(words, grid.column, 14), QUIET, _font(14))
    for row, picture in enumerate(shown):
        _draw_row(report, sheet, grid, grid.top + row * grid.row, picture)
    return sheet


def _heading(report: Report, shown: int, width: int) -> list[tuple[str, int, str]]:
    """Lines with their sizes and colours, each at most ``width`` pixels."""
    record = report.record
    main = f" by {report.main.label}" if report.main else ""
    which = f"the {shown} worst of {len(record.pictures)} pictures{main}"
    if shown == len(record.pictures):
        which = f"all {shown} pictures, worst first{main}"
    figure = f"{report.main.label} against the fp32 decode" if report.main else "its name"
    words = (
        f"Crops at 1:1, where the variants differ most. Below each: {figure}, and the difference "
        f"from the fp32 decode times {record.gain:g}."
    )
    title = f"Round trip of {record.family} at {record.size} px: {which}"
    return [
        *((line, 18, INK) for line in wrap(title, width, 18)),
        *((line, 14, QUIET) for line in wrap(words, width, 14)),
    ]


def _columns(report: Report) -> list[tuple[str, str]]:
    """Two lines above each column."""
    variants = [
        (v.label, "float32" if v.bytes is None else size_words(v.bytes))
        for v in report.record.variants
    ]
    return [("original", ""), *variants]


def _draw_row(report: Report, sheet: Image, grid: Grid, top: int, picture: Picture) -> None:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(sheet)
    pen.line((MARGIN, top - GAP // 2, sheet.width - MARGIN, top - GAP // 2), "#d9dbe0")
    crop = picture.crop
    words = (
        f"{picture.name}  ({picture.width}{TIMES}{picture.height}, crop at {crop.left}, {crop.top})"
    )
    pen.text((MARGIN, top), fit(words, sheet.width - 2 * MARGIN, 14), INK, _font(14))
    sheet.paste(_crop(report, picture.file, picture), (grid.left(0), top + LINE))
    below = top + LINE + crop.side
    gain = f"difference {TIMES}{report.record.gain:g}"
    pen.text((grid.left(0), below + LINE + GAP // 2), gain, QUIET, _font(14))
    for column, variant in enumerate(report.record.variants, start=1):
        result = report.results.get((picture.name, variant.label))
        if result is None:
            continue
        left = grid.left(column)
        sheet.paste(_crop(report, result.file, picture), (left, top + LINE))
        pen.text((left, below + 1), fit(_figure(report, picture, variant), grid.column, 14), QUIET,
                 _font(14))  # fmt: skip
        if result.difference is not None:
            difference = _crop(report, result.difference, picture)
            sheet.paste(difference, (left, below + LINE + GAP // 2))


def _figure(report: Report, picture: Picture, variant: Variant) -> str:
    if report.main is None or variant not in report.candidates:
        return ""
    return with_unit(report.value(picture.name, variant.label, report.main, "loss"), report.main)


def _crop(report: Report, name: str, picture: Picture) -> Image:
    crop = picture.crop
    box = crop.left, crop.top, crop.left + crop.side, crop.top + crop.side
    return open_picture(report.file(name), picture).crop(box)


def open_picture(path: Path, picture: Picture) -> Image:
    """A PNG of a picture as RGB. Raises ReportError when it is damaged or of another size."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise ReportError(
            f"{path} cannot be read as a picture ({error}): run `fluxvae roundtrip` again"
        ) from error
    if image.size != (picture.width, picture.height):
        raise ReportError(
            f"{path} is {image.width}{TIMES}{image.height}; the record says "
            f"{picture.width}{TIMES}{picture.height}: it belongs to another run"
        )
    return image


@cache
def _font(size: int) -> FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Pillow's own font lacks infinity and accents."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def fit(text: str, width: int, size: int) -> str:
    """``text`` on one line of ``width`` pixels; what is too long loses its middle."""
    limit = len(text)
    while limit > 1 and _font(size).getlength(shorten(text, limit)) > width:
        limit -= 1
    return shorten(text, limit)


def wrap(text: str, width: int, size: int) -> list[str]:
    """``text`` on lines of ``width`` pixels, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(fit(word, width, size))
    return [line for line in lines if line]
