"""Run the command line in this process, as a user meets it: exit code, stdout, stderr."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from fluxvae.cli.main import main


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout; raises when there is anything else."""
        return json.loads(self.out)

    @property
    def widest(self) -> int:
        """Columns of the longest line on stdout."""
        return max(len(line) for line in self.out.splitlines())


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """Call ``fluxvae ARGUMENTS`` through its entry point."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    captured = capsys.readouterr()
    code = stop.value.code
    return Ran(code if isinstance(code, int) else 0, captured.out, captured.err)
