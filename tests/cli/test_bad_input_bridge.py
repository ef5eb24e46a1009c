"""Bad input to the commands around the Swift harness: one line, its exit code, nothing written.

The harness is a stand-in that must not be reached: all of this is refused before it is started.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxvae.device.bundle import Request, export_bundle, read_bundle
from fluxvae.errors import ArtifactError, BundleError, OutputError, ToolError, UsageError
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Size
from fluxvae.records.mac import MacRecord
from fluxvae.schema import load
from tests.cli.run import Ran, run
from tests.fake_harness import FakeHarness
from tests.packages import tree

Capture = pytest.CaptureFixture[str]
DEEP = "[" * 100_000  # Python's parser of JSON gives up with a RecursionError
JUDGES = (["validate-swift"], ["bench"], ["plan"], ["drift"])
DEMO = ("export-io", "--variant", "flux1", "--weights", "demo", "--size", "64")


@pytest.fixture
def harness(tmp_path: Path) -> FakeHarness:
    folder = tmp_path / "harness"
    folder.mkdir()
    return FakeHarness(folder, (1, "", "error: the harness was reached"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What looks like a compiled model as far as is asked before the harness reads it."""
    folder = tmp_path / "m.mlmodelc"
    folder.mkdir()
    (folder / "coremldata.bin").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An I/O bundle of flux1 at 64 x 64."""
    folder = tmp_path_factory.mktemp("bundle") / "io"
    export_bundle(load_weights("flux1", "demo"), Request(Size(64, 64)), folder)
    return folder


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(whole, tmp_path / "io"))


def refused(ran: Ran, words: str, code: int = 1) -> None:
    assert (ran.code, ran.out) == (code, ""), ran.err
    (line,) = ran.err.splitlines()
    assert line.startswith("fluxvae: ")
    assert words in line
    assert "defect" not in line


def make(path: Path, kind: str) -> Path:
    if kind == "text":
        path.write_text("hello")
    elif kind == "empty folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("command", JUDGES, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("x.mlmodelc", "absent", "x.mlmodelc does not exist; give a compiled model"),
        ("x.mlmodelc", "text", "x.mlmodelc is not a compiled model: expected an .mlmodelc folder"),
        ("x.mlmodelc", "empty folder", "it has no coremldata.bin; compile its .mlpackage again"),
        ("x.txt", "text", "x.txt is not a compiled model: expected an .mlmodelc folder"),
        ("x", "empty folder", "x is not a compiled model: expected an .mlmodelc folder"),
        ("x.mlpackage", "empty folder", "x.mlpackage, then give the .mlmodelc"),
    ],
)
def test_what_is_no_compiled_model(
    tmp_path: Path,
    capsys: Capture,
    harness: FakeHarness,
    command: list[str],
    name: str,
    kind: str,
    words: str,
) -> None:
    path = make(tmp_path / name, kind)
    refused(run(capsys, *command, str(path), "--harness", str(harness.program)), words)
    assert not (harness.folder / "calls.jsonl").exists()


def drop_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def text_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("hello")


def deep_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text(DEEP)


def drop_output(folder: Path) -> None:
    (folder / "output.bin").unlink()


def cut_input(folder: Path) -> None:
    (folder / "input.bin").write_bytes(bytes(50))


@pytest.mark.parametrize("command", [["bench"], ["bench", "--driver", "python"], ["drift"]])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop_manifest, "is not an I/O bundle: its manifest.json cannot be read"),
        (text_manifest, "is not the manifest of an I/O bundle, or a damaged one"),
        (deep_manifest, "or a damaged one (it is nested too deeply)"),
        (drop_output, "output.bin cannot be read (No such file"),
        (cut_input, "input.bin has 50 bytes; [1, 16, 8, 8] as float32 needs 4096"),
    ],
)
def test_damaged_bundle_is_named_before_anything_runs(
    capsys: Capture,
    harness: FakeHarness,
    model: Path,
    bundle: Path,
    command: list[str],
    damage: Callable[[Path], None],
    words: str,
) -> None:
    damage(bundle)
    with pytest.raises(BundleError, match=r"fluxvae export-io"):
        read_bundle(bundle)
    given = ("--io", str(bundle), "--harness", str(harness.program))
    refused(run(capsys, *command, str(model), *given), words)


@pytest.mark.parametrize("command", ["bench", "drift"])
def test_size_that_is_not_the_bundle_s(
    capsys: Capture, harness: FakeHarness, model: Path, bundle: Path, command: str
) -> None:
    given = ("--io", str(bundle), "--harness", str(harness.program))
    for size in ("128", "64,128"):
        ran = run(capsys, command, str(model), "--size", size, *given)
        refused(ran, f"--size {size} is not that of {bundle}, which holds 64", code=2)
    ran = run(capsys, command, str(model), "--size", "64", *given)
    refused(ran, "the harness was reached")  # the two agree


def test_options_that_contradict_each_other(capsys: Capture, tmp_path: Path, model: Path) -> None:
    out = ("--out", str(tmp_path / "o"))
    for arguments, words in (
        (["validate-swift", str(model), "--io", "x", "--encoder", "y"], "and --encoder out"),
        ([*DEMO, *out, "--encoder", "y"], "--encoder makes a photo's latent: add --case"),
        ([*DEMO, *out, "--encoder", "y", "--latents", "x.npy"], "--encoder makes a photo's"),
        ([*DEMO, *out, "--seed", "3", "--case", "coffee"], "--seed is of the noise"),
        ([*DEMO, *out, "--seed", "3", "--latents", "x.npy"], "--seed is of the noise"),
    ):
        refused(run(capsys, *arguments), words, code=2)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("command", [["bench", "m.mlmodelc"], ["mac-report", "--rehearse"]])
def test_cooldown_that_is_no_number_of_seconds(
    capsys: Capture, command: list[str], value: str
) -> None:
    ran = run(capsys, *command, "--cooldown", value)
    assert (ran.code, ran.out) == (2, "")
    expected = f"Error: Invalid value for '--cooldown': expected a finite number, got {value}"
    assert ran.err.splitlines()[-1] == expected


def test_place_that_cannot_be_written_is_found_before_the_work(
    capsys: Capture, tmp_path: Path, harness: FakeHarness, model: Path
) -> None:
    # /proc takes no files, not even root's; where it is not mounted its name is a free one
    if not Path("/proc/self").exists():
        pytest.skip("needs Linux's /proc, where nothing can be written")
    taken = tmp_path / "taken"
    taken.mkdir()
    before = tree(tmp_path)
    used = ("--harness", str(harness.program))
    for arguments, words in (
        (["bench", str(model), *used, "--out", "/proc/no/x.json"], "nothing can be made in /proc"),
        (["bench", str(model), *used, "--out", str(taken)], "taken is a folder; expected the name"),
        (["bench", str(model), *used, "--overwrite", "--out", str(taken)], "taken is a folder"),
        ([*DEMO, "--out", "/proc/no"], "cannot write /proc/no"),
        (["mac-report", "--rehearse", *used, "--out", "/proc/no"], "nothing can be made in /proc"),
        (["mac-report", "--rehearse", *used, "--out", str(harness.program)], "is a file; expected"),
    ):
        refused(run(capsys, *arguments), words)
    assert tree(tmp_path) == before


def test_records_that_are_none(capsys: Capture, tmp_path: Path) -> None:
    good = tmp_path / "none.json"
    for content, words in (
        ('{"format": "fluxvae-bench", "version": 1, "flu', "or a damaged one (Unterminated string"),
        ("[1, 2]", "expected format 'fluxvae-bench', version 2, got None): give such a record"),
        (DEEP, "it is nested too deeply"),
    ):
        (tmp_path / "a.json").write_text(content)
        refused(run(capsys, "bench", "compare", str(tmp_path / "a.json"), str(good)), words)
        with pytest.raises(OutputError, match="not a record of `fluxvae mac-report`"):
            load(MacRecord, tmp_path / "a.json")
    for path in (good, tmp_path):
        refused(
            run(capsys, "bench", "compare", str(path), str(good)), "expected a record of `fluxvae"
        )


def test_harness_that_is_none_says_so(capsys: Capture, tmp_path: Path, model: Path) -> None:
    for code, out, words in (
        (1, "", "fluxvae-harness gave no message"),
        (0, "", "leave --harness out, and the right one is built"),
        (0, DEEP, "(it is nested too deeply): leave --harness out"),
    ):
        program = FakeHarness(tmp_path, (code, out, "")).program
        refused(run(capsys, "plan", str(model), "--harness", str(program)), words)


def test_python_driver_s_usage_errors_are_usage_errors(
    demo_package: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxvae.device import bench_python

    fields = {"compute_units": "all", "iterations": 1, "warmup": 0, "function": None, "io": None,
              "idle_s": None}  # fmt: skip
    for size, words in (("64,128", "one size is timed at a time"), ("128", "none of which is")):
        request = json.dumps({"model": str(demo_package), "size": size, **fields})
        assert bench_python.main([request]) == 2
        assert words in capsys.readouterr().err
    for code, kind in ((2, UsageError), (1, ArtifactError), (-9, ToolError)):
        ended = subprocess.CompletedProcess([], code, "", "one line\n")
        monkeypatch.setattr("subprocess.run", lambda *_, ended=ended, **__: ended)
        with pytest.raises(kind, match=r"Python driver.*: one line") as caught:
            bench_python.start_python(bench_python.Request("m", "all", 1, 0), {})
        assert type(caught.value) is kind
