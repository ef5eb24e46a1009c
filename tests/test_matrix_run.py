"""Running a matrix: what is done, kept, tried again, shared, recorded and never half there.

The cells' own processes are stand-ins (tests/fake_cell.py); tests/test_matrix_cell.py has real
ones.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from fluxvae.errors import MatrixError, OutputError, UsageError
from fluxvae.experiments.file import Matrix, parse_matrix
from fluxvae.experiments.folder import locked, verify_delivery, write_report
from fluxvae.experiments.plan import Abilities
from fluxvae.experiments.run import Outcome, run_matrix
from fluxvae.experiments.status import read_status
from fluxvae.experiments.verify import verify
from fluxvae.records.experiment import Result, read_results
from fluxvae.schema import load
from tests.fake_cell import calls, install, matrix_text

SCHEMA = Path(__file__).parents[1] / "docs" / "matrix.schema.json"
LINUX = Abilities(mac=False, harness=False)
TEXT = matrix_text(
    "runs = 2",
    layout=["nchw", "nhwc"],
    precision=["float16", "float32"],
    compression=["none", "pal4-plain", "int8-plain"],
)


@pytest.fixture(autouse=True, scope="module")
def no_pages() -> Iterator[None]:
    """The pages have tests of their own, and take seconds."""

    def write(folder: Path) -> tuple[Path, ...]:
        pages = (folder / "index.html", folder / "summary.md")
        for page in pages:
            page.write_text("a page")
        return pages

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluxvae.report.matrix.report.write_matrix_report", write)
        yield


def matrix_of(text: str = TEXT) -> Matrix:
    return parse_matrix(text, "test")


def go(folder: Path, text: str = TEXT, **options: object) -> Outcome:
    return run_matrix(matrix_of(text), folder, abilities=LINUX, **options)  # type: ignore[arg-type]


def by_label(results: tuple[Result, ...]) -> dict[str, Result]:
    return {result.cell.label(): result for result in results}


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


FEW = TEXT.replace('"float16", "float32"', '"float32"').replace(', "int8-plain"', "")  # 4 cells
THREE = TEXT.replace('"nchw", "nhwc"', '"nchw"').replace('"float16", "float32"', '"float32"')


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three cells of ``THREE``, done once."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in install(folder / "fake").items():
            patch.setenv(name, value)
        go(folder / "run", THREE)
    return folder / "run"


@pytest.fixture
def small(tmp_path: Path, fake: Path, made: Path) -> tuple[Path, str]:
    """A copy of that folder, and its matrix."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run", THREE


def test_every_cell_is_done_once_and_what_they_share_once(tmp_path: Path, fake: Path) -> None:
    folder = tmp_path / "run"
    outcome = go(folder)
    assert outcome.counts == {"done": 12}
    made = calls(fake)
    assert len(made) == len(set(made))
    assert sum(line.startswith("cell") for line in made) == 12
    # layouts share compressed weights; compressions share the stages of their error budget
    assert sum(line.startswith("solve") for line in made) == 4
    assert sum(line.startswith("stage") for line in made) == 4
    assert go(folder).computed == 0
    assert calls(fake) == made
    wanted = {"cells", "inputs", "matrix.toml", "solved", "summary.json", "weights.json"}
    assert visible(folder) >= wanted
    assert verify(folder) == []
    schema = json.loads(SCHEMA.read_text())
    for path in folder.glob("cells/*/result.json"):
        jsonschema.validate(json.loads(path.read_text()), schema)
    status = read_status(folder)
    assert status.counts == {"done": 12}
    assert [line.label for line in status.lines] == [c.label() for c in matrix_of().cells]


def test_a_new_value_makes_new_cells_alone(tmp_path: Path, fake: Path) -> None:
    folder = tmp_path / "run"
    go(folder, FEW, only=["*-nchw-*"])
    assert read_status(folder).counts == {"done": 2, "missing": 2}
    before = len(calls(fake))
    assert go(folder, FEW).computed == 2
    assert all("nhwc" in line for line in calls(fake)[before:])
    outcome = go(folder, FEW.replace('"pal4-plain"]', '"pal4-plain", "pal8-plain"]'))
    assert (outcome.computed, outcome.counts) == (2, {"done": 6})
    assert verify(folder) == []


def test_only_says_what_cells_are_called(tmp_path: Path, fake: Path) -> None:
    with pytest.raises(UsageError, match="called flux2-nchw-float16-none-64"):
        go(tmp_path / "run", only=["flux1-*"])


def test_a_failed_cell_is_recorded_stops_nothing_and_is_tried_again(
    tmp_path: Path, fake: Path
) -> None:
    folder = tmp_path / "run"
    (fake / "fail").write_text("nhwc-float32-none")
    outcome = go(folder, FEW)
    assert outcome.counts == {"done": 3, "failed": 1}
    failed = by_label(outcome.results)["flux2-nhwc-float32-none-64"]
    assert failed.reason == "it was told to fail"
    place = next(folder.glob("cells/*-flux2-nhwc-float32-none-64"))
    assert {p.name for p in place.iterdir()} == {
        *("cell.toml", "log.txt", "result.json", "result.sha256")
    }
    (fake / "fail").unlink()
    before = len(calls(fake))
    assert go(folder, FEW).counts == {"done": 4}
    assert calls(fake)[before:] == ["cell nhwc-float32-none"]


def test_cells_fail_with_the_compression_they_need(tmp_path: Path, fake: Path) -> None:
    (fake / "fail").write_text("solve-nchw-float16-pal4")
    text = FEW.replace('"float32"', '"float16"')
    outcome = go(tmp_path / "run", text, only=["*-pal4-*"])
    reasons = {r.cell.label(): r.reason for r in outcome.results if r.status == "failed"}
    assert reasons == {
        f"flux2-{layout}-float16-pal4-plain-64": "compression: it was told to fail"
        for layout in ("nchw", "nhwc")
    }


def test_a_cell_that_takes_too_long_is_stopped(tmp_path: Path, fake: Path) -> None:
    (fake / "hang").write_text("nhwc-float32-none")
    text = TEXT.replace("runs = 2", "runs = 2\ntime_limit_s = 2.0")
    outcome = go(tmp_path / "run", text, only=["*-float32-none-*"])
    assert outcome.counts == {"done": 1, "failed": 1}
    failed = by_label(outcome.results)["flux2-nhwc-float32-none-64"]
    assert failed.reason == "it took longer than the limit of 2 s"


def test_what_cannot_be_done_here_says_so_and_is_not_begun(
    small: tuple[Path, str], fake: Path
) -> None:
    folder, text = small
    text += "\n[[cell]]\nvariant = 'flux2'\nsizes = '64'\ncompute_unit = 'cpuAndGPU'\n"
    outcome = go(folder, text)
    assert outcome.counts == {"done": 3, "n/a": 1}
    assert outcome.results[-1].reason == "compute unit cpuAndGPU needs a Mac"
    assert calls(fake) == []
    assert go(folder, text).computed == 0
    assert verify(folder) == []


def test_half_a_cell_is_done_again(small: tuple[Path, str], fake: Path) -> None:
    folder, text = small
    place = next(folder.glob("cells/*none*"))
    (place / "result.json").unlink()
    (folder / ".work" / "left-over").mkdir(parents=True)
    before = len(calls(fake))
    assert go(folder, text).counts == {"done": 3}
    assert calls(fake)[before:] == ["cell nchw-float32-none"]
    assert verify(folder) == []


def test_a_lost_artifact_is_made_again(small: tuple[Path, str], fake: Path) -> None:
    folder, text = small
    shutil.rmtree(next(folder.glob("cells/*none*/model.mlpackage")))
    assert go(folder, text).computed == 1
    assert verify(folder) == []


def test_thresholds_flag_without_doing_anything_again(small: tuple[Path, str], fake: Path) -> None:
    folder, text = small
    before = calls(fake)
    stricter = text.replace("[axes]", "[matrix.thresholds]\npsnr_db = 99\nlatency_ms = 1\n[axes]")
    outcome = go(folder, stricter)
    assert calls(fake) == before
    assert all(len(r.flags) == 2 for r in outcome.results)
    assert all("is below 99 dB" in r.flags[0] for r in outcome.results)
    assert all("is above 1 ms" in r.flags[1] for r in outcome.results)
    assert verify(folder) == []
    assert all(r.flags == () for r in go(folder, text).results)


def test_cells_that_left_the_matrix_are_set_aside_and_found_again(
    small: tuple[Path, str], fake: Path
) -> None:
    folder, text = small
    before = calls(fake)
    outcome = go(folder, text.replace('"none", ', ""))
    assert outcome.counts == {"done": 2}
    assert len(list((folder / "old").iterdir())) == 1
    assert verify(folder) == []
    assert go(folder, text).counts == {"done": 3}
    assert calls(fake) == before


def test_other_settings_of_measuring_make_other_cells(small: tuple[Path, str], fake: Path) -> None:
    folder, text = small
    outcome = go(folder, text.replace("runs = 2", "runs = 3"))
    assert outcome.computed == 3
    assert all(len(r.runs) == 3 for r in outcome.results)
    assert len(list(folder.glob("cells/*"))) == 3


def test_other_weights_are_refused(small: tuple[Path, str], fake: Path) -> None:
    folder, text = small
    with pytest.raises(MatrixError, match=r"other weights of flux2 .* new folder with --out"):
        go(folder, text.replace('"demo"', '"random:3"'))


def test_changed_inputs_end_the_run(small: tuple[Path, str], fake: Path) -> None:
    folder, text = small
    path = folder / "inputs" / "latents.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(MatrixError, match="is not the one this matrix was measured with"):
        go(folder, text)
    path.write_bytes(data[:100])
    with pytest.raises(MatrixError, match="damaged or incomplete"):
        go(folder, text)


def test_more_sizes_add_inputs_and_keep_what_is_done(small: tuple[Path, str], fake: Path) -> None:
    folder, text = small
    before = len(calls(fake))
    outcome = go(folder, text.replace('"64"', '"64", "72x64"'))
    assert (outcome.computed, outcome.counts) == (3, {"done": 6})
    assert len(calls(fake)) > before
    assert verify(folder) == []


def test_two_runs_in_one_folder_do_not_meet(small: tuple[Path, str], fake: Path) -> None:
    folder, text = small
    with locked(folder), pytest.raises(MatrixError, match="another `fluxvae matrix run`"):
        go(folder, text)


def test_a_file_for_a_folder_is_refused(tmp_path: Path, fake: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        go(tmp_path / "run")


def test_interrupting_keeps_what_is_done(tmp_path: Path, fake: Path) -> None:
    folder, looks = tmp_path / "run", iter([*[None] * 8, KeyboardInterrupt])

    def check() -> None:
        if next(looks) is KeyboardInterrupt:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(folder, FEW, check=check)
    done = len(read_results(folder))
    assert 0 < done < 4
    assert not (folder / ".work").exists()
    begun = sum(line.startswith("cell") for line in calls(fake))
    assert go(folder, FEW).counts == {"done": 4}
    assert sum(line.startswith("cell") for line in calls(fake)) == begun + 4 - done


def test_what_arrives_is_held_against_its_digests(small: tuple[Path, str], fake: Path) -> None:
    from fluxvae.experiments.dask import pack, unpack
    from fluxvae.experiments.job import Job

    folder, text = small
    place = next(folder.glob("cells/*none*"))
    delivery = pack(place)
    unpack(delivery, folder / "there")
    assert (folder / "there" / "result.json").read_bytes() == (place / "result.json").read_bytes()
    broken = type(delivery)(delivery.archive[:-5000] + bytes(5000), delivery.sha256[::-1])
    with pytest.raises(MatrixError, match="arrived damaged"):
        unpack(broken, folder / "there2")
    result = load(Result, place / "result.json")
    job = Job(
        "cell", result.key, result.cell, {}, matrix_of(text).settings, matrix_of(text).thresholds,
        result.weights_digest, result.inputs_digest, result.versions, {}, {},
    )  # fmt: skip
    assert verify_delivery(job, place) == result
    next(place.rglob("weights.bin")).write_text("other")
    with pytest.raises(MatrixError, match="arrived damaged"):
        verify_delivery(job, place)


# What verify finds. Every damage is one that somebody could do by hand.


def _edit(path: Path, **changes: object) -> None:
    """Change a result and its digest: what a careful forger would do."""
    import hashlib

    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(data, indent=1) + "\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (path.parent / "result.sha256").write_text(f"{digest}  result.json\n")


def _first(folder: Path) -> Path:
    return min(folder.glob("cells/*/result.json"))


def _edited_sample(folder: Path) -> None:
    path = _first(folder)
    path.write_text(path.read_text().replace("5.0", "4.0", 1))


def _edited_sample_and_digest(folder: Path) -> None:
    data = json.loads(_first(folder).read_text())
    data["runs"][0]["samples_ms"] = [1.0, 1.0, 1.0]
    _edit(_first(folder), runs=data["runs"])


def _swapped_weights(folder: Path) -> None:
    a, b, _ = sorted(folder.glob("cells/*/model.mlpackage/Data/weights.bin"))
    a.write_bytes(b.read_bytes())


def _other_version(folder: Path) -> None:
    data = json.loads(_first(folder).read_text())
    _edit(_first(folder), versions=data["versions"] | {"torch": "2.7.0"})
    write_report(folder)


def _other_host(folder: Path) -> None:
    data = json.loads(_first(folder).read_text())
    _edit(_first(folder), host=data["host"] | {"release": "5.4"})
    write_report(folder)


def _other_weights(folder: Path) -> None:
    _edit(_first(folder), weights_digest="0" * 64)
    write_report(folder)


def _other_inputs(folder: Path) -> None:
    _edit(_first(folder), inputs_digest="0" * 64)
    write_report(folder)


def _missing_cell(folder: Path) -> None:
    shutil.rmtree(_first(folder).parent)
    write_report(folder)


def _made_up_summary(folder: Path) -> None:
    path = folder / "summary.json"
    data = json.loads(path.read_text())
    data["rows"][0]["latency_ms"] /= 2
    path.write_text(json.dumps(data, indent=1) + "\n")


def _kinder_verdict(folder: Path) -> None:
    data = json.loads(_first(folder).read_text())
    data["errors"][0]["passed"] = False
    _edit(_first(folder), errors=data["errors"])
    write_report(folder)


def _file_too_many(folder: Path) -> None:
    (_first(folder).parent / "model.mlpackage" / "Data" / "more.bin").write_text("more")


def _other_cell(folder: Path) -> None:
    path = _first(folder).parent / "cell.toml"
    path.write_text(path.read_text().replace("nchw", "nhwc"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_edited_sample, "was changed after it was measured"),
        (_edited_sample_and_digest, "summary.json does not follow from the samples"),
        (_swapped_weights, "weights.bin is not the file that was measured"),
        (_other_version, "is of another tool version (torch 2.7.0"),
        (_other_host, "was measured on another host (Linux 5.4"),
        (_other_weights, "is of other weights (digest 000000000000"),
        (_other_inputs, "is of other inputs (digest 000000000000"),
        (_missing_cell, "missing; run the matrix again"),
        (_made_up_summary, "summary.json does not follow from the samples"),
        (_kinder_verdict, "its verdict is pass, and its inputs make it fail"),
        (_file_too_many, "more.bin does not belong there"),
        (_other_cell, "cell.toml does not say what result.json says"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_verify_finds(small: tuple[Path, str], damage: object, words: str) -> None:
    folder, _ = small
    assert verify(folder) == []
    damage(folder)  # type: ignore[operator]
    found = verify(folder)
    assert any(words in line for line in found), found
    assert not any("\n" in line for line in found)


def test_verify_of_no_run_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match="not a folder of `fluxvae matrix run`"):
        verify(tmp_path)
