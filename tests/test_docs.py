"""Generated pages are what the code would generate now."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from fluxvae.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_line_page_is_current() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    # In a process of its own: click keeps the help option of a command's first use, and tests use
    # some commands outside the group that gives them `-h`.
    code = (
        "import runpy; print(runpy.run_path('scripts/generate_cli_doc.py')['document'](), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert written == done.stdout, "run `make docs`"


def test_command_line_page_has_every_command() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"\n## fluxvae {name}\n" in written


def test_the_page_on_the_layout_names_what_exists_and_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page.split("```text\n")[2].split("```")[0]
    folder, listed = Path(), set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        folder = Path(*folder.parts[:depth]) / line.split()[0]
        listed.add(folder)
    assert sorted(str(path) for path in listed if not (ROOT / path).exists()) == []
    package = {p for p in (ROOT / "fluxvae").iterdir() if not p.name.startswith("__")}
    assert {p.relative_to(ROOT) for p in package} <= listed
