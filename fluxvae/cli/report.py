"""``fluxvae report``, which is ``fluxvae matrix report`` too."""

from pathlib import Path

import click

from fluxvae.cli.options import json_option, print_json
from fluxvae.errors import ReportError


@click.command("report")
@click.argument("record", type=click.Path(path_type=Path))
@json_option
def command(record: Path, as_json: bool) -> None:
    """Make the pages of a round trip or of a matrix again, from what was measured.

    RECORD is the folder of `fluxvae matrix run`, or the one of `fluxvae roundtrip`, or its
    record.json. Writes the pages there, over older ones, and prints their paths.

    \b
    Examples:
      fluxvae report coreml_out/roundtrip
      fluxvae report runs/today
    """
    from fluxvae.experiments.folder import MATRIX

    if (record / MATRIX).is_file():
        from fluxvae.experiments.folder import write_report as write_matrix

        path, pages = record, write_matrix(record)
    else:
        from fluxvae.report import write_report

        path = record / "record.json" if record.is_dir() else record
        if not path.exists():
            raise ReportError(
                f"{record} has neither record.json nor {MATRIX}; expected a folder of `fluxvae "
                "roundtrip` or of `fluxvae matrix run`"
            )
        pages = write_report(path)
    if as_json:
        print_json({"record": str(path), "pages": [str(page) for page in pages]})
    else:
        for page in pages:
            click.echo(str(page))
