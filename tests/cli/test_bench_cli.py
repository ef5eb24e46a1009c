"""``fluxvae bench``, ``bench compare``, ``plan`` and ``drift`` as a user meets them."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.run import run
from tests.fake_harness import FakeHarness, bench_run, report
from tests.test_harness import DRIFT, GPU_FAILED, NO_PLAN, PLAN

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A folder that looks like a compiled model: the fake harness reads nothing of it."""
    (tmp_path / "m.mlmodelc").mkdir()
    (tmp_path / "m.mlmodelc" / "coremldata.bin").write_bytes(b"")
    return str(tmp_path / "m.mlmodelc")


def fake(folder: Path, *medians: float) -> FakeHarness:
    """A harness that measures these medians, one process each."""
    answers = [report("bench", runs=[bench_run([m, m, m])]) for m in medians]
    return FakeHarness(folder, *((0, a, "") for a in answers))


def record(folder: Path, capsys: Capture, model: str, name: str, *medians: float) -> str:
    out = str(folder / name)
    place = folder / f"{name}-harness"
    place.mkdir()
    program = fake(place, *medians).program
    count = str(len(medians))
    ran = run(capsys, "bench", model, "--runs", count, "--out", out, "--harness", str(program))
    assert ran.code == 0
    return out


def test_table_flags_the_outlier_and_keeps_it(tmp_path: Path, capsys: Capture, model: str) -> None:
    program = str(fake(tmp_path, 10, 10.1, 10.2, 10.1, 30).program)
    ran = run(capsys, "bench", model, "--runs", "5", "--harness", program)
    assert ran.code == 0
    head, row, calls, outlier, *notes = ran.out.splitlines()
    assert head.split()[:4] == ["driver", "compute", "units", "runs"]
    assert row.split()[:4] == ["swift", "all", "5", "10.100"]
    assert calls == (
        "first calls, swift all: after loading 5.0, 3.0, 2.0 ms; after 6 s idle 9.0, 4.0, 2.0 ms"
    )
    assert outlier == "outlier, kept: run 5 of swift on all"
    assert any("say nothing about a Mac" in note for note in notes)
    assert ran.err.splitlines()[0] == "run 1 of 5, swift, all: median 10.000 ms"
    assert ran.widest <= 100 or all(len(n) > 100 for n in notes if n)


def test_json_has_every_sample(tmp_path: Path, capsys: Capture, model: str) -> None:
    program = str(fake(tmp_path, 10, 11).program)
    ran = run(capsys, "bench", "--json", model, "--runs", "2", "--harness", program)
    assert ran.code == 0
    assert ran.json["settings"]["runs"] == 2
    assert [p["run"]["samples_ms"] for p in ran.json["processes"]] == [[10] * 3, [11] * 3]


def test_compare_says_slower_with_its_reasons(tmp_path: Path, capsys: Capture, model: str) -> None:
    a = record(tmp_path, capsys, model, "a.json", 10, 10.1, 10.2, 10.3)
    b = record(tmp_path, capsys, model, "b.json", 12, 12.1, 12.2, 12.3)
    ran = run(capsys, "bench", "compare", a, b)
    assert ran.code == 0
    assert ran.out.splitlines()[0].endswith("p 0.029: slower")
    assert "10.150 ms (4 runs) -> 12.150 ms (4 runs), ratio 1.197" in ran.out
    assert "  first calls of B: after loading 5.0, 3.0, 2.0 ms; after 6 s idle 9.0" in ran.out
    assert run(capsys, "bench", "compare", b, a, "--json").json["rows"][0]["verdict"] == "faster"
    same = run(capsys, "bench", "compare", a, a, "--json").json["rows"][0]
    assert same["verdict"] == "not distinguishable"


def test_what_cannot_be_done_is_one_line(tmp_path: Path, capsys: Capture, model: str) -> None:
    package = tmp_path / "m.mlpackage"
    package.mkdir()
    taken = tmp_path / "taken.json"
    taken.write_text("{}")
    for arguments, code, why in (
        (["bench", str(package)], 1, "is not compiled"),
        (["bench", str(tmp_path / "no.mlmodelc")], 1, "does not exist"),
        (["bench", model, "--harness", str(tmp_path / "none")], 1, "does not exist; expected a"),
        (["bench", model, "--out", str(taken)], 1, "exists already"),
        (["bench", model, "--driver", "python", "--strict-host"], 2, "--driver swift"),
        (["bench", "compare", str(taken), str(taken)], 1, "is not a record of `fluxvae bench"),
        (["plan", str(package)], 1, "fluxvae compile"),
        (["drift", str(package)], 1, "fluxvae compile"),
    ):
        ran = run(capsys, *arguments)
        assert (ran.code, ran.out) == (code, ""), arguments
        (line,) = ran.err.splitlines()
        assert line.startswith("fluxvae: ")
        assert why in line
    for seconds in ("nan", "inf", "-1"):
        assert run(capsys, "bench", model, "--idle", seconds).code == 2


def answering(folder: Path, code: int, content: dict[str, Any]) -> str:
    return str(FakeHarness(folder, (code, content, "error: no\n" if code else "")).program)


def test_plan_is_a_table_that_names_what_left_the_neural_engine(
    tmp_path: Path, capsys: Capture, model: str
) -> None:
    program = answering(tmp_path, 0, report("plan", plan=PLAN))
    ran = run(capsys, "plan", model, "--harness", program)
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "main on all: 3 operations (7 constants apart)"
    assert "  left the Neural Engine: ios16.conv x -> cpu" in ran.out.splitlines()


def test_no_plan_is_a_sentence_and_code_1(tmp_path: Path, capsys: Capture, model: str) -> None:
    program = answering(tmp_path, 1, report("plan", plan=NO_PLAN))
    ran = run(capsys, "plan", model, "--harness", program)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "fluxvae: there is no compute plan on Linux\n"
    ran = run(capsys, "plan", model, "--harness", program, "--json")
    assert ran.code == 1
    assert ran.json["plan"]["available"] is False


def test_drift_says_which_bits_differ(tmp_path: Path, capsys: Capture, model: str) -> None:
    program = answering(tmp_path, 0, report("drift", drift=DRIFT, notes=["a note"]))
    ran = run(capsys, "drift", model, "--repeats", "3", "--harness", program)
    assert ran.code == 0
    first, against, note = ran.out.splitlines()
    assert first.startswith("cpuOnly             1 of 3 outputs differ from the first, first at")
    assert against == "all                 against cpuOnly: max abs 1.0e-02"
    assert note == "note: a note"


def test_harness_learns_which_python_to_run(
    tmp_path: Path, capsys: Capture, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    import fluxvae

    monkeypatch.setenv("PYTHONPATH", "/mine")
    stand_in = FakeHarness(tmp_path, (0, report("drift", drift=DRIFT), ""))
    monkeypatch.setenv("FLUXVAE_HARNESS", str(stand_in.program))
    assert run(capsys, "drift", model).code == 0
    ((_, environment),) = stand_in.calls
    assert environment["FLUXVAE_PYTHON"] == sys.executable
    package = str(Path(fluxvae.__file__).parents[1])
    assert environment["PYTHONPATH"] == f"{package}:/mine"


def test_cache_folder_follows_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fluxvae.cli.harness import cache_folder

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "fluxvae"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "fluxvae"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "fluxvae"


def test_compute_units_that_fail_are_named_beside_the_results_of_the_others(
    tmp_path: Path, capsys: Capture, model: str
) -> None:
    reason = "m.mlmodelc cannot be loaded: no GPU"
    (tmp_path / "drift").mkdir()
    half = report("drift", drift=DRIFT, failures=GPU_FAILED)
    ran = run(capsys, "drift", model, "--harness", answering(tmp_path / "drift", 1, half))
    assert ran.code == 1
    assert ran.out.splitlines()[0].startswith("cpuOnly             1 of 3 outputs differ")
    assert f"cpuAndGPU           FAILED: {reason}" in ran.out.splitlines()

    (tmp_path / "plan").mkdir()
    half = report("plan", plan=PLAN, failures=GPU_FAILED)
    ran = run(capsys, "plan", model, "--harness", answering(tmp_path / "plan", 1, half))
    assert (ran.code, ran.out.splitlines()[-1]) == (1, f"cpuAndGPU           FAILED: {reason}")

    answers = [
        (0, report("bench", runs=[bench_run([1.0, 2.0], "all")]), ""),
        (0, report("bench", runs=[bench_run([1.0, 2.0], "cpuOnly")]), ""),
        (1, "", f"error: {reason}\n"),
        (0, report("bench", runs=[bench_run([1.0, 2.0], "cpuAndNeuralEngine")]), ""),
    ]
    (tmp_path / "bench").mkdir()
    program = str(FakeHarness(tmp_path / "bench", *answers).program)
    out = str(tmp_path / "a.json")
    ran = run(
        capsys, "bench", model, "--compute-units", "each", "--runs", "1", "--harness", program,
        "--out", out,
    )  # fmt: skip
    assert ran.code == 1
    rows = [line.split()[1] for line in ran.out.splitlines() if line.startswith("swift ")]
    assert rows == ["all", "cpuOnly", "cpuAndNeuralEngine", "cpuAndGPU"]
    assert f"swift cpuAndGPU FAILED in run 1: {reason}" in ran.out.splitlines()
    assert run(capsys, "bench", "compare", out, out).code == 0
