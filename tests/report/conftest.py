"""A small round trip and its pages, made once; and a browser."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxvae.report import write_report
from fluxvae.report.matrix.report import write_matrix_report
from tests.report import matrix_sample, sample

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a sample with its pages beside it. Shared: copy it before changing it."""
    folder = tmp_path_factory.mktemp("roundtrip")
    record = sample.make(folder, photos=sample.PHOTOS[:3], qualities=sample.FEW)
    write_report(record)
    return record


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """The same record in a folder of the test's own, without pages."""
    folder = tmp_path / "own"
    shutil.copytree(made.parent, folder)
    for page in ("index.html", "sheet.png", "plot.svg", "summary.md"):
        (folder / page).unlink()
    return folder / "record.json"


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a matrix with its pages. Shared: make another to change it."""
    folder = matrix_sample.write(tmp_path_factory.mktemp("matrix"), matrix_sample.sample())
    write_matrix_report(folder)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, with pictures' colours as they are in the file."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(CHROMIUM)})")
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox refuses root
    flags = ["--force-color-profile=srgb", *(["--no-sandbox"] if root else [])]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """``visit(path, width=, scheme=)``: the page open; afterwards it must have been quiet.

    Quiet: no error, no dialog, and no request but for the file itself and data inside it.
    """
    trouble: list[str] = []
    contexts = []

    def start(path: Path, *, width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda m: trouble.append(m.text) if m.type != "log" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        page.on("request", lambda request: trouble.extend(leaves(request.url, path)))
        page.goto(path.as_uri())
        return page

    yield start
    for context in contexts:
        context.close()
    assert trouble == []


def leaves(url: str, path: Path) -> list[str]:
    return [] if url.startswith("data:") or url.split("#")[0] == path.as_uri() else [url]
