"""``fluxvae report``."""

from pathlib import Path

import click

from fluxvae.cli.options import json_option, print_json


@click.command("report")
@click.argument("record", type=click.Path(path_type=Path))
@json_option
def command(record: Path, as_json: bool) -> None:
    """Make the pages of a round trip again, from RECORD and the pictures beside it.

    RECORD is the record.json of `fluxvae roundtrip`, or its folder. Writes index.html, sheet.png,
    plot.svg and summary.md there, over older ones, and prints their paths.

    \b
    Example:
      fluxvae report coreml_out/roundtrip/record.json
    """
    from fluxvae.report import write_report

    path = record / "record.json" if record.is_dir() else record
    pages = write_report(path)
    if as_json:
        print_json({"record": str(path), "pages": [str(page) for page in pages]})
    else:
        for page in pages:
            click.echo(str(page))
