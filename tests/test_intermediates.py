"""The first operation that departs is the one that was spoilt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxvae.artifact.record import make_record, read_record
from fluxvae.errors import ArtifactError
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Constant, Op, Ref
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Compression, Recipe
from fluxvae.validation.stages import (
    COMPRESSED_DEPARTS_BELOW,
    DEPARTS_BELOW,
    Intermediates,
    compare_intermediates,
    require_comparable,
)
from tests.artifacts import SMALL, TWO, normal_latent, recipe, save
from tests.compress.simple import save_simple

FORMS: dict[str, dict[str, Any]] = {
    "float16": {},
    "float32": {"precision": "float32"},
    "nhwc": {"layout": "nhwc"},
    "nhwc-model": {"layout": "nhwc", "nhwc_model": True},
    "float32-io": {"io_precision": "float32"},
    "enumerated": {"sizes": TWO, "shapes": "enumerated"},
    "multifunction": {"sizes": TWO, "shapes": "multifunction"},
    "neuralnetwork": {"precision": "float32", "format": "neuralnetwork"},
}


def compare(path: Path, weights: Weights, made: Recipe) -> Intermediates:
    """The artifact against its twin on a latent of its last size."""
    record, size = read_record(read_package(path)), made.sizes[-1]
    assert record is not None
    latent = normal_latent(weights.contract.channels, size)
    return compare_intermediates(path, record, weights, latent, size)


def make(form: str) -> Recipe:
    fields = dict(FORMS[form])
    return recipe("flux2", fields.pop("sizes", SMALL), **fields)


def stored(path: Path, kind: str, index: int) -> tuple[Op, Constant]:
    """The ``index``-th operation of a kind, and its stored weight."""
    operations = read_package(path).function().ops
    found = [o for o in operations if o.kind == kind][index]
    (weight,) = found.inputs["weight"]
    assert isinstance(weight, Ref)
    (const,) = (o for o in operations if o.outputs[0].name == weight.name)
    return found, const.attributes["val"]


def spoil(path: Path, index: int) -> str:
    """Turn the sign of every weight of one convolution on disk; its name."""
    convolution, constant = stored(path, "conv", index)
    negate(constant, np.float16)
    return convolution.name


def negate(constant: Constant, dtype: type[np.number[Any]]) -> None:
    """Turn the sign of every stored number of ``dtype``, on disk."""
    assert constant.blob is not None
    _, size, start = constant.blob.file.record(constant.blob.offset)
    with constant.blob.file.path.open("r+b") as file:
        file.seek(start)
        values = np.frombuffer(file.read(size), dtype)
        file.seek(start)
        file.write((-values).tobytes())


@pytest.mark.parametrize("form", FORMS)
def test_untouched_artifact_departs_nowhere(tmp_path: Path, form: str) -> None:
    made, weights = make(form), load_weights("flux2", "demo")
    found = compare(save(weights, made, tmp_path), weights, made)
    assert found.first is None
    assert found.bound_db == DEPARTS_BELOW[made.precision]
    assert [r.index for r in found.rows] == list(range(1, len(found.rows) + 1))
    assert min(r.snr_db for r in found.rows) >= found.bound_db
    assert sum(r.kind == "conv" for r in found.rows) == 41
    assert found.rows[-1].shape[1:] in ((3, 64, 96), (64, 96, 3), (3, 128, 128))


@pytest.mark.parametrize(("variant", "index"), [("flux1", 4), ("flux2", 4), ("flux1", 34)])
def test_spoilt_convolution_is_named_exactly(tmp_path: Path, variant: str, index: int) -> None:
    made, weights = recipe(variant, SMALL), load_weights(variant, "demo")
    path = save(weights, made, tmp_path)
    name = spoil(path, index)
    found = compare(path, weights, made)
    assert found.first is not None
    assert (found.first.kind, found.first.name) == ("conv", name)
    before = [r for r in found.rows if r.index < found.first.index]
    assert sum(r.kind == "conv" for r in before) == index
    assert all(r.snr_db >= found.bound_db for r in before)


@pytest.mark.parametrize("form", ["nhwc", "nhwc-model", "multifunction"])
def test_spoilt_convolution_is_named_in_other_forms(tmp_path: Path, form: str) -> None:
    made, weights = make(form), load_weights("flux2", "demo")
    path = save(weights, made, tmp_path)
    name = spoil(path, 4)
    found = compare(path, weights, made)
    assert found.first is not None
    assert (found.first.kind, found.first.name) == ("conv", name)


def test_difference_is_that_of_numpy(tmp_path: Path) -> None:
    """The spoilt convolution has the opposite sign without its bias: an error of twice itself."""
    made, weights = recipe("flux1", SMALL), load_weights("flux1", "demo")
    path = save(weights, made, tmp_path)
    operations = read_package(path).function().ops
    without = [o for o in operations if o.kind == "conv" and "bias" not in o.inputs]
    place = [o for o in operations if o.kind == "conv"].index(without[0])
    name = spoil(path, place)
    found = compare(path, weights, made)
    assert found.first is not None
    assert found.first.name == name
    # noise is 2 * signal: 20 log10(1 / 2) = -6.02 dB
    assert found.first.snr_db == pytest.approx(-20 * np.log10(2), abs=0.01)
    assert found.first.max_abs == pytest.approx(2 * found.first.largest, rel=0.002)


def test_overflow_departs(tmp_path: Path) -> None:
    made, weights = recipe("flux1", SMALL), load_weights("flux1", "demo")
    path = save(weights, made, tmp_path)
    convolution, constant = stored(path, "conv", 4)
    assert constant.blob is not None
    _, size, start = constant.blob.file.record(constant.blob.offset)
    with constant.blob.file.path.open("r+b") as file:  # the weights of the first output channel
        file.seek(start)
        file.write(np.full(size // 2 // 64, 60000, np.float16).tobytes())
    found = compare(path, weights, made)
    assert found.first is not None
    assert found.first.name == convolution.name
    assert np.isnan(found.first.snr_db)
    assert 0 < found.first.largest <= 65504  # of the finite ones


@pytest.mark.parametrize(
    "fields", [{"layout": "nhwc", "nhwc_model": True}, {"output": "image"}], ids=str
)
def test_program_of_other_operations_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    """A record that says another graph (transposes), or a shorter one (no scaling at its end)."""
    weights = load_weights("flux2", "demo")
    other = recipe("flux2", SMALL, layout=fields.get("layout", "nchw"))
    path = save(weights, recipe("flux2", SMALL, **fields), tmp_path)
    latent = normal_latent(32, other.sizes[0])
    with pytest.raises(ArtifactError, match="not the same program"):
        compare_intermediates(path, make_record(other, weights), weights, latent, other.sizes[0])


@pytest.mark.parametrize("kind", ["int8", "w8a8"])
def test_compressed_artifact_is_compared_where_both_programs_compute(
    tmp_path: Path, kind: str
) -> None:
    """Sound, no operation departs; with the signs of one convolution turned, that one does."""
    compression = Compression(kind, method="plain")
    made, weights = recipe("flux1", "64", compression=compression), load_weights("flux1", "demo")
    latent = normal_latent(16, made.sizes[0])
    path = save_simple(weights, made, tmp_path / "model.mlpackage", latent)
    sound = compare(path, weights, made)
    assert sound.first is None
    assert sound.bound_db == COMPRESSED_DEPARTS_BELOW
    kinds = {row.kind for row in sound.rows}
    assert "conv" in kinds
    assert not any(k.startswith("constexpr") or "quantize" in k for k in kinds)
    name = _turn_signs(path, 4)
    found = compare(path, weights, made)
    assert found.first is not None
    assert (found.first.kind, found.first.name) == ("conv", name)


def _turn_signs(path: Path, index: int) -> str:
    """Negate every stored int8 weight of one convolution; its name."""
    operations = read_package(path).function().ops
    convolution = [o for o in operations if o.kind == "conv"][index]
    (weight,) = convolution.inputs["weight"]
    assert isinstance(weight, Ref)
    (maker,) = (o for o in operations if o.outputs[0].name == weight.name)
    operands = {**{k: v[0] for k, v in maker.inputs.items()}, **maker.attributes}
    data = operands.get("data", operands.get("quantized_data"))
    if isinstance(data, Ref):
        (const,) = (o for o in operations if o.outputs[0].name == data.name)
        data = const.attributes["val"]
    assert isinstance(data, Constant)
    negate(data, np.int8)
    return convolution.name


def test_equalized_artifact_is_refused_in_words(tmp_path: Path) -> None:
    made = recipe("flux2", "64", compression=Compression("w8a8"))
    with pytest.raises(ArtifactError, match=r"cannot be compared one by one.*use --budget"):
        require_comparable(tmp_path / "model.mlpackage", made)
