"""Fresh processes, figures by numpy, outliers flagged and kept, records that cannot be changed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from fluxvae.device.bench import (
    Record,
    Settings,
    bench,
    expand_units,
    latency,
    read_record,
    start_swift,
)
from fluxvae.device.bench_compare import compare_records, compare_runs
from fluxvae.device.harness import parse_report
from fluxvae.errors import ArtifactError, BenchError, OutputError, ToolError, UsageError
from fluxvae.records.harness import HarnessReport
from fluxvae.records.statistics import outliers
from fluxvae.schema import save
from tests.fake_harness import FakeHarness, bench_run, report

HOAGLIN = [2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3]


def answer(
    samples: Sequence[float],
    units: str = "all",
    after_idle: Sequence[float] = (9.0, 4.0, 2.0),
    **environment: Any,
) -> HarnessReport:
    """A harness report of one run."""
    run = bench_run(list(samples), units)
    run["first_calls"]["after_idle_ms"] = list(after_idle)
    content = report("bench", runs=[run])
    content["environment"].update(environment)
    return parse_report(json.dumps(content))


def record(medians: Sequence[float], **environment: Any) -> Record:
    """A record whose runs have these medians, three samples each."""
    left = list(medians)
    return bench(
        lambda _driver, units: answer([left[0] - 0.1, left.pop(0), 99.0], units, **environment),
        Settings(runs=len(left)),
    )


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50))
@settings(deadline=None)
def test_figures_are_numpys(samples: list[float]) -> None:
    found = latency(samples)
    for name, q in (("p10", 10), ("median", 50), ("p90", 90), ("p95", 95), ("p99", 99)):
        assert getattr(found, name) == np.percentile(samples, q, method="linear")
    assert (found.count, found.min, found.max) == (len(samples), min(samples), max(samples))
    assert found.mean == pytest.approx(np.mean(samples))


def test_no_samples_have_no_figures() -> None:
    with pytest.raises(ValueError, match="no samples"):
        latency([])


def test_outliers_are_those_of_the_handbook_rule() -> None:
    assert outliers(HOAGLIN) == (8, 9)
    median = np.median(HOAGLIN)
    mad = np.median(np.abs(HOAGLIN - median))
    scores = 0.6745 * (HOAGLIN - median) / mad
    assert outliers(HOAGLIN) == tuple(np.flatnonzero(np.abs(scores) > 3.5))
    assert outliers([1.0, 100.0]) == ()  # two cannot say which of them is odd
    assert outliers([5.0] * 6) == ()
    assert outliers([5.0] * 6 + [5.1]) == (6,)
    assert outliers([]) == ()


def test_rounds_are_interleaved_with_a_rest_between_processes() -> None:
    calls: list[object] = []

    def start(driver: str, units: str) -> HarnessReport:
        calls.append((driver, units))
        return answer([1.0, 2.0], units)

    wanted = Settings(
        runs=2,
        cooldown_s=30,
        drivers=("swift", "python"),
        compute_units=("all", "cpuOnly"),
    )
    made = bench(start, wanted, sleep=calls.append)
    one_round = [(d, u) for u in ("all", "cpuOnly") for d in ("swift", "python")]
    expected: list[object] = []
    for pair in one_round * 2:
        expected += [pair, 30.0] if len(expected) < 14 else [pair]
    assert calls == expected
    assert [p.number for p in made.processes] == [1] * 4 + [2] * 4
    assert [(s.driver, s.compute_units, s.runs) for s in made.summaries] == [
        (*pair, 2) for pair in one_round
    ]


def test_summary_is_of_run_medians_and_keeps_the_outlier() -> None:
    medians = [10.0, 10.1, 10.2, 10.1, 10.0, 10.1, 30.0]
    made = record(medians)
    (summary,) = made.summaries
    assert summary.outliers == (7,)
    assert summary.median == np.percentile(medians, 50)
    assert summary.p10 == np.percentile(medians, 10)
    assert summary.p90 == np.percentile(medians, 90) > 10.2  # the outlier is in it
    assert [p.run.samples_ms[1] for p in made.processes] == medians  # every sample kept
    assert summary.peak_memory_bytes == 1000
    assert "say nothing about a Mac" in made.notes[0]


def test_few_runs_and_a_mac_are_noted_as_what_they_are() -> None:
    assert "too few to detect outliers" in record([1.0, 2.0]).notes[-1]
    assert record([1.0, 1.0, 1.0], backend="coreml").notes == ()


def test_driver_that_measures_something_else_is_refused() -> None:
    with pytest.raises(BenchError, match="was to measure all once, and gave 0"):
        bench(lambda *_: answer([1.0], "cpuOnly"), Settings(runs=1))


def test_compute_units_that_fail_do_not_take_the_others_along(tmp_path: Path) -> None:
    calls: list[str] = []

    def start(_driver: str, units: str) -> HarnessReport:
        calls.append(units)
        if units == "cpuAndGPU":
            raise ToolError("fluxvae-harness was ended by signal 6")
        if units == "cpuOnly" and calls.count(units) == 2:
            raise ArtifactError("the prediction failed")
        return answer([1.0, 2.0], units)

    made = bench(start, Settings(runs=3, compute_units=expand_units("each")))
    assert {u: calls.count(u) for u in calls} == {
        "all": 3, "cpuOnly": 2, "cpuAndGPU": 1, "cpuAndNeuralEngine": 3,
    }  # fmt: skip
    assert {s.compute_units: s.runs for s in made.summaries} == {
        "all": 3, "cpuOnly": 1, "cpuAndNeuralEngine": 3,
    }  # fmt: skip
    assert [(f.number, f.compute_units, f.failure) for f in made.failures] == [
        (1, "cpuAndGPU", "fluxvae-harness was ended by signal 6"),
        (2, "cpuOnly", "the prediction failed"),
    ]
    path = tmp_path / "a.json"
    save(made, path, overwrite=False)
    assert read_record(path) == made
    notes = compare_records(made, record([1.0])).notes
    assert "swift cpuOnly failed in the first record: the prediction failed" in notes


def test_where_nothing_was_measured_every_reason_is_given() -> None:
    def start(_driver: str, units: str) -> HarnessReport:
        raise ArtifactError("it is short" if same else f"no {units}")

    both = Settings(compute_units=("all", "cpuOnly"))
    same = True
    with pytest.raises(BenchError, match=r"^it is short$"):
        bench(start, both)
    same = False
    with pytest.raises(BenchError, match="swift all: no all; swift cpuOnly: no cpuOnly"):
        bench(start, both)


def test_first_calls_are_a_figure_of_their_own() -> None:
    left = [[260.0, 30.0, 9.0], [262.0, 20.0, 7.0], [270.0, 25.0, 8.0]]
    made = bench(
        lambda _, units: answer([10.0, 11.0], units, after_idle=left.pop(0)), Settings(runs=3)
    )
    (summary,) = made.summaries
    assert summary.first_calls.after_idle_ms == (262.0, 25.0, 8.0)
    assert summary.first_calls.after_load_ms == (5.0, 3.0, 2.0)
    assert (summary.median, summary.p90) == (10.5, 10.5)
    (row,) = compare_records(made, record([10.0])).rows
    assert row.first_calls_a == summary.first_calls
    assert row.first_calls_b is not None
    assert row.first_calls_b.after_idle_ms == (9.0, 4.0, 2.0)


def test_record_comes_back_as_it_was_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    made, path = record([1.0, 2.0, 3.0]), tmp_path / "a.json"
    save(made, path, overwrite=False)
    assert read_record(path) == made
    with pytest.raises(OutputError, match="exists already"):
        save(made, path, overwrite=False)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d.update(format="x"), "expected format"),
        (lambda d: d["processes"][0]["run"].update(samples_ms=[2.0]), "run 1 says count 3, but"),
        (lambda d: d["summaries"][0].update(median=0.1), "summaries do not follow"),
        (lambda d: d["processes"].pop(), "summaries do not follow"),
        (
            lambda d: d["summaries"][0]["first_calls"].update(after_idle_ms=[1.0]),
            "summaries do not follow",
        ),
        (lambda d: d["settings"].pop("runs"), r"settings lacks \['runs'\]"),
        (lambda d: d["settings"].update(drivers=["rust"]), r"drivers\[0\] should be one of"),
    ],
)
def test_changed_record_is_refused(change: Any, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    save(record([1.0, 2.0, 3.0]), path, overwrite=False)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(BenchError, match=why):
        read_record(path)


def test_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot be read: No such file"):
        read_record(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"format"')
    with pytest.raises(BenchError, match="is not a record of `fluxvae bench --out`"):
        read_record(tmp_path / "cut.json")


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="1 or more"):
        Settings(iterations=0)
    for idle_s in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="expected 0 to 3600 seconds"):
            Settings(idle_s=idle_s)
    with pytest.raises(UsageError, match="use --driver swift"):
        Settings(strict_host=True, drivers=("swift", "python"))
    assert expand_units("each") == ("all", "cpuOnly", "cpuAndGPU", "cpuAndNeuralEngine")
    assert expand_units("cpuOnly") == ("cpuOnly",)


def test_swift_driver_hands_everything_to_the_harness(tmp_path: Path) -> None:
    fake = FakeHarness(tmp_path, (0, report("bench", runs=[bench_run([1.0])]), ""))
    wanted = Settings(
        iterations=5, warmup=0, idle_s=0.5, function="hw64", size="64", io="io", strict_host=True
    )
    start_swift(fake.harness, "m.mlmodelc", wanted, "all")
    ((arguments, _),) = fake.calls
    assert arguments == [
        "bench", "m.mlmodelc", "--compute-units", "all", "--iterations", "5", "--warmup", "0",
        "--idle", "0.5", "--function", "hw64", "--size", "64", "--io", "io", "--strict-host",
        "--json",
    ]  # fmt: skip


FAST = [10.0, 10.1, 10.2, 10.3, 10.4, 10.5, 10.6]


def test_verdict_is_about_the_second_record() -> None:
    slow = [x * 1.2 for x in FAST]
    (row,) = compare_records(record(FAST), record(slow)).rows
    assert (row.verdict, row.note) == ("slower", None)
    assert row.ratio == pytest.approx(1.2)
    assert row.low is not None
    assert row.high is not None
    assert 1 < row.low <= row.ratio <= row.high < 1.3
    assert row.p_value == pytest.approx(2 / 3432)  # all of 7 above all of 7: 2 of C(14, 7)
    (back,) = compare_records(record(slow), record(FAST)).rows
    assert back.verdict == "faster"


def test_overlapping_runs_are_not_distinguishable() -> None:
    shifted = [x + 0.1 for x in FAST]
    (row,) = compare_records(record(FAST), record(shifted)).rows
    assert row.verdict == "not distinguishable"
    assert row.p_value > 0.05
    (same,) = compare_records(record(FAST), record(FAST)).rows
    assert (same.verdict, same.ratio) == ("not distinguishable", 1.0)


def test_too_few_runs_never_give_a_verdict_and_say_so() -> None:
    for a, b in (([1.0], [9.0]), ([1.0, 1.1, 1.2], [9.0, 9.1, 9.2])):
        (row,) = compare_records(record(a), record(b)).rows
        assert row.verdict == "not distinguishable"
        assert row.note is not None
        assert "take --runs 4 or more" in row.note
    assert (
        compare_records(record([1, 1.1, 1.2, 1.3]), record([2, 2.1, 2.2, 2.3])).rows[0].note is None
    )


def test_equal_machines_are_called_different_about_once_in_twenty() -> None:
    """The rule's own promise, on 400 pairs of one distribution: at most 5 %, measured 3.3 %."""
    random = np.random.Generator(np.random.PCG64(1))
    wrong = 0
    for _ in range(400):
        a, b = 10 + random.gamma(2, 0.5, (2, 7))
        wrong += compare_runs("swift", "all", a, b, resamples=10).verdict != "not distinguishable"
    assert 0 < wrong <= 0.075 * 400


def test_differences_beside_the_model_are_named() -> None:
    a = record(FAST, chip="M1")
    b = record([*FAST[:6], 99.0], chip="M4")
    notes = compare_records(a, b).notes
    assert "The hosts differ in chip: M1 and M4." in notes
    assert any(n.startswith("Outlier runs in the second record, kept: run 7") for n in notes)
    other = bench(lambda d, u: answer([1.0], u), Settings(runs=1, compute_units=("cpuOnly",)))
    with pytest.raises(BenchError, match="swift all in the first, swift cpuOnly in the second"):
        compare_records(a, other)


def test_record_fits_its_schema(tmp_path: Path) -> None:
    docs = Path(__file__).resolve().parents[1] / "docs"
    schemas = {p.name: json.loads(p.read_text()) for p in docs.glob("*.schema.json")}
    registry = Registry().with_resources(
        (name, DRAFT202012.create_resource(schema)) for name, schema in schemas.items()
    )
    path = tmp_path / "a.json"
    save(record([10.0, 11.0, 12.0]), path, overwrite=False)
    judge = jsonschema.Draft202012Validator(schemas["bench.schema.json"], registry=registry)
    content = json.loads(path.read_text())
    judge.validate(content)
    content["processes"][0]["run"]["latency"].pop("median")
    assert not judge.is_valid(content)
