"""What people look at after a matrix: a page and a summary, from the cells' results alone."""

from pathlib import Path

from fluxvae.files import write_file
from fluxvae.report.matrix.figures import read_matrix
from fluxvae.report.matrix.page import write_page
from fluxvae.report.matrix.summary import matrix_text

MATRIX_PAGES = ("index.html", "summary.md")


def write_matrix_report(folder: Path) -> tuple[Path, ...]:
    """Write index.html and summary.md of a run folder, replacing older ones; return their paths.

    From the ``result.json`` of its cells: the same results give the same bytes. Each is written
    whole or not at all. Raises MatrixError when a result is damaged or there is none, and
    OutputError when nothing can be written there.
    """
    matrix = read_matrix(folder)
    text = matrix_text(matrix)
    writers = (
        lambda draft: write_page(matrix, draft),
        lambda draft: draft.write_text(text, "utf-8"),
    )
    return tuple(
        write_file(folder / name, write, overwrite=True)
        for name, write in zip(MATRIX_PAGES, writers, strict=True)
    )
