"""mac-report's loop with stand-in steps: what is run, kept, resumed, recorded and shown."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fluxvae.device.bundle import Request
from fluxvae.device.harness import Harness
from fluxvae.errors import ArtifactError, OutputError
from fluxvae.experiments.mac import default_recipes, run_report, tasks_of
from fluxvae.experiments.mac_steps import STEPS, Settings, StepContext
from fluxvae.experiments.plan import Pace
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Size, parse_sizes
from fluxvae.recipes.known_trouble import INT4, INTEGER_BLOCKS, PALETTES_4_BIT, SCALED_PALETTES
from fluxvae.records.experiment import Host, cell_path
from fluxvae.records.harness import UNITS
from fluxvae.records.mac import (
    MacRecord,
    Task,
)
from fluxvae.report.matrix.mac import NO_RECORD, report_page, table
from fluxvae.schema import load, save
from tests.fake_harness import FakeHarness, metrics, report, validation

ROOT = Path(__file__).resolve().parents[1]
MACHINE = Host("Linux", "6.1", None, "x86_64", None, None, "3.12")
MAC = Host("macOS", "15.5", None, "arm64", "Apple M0 (made up for this test)", None, "3.12")
METRICS = {"psnr_db": 70.25, "passed": True}
AGAINST_CPU = [
    {"compute_units": "all", "bit_equal": False, "metrics": {"max_abs": 0.00125}},
    {"compute_units": "cpuAndGPU", "bit_equal": True, "metrics": {"max_abs": 0}},
    {"compute_units": "cpuAndNeuralEngine", "bit_equal": False, "metrics": {"max_abs": None}},
]


class Steps:
    """Stand-ins that count, and fail or stop where told."""

    def __init__(self, **wrong: BaseException) -> None:
        self.done: list[str] = []
        self.wrong = wrong

    def __call__(self, place: StepContext, task: Task) -> dict[str, Any]:
        if task.name in self.wrong:
            raise self.wrong[task.name]
        self.done.append(f"{task.artifact} {task.name}")
        if task.kind in ("convert", "compile"):
            path = place.package if task.kind == "convert" else place.compiled
            path.mkdir(parents=True, exist_ok=True)
        return {
            "convert": {"bytes": 2_820_000},
            "compile": {"compiler": "portable", "notes": []},
            "executor": {"verdict": "pass", "worst_psnr_db": {"photo": 71.44, "normal": 72.0}},
            "validate": {"verdict": "pass", "cases": [{"case": "normal", **METRICS}]},
            "bench": {"summaries": [{"median": 12.34}]},
            "plan": {"results": [{"operations": 80, "devices": {"neuralEngine": 78, "cpu": 2}}]},
            "drift": {"runs": [{"bit_equal": True}], "against_cpu": AGAINST_CPU},
        }[task.kind]

    @property
    def table(self) -> dict[str, Callable[[StepContext, Task], dict[str, Any]]]:
        return dict.fromkeys(STEPS, self)


@pytest.fixture
def places(tmp_path: Path) -> list[StepContext]:
    weights = load_weights("flux2", "demo")
    harness = Harness(tmp_path / "no-harness", {})
    return [
        StepContext(recipe, weights, None, harness, tmp_path / "report", Settings())
        for recipe in default_recipes(["flux2"], parse_sizes("64,96"))
    ]


def rehearse(places: list[StepContext], steps: Steps, **more: Any) -> MacRecord:
    return run_report(places, MACHINE, rehearsal=True, steps=steps.table, **more)


def test_default_recipes_has_layouts_precisions_shape_forms_and_what_is_reported_about() -> None:
    recipes = default_recipes(["flux1"], (Size(768, 768), Size(1024, 1024)))
    assert [r.name() for r in recipes] == [
        "flux1_tiny_decoder_nchw_float16_hw768",
        "flux1_tiny_decoder_nchw_float16_hw1024",
        "flux1_tiny_decoder_nhwc_float16_hw1024",
        "flux1_tiny_decoder_nchw_float32_hw1024",
        "flux1_tiny_decoder_nchw_float16_hw768-1024_multifunction",
        "flux1_tiny_decoder_nchw_float16_hw768-1024_enumerated",
        *(
            f"flux1_tiny_decoder_nchw_float16_hw768_{form}-plain"
            for form in (
                "pal4-channel-scale",
                "pal4-tensor",
                "int4-block32",
                "int4-channel",
                "int8",
            )
        ),
    ]
    assert len(default_recipes(["flux1"], (Size(64, 64),))) == 8
    tried = {
        form
        for recipe in recipes
        if recipe.compression and recipe.deployment_target
        for form in recipe.compression.reported_forms(recipe.deployment_target)
    }
    assert tried == {SCALED_PALETTES, PALETTES_4_BIT, INTEGER_BLOCKS, INT4}


def test_rehearsal_runs_what_the_cpu_can_and_marks_the_rest(places: list[StepContext]) -> None:
    steps = Steps()
    record = rehearse(places, steps)
    for cell in record.cells:
        other = cell.task.units not in (None, "cpuOnly") or cell.task.kind == "plan"
        assert (cell.status == "not run") == other
        assert cell.reason == ("needs a Mac" if other else None)
        expected = "not run" if other else "rehearsed" if cell.task.units else "done"
        assert cell.status == expected
    assert not any("NeuralEngine" in name or "plan" in name for name in steps.done)


def test_on_a_mac_every_task_is_done(places: list[StepContext]) -> None:
    steps = Steps()
    record = run_report(places, MAC, rehearsal=False, steps=steps.table)
    assert {c.status for c in record.cells} == {"done"}
    wanted = [t for p in places for t in tasks_of(p.package.stem, p.recipe)]
    assert [c.task for c in record.cells] == wanted
    assert len(steps.done) == len(wanted)
    assert sum(t.kind == "plan" for t in wanted) == len(UNITS) * 13  # sizes of the eleven artifacts
    drifts = [t for t in wanted if t.kind == "drift"]
    assert [t.units for t in drifts] == ["each"] * 13


@pytest.mark.parametrize("units", ["each", "cpuOnly"])
def test_drift_asks_for_all_units_in_one_call(
    places: list[StepContext], tmp_path: Path, units: str
) -> None:
    # What the harness does: it compares with cpuOnly what was run beside cpuOnly.
    run = {"bit_equal": True, "differing": 0, "first_differing": None, "max_abs": 0.0}
    asked = UNITS if units == "each" else (units,)
    drift = {
        "repeats": 20,
        "runs": [{"compute_units": u, **run, "digest": "0" * 64} for u in asked],
        "against_cpu": [
            {"compute_units": u, "bit_equal": False, "metrics": metrics()}
            for u in asked
            if u != "cpuOnly"
        ],
    }
    fake = FakeHarness(tmp_path, (0, report("drift", drift=drift), ""))
    place = replace(places[0], harness=fake.harness)
    result = STEPS["drift"](place, Task(place.package.stem, "drift", "64", units))
    ((arguments, _),) = fake.calls
    assert arguments[arguments.index("--compute-units") + 1] == units
    assert arguments[arguments.index("--repeats") + 1] == "20"
    compared = {c["compute_units"]: c["metrics"]["max_abs"] for c in result["against_cpu"]}
    assert compared == dict.fromkeys(set(asked) - {"cpuOnly"}, 0.01)


def test_drift_keeps_what_worked_where_some_compute_units_failed(
    places: list[StepContext], tmp_path: Path
) -> None:
    run = {"bit_equal": True, "differing": 0, "first_differing": None, "max_abs": 0.0}
    worked = [u for u in UNITS if u != "cpuAndGPU"]
    drift = {
        "repeats": 20,
        "runs": [{"compute_units": u, **run, "digest": "0" * 64} for u in worked],
        "against_cpu": [
            {"compute_units": u, "bit_equal": False, "metrics": metrics()}
            for u in worked
            if u != "cpuOnly"
        ],
    }
    failed = [{"compute_units": "cpuAndGPU", "failure": "no GPU"}]
    content = report("drift", drift=drift, failures=failed)
    fake = FakeHarness(tmp_path, (1, content, "error: drift on cpuAndGPU: no GPU\n"))
    steps = Steps()
    done = {**steps.table, "drift": STEPS["drift"]}
    place = replace(places[0], harness=fake.harness)
    record = run_report([place], MAC, rehearsal=False, steps=done)
    assert [c.task.kind for c in record.failures] == ["drift"]
    page = report_page(record)
    row = next(line for line in page.splitlines() if line.startswith(f"| {place.package.stem}"))
    # same bits, then the differences from the CPU: GPU, Neural Engine, all
    cells = row.strip("| ").split(" | ")
    assert cells[-4:] == ["yes (1 failed)", "failed", "1.0e-02", "1.0e-02"]
    assert "drift-64-each: cpuAndGPU: no GPU" in page
    again = Steps()
    run_report([place], MAC, rehearsal=False, steps={**again.table, "drift": STEPS["drift"]})
    assert again.done == []  # the drift alone was tried again
    assert len(fake.calls) == 2


def test_drift_without_the_comparison_is_a_failure(
    places: list[StepContext], tmp_path: Path
) -> None:
    run = {"bit_equal": True, "differing": 0, "first_differing": None, "max_abs": 0.0}
    runs = [{"compute_units": "cpuOnly", **run, "digest": "0" * 64}]
    drift = {"repeats": 20, "runs": runs, "against_cpu": []}
    fake = FakeHarness(tmp_path, (0, report("drift", drift=drift), ""))
    place = replace(places[0], harness=fake.harness)
    with pytest.raises(ArtifactError, match="compare all compute units"):
        STEPS["drift"](place, Task(place.package.stem, "drift", "64", "each"))


def test_interrupted_run_goes_on_where_it_was(places: list[StepContext]) -> None:
    first = Steps(**{"drift-64-cpuOnly": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        rehearse(places, first)
    assert len(first.done) == 5  # convert, compile, executor, validate, bench of the first artifact
    second, lines = Steps(), []
    record = rehearse(places, second, say=lines.append)
    assert not set(first.done) & set(second.done)
    assert lines[0].endswith("convert: done before")
    whole = Steps()
    assert {c.task.name for c in record.cells if c.status != "not run"} == {
        c.task.name for c in rehearse(places, whole).cells if c.status != "not run"
    }
    assert whole.done == []  # all of it was done before


@pytest.mark.parametrize(
    "change",
    ["settings", "encoder", "other encoder", "machine", "damaged cell", "model gone", "rehearsal"],
)
def test_nothing_stale_is_taken_up(places: list[StepContext], change: str) -> None:
    place, machine, rehearsal = places[0], MACHINE, True
    if change == "other encoder":
        place = replace(place, encoder=load_weights("flux2", "random:1", part="encoder"))
    rehearse([place], Steps())
    expected = {"validate-64-cpuOnly", "bench-64-cpuOnly", "drift-64-cpuOnly"}
    if change == "settings":
        place = replace(place, settings=Settings(iterations=7))
    elif change.endswith("encoder"):
        expected = {"executor", "validate-64-cpuOnly"}  # nothing else sees its photos
        place = replace(place, encoder=load_weights("flux2", "demo", part="encoder"))
        assert place.cases == ("chelsea", "normal")
    elif change == "machine":
        machine, expected = MAC, expected | {"convert", "compile", "executor"}
    elif change == "damaged cell":
        path = cell_path(place.folder, place.package.stem, "executor")
        path.write_text(path.read_text()[:-40])
        expected = {"executor"}
    elif change == "model gone":
        place.compiled.rmdir()
        expected = {"compile"}
    else:
        rehearsal = False
        expected = {t.name for t in tasks_of("", place.recipe)}
    steps = Steps()
    run_report([place], machine, rehearsal=rehearsal, steps=steps.table)
    assert {name.split()[1] for name in steps.done} == expected


def test_photo_of_another_encoder_is_another_bundle(
    places: list[StepContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[tuple[str, Path]] = []

    def export(weights: Weights, request: Request, folder: Path, **_: Any) -> None:
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        exported.append((request.case, folder))

    monkeypatch.setattr("fluxvae.experiments.mac_steps.export_bundle", export)
    task = Task(places[0].package.stem, "validate", "64", "cpuOnly")
    for spec in ("demo", "random:1", "demo"):
        encoder = load_weights("flux2", spec, part="encoder")
        fake = FakeHarness(tmp_path, (0, report("validate", validation=validation()), ""))
        place = replace(places[0], encoder=encoder, harness=fake.harness)
        assert len(STEPS["validate"](place, task)["cases"]) == 2
    assert [case for case, _ in exported] == ["chelsea", "normal", "chelsea"]
    assert len({folder for _, folder in exported}) == 3


def test_failure_is_recorded_tried_again_and_does_not_stop_the_rest(
    places: list[StepContext],
) -> None:
    steps = Steps(**{"bench-64-cpuOnly": ArtifactError("the model fell over")})
    record = rehearse(places, steps)
    failed = [c for c in record.cells if c.status == "failed"]
    assert {c.reason for c in failed} == {"the model fell over"}
    assert len(failed) == 8  # 64 px: fixed, multifunction, enumerated and five compressed
    page = report_page(record)
    assert "## What failed" in page
    assert page.count("the model fell over") == 8
    again = Steps()
    rehearse(places, again)
    assert [name.split()[1] for name in again.done] == ["bench-64-cpuOnly"] * 8


def test_time_left_is_of_the_kinds_seen_so_far() -> None:
    pace = Pace()
    assert pace.left([]) == "time left not known yet"
    pace.add(2.0, "convert")
    pace.add(4.0, "convert")
    assert pace.left(["convert", "convert"]) == "about 6 s left"
    assert pace.left(["convert", "bench"]) == "time left not known yet"
    pace.add(10.0, "bench")
    assert pace.left(["convert", "bench", "bench"]) == "about 23 s left"
    assert pace.left(["bench"] * 12) == "about 2 min left"


def test_record_survives_its_file_and_fits_its_schema(
    places: list[StepContext], tmp_path: Path
) -> None:
    record = rehearse(places, Steps())
    path = tmp_path / "record.json"
    save(record, path)
    assert load(MacRecord, path).cells[0] == record.cells[0]
    assert report_page(load(MacRecord, path)) == report_page(record)
    schema = json.loads((ROOT / "docs" / "mac-report.schema.json").read_text())
    jsonschema.validate(json.loads(path.read_text()), schema)


@pytest.mark.parametrize("damage", ["gone", "cut", "other format"])
def test_damaged_record_gives_one_sentence(
    places: list[StepContext], tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "record.json"
    save(rehearse(places[:1], Steps()), path)
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_text(path.read_text()[:100])
    else:
        path.write_text(path.read_text().replace("fluxvae-mac-report", "fluxvae-bench", 1))
    with pytest.raises(OutputError) as caught:
        load(MacRecord, path)
    assert "\n" not in str(caught.value)


def test_rehearsed_figures_never_stand_in_a_mac_s_cells(places: list[StepContext]) -> None:
    head, _, *rows = (r for r in table(rehearse(places, Steps())) if r.startswith("|"))
    names = [c.strip() for c in head.strip("|").split("|")]
    for row in rows:
        cells = dict(zip(names, (c.strip() for c in row.strip("|").split("|")), strict=True))
        own = {name: cells.pop(name) for name in ("model", "size", "MB", "executor dB")}
        assert own["MB"] == "2.82"
        assert own["executor dB"] == "71.4"
        assert set(cells.values()) == {"not run"}
    assert len(rows) == 13


def test_mac_s_figures_stand_in_their_cells(places: list[StepContext]) -> None:
    record = run_report(places[:1], MAC, rehearsal=False, steps=Steps().table)
    _, _, row = (r for r in table(record) if r.startswith("|"))
    against_cpu = ["0", "not finite", "1.3e-03"]  # CPU+GPU, CPU+NE, all
    expected = ["64", "2.82", "71.4", *["70.2"] * 4, *["12.3"] * 4, "78/80", "yes", *against_cpu]
    assert [c.strip() for c in row.strip("|").split("|")][1:] == expected


def test_readme_s_mac_table_is_that_of_the_record_or_says_there_is_none() -> None:
    readme = (ROOT / "README.md").read_text()
    record = ROOT / "docs" / "mac-report.json"
    between = readme.split("<!-- mac-table -->")
    assert len(between) == 3
    wanted = table(load(MacRecord, record) if record.exists() else None)
    assert between[1].strip() == "\n".join(wanted).strip()
    assert record.exists() or NO_RECORD in readme
