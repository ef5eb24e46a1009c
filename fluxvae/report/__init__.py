"""What people look at after a round trip: a page, a sheet, a plot and a summary.

All made from record.json and the PNGs beside it, so that they can be made again.
"""

from pathlib import Path

from fluxvae.files import write_file
from fluxvae.report.figures import read_report
from fluxvae.report.roundtrip.page import write_page
from fluxvae.report.roundtrip.plot import plot_svg
from fluxvae.report.roundtrip.sheet import draw_sheet
from fluxvae.report.roundtrip.summary import summary_text

PAGES = ("index.html", "sheet.png", "plot.svg", "summary.md")


def write_report(record_path: Path) -> tuple[Path, ...]:
    """Write the pages next to ``record_path``, replacing older ones; the same bytes every time.

    Returns the paths of index.html, sheet.png, plot.svg and summary.md. Each is written whole or
    not at all. Raises ReportError when the record is damaged or a picture of it is missing, and
    OutputError when nothing can be written there.
    """
    report = read_report(record_path)
    sheet, plot = draw_sheet(report), plot_svg(report)
    writers = (
        lambda draft: write_page(report, draft, plot),
        lambda draft: sheet.save(draft, "PNG"),
        lambda draft: draft.write_text(plot, "utf-8"),
        lambda draft: draft.write_text(summary_text(report), "utf-8"),
    )
    return tuple(
        write_file(record_path.parent / name, write, overwrite=True)
        for name, write in zip(PAGES, writers, strict=True)
    )
