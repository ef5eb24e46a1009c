"""The folder of tests.conversion_cache. Without torch: conftest.py imports it for every test."""

import shutil
from contextlib import suppress
from pathlib import Path

FOLDER = "FLUXVAE_TEST_CONVERSIONS"  # variable that names it, for children too; unset: no cache
LIMIT = 1_000_000_000  # bytes to keep between runs: a run of the whole suite fills half of it


def prune(folder: Path) -> None:
    """Remove the entries that were not used for longest, until ``LIMIT`` bytes are left."""
    entries = [entry for entry in folder.iterdir() if entry.is_dir()]
    left = LIMIT
    for entry in sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True):
        left -= sum(file.stat().st_size for file in entry.rglob("*"))
        if left < 0:
            shutil.rmtree(entry, ignore_errors=True)
            with suppress(FileNotFoundError):
                Path(f"{entry}.lock").unlink()
