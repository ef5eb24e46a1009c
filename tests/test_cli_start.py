"""The command line starts without anything heavy."""

import json
import subprocess
import sys

import pytest

from fluxvae.cli.main import COMMANDS

HEAVY = (
    *("torch", "coremltools", "numpy", "skimage", "scipy", "huggingface_hub", "safetensors"),
    *("google.protobuf", "PIL", "jinja2", "matplotlib", "distributed", "dask"),
)
CODE = """
import json, sys
from fluxvae.cli import main
code = 0
if sys.argv[1:]:
    try:
        main(sys.argv[1:])
    except SystemExit as stop:
        code = stop.code
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def start(*arguments: str) -> tuple[int, list[str], str]:
    """Exit code, modules and stdout of a fresh process that runs ``fluxvae ARGUMENTS``."""
    command = [sys.executable, "-c", CODE, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    code, modules = json.loads(ran.stderr.splitlines()[-1])
    return code, modules, ran.stdout


def test_import_brings_nothing_heavy() -> None:
    _, modules, _ = start()
    assert "fluxvae.cli.main" in modules
    assert [m for m in HEAVY if m in modules] == []


HELPS = [
    *([], *([name] for name in COMMANDS)),
    *(["weights", name] for name in ("list", "fetch", "show")),
    *(["matrix", name] for name in ("init", "run", "status", "verify", "report")),
]


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_help_brings_nothing_heavy(command: list[str]) -> None:
    code, modules, out = start(*command, "--help")
    assert code == 0
    assert out.startswith(f"Usage: {' '.join(['fluxvae', *command])} ")
    assert [m for m in HEAVY if m in modules] == []


def test_version_brings_nothing_heavy() -> None:
    code, modules, out = start("--version")
    assert code == 0
    assert out.startswith("fluxvae, version ")
    assert [m for m in HEAVY if m in modules] == []


def test_the_check_would_see_what_a_running_command_imports() -> None:
    code, modules, _ = start("inspect", "does-not-exist.mlpackage")
    assert code != 0
    assert "numpy" in modules
