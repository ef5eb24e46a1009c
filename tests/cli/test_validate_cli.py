"""``fluxvae validate`` as a user meets it; its JSON against the published schema."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fluxvae.artifact.save import save_artifact
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Size
from fluxvae.validation.metrics import Metrics
from fluxvae.validation.stages import Budget, BudgetCase
from tests.artifacts import recipe
from tests.checkpoint_files import in_style, write
from tests.cli.run import run
from tests.packages import change_one_weight, copy_of

Capture = pytest.CaptureFixture[str]
SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "validate.schema.json"
# what the product promises of each case
PROMISED = ["case", "function", "size", "max_abs", "mae", "rmse", "psnr_db", "cosine", "nan", "inf"]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    content = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(content)
    return content


@pytest.fixture
def passed(demo_package: Path, capsys: Capture, schema: dict[str, Any]) -> Callable[..., Any]:
    """``passed(*options)``: the JSON of a validation that passes, which keeps to the schema."""

    def validated(*options: str) -> Any:
        ran = run(capsys, "validate", str(demo_package), *options, "--json")
        assert ran.code == 0
        jsonschema.validate(ran.json, schema)
        return ran.json

    return validated


def test_table_has_every_case_and_the_verdict_last(demo_package: Path, capsys: Capture) -> None:
    ran = run(capsys, "validate", str(demo_package))
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines[1:7]] == [
        "chelsea", "coffee", "normal", "saturated", "constant", "zero",
    ]  # fmt: skip
    assert all(line.endswith("pass") for line in lines[1:7])
    assert lines[-1] == f"{demo_package.name}: PASS (the reference executor)"
    assert ran.err.splitlines()[0].startswith(f"validating {demo_package.name}")
    assert "  chelsea at 64: ok" in ran.err.splitlines()


def test_json_is_one_object_that_keeps_to_the_schema(passed: Callable[..., Any]) -> None:
    report = passed()
    assert report["verdict"] == "pass"
    for case in report["cases"]:
        assert set(PROMISED) <= set(case)
        # the two definitions of one figure agree: PSNR = 20 log10(1 / rmse)
        assert case["psnr_db"] == pytest.approx(-20 * math.log10(case["rmse"]), abs=1e-9)
    assert report["intermediates"] is None
    assert report["budget"] is None


def test_intermediates_are_in_table_and_schema(
    demo_package: Path, passed: Callable[..., Any], capsys: Capture
) -> None:
    intermediates = passed("--intermediates")["intermediates"]
    operations = intermediates["operations"]
    assert [o["index"] for o in operations] == list(range(1, len(operations) + 1))
    assert intermediates["first"] is None
    ran = run(capsys, "validate", str(demo_package), "--intermediates")
    assert "no operation is below 40 dB against float32; worst:" in ran.out


def test_budget_is_in_table_and_schema(passed: Callable[..., Any]) -> None:
    report = passed("--budget")
    budget = report["budget"]
    assert budget["size"] == "64"
    for row, case in zip(budget["cases"], report["cases"], strict=True):
        assert [stage["stage"] for stage in row["stages"]] == ["conversion", "precision"]
        last = row["stages"][-1]
        assert (row["case"], last) == (
            case["case"],
            {"stage": "precision", **{k: case[k] for k in ("max_abs", "rmse", "psnr_db")}},
        )


def test_budget_lines_up_under_its_stages(
    demo_package: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def figure(psnr: float) -> Metrics:
        return Metrics(0.1, 0.1, 0.1, psnr, 1.0, 0, 0, (0, 0, 0, 0))

    stages = ("conversion", "precision", "compression and 8 bits")
    metrics = tuple(map(figure, (140.04, 66.66, 33.33)))
    made = Budget(Size(64, 64), stages, (BudgetCase("coffee", "photo", metrics),))
    monkeypatch.setattr("fluxvae.validation.stages.error_budget", lambda *_, **__: made)
    lines = run(capsys, "validate", str(demo_package), "--budget").out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("error budget at 64"))
    assert lines[start + 2 : start + 4] == [
        "case    conversion   precision  compression and 8 bits",
        "coffee       140.0        66.7                    33.3",
    ]


def test_changed_artifact_fails_with_exit_code_three_and_the_worst_place(
    demo_package: Path, capsys: Capture, schema: dict[str, Any], tmp_path: Path
) -> None:
    package = copy_of(demo_package, tmp_path)
    change_one_weight(package, 0.1)
    ran = run(capsys, "validate", str(package), "--json", "--intermediates")
    assert ran.code == 3
    jsonschema.validate(ran.json, schema)
    assert ran.json["verdict"] == "fail"
    coffee = ran.json["cases"][1]
    assert (coffee["case"], coffee["pass"]) == ("coffee", False)
    assert 15 < coffee["psnr_db"] < 45
    ran = run(capsys, "validate", str(package))
    assert ran.code == 3
    (row,) = (line for line in ran.out.splitlines() if line.startswith("coffee "))
    assert f"FAIL at {coffee['worst']}" in row
    assert ran.out.splitlines()[-1] == f"{package.name}: FAIL (the reference executor)"
    assert "  coffee at 64: FAILED" in ran.err.splitlines()


def test_image_that_is_not_a_number_is_null_in_json_and_counted(
    demo_package: Path, capsys: Capture, schema: dict[str, Any], tmp_path: Path
) -> None:
    package = copy_of(demo_package, tmp_path)
    change_one_weight(package, math.nan)
    ran = run(capsys, "validate", str(package), "--json")
    assert ran.code == 3
    assert "NaN" not in ran.out.split('"notes"')[0]
    jsonschema.validate(ran.json, schema)
    for case in ran.json["cases"]:
        # a corner of a 3x3 kernel of one output channel: all but its first row and column
        assert case["nan"] == 63 * 63
        assert case["max_abs"] is case["psnr_db"] is case["cosine"] is None
    ran = run(capsys, "validate", str(package))
    assert ran.code == 3
    assert "(3969 NaN, 0 Inf)" in ran.out


def test_several_sizes_are_rows_of_their_own(
    demo_artifact: Callable[..., Path], capsys: Capture, schema: dict[str, Any]
) -> None:
    package = demo_artifact("flux1", "64,128", shapes="multifunction")
    ran = run(capsys, "validate", str(package), "--json")
    jsonschema.validate(ran.json, schema)
    rows = {(c["function"], c["size"]) for c in ran.json["cases"]}
    assert rows == {("hw64", "64"), ("hw128", "128")}


def test_weights_and_encoder_from_files_and_own_latents(
    capsys: Capture, tmp_path: Path, demo_latents: Path
) -> None:
    decoder = load_weights("flux2", "demo")
    # no metadata in this copy: the file counts as FLUX.2's own
    file = write(tmp_path / "decoder.safetensors", in_style("taesd", decoder))
    (package,) = save_artifact(
        load_weights("flux2", str(file)), recipe("flux2"), tmp_path / "x.mlpackage"
    )
    ran = run(capsys, "validate", str(package))
    assert (ran.code, ran.out) == (1, "")
    assert "the file 'decoder.safetensors'" in ran.err
    assert "pass it again with --weights PATH" in ran.err
    ran = run(capsys, "validate", str(package), "--weights", str(file))
    assert ran.code == 0
    assert "note: Photo latents were NOT tested" in ran.out
    encoder = load_weights("flux2", "demo", part="encoder")
    other = write(tmp_path / "other.pth", in_style("diffusers", encoder))
    ran = run(capsys, "validate", str(package), "--weights", str(file), "--encoder", str(other))
    assert ran.code == 0
    assert "\nchelsea " in ran.out
    ran = run(capsys, "validate", str(package), "--weights", str(file),
              "--latents", str(demo_latents))  # fmt: skip
    assert ran.code == 1
    assert "'fluxvae-demo-flux2', but this decoder wants 'flux2-sampler-unpatchified'" in ran.err


def test_own_latents_are_the_first_cases(
    demo_package: Path, demo_latents: Path, capsys: Capture
) -> None:
    ran = run(capsys, "validate", str(demo_package), "--latents", str(demo_latents), "--json")
    assert ran.code == 0
    kinds = [(c["case"], c["kind"]) for c in ran.json["cases"]]
    assert kinds[:3] == [("chelsea", "user"), ("coffee", "user"), ("normal", "normal")]


def test_schema_describes_every_field(schema: dict[str, Any]) -> None:
    def check(place: str, node: dict[str, Any]) -> None:
        for name, field in node.get("properties", {}).items():
            assert "description" in field, f"{place}.{name}"
            check(f"{place}.{name}", field)
            for choice in field.get("oneOf", []):
                check(f"{place}.{name}", choice)

    check("", schema)
    for name, node in schema["$defs"].items():
        check(name, node)


@pytest.mark.parametrize("change", ["verdict", "unknown key", "case without size", "negative rmse"])
def test_schema_refuses_what_is_no_record(
    demo_package: Path, capsys: Capture, schema: dict[str, Any], change: str
) -> None:
    record = run(capsys, "validate", str(demo_package), "--json").json
    jsonschema.validate(record, schema)
    if change == "verdict":
        record["verdict"] = "maybe"
    elif change == "unknown key":
        record["extra"] = 1
    elif change == "case without size":
        del record["cases"][0]["size"]
    else:
        record["cases"][0]["rmse"] = -1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, schema)
