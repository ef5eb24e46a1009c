"""The workflows of GitHub: their schema, and our own rules. None has yet run on GitHub.

The schema is the one that check-jsonschema carries; zizmor looks for what attackers look for.
"""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fluxvae.cli.main import COMMANDS, group

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="this copy has no .github/workflows")
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def read(path: Path) -> dict[str, Any]:
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # `on` is no boolean


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def run_lines(path: Path) -> list[list[str]]:
    """The shell commands of a workflow, each as words."""
    return [shlex.split(line) for step in steps(path) for line in step.get("run", "").splitlines()]


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a tool of this environment."""
    program = Path(sys.executable).with_name(name)
    if not program.exists():
        pytest.skip(f"{name} is not installed in this environment")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


def schema_check(path: Path) -> subprocess.CompletedProcess[str]:
    return tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", path)


def audit(path: Path) -> subprocess.CompletedProcess[str]:
    return tool("zizmor", "--offline", "--pedantic", "--no-progress", path)


@each_workflow
def test_workflow_follows_githubs_schema(path: Path) -> None:
    result = schema_check(path)
    assert result.returncode == 0, result.stdout


@each_workflow
def test_auditor_finds_nothing(path: Path) -> None:
    result = audit(path)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("check", "before", "after"),
    [
        (schema_check, "runs-on:", "run-on:"),
        (schema_check, "timeout-minutes: 90", "timeout-minutes: soon"),
        (audit, "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@main"),
        (audit, "permissions:\n  contents: read", "permissions: write-all"),
    ],
)
def test_checks_can_fail(check: Any, before: str, after: str, tmp_path: Path) -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert before in text
    bad = tmp_path / ".github" / "workflows" / "ci.yml"
    bad.parent.mkdir(parents=True)
    bad.write_text(text.replace(before, after), encoding="utf-8")
    assert check(bad).returncode != 0


@each_workflow
def test_actions_are_pinned_to_commits_and_name_their_version(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.search(r"\buses:", line)]
    assert len(lines) == sum("uses" in step for step in steps(path)) > 0
    for line in lines:
        assert re.search(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


@each_workflow
def test_workflow_may_read_and_nothing_else(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())
    assert "secrets." not in path.read_text(encoding="utf-8")
    assert "pull_request_target" not in workflow["on"]
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false"


@each_workflow
def test_no_job_runs_for_hours_or_twice(path: Path) -> None:
    workflow = read(path)
    assert "concurrency" in workflow
    for job in workflow["jobs"].values():
        assert int(job["timeout-minutes"]) <= 120


def test_python_versions_are_those_that_the_project_names() -> None:
    named = [c.rpartition(" :: ")[2] for c in PROJECT["classifiers"] if ":: 3." in c]
    tested = read(ROOT / ".github/workflows/ci.yml")["jobs"]["linux"]["strategy"]["matrix"]
    assert tested["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_torch_is_the_projects_own_range() -> None:
    (torch,) = [d for d in PROJECT["dependencies"] if re.match(r"torch\W", d)]
    assert shlex.split(read(ROOT / ".github/workflows/ci.yml")["env"]["CPU_TORCH"])[0] == torch


@each_workflow
def test_make_targets_and_their_variables_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    used = [line[1:] for line in run_lines(path) if line[:1] == ["make"]]
    assert used
    for target, *variables in used:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        for name in (variable.partition("=")[0] for variable in variables):
            assert re.search(rf"^{name}\s*\?=", makefile, re.MULTILINE), name


@each_workflow
def test_fluxvaes_commands_take_these_options(path: Path) -> None:
    calls = [line[1:] for line in run_lines(path) if line and line[0].endswith("/fluxvae")]
    assert calls
    for name, *arguments in calls:
        if name == "--help":
            continue
        assert name in COMMANDS
        command = group.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        command.make_context(name, list(arguments))  # raises for what it does not know
