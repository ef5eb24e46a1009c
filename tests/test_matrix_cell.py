"""A cell's own process: what it makes, its limits, and that it never outlives who waits for it."""

import json
import platform
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jsonschema
import pytest

from fluxvae.convert.coremltools import step, step_timings
from fluxvae.experiments.dask import local_cluster
from fluxvae.experiments.file import parse_matrix
from fluxvae.experiments.plan import Abilities
from fluxvae.experiments.run import run_matrix
from fluxvae.experiments.verify import verify
from fluxvae.networks.weights import load_weights
from fluxvae.records.experiment import Result, read_results
from fluxvae.schema import parse
from fluxvae.validation.validate import validate
from tests.fake_cell import matrix_text

SCHEMA = Path(__file__).parents[1] / "docs" / "matrix.schema.json"
FULL = pytest.mark.full
TEXT = matrix_text("runs = 1", "iterations = 2", precision=["float32"])
# The watch alone, in a process group of its own, without what a cell has to import.
WATCH = """
import sys, threading, time
from pathlib import Path
from fluxvae.experiments.cell import _watch
threading.Thread(target=_watch, args=(Path(sys.argv[1]), int(sys.argv[2])), daemon=True).start()
held = bytearray(int(sys.argv[3]))
time.sleep(60)
"""


def watched(folder: Path, limit: int, held: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WATCH, str(folder), str(limit), str(held)],
        stdin=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def figures(results: tuple[Result, ...]) -> list[object]:
    """What has to be equal wherever and whenever it is computed: no times."""
    return [(r.key, r.cell, r.errors, r.budget, r.bytes, r.verdict) for r in results]


def run(folder: Path, text: str, workers: int = 1) -> tuple[Result, ...]:
    pool = partial(local_cluster, workers) if workers > 1 else None
    run_matrix(parse_matrix(text), folder, abilities=Abilities(False, False), make_pool=pool)
    return read_results(folder)


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real cell: demo weights, 64 px, float32."""
    folder = tmp_path_factory.mktemp("matrix") / "serial"
    run(folder, TEXT)
    return folder


def test_a_cell_is_made_judged_and_measured(serial: Path) -> None:
    (result,) = read_results(serial)
    assert (result.status, result.verdict, result.reason) == ("done", "pass", None)
    assert [e.input for e in result.errors] == [
        *("chelsea", "coffee", "normal", "saturated", "constant", "zero")
    ]
    assert set(result.seconds) == {"capture", "convert", "compress", "save", "validate", "measure"}
    assert all(seconds > 0 for step, seconds in result.seconds.items() if step != "compress")
    (latency,) = result.runs
    assert len(latency.samples_ms) == 2
    assert all(sample > 0 for sample in latency.samples_ms)
    assert (latency.peak_memory_bytes or 0) > 5e7
    assert set(result.budget) == {"conversion"}
    jsonschema.validate(json.loads((next(serial.glob("cells/*")) / "result.json").read_text()),
                        json.loads(SCHEMA.read_text()))  # fmt: skip
    assert verify(serial) == []


def test_its_errors_are_those_of_validate(serial: Path) -> None:
    (result,) = read_results(serial)
    package = next(serial.glob(f"cells/*/{result.artifact}"))
    weights, encoder = (load_weights("flux2", "demo", part=p) for p in ("decoder", "encoder"))
    report = validate(package, weights, encoder=encoder)
    found = [(c.case, c.metrics.max_abs, str(c.limit), c.passed) for c in report.cases]
    # threads of torch may differ here, and with them the last bits
    assert [(e.input, pytest.approx(e.max_abs, rel=0.2), e.limit, e.passed)
            for e in result.errors] == found  # fmt: skip


@FULL
def test_cells_have_the_same_bits_on_workers(tmp_path: Path) -> None:
    text = TEXT.replace('"float32"]', '"float16", "float32"]\nlayout = ["nchw", "nhwc"]')
    text += 'compression = ["none", "pal4-plain", "int8"]\n'
    serial, spread = run(tmp_path / "one", text), run(tmp_path / "two", text, workers=2)
    assert len(serial) == 12
    assert {r.status for r in serial} == {"done"}
    assert figures(serial) == figures(spread)
    budget = {r.cell.label(): r.budget for r in serial}["flux2-nchw-float16-pal4-plain-64"]
    assert budget["conversion"] > budget["precision"] > budget["compression"]


def test_it_ends_with_who_started_it(tmp_path: Path) -> None:
    process = watched(tmp_path, 0, 10)
    assert process.stdin is not None
    time.sleep(0.5)
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(20) == -9


def test_it_ends_when_it_takes_too_much_memory(tmp_path: Path) -> None:
    process = watched(tmp_path, 300_000_000, 10)
    time.sleep(2)
    assert process.poll() is None
    process.kill()
    process.wait()
    # bytearray's zeros are pages that are held: calloc'd ones would not be; so it is filled
    script = WATCH.replace("bytearray(int(sys.argv[3]))", "b'x' * int(sys.argv[3])")
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), "300000000", "400000000"],
        stdin=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.wait(30) == -9
    assert (tmp_path / "stopped.txt").read_text() == (
        "it took more memory than the limit of 0.3 GB"
    )


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="no glibc here; others are left alone"
)
def test_what_an_array_held_is_reused_without_clearing_its_pages_again() -> None:
    script = """
import resource, numpy
from fluxvae.device.host import keep_freed_memory
keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    before = faults()
    numpy.ones(64 << 20, numpy.uint8)
    print(faults() - before)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, *later = map(int, ran.stdout.split())
    assert first > 16  # even with pages of 2 MiB
    assert max(later) < 16, "they were given back to the kernel, and had to be asked for again"


def test_peak_memory_is_a_process_s_own() -> None:
    """getrusage's figure on Linux is at least that of the process which started this one."""
    held = b"x" * 300_000_000
    script = "from fluxvae.device.host import peak_memory; print(peak_memory())"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < len(held) // 2


def test_durations_of_steps_are_summed_and_measured_only_where_asked_for() -> None:
    with step("outside"):
        pass
    with step_timings() as timings:
        for _ in range(3):
            with step("step"):
                time.sleep(0.01)
    assert set(timings) == {"step"}
    assert timings["step"] >= 0.03


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "fluxvae-bench"}, "expected format"),
        ({"version": 1}, "expected format"),
        ({"status": "perhaps"}, "status should be one of"),
        ({"runs": [{}]}, "lacks"),
        ({"more": 1}, "unknown keys"),
    ],
)
def test_a_damaged_result_is_told(serial: Path, change: dict[str, object], words: str) -> None:
    data = json.loads((next(serial.glob("cells/*")) / "result.json").read_text())
    with pytest.raises(ValueError, match=words):
        parse(Result, json.dumps(data | change))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data | change, json.loads(SCHEMA.read_text()))
