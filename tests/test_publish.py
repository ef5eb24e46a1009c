"""Publishing: what a Hub folder holds, what is refused, and a stock client's upload of it."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import huggingface_hub.constants
import jsonschema
import pytest
import yaml

from fluxvae.errors import FluxVAEError, MatrixError, OutputError, PublishError, UsageError
from fluxvae.experiments.folder import write_digest
from fluxvae.networks.catalog import CATALOG
from fluxvae.networks.weights import WeightSource
from fluxvae.publish.card import card_text, minimum_os
from fluxvae.publish.folder import HubFolder, make_folder
from fluxvae.publish.models import choose
from fluxvae.publish.upload import Target, check_repo, upload
from fluxvae.recipes import Recipe, Size, parse_label
from fluxvae.records.experiment import read_results
from tests.hub_repo import TOKEN, HubRepo, serving_repo
from tests.matrix_folders import CELL, ENERGY, MAC, Made, result, write_run

ROOT = Path(__file__).resolve().parents[1]
REPO = "me/flux2-tiny"
# sha256 of upstream's taef2_decoder.pth: https://github.com/madebyollin/taesd
TAEF2_PTH = "0a44a31e1ae59eb9dbf9359d24942fd3ef5928162c1800d97a28c61d51be0ab5"


@pytest.fixture
def run(demo_package: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", [Made(demo_package, result(demo_package))])


@pytest.fixture(autouse=True)
def hub_as_a_fresh_user(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's proxies, token and offline switch must not decide; no xet (see hub_repo)."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refusal(run: Path, kind: type[FluxVAEError] = PublishError, only: str = "*") -> str:
    """The one line that says no, and that nothing was made."""
    with pytest.raises(kind) as caught:
        make_folder(run, REPO, run / "hub", only=[only])
    assert not (run / "hub").exists()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_folder_holds_the_package_as_it_was_measured(run: Path, demo_package: Path) -> None:
    made = make_folder(run, REPO, run / "hub")
    source = {f"packages/{demo_package.name}/{p}": d for p, d in digests(demo_package).items()}
    found = digests(run / "hub")
    assert {p: d for p, d in found.items() if p.startswith("packages/")} == source
    assert sorted(found) == sorted([*source, "README.md", "config.json", "manifest.json"])
    assert {file.path: file.sha256 for file in made.files} == found


def test_manifest_has_every_other_file_sorted(run: Path) -> None:
    make_folder(run, REPO, run / "hub")
    manifest = json.loads((run / "hub" / "manifest.json").read_text())
    expected = digests(run / "hub")
    del expected["manifest.json"]
    assert {path: file["sha256"] for path, file in manifest["files"].items()} == expected
    assert list(manifest["files"]) == sorted(expected)
    for path, file in manifest["files"].items():
        assert file["bytes"] == (run / "hub" / path).stat().st_size


def test_config_says_what_an_app_must_know(run: Path, demo_package: Path) -> None:
    make_folder(run, REPO, run / "hub")
    config = json.loads((run / "hub" / "config.json").read_text())
    (model,) = config["models"]
    assert model["package"] == f"packages/{demo_package.name}"
    assert model["compiled"] is None
    assert model["latent_contract"]["space"] == "fluxvae-demo-flux2"
    # 64 px are 8 latent pixels; FLUX.2 has 32 channels.
    assert model["input"] == {"name": "latent", "dtype": "float16", "layout": "nchw",
                              "shapes": {"64": [1, 32, 8, 8]}}  # fmt: skip
    assert model["output"] == {"name": "image", "dtype": "float16", "layout": "nchw",
                               "range": [0.0, 1.0]}  # fmt: skip
    assert model["sizes"] == [[64, 64]]
    assert model["minimum_os"] == {"iOS": "16", "macOS": "13"}  # float16 input
    assert model["cells"] == [CELL.label()]


def test_config_follows_its_schema(
    demo_artifact: Callable[..., Path], demo_package: Path, tmp_path: Path
) -> None:
    schema = json.loads((ROOT / "docs" / "hub.schema.json").read_text())
    both = demo_artifact("flux1", "64,128", shapes="multifunction")  # as other tests have it
    several = replace(CELL, variant="flux1", shapes="multifunction", sizes="64,128")
    cells = [(demo_package, CELL), (both, several)]
    run = write_run(tmp_path / "run", [Made(path, result(path, cell)) for path, cell in cells])
    make_folder(run, REPO, run / "hub")
    config = json.loads((run / "hub" / "config.json").read_text())
    jsonschema.validate(config, schema)
    assert [m["functions"] for m in config["models"]] == [{"64": "hw64", "128": "hw128"}, None]
    for harm in ({"sizes": []}, {"package": "elsewhere"}, {"more": 1}):
        bad = {**config, "models": [{**config["models"][0], **harm}]}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"io_precision": "float32"}, ("15", "12")),
        ({}, ("16", "13")),
        ({"compression": parse_label("int8-plain")}, ("16", "13")),
        ({"compression": parse_label("pal4-plain")}, ("18", "15")),  # scales for channels
        ({"sizes": (Size(64, 64), Size(96, 96)), "shapes": "multifunction"}, ("18", "15")),
        ({"target": "iOS26"}, ("26", "26")),
        ({"format": "neuralnetwork", "precision": "float32"}, ("13", "10.15")),
    ],
)
def test_oldest_systems_follow_the_recipe(fields: dict, expected: tuple[str, str]) -> None:
    recipe = Recipe("flux2", **{"sizes": (Size(64, 64),), **fields})
    assert minimum_os(recipe) == dict(zip(("iOS", "macOS"), expected, strict=True))


def card(run: Path) -> tuple[dict, str]:
    """Front matter and text of the card."""
    make_folder(run, REPO, run / "hub")
    _, front, text = (run / "hub" / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_card_says_what_was_measured_where(run: Path, demo_package: Path) -> None:
    front, text = card(run)
    assert front["library_name"] == "coreml"
    assert front["license"] == "mit"
    assert "base_model" not in front  # demo weights are nobody's model
    assert {"coreml", "flux2"} <= set(front["tags"])
    assert "Not FLUX's weights" in text
    # Photos: 40.25 and 31.5 dB, noise 28.75; the runs' medians are 10, 20 and 30 ms.
    row = f"| {CELL.label()} (`{demo_package.name}`) | 31.5 dB | 28.8 dB | 20.0 ms [12.0-28.0] | "
    assert row in text
    assert "| 200 MB |  |" in text  # no energy on Linux
    assert "by fluxvae's reference executor, not by Core ML" in text
    assert "Linux 6.1, x86_64, Test CPU" in text
    assert "Energy is relative" not in text
    assert f"`packages/{demo_package.name}` | 64 x 64 | float16 | none | iOS 16, macOS 13" in text


def test_one_run_has_no_spread(demo_package: Path, tmp_path: Path) -> None:
    measured = result(demo_package)
    once = replace(measured, runs=measured.runs[:1])
    _, text = card(write_run(tmp_path / "run", [Made(demo_package, once)]))
    assert "| 10.0 ms, one run | " in text


def test_card_of_a_mac_has_energy_and_its_limits(demo_package: Path, tmp_path: Path) -> None:
    flagged = ("later load is 3 times the median",)
    measured = result(demo_package, host=MAC, energy=ENERGY, flags=flagged)
    _, text = card(write_run(tmp_path / "run", [Made(demo_package, measured)]))
    assert "| 123.5 mJ |" in text  # 100 + 20 + 3.5
    assert "Energy is relative only" in text
    assert "Darwin 15.5, arm64, Apple M4: through Core ML." in text
    assert "reference executor" not in text
    assert f"- {CELL.label()}: {flagged[0]}" in text


def of_weights(run: Path, source: WeightSource) -> dict:
    """Front matter for a model of other weights than its package really has."""
    (model,) = choose(run, read_results(run)).models
    text = card_text(REPO, [replace(model, record=replace(model.record, source=source))])
    assert "Not FLUX's weights" not in text
    return yaml.safe_load(text.split("---\n")[1]) | {"text": text}


def test_published_weights_name_their_model_and_licence(run: Path) -> None:
    hub = CATALOG["flux2"].hub
    pinned = of_weights(run, WeightSource("hub", f"{hub.repo}@{hub.revision}", hub.sha256))
    assert pinned["base_model"] == ["madebyollin/taef2"]
    assert pinned["license"] == "mit"
    same_file = of_weights(run, WeightSource("file", "taef2.safetensors", hub.sha256))
    assert same_file["base_model"] == ["madebyollin/taef2"]
    known = of_weights(run, WeightSource("file", "taef2.pth", TAEF2_PTH))
    assert "the file is taef2_decoder.pth of madebyollin/taesd" in known["text"]
    assert "who uploads" not in known["text"]
    other = of_weights(run, WeightSource("file", "mine.safetensors", "0" * 64))
    assert "base_model" not in other
    assert "who uploads them answers for them" in other["text"]


def test_cells_of_one_artifact_share_it(demo_package: Path, tmp_path: Path) -> None:
    units = [replace(CELL, compute_unit=unit) for unit in ("all", "cpuOnly")]
    cells = [Made(demo_package, result(demo_package, cell)) for cell in units]
    made = make_folder(write_run(tmp_path / "run", cells), REPO, tmp_path / "hub")
    (model,) = made.choice.models
    assert [r.cell for r in model.cells] == units
    assert len(list((tmp_path / "hub" / "packages").iterdir())) == 1


def test_one_name_for_two_contents_is_refused(
    demo_package: Path, tmp_path: Path, copy_of: Path
) -> None:
    weights = next(copy_of.rglob("weight.bin"))
    weights.write_bytes(weights.read_bytes() + b"\0")
    one = Made(demo_package, result(demo_package))
    two = Made(copy_of, result(demo_package, replace(CELL, compute_unit="cpuOnly")))
    assert "with different content" in refusal(write_run(tmp_path / "run", [one, two]))


@pytest.fixture
def copy_of(demo_package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_package, tmp_path / "copy" / demo_package.name))


def test_compiled_model_goes_along_where_it_was_recorded(
    demo_package: Path, tmp_path: Path
) -> None:
    compiled = tmp_path / demo_package.with_suffix(".mlmodelc").name
    compiled.mkdir()
    (compiled / "coremldata.bin").write_bytes(b"compiled")
    cell = Made(demo_package, result(demo_package), compiled)
    run = write_run(tmp_path / "run", [cell])
    make_folder(run, REPO, run / "hub")
    assert (run / "hub" / "compiled" / compiled.name / "coremldata.bin").read_bytes() == b"compiled"
    (model,) = json.loads((run / "hub" / "config.json").read_text())["models"]
    assert model["compiled"] == f"compiled/{compiled.name}"


def test_compiled_model_without_a_record_stays_behind(run: Path, demo_package: Path) -> None:
    (place,) = (run / "cells").iterdir()
    (place / demo_package.with_suffix(".mlmodelc").name).mkdir()
    make_folder(run, REPO, run / "hub")
    assert not (run / "hub" / "compiled").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"verdict": "fail"}, "is outside its limits"),
        ({"verdict": None}, "was not judged"),
        ({"status": "failed", "verdict": None, "reason": "out of memory"}, "failed .out of memory"),
        ({"artifact": None}, "has no artifact"),
    ],
)
def test_cell_that_did_not_pass_is_refused_by_name(
    demo_package: Path, tmp_path: Path, fields: dict, words: str
) -> None:
    bad = replace(result(demo_package, replace(CELL, compute_unit="cpuOnly")), **fields)
    good = Made(demo_package, result(demo_package))
    run = write_run(tmp_path / "run", [good, Made(demo_package, bad)])
    message = refusal(run)
    assert message.count(CELL.label()) == 1
    assert re.search(f"{bad.cell.label()} {words}", message)
    made = make_folder(run, REPO, run / "hub", only=["no-such", CELL.label()])
    assert [r.cell for r in made.choice.models[0].cells] == [CELL]


def test_all_refused_cells_are_named_at_once(demo_package: Path, tmp_path: Path) -> None:
    cells = [replace(CELL, compute_unit=unit) for unit in ("cpuOnly", "cpuAndGPU")]
    bad = [Made(demo_package, result(demo_package, c, verdict="fail")) for c in cells]
    message = refusal(write_run(tmp_path / "run", bad))
    assert all(cell.label() in message for cell in cells)


def test_cells_that_cannot_be_are_left_out_with_their_reason(
    demo_package: Path, tmp_path: Path
) -> None:
    swift = replace(CELL, driver="swift")
    none = result(None, swift, status="n/a", verdict=None, reason="needs a Mac", errors=(), runs=())
    run = write_run(tmp_path / "run", [Made(demo_package, result(demo_package)), none])
    made = make_folder(run, REPO, run / "hub")
    assert made.choice.left_out == (f"{swift.label()} (n/a: needs a Mac)",)
    with pytest.raises(PublishError, match=r"nothing to publish: .* needs a Mac"):
        make_folder(run, REPO, run / "x", only=["*swift*"])


@pytest.mark.parametrize("harm", ["edit", "remove", "add", "weights", "verdict"])
def test_artifact_other_than_the_measured_one_is_refused(run: Path, harm: str) -> None:
    (place,) = (run / "cells").iterdir()
    weights = next(place.rglob("weight.bin"))
    if harm == "edit":
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
        assert "weight.bin is not what was measured" in refusal(run)
    elif harm == "remove":
        weights.unlink()
        assert "weight.bin is missing" in refusal(run)
    elif harm == "add":
        weights.with_name("more.bin").write_bytes(b"")
        assert "more.bin is not what was measured" in refusal(run)
    elif harm == "weights":
        data = json.loads((place / "result.json").read_text()) | {"weights_digest": "0" * 64}
        (place / "result.json").write_text(json.dumps(data))
        write_digest(place)
        assert "of other weights than the result says" in refusal(run)
    else:  # a figure changed after the run
        text = (place / "result.json").read_text()
        (place / "result.json").write_text(text.replace("31.5", "91.5"))
        assert "result.json is not what the run left there" in refusal(run)


def test_artifact_outside_its_folder_is_refused(demo_package: Path, tmp_path: Path) -> None:
    cell = replace(result(demo_package), artifact="../../../secret.mlpackage")
    assert "expected a plain file name" in refusal(write_run(tmp_path / "run", [cell]))


def test_folders_that_are_no_run_are_refused(run: Path, tmp_path: Path) -> None:
    assert "has no results" in refusal(tmp_path, UsageError)
    assert f"it has {CELL.label()}" in refusal(run, UsageError, only="flux1-*")
    (place,) = (run / "cells").iterdir()
    (place / "result.json").write_text("{")
    refusal(run, MatrixError)


def test_same_run_gives_the_same_bytes(run: Path) -> None:
    make_folder(run, REPO, run / "hub")
    make_folder(run, REPO, run / "again")
    assert digests(run / "hub") == digests(run / "again")
    assert make_folder(run, REPO, run / "hub").files  # is there already, and stays


def test_folder_that_somebody_edited_is_not_replaced_unasked(run: Path) -> None:
    make_folder(run, REPO, run / "hub")
    readme = run / "hub" / "README.md"
    readme.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        make_folder(run, REPO, run / "hub")
    assert readme.read_text() == "mine"
    make_folder(run, REPO, run / "hub", overwrite=True)
    assert readme.read_text() != "mine"


@pytest.fixture
def made(run: Path) -> HubFolder:
    return make_folder(run, REPO, run / "hub")


# Large files by git-lfs; all in the commit; the same by the pipeline that clients with xet use.
@pytest.mark.parametrize(("lfs_from", "no_xet"), [(1000, True), (1 << 40, True), (1 << 40, False)])
def test_stock_client_uploads_and_downloads_the_same(
    made: HubFolder, tmp_path: Path, lfs_from: int, no_xet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", no_xet)
    with serving_repo(HubRepo(REPO, lfs_from=lfs_from)) as hub:
        url = upload(made.folder, Target(REPO, TOKEN, endpoint=hub.endpoint))
        assert url == f"{hub.endpoint}/{REPO}"
        assert bool(hub.stored) == (lfs_from == 1000)
        assert hub.private is False
        back = huggingface_hub.snapshot_download(
            REPO, endpoint=hub.endpoint, token=TOKEN, local_dir=tmp_path / "back"
        )
    found = {p: d for p, d in digests(Path(back)).items() if not p.startswith(".cache/")}
    assert found == digests(made.folder)
    assert found == {file.path: file.sha256 for file in made.files}


def test_second_upload_replaces_our_files_and_no_others(made: HubFolder) -> None:
    old = {"packages/old.mlpackage/Manifest.json": b"{}", "notes.md": b"mine"}
    with serving_repo(HubRepo(REPO, private=False, files=dict(old))) as hub:
        for _ in range(2):
            upload(made.folder, Target(REPO, TOKEN, endpoint=hub.endpoint))
        expected = digests(made.folder)
        kept = {p: hashlib.sha256(d).hexdigest() for p, d in hub.files.items()}
    assert kept == expected | {"notes.md": hashlib.sha256(b"mine").hexdigest()}
    assert len(hub.commits) == 1  # the second changed nothing


def test_private_means_private(made: HubFolder) -> None:
    with serving_repo(HubRepo(REPO)) as hub:
        upload(made.folder, Target(REPO, TOKEN, private=True, endpoint=hub.endpoint))
        assert hub.private is True
    with serving_repo(HubRepo(REPO, private=False)) as hub:
        with pytest.raises(PublishError, match="is public: nothing was uploaded"):
            upload(made.folder, Target(REPO, TOKEN, private=True, endpoint=hub.endpoint))
        assert hub.files == {}


@pytest.mark.parametrize(
    ("token", "refuse", "at", "words"),
    [
        ("hf_wrong", None, "/", r"does not know the token \(401\)"),
        (TOKEN, 403, "/", r"does not let this token write to me/flux2-tiny \(403\)"),
        (TOKEN, 403, "/commit/", r"does not let this token write"),
        (TOKEN, 400, "/commit/", r"refused the upload to me/flux2-tiny \(400"),
    ],
)
def test_refused_upload_is_one_clear_line(
    made: HubFolder, token: str, refuse: int | None, at: str, words: str
) -> None:
    with serving_repo(HubRepo(REPO, refuse=refuse, refuse_at=at)) as hub:
        with pytest.raises(PublishError, match=words) as caught:
            upload(made.folder, Target(REPO, token, endpoint=hub.endpoint))
        assert hub.files == {}
    assert len(str(caught.value).splitlines()) == 1
    assert token not in str(caught.value)


def test_hub_that_cannot_be_reached_is_one_clear_line(
    made: HubFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_repo(HubRepo(REPO)) as hub:
        closed = hub.endpoint
    with pytest.raises(PublishError, match=r"cannot reach 127\.0\.0\.1:\d+ to upload"):
        upload(made.folder, Target(REPO, TOKEN, endpoint=closed))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    with pytest.raises(PublishError, match="HF_HUB_OFFLINE is set"):
        upload(made.folder, Target(REPO, TOKEN, endpoint=closed))


@pytest.mark.parametrize("repo", ["me", "a/b/c", "me/", "me/x--y", "me/.x", "me/x.git", "m e/x"])
def test_names_that_are_no_repository_are_refused(repo: str) -> None:
    with pytest.raises(UsageError, match="expected USER/NAME"):
        check_repo(repo)
    # The client's own rule agrees, where it has one: it also takes names without a user.
    if "/" in repo:
        with pytest.raises(huggingface_hub.errors.HFValidationError):
            huggingface_hub.HfApi(endpoint="http://127.0.0.1:1").model_info(repo)


@pytest.mark.parametrize("repo", ["me/x", "Me_1/x.y-z_2", "a-b/" + "x" * 92])
def test_names_of_repositories_are_taken(repo: str) -> None:
    check_repo(repo)
    assert asdict(Target(repo, TOKEN))["repo"] == repo
