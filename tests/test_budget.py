"""Each stage is its own program against torch, and the last is the artifact."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fluxvae.artifact.open import require_record
from fluxvae.artifact.record import Record, make_record
from fluxvae.mil.package import read_package
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Compression, Recipe
from fluxvae.validation.stages import Budget, error_budget
from fluxvae.validation.validate import validate
from tests.artifacts import SMALL, TWO, normal_latent, recipe
from tests.compress.simple import save_simple

INT8 = Compression("int8", method="plain")


@pytest.fixture(scope="module")
def compressed(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = recipe("flux2", "64", compression=INT8)
    path = tmp_path_factory.mktemp("budget") / "int8.mlpackage"
    return save_simple(weights, made, path, normal_latent(32, made.sizes[0]))


@pytest.fixture(scope="module")
def record(compressed: Path) -> Record:
    return require_record(read_package(compressed))


@pytest.fixture(scope="module")
def budget(compressed: Path, record: Record, weights: Weights) -> Budget:
    encoder = load_weights("flux2", "demo", part="encoder")
    return error_budget(compressed, record, weights, encoder=encoder, backend="reference")


def test_stages_add_one_thing_at_a_time() -> None:
    def named(**fields: object) -> list[str]:
        return list(recipe("flux2", "64", **fields).stages())

    assert named() == ["conversion", "precision"]
    assert named(precision="float32") == ["conversion"]
    assert named(compression=INT8) == ["conversion", "precision", "compression"]
    assert named(output="image") == ["conversion", "precision", "8-bit output"]
    assert named(compression=INT8, output="image")[-1] == "compression and 8 bits"
    assert named(compression=INT8, precision="float32") == ["conversion", "compression"]


@pytest.mark.parametrize(
    "fields",
    [
        {"layout": "nhwc", "nhwc_model": True},
        {"io_precision": "float32", "target": "iOS18"},
        {"format": "neuralnetwork", "precision": "float32", "output": "image"},
    ],
)
def test_programs_before_the_artifact_are_not_compressed(fields: dict[str, object]) -> None:
    compression = None if "format" in fields else INT8
    made: Recipe = recipe("flux1", "64", compression=compression, **fields)
    *before, last = made.stages().values()
    assert last is None  # the artifact itself
    first, *rest = before
    assert first is not None
    assert (first.precision, first.compression, first.output) == ("float32", None, "tensor")
    assert (first.layout, first.nhwc_model) == (made.layout, made.nhwc_model)
    for stage in rest:
        assert stage == replace(made, compression=None, output="tensor")


def test_each_stage_costs_more_than_the_one_before(budget: Budget) -> None:
    assert budget.stages == ("conversion", "precision", "compression")
    names = ["chelsea", "coffee", "normal", "saturated", "constant", "zero"]
    assert [row.case for row in budget.cases] == names
    for row in budget.cases[:3]:
        conversion, precision, compression = (m.psnr_db for m in row.metrics)
        # float32 programs leave 137 dB or more, float16 60 to 80, int8 weights less (validation.md)
        assert conversion > 130
        assert 60 < precision < 85
        assert 20 < compression < precision - 10


def test_last_stage_is_what_validate_finds(
    budget: Budget, compressed: Path, weights: Weights
) -> None:
    encoder = load_weights("flux2", "demo", part="encoder")
    report = validate(compressed, weights, encoder=encoder, backend="reference")
    assert [row.metrics[-1] for row in budget.cases] == [c.metrics for c in report.cases]


def test_stage_before_is_the_uncompressed_artifact(
    budget: Budget, demo_package: Path, weights: Weights
) -> None:
    """Made elsewhere, the same recipe without compression has the very figures of the stage."""
    encoder = load_weights("flux2", "demo", part="encoder")
    report = validate(demo_package, weights, encoder=encoder, backend="reference")
    assert [row.metrics[1] for row in budget.cases] == [c.metrics for c in report.cases]


def test_artifact_of_several_sizes_is_budgeted_at_the_smallest(
    weights: Weights, demo_artifact: Callable[..., Path]
) -> None:
    path = demo_artifact("flux2", TWO, shapes="multifunction")
    made = make_record(recipe("flux2", TWO, shapes="multifunction"), weights)
    found = error_budget(path, made, weights, encoder=None, backend="reference")
    assert (str(found.size), found.stages) == (SMALL, ("conversion", "precision"))
    assert [row.case for row in found.cases] == ["normal", "saturated", "constant", "zero"]
    for row in found.cases:
        assert np.isfinite(row.metrics[-1].psnr_db)
