"""What the Swift harness says, and what becomes of each of its exit codes."""

import json
import signal
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fluxvae.device.harness import Harness, parse_report, run_harness
from fluxvae.errors import ArtifactError, FluxVAEError, ToolError, UsageError
from fluxvae.schema import plain
from tests.fake_harness import FakeHarness, bench_run, metrics, report, validation

SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "harness.schema.json"
COUNTS = {"neuralEngine": 2, "cpu": 1}
PLAN = {
    "available": True,
    "reason": None,
    "results": [
        {
            "compute_units": "all",
            "function": "main",
            "operations": 3,
            "constants": 7,
            "devices": COUNTS,
            "types": [{"operator": "ios16.conv", "count": 3, "devices": COUNTS}],
            "cost_by_device": {"neuralEngine": 0.9, "cpu": 0.1},
            "left_neural_engine": [0],
            "ops": [
                {
                    "index": 0,
                    "operator": "ios16.conv",
                    "output": "x",
                    "supported": ["cpu"],
                    "preferred": "cpu",
                    "cost": 0.1,
                }
            ],
        }
    ],
}
NO_PLAN = {"available": False, "reason": "there is no compute plan on Linux", "results": []}
DRIFT = {
    "repeats": 3,
    "runs": [
        {
            "compute_units": "cpuOnly",
            "bit_equal": False,
            "differing": 1,
            "first_differing": 2,
            "max_abs": 0.5,
            "digest": "a" * 64,
        }
    ],
    "against_cpu": [{"compute_units": "all", "bit_equal": False, "metrics": metrics(None)}],
}
INPUT = {"source": "generated", "path": None, "case": None, "seed": 0, "shape": [1, 32, 8, 8]}
REPORTS = [
    report("validate", validation=validation(), input=INPUT),
    report("bench", runs=[bench_run([1.0, 2.0, 4.0])], input=INPUT),
    report("plan", plan=PLAN),
    report("plan", plan=NO_PLAN),
    report("drift", drift=DRIFT, input=INPUT, notes=["a note"]),
]
GPU_FAILED = [{"compute_units": "cpuAndGPU", "failure": "m.mlmodelc cannot be loaded: no GPU"}]


@pytest.mark.parametrize("content", REPORTS, ids=lambda r: r["command"])
def test_report_keeps_to_the_schema_and_comes_back_as_it_was(content: dict[str, Any]) -> None:
    jsonschema.validate(content, json.loads(SCHEMA.read_text(encoding="utf-8")))
    parsed = parse_report(json.dumps(content))
    assert json.loads(json.dumps(plain(parsed), allow_nan=False)) == content
    assert parse_report(json.dumps(plain(parsed))) == parsed


def test_schema_and_dataclasses_have_the_same_keys() -> None:
    """A field that one side adds must be in the other: the parser refuses what it does not know."""
    import dataclasses

    from fluxvae.records import harness

    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    definitions = schema["$defs"]
    drift = definitions["drift"]["properties"]
    plan = definitions["plan"]["properties"]["results"]["items"]["properties"]
    for kind, node in (
        (harness.HarnessReport, schema),
        (harness.Model, definitions["model"]),
        (harness.Feature, definitions["feature"]),
        (harness.Environment, definitions["environment"]),
        (harness.Moment, definitions["moment"]),
        (harness.Input, definitions["input"]),
        (harness.Latency, definitions["latency"]),
        (harness.FirstCalls, definitions["first_calls"]),
        (harness.UnitFailure, definitions["failure"]),
        (harness.Run, definitions["run"]),
        (harness.Metrics, definitions["metrics"]),
        (harness.Validation, definitions["validation"]),
        (harness.UnitsResult, definitions["validation"]["properties"]["results"]["items"]),
        (harness.Plan, definitions["plan"]),
        (harness.UnitsPlan, definitions["plan"]["properties"]["results"]["items"]),
        (harness.PlannedOp, plan["ops"]["items"]),
        (harness.OpType, plan["types"]["items"]),
        (harness.Drift, definitions["drift"]),
        (harness.DriftRun, drift["runs"]["items"]),
        (harness.AgainstCPU, drift["against_cpu"]["items"]),
    ):
        fields = {field.name for field in dataclasses.fields(kind)}
        fields |= {"format", "version"} if hasattr(kind, "header") else set()
        assert fields == set(node["properties"]) == set(node["required"]), kind.__name__


def change(content: dict[str, Any], path: str, value: Any) -> str:
    """The report with one value changed, as text. ``path``: keys and indices by dots."""
    content = deepcopy(content)
    *parents, last = (int(k) if k.isdigit() else k for k in path.split("."))
    node: Any = content
    for key in parents:
        node = node[key]
    node[last] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "printed no report"),
        ("[1]", "expected format"),
        ('{"format": "fluxvae-harness", "version": 1}', "got .'fluxvae-harness', 1"),
        (change(REPORTS[1], "runs.0.samples_ms.1", "fast"), r"runs\[0\].samples_ms\[1\] should"),
        (change(REPORTS[1], "runs.0.latency.count", 2.5), "latency.count should be a whole"),
        (change(REPORTS[1], "environment.cores", True), "environment.cores should be a whole"),
        (change(REPORTS[0], "validation.verdict", "maybe"), "validation.verdict should be one of"),
        (change(REPORTS[0], "validation.extra", 1), r"validation has the unknown keys \['extra'\]"),
        (change(REPORTS[0], "model", []), "model should be an object"),
        (change(REPORTS[0], "notes", "none"), "notes should be a list"),
        (change(REPORTS[0], "command", "drift"), "no result of drift"),
    ],
)
def test_what_is_no_report_is_refused_with_the_place(text: str, why: str) -> None:
    with pytest.raises(ToolError, match=why) as caught:
        parse_report(text)
    assert "\n" not in str(caught.value)


def test_arguments_and_environment_reach_the_harness(tmp_path: Path) -> None:
    fake = FakeHarness(tmp_path, (0, REPORTS[4], "progress\n"))
    assert run_harness(fake.harness, ["drift", "m m.mlmodelc"]).command == "drift"
    ((arguments, environment),) = fake.calls
    assert arguments == ["drift", "m m.mlmodelc", "--json"]
    assert environment["SEEN"] == "yes"
    assert "HOME" not in environment  # nothing but what the command line handed down


FAILED = report("validate", validation=validation("fail"), input=INPUT)


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        ((1, "", "loading\nerror: input.bin is short\n"), ArtifactError, "^input.bin is short$"),
        ((2, "", "error: unknown option --x\n"), UsageError, "^unknown option --x$"),
        ((1, "", ""), ArtifactError, "no message"),
        ((-signal.SIGKILL, "", "working\n"), ToolError, "ended by signal 9: working"),
        ((134, "", "trap\n"), ToolError, "ended with code 134: trap"),
        ((0, "", ""), ToolError, "printed no report"),
        ((0, "{", ""), ToolError, "printed no report"),
        # a harness that contradicts itself is not believed
        ((0, FAILED, ""), ToolError, "code 0, but its report says 3"),
        ((3, REPORTS[0], ""), ToolError, "code 3, but its report says 0"),
        ((1, REPORTS[0], "error: it broke\n"), ArtifactError, "^it broke$"),
        ((0, {**REPORTS[4], "failures": GPU_FAILED}, ""), ToolError, "its report says 1"),
    ],
)
def test_exit_codes_become_errors_with_its_own_line(
    tmp_path: Path, answer: tuple[int, Any, str], kind: type[FluxVAEError], why: str
) -> None:
    with pytest.raises(kind, match=why):
        run_harness(FakeHarness(tmp_path, answer).harness, ["validate", "m.mlmodelc"])


def test_failed_verdict_and_missing_plan_are_reports(tmp_path: Path) -> None:
    fake = FakeHarness(tmp_path, (3, FAILED, ""), (1, REPORTS[3], "error: no plan\n"))
    failed = run_harness(fake.harness, ["validate", "m.mlmodelc"])
    assert failed.validation is not None
    assert failed.validation.verdict == "fail"
    plan = run_harness(fake.harness, ["plan", "m.mlmodelc"]).plan
    assert plan is not None
    assert (plan.available, plan.reason) == (False, NO_PLAN["reason"])


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_results_stay_where_some_compute_units_failed(tmp_path: Path, verdict: str) -> None:
    content = report("validate", validation=validation(verdict), failures=GPU_FAILED)
    content["validation"]["verdict"] = "fail"  # a set without a result is not a pass
    jsonschema.validate(content, json.loads(SCHEMA.read_text(encoding="utf-8")))
    code = {"pass": 1, "fail": 3}[verdict]  # numbers out of bounds weigh more
    fake = FakeHarness(tmp_path, (code, content, "error: validate on cpuAndGPU: no GPU\n"))
    found = run_harness(fake.harness, ["validate", "m.mlmodelc"])
    assert found.validation is not None
    assert [r.compute_units for r in found.validation.results] == ["all"]
    assert [f.compute_units for f in found.failures] == ["cpuAndGPU"]


def test_harness_that_cannot_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="nowhere cannot be started: No such file"):
        run_harness(Harness(tmp_path / "nowhere", {}), ["drift", "m.mlmodelc"])
