"""Saving artifacts: nothing under the final name before it was read again and passed."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import coremltools as ct
import pytest

import fluxvae.artifact.save
from fluxvae.artifact.record import PREFIX, make_record, read_record
from fluxvae.artifact.save import save_artifact
from fluxvae.errors import ArtifactError, ConvertError, OutputError, ValidationError
from fluxvae.mil.package import read_package
from fluxvae.networks.catalog import CATALOG
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes.plan import plan_of
from tests.artifacts import recipe
from tests.checkpoint_files import in_style, write
from tests.conversion_folder import FOLDER
from tests.packages import WEIGHTS, change_one_weight, copy_of, edited, tree

SMALL = recipe("flux2", "64")


def test_draft_is_checked_before_the_final_name_exists(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "out" / "model.mlpackage"
    seen = []

    def check(draft: Path) -> None:
        assert not path.exists()
        assert (draft.parent.parent, draft.name) == (path.parent, path.name)
        assert draft.parent.name.startswith(".")
        assert read_record(read_package(draft)) == make_record(SMALL, weights)
        seen.append(draft)

    assert save_artifact(weights, SMALL, path, check=check) == (path,)
    assert len(seen) == 1
    assert [p.name for p in path.parent.iterdir()] == ["model.mlpackage"]
    assert read_record(read_package(path)) == make_record(SMALL, weights)


@pytest.mark.parametrize("failure", [ValidationError("bad numbers"), KeyboardInterrupt()])
def test_failing_check_leaves_nothing(
    weights: Weights, tmp_path: Path, failure: BaseException
) -> None:
    def check(draft: Path) -> None:
        raise failure

    with pytest.raises(type(failure)):
        save_artifact(weights, SMALL, tmp_path / "new" / "x.mlpackage", check=check)
    assert tree(tmp_path) == {}


def test_failed_overwrite_keeps_the_old_and_a_good_one_replaces_it(
    weights: Weights, demo_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    path = copy_of(demo_artifact("flux1"), tmp_path)
    before = tree(tmp_path)

    def fail(draft: Path) -> None:
        raise ValidationError("bad numbers")

    with pytest.raises(OutputError, match="exists already: pass --overwrite"):
        save_artifact(weights, SMALL, path)
    with pytest.raises(ValidationError):
        save_artifact(weights, SMALL, path, overwrite=True, check=fail)
    assert tree(tmp_path) == before
    save_artifact(weights, SMALL, path, overwrite=True)
    record = read_record(read_package(path))
    assert record is not None
    assert record.recipe.variant == "flux2"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_single_file_is_replaced_too(weights: Weights, tmp_path: Path) -> None:
    network = recipe("flux2", "64x96", format="neuralnetwork", precision="float32")
    path = tmp_path / "x.mlmodel"
    path.write_bytes(b"old")
    save_artifact(weights, network, path, overwrite=True)
    assert read_record(read_package(path)) == make_record(network, weights)


def test_damage_done_while_saving_is_found_on_second_reading(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = fluxvae.artifact.save.stamp

    def stamp_and_cut(path: Path, record: object) -> None:
        stamp(path, record)
        file = path / WEIGHTS
        file.write_bytes(file.read_bytes()[:-100_000])

    monkeypatch.setattr(fluxvae.artifact.save, "stamp", stamp_and_cut)
    with pytest.raises(ArtifactError, match="truncated"):
        save_artifact(weights, SMALL, tmp_path / "x.mlpackage")
    assert tree(tmp_path) == {}


def test_model_of_another_shape_than_asked_for_is_refused(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fluxvae.artifact.save.write_packages

    def write_other(decoder, plan, path, **options) -> None:
        real(decoder, plan_of(recipe("flux2", "64x96"), plan.own), path, **options)

    monkeypatch.setattr(fluxvae.artifact.save, "write_packages", write_other)
    with pytest.raises(ConvertError, match=r"takes the shapes \[\(1, 32, 8, 12\)\]; expected"):
        save_artifact(weights, SMALL, tmp_path / "x.mlpackage")
    assert tree(tmp_path) == {}


def test_temporary_packages_of_coremltools_do_not_stay(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.delenv(FOLDER)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "torch"))
    save_artifact(
        weights, recipe("flux2", "64,72", shapes="multifunction"), tmp_path / "x.mlpackage"
    )
    assert tree(place) == {}
    assert tempfile.tempdir == str(place)


def test_metadata_are_what_coremltools_reads(demo_package: Path, weights: Weights) -> None:
    description = ct.utils.load_spec(str(demo_package)).description
    metadata = description.metadata
    assert metadata.license == "MIT (weights: demo)"
    assert "Ollin Boer Bohan" in metadata.author
    assert "SHAPE ONLY: demo weights, not FLUX's" in metadata.shortDescription
    assert "NOT FLUX's latent space" in description.input[0].shortDescription
    assert "(1, 32, H/8, W/8)" in description.input[0].shortDescription
    assert "RGB in [0, 1]" in description.output[0].shortDescription
    ours = {k.removeprefix(PREFIX): v for k, v in metadata.userDefined.items() if PREFIX in k}
    assert json.loads(ours["recipe"])["sizes"] == ["64"]
    assert json.loads(ours["weights"])["kind"] == "demo"
    assert json.loads(ours["latent_contract"])["space"] == "fluxvae-demo-flux2"
    assert json.loads(ours["versions"])["coremltools"] == ct.__version__
    assert ours["weights_digest"] == weights.digest


def test_every_function_is_described(demo_artifact: Callable[..., Path]) -> None:
    package = demo_artifact("flux1", "64,128", shapes="multifunction")
    description = ct.utils.load_spec(str(package)).description
    assert {f.name for f in description.functions} == {"hw64", "hw128"}
    for function in description.functions:
        assert "NOT FLUX's latent space" in function.input[0].shortDescription
        assert "RGB in [0, 1]" in function.output[0].shortDescription


def test_weights_from_a_file_leave_its_name_and_no_path(weights: Weights, tmp_path: Path) -> None:
    folder = tmp_path / "secret place"
    folder.mkdir()
    file = write(folder / "mine.safetensors", in_style("taesd", weights))
    (package,) = save_artifact(load_weights("flux2", str(file)), SMALL, tmp_path / "x.mlpackage")
    record = read_record(read_package(package))
    assert record is not None
    assert (record.source.kind, record.source.name) == ("file", "mine.safetensors")
    assert record.weights_digest == weights.digest
    assert record.contract.space == CATALOG["flux2"].contract.space
    metadata = ct.utils.load_spec(str(package)).description.metadata
    assert metadata.author == CATALOG["flux2"].author
    assert "SHAPE ONLY" not in metadata.shortDescription
    assert "secret place" not in str(metadata)


def test_package_of_others_has_no_record(demo_package: Path, tmp_path: Path) -> None:
    package = copy_of(demo_package, tmp_path)
    with edited(package) as model:
        model.description.metadata.userDefined.clear()
    assert read_record(read_package(package)) is None


def test_record_of_another_format_is_refused(demo_package: Path, tmp_path: Path) -> None:
    package = copy_of(demo_package, tmp_path)
    with edited(package) as model:
        model.description.metadata.userDefined[f"{PREFIX}format"] = "2"
    with pytest.raises(ArtifactError, match="record format 2, this one reads 1"):
        read_record(read_package(package))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("recipe", "{"),
        ("recipe", '{"variant": "flux9", "sizes": ["64"]}'),
        ("recipe", '{"variant": "flux1", "sizes": ["65"]}'),
        ("recipe", "[]"),
        ("weights", '{"kind": "demo"}'),
        ("latent_contract", "7"),
        ("part", "{}"),
        ("part", "0"),
        ("tiles", "null"),
        ("weights_digest", None),
    ],
)
def test_damaged_record_is_refused(
    demo_package: Path, tmp_path: Path, key: str, value: str | None
) -> None:
    package = copy_of(demo_package, tmp_path)
    with edited(package) as model:
        if value is None:
            del model.description.metadata.userDefined[PREFIX + key]
        else:
            model.description.metadata.userDefined[PREFIX + key] = value
    with pytest.raises(ArtifactError, match="has a damaged fluxvae record"):
        read_record(read_package(package))


def test_changed_weight_does_not_change_the_record(demo_package: Path, tmp_path: Path) -> None:
    # why validation runs the model: the digest alone proves nothing about the saved weights
    package = copy_of(demo_package, tmp_path)
    change_one_weight(package, 4.0)
    assert read_record(read_package(package)) == read_record(read_package(demo_package))
