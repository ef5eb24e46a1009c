"""The command line starts without anything heavy."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from fluxvae.cli.main import COMMANDS

HEAVY = (
    *("torch", "coremltools", "numpy", "skimage", "scipy", "huggingface_hub", "safetensors"),
    *("google.protobuf", "PIL", "jinja2", "matplotlib", "distributed", "dask"),
)
# Each command line in a process of its own, forked from one that has imported the group alone.
CODE = """
import io, json, os, sys
from contextlib import redirect_stdout
from fluxvae.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.stdout.flush()
    if os.fork():
        os.wait()
        continue
    out, code = io.StringIO(), 0
    with redirect_stdout(out):
        try:
            arguments and main(arguments)
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code, sorted(sys.modules), out.getvalue()]))
    break
"""
HELPS = [
    *([], *([name] for name in COMMANDS)),
    *(["weights", name] for name in ("list", "fetch", "show")),
    *(["matrix", name] for name in ("init", "run", "status", "verify", "report")),
]
Start = Callable[..., tuple[int, list[str], str]]
INSPECT = ["inspect", "does-not-exist.mlpackage"]


@pytest.fixture(scope="module")
def start() -> Start:
    """``start(*arguments)``: exit code, modules and stdout of a fresh ``fluxvae ARGUMENTS``."""
    commands = [[], ["--version"], INSPECT, *([*command, "--help"] for command in HELPS)]
    ran = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(commands)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    found = {tuple(c): (r[0], r[1], r[2]) for c, r in zip(commands, lines, strict=True)}
    return lambda *arguments: found[arguments]


def test_import_brings_nothing_heavy(start: Start) -> None:
    _, modules, _ = start()
    assert "fluxvae.cli.main" in modules
    assert [m for m in HEAVY if m in modules] == []


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_help_brings_nothing_heavy(start: Start, command: list[str]) -> None:
    code, modules, out = start(*command, "--help")
    assert code == 0
    assert out.startswith(f"Usage: {' '.join(['fluxvae', *command])} ")
    assert [m for m in HEAVY if m in modules] == []


def test_version_brings_nothing_heavy(start: Start) -> None:
    code, modules, out = start("--version")
    assert code == 0
    assert out.startswith("fluxvae, version ")
    assert [m for m in HEAVY if m in modules] == []


def test_the_check_would_see_what_a_running_command_imports(start: Start) -> None:
    code, modules, _ = start(*INSPECT)
    assert code != 0
    assert "numpy" in modules
