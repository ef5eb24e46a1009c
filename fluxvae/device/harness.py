"""Running fluxvae-harness, the Swift program, and reading its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fluxvae.device.programs import run_captured
from fluxvae.errors import ArtifactError, ToolError, UsageError
from fluxvae.records.harness import HarnessReport
from fluxvae.schema import parse


@dataclass(frozen=True)
class Harness:
    """The built program, and the whole environment it is started with.

    On Linux its Core ML runs ``FLUXVAE_PYTHON -m fluxvae.mil.serve``, so the environment has
    that and a PYTHONPATH. The command line makes it; nothing below reads the process's own.
    """

    program: Path
    environment: Mapping[str, str]


_PART = {"validate": "validation", "bench": "runs", "plan": "plan", "drift": "drift"}


def parse_report(text: str) -> HarnessReport:
    """The report in what the harness printed. Raises ToolError when there is none in it."""
    try:
        report = parse(HarnessReport, text)
    except ValueError as error:  # of JSON, or a StructureError
        what = f"fluxvae-harness printed no report that this fluxvae understands ({error})"
        raise ToolError(f"{what}: {HarnessReport.header.advice}") from error
    if getattr(report, _PART[report.command]) is None:
        raise ToolError(f"fluxvae-harness printed no result of {report.command}")
    return report


def run_harness(harness: Harness, arguments: Sequence[str]) -> HarnessReport:
    """The report of ``fluxvae-harness ARGUMENTS --json``: with exit code 0, 3 (an output outside
    its limit), or 1 (no compute plan, failed compute units). Otherwise raises, with the harness's
    own line: UsageError for 2, ArtifactError for 1, else ToolError."""
    try:
        command = [str(harness.program), *arguments, "--json"]
        ran = run_captured(command, environment=harness.environment)
    except OSError as error:
        raise ToolError(f"{harness.program} cannot be started: {error.strerror}") from error
    line = _complaint(ran.stderr)
    if ran.returncode < 0:
        raise ToolError(f"fluxvae-harness was ended by signal {-ran.returncode}: {line}")
    if ran.returncode == 2:
        raise UsageError(line)
    if ran.returncode == 1 and not ran.stdout.strip():
        raise ArtifactError(line)
    if ran.returncode not in (0, 1, 3):
        raise ToolError(f"fluxvae-harness ended with code {ran.returncode}: {line}")
    report = parse_report(ran.stdout)
    _check_code(report, ran.returncode, line)
    return report


def _check_code(report: HarnessReport, code: int, line: str) -> None:
    """Exit code and report have to say the same; a harness that contradicts itself is broken."""
    missed = report.validation and any(r.verdict == "fail" for r in report.validation.results)
    no_plan = report.plan is not None and not report.plan.available
    expected = 3 if missed else 1 if no_plan or report.failures else 0
    if code == 1 != expected:
        raise ArtifactError(line)
    if code != expected:
        raise ToolError(f"fluxvae-harness ended with code {code}, but its report says {expected}")


def _complaint(stderr: str) -> str:
    """The ``error:`` line of what the harness printed, else its last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    return (errors or lines or ["fluxvae-harness gave no message"])[-1][:1000]
