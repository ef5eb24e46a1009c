"""Write README's Mac table from docs/mac-report.json, a record of `fluxvae mac-report`.

    python scripts/generate_mac_table.py [README.md]

Without a record it says that there is none.
"""

import sys
from pathlib import Path

from fluxvae.records.mac import MacRecord
from fluxvae.report.matrix.mac import table
from fluxvae.schema import load

ROOT = Path(__file__).resolve().parents[1]
MARK = "<!-- mac-table -->"


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "README.md"
    source = ROOT / "docs" / "mac-report.json"
    lines = table(load(MacRecord, source) if source.exists() else None)
    before, _, after = path.read_text(encoding="utf-8").split(MARK)
    path.write_text(MARK.join([before, "\n" + "\n".join(lines) + "\n", after]), encoding="utf-8")


if __name__ == "__main__":
    main()
