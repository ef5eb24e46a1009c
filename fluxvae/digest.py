"""sha256 of files and of plain data, as records keep them."""

import hashlib
import json
from pathlib import Path
from typing import Any


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of the file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_sha256(parts: Any) -> str:
    """Hexadecimal sha256 over plain data as JSON, its keys in one order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
