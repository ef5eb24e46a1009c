"""``fluxvae inspect`` as a user meets it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder, types
from coremltools.models.datatypes import Array
from coremltools.models.neural_network import NeuralNetworkBuilder

from fluxvae.errors import UnsupportedOpError
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from tests.cli.run import run
from tests.packages import WEIGHTS, copy_of, edited

Capture = pytest.CaptureFixture[str]


def test_report_names_what_an_app_needs(demo_package: Path, capsys: Capture) -> None:
    ran = run(capsys, "inspect", str(demo_package))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{demo_package.name}: ML Program, specification 7, ")
    for line in (
        "  input  latent: fp16 1x32x8x8",
        "  output image: fp16 1x3x64x64",
        "  transposes: none",
        "  casts: none",
        "  licence: MIT (weights: demo)",
    ):
        assert line in ran.out.splitlines()


def test_json_agrees_with_coremltools(demo_package: Path, capsys: Capture) -> None:
    ran = run(capsys, "inspect", str(demo_package), "--json")
    assert (ran.code, ran.err) == (0, "")
    spec = ct.utils.load_spec(str(demo_package))
    found = ran.json
    assert found["specification"] == spec.specificationVersion
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    kinds = [o.type for o in block.operations if o.type != "const"]
    (function,) = found["functions"]
    assert sum(function["op_counts"].values()) == len(kinds)
    assert function["op_counts"]["conv"] == kinds.count("conv")
    # the weight file is 64 bytes of header, and for each blob 64 of record, and padding
    size = (demo_package / WEIGHTS).stat().st_size
    assert 0.99 * size < found["weight_bytes"]["fp16"] < size
    assert found["metadata"]["user"] == dict(spec.description.metadata.userDefined)
    assert found["path"] == str(demo_package)


def test_transposes_of_nhwc_interfaces_are_placed(
    demo_artifact: Callable[..., Path], capsys: Capture
) -> None:
    ran = run(capsys, "inspect", str(demo_artifact("flux1", layout="nhwc")), "--json")
    (function,) = ran.json["functions"]
    places = [p["index"] for p in function["placed"] if p["kind"] == "transpose"]
    assert len(places) == 2
    assert places[0] == 1
    assert places[1] == function["placed"][-1]["of"]


def test_every_function_is_reported_and_the_default_marked(
    demo_artifact: Callable[..., Path], capsys: Capture
) -> None:
    package = demo_artifact("flux1", "64,128", shapes="multifunction")
    ran = run(capsys, "inspect", str(package))
    assert "\nfunction hw64 (default), opset CoreML8" in ran.out
    assert "\nfunction hw128, opset CoreML8" in ran.out
    found = run(capsys, "inspect", str(package), "--json").json
    assert found["default_function"] == "hw64"
    macs = {f["name"]: f["macs"] for f in found["functions"]}
    assert macs["hw128"] == 4 * macs["hw64"]  # convolutions only: four times the pixels


def test_model_of_others_can_be_inspected(
    demo_package: Path, capsys: Capture, tmp_path: Path
) -> None:
    package = copy_of(demo_package, tmp_path)
    with edited(package) as model:
        model.description.metadata.Clear()
    ran = run(capsys, "inspect", str(package))
    assert ran.code == 0
    assert "operations: " in ran.out


def stranger(path: Path) -> Path:
    """A program with control flow, a state and operations that the executor lacks."""
    specs = [Builder.TensorSpec((1, 4)), Builder.StateTensorSpec((1, 4), dtype=types.fp16)]

    @Builder.program(input_specs=specs, opset_version=ct.target.iOS18)
    def program(x: Any, cache: Any) -> Any:
        before = Builder.cast(x=Builder.read_state(input=cache), dtype="fp32")
        positive = Builder.greater(x=Builder.reduce_sum(x=x), y=0.0)
        y = Builder.cond(
            pred=positive,
            _true_fn=lambda: Builder.non_zero(x=x),
            _false_fn=lambda: Builder.non_zero(x=Builder.relu(x=x)),
        )
        return y, Builder.add(x=x, y=before)

    model = ct.convert(program, minimum_deployment_target=ct.target.iOS18, skip_model_load=True)
    model.save(str(path))
    return path


def test_model_that_cannot_run_is_listed_with_every_operation_it_lacks(
    tmp_path: Path, capsys: Capture
) -> None:
    path = stranger(tmp_path / "stranger.mlpackage")
    (function,) = run(capsys, "inspect", str(path), "--json").json["functions"]
    assert function["unsupported"]["counts"] == {"read_state": 1, "cond": 1, "non_zero": 2}
    assert function["op_counts"] | {"relu": 1, "add": 1, "non_zero": 2} == function["op_counts"]
    assert [f["kind"] for f in function["states"]] == ["state"]
    ran = run(capsys, "inspect", str(path))
    assert ran.code == 0
    assert "  the executor lacks: non_zero 2, read_state 1, cond 1" in ran.out.splitlines()
    with pytest.raises(UnsupportedOpError, match=r"non_zero \(2\), read_state \(1\), cond \(1\)"):
        Session(read_package(path, listing=True))


def network_with_an_unknown_layer() -> Any:
    builder = NeuralNetworkBuilder(
        [("x", Array(3, 4, 4))], [("scores", Array(4))], mode="classifier"
    )
    builder.add_upper_triangular("tri_1", "x", "a")
    builder.add_upper_triangular("tri_2", "a", "b")
    builder.add_inner_product("fc", np.ones((4, 48)), None, 48, 4, False, "b", "scores")
    builder.set_class_labels(["a", "b", "c", "d"])
    return builder.spec


def test_network_with_unknown_layers_is_listed_with_its_layers_and_weights(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "classifier.mlmodel"
    path.write_bytes(network_with_an_unknown_layer().SerializeToString())
    found = run(capsys, "inspect", str(path), "--json").json
    (function,) = found["functions"]
    assert found["kind"] == "neuralnetwork"
    assert function["op_counts"] == {"upperTriangular": 2, "innerProduct": 1}
    assert function["unsupported"]["counts"] == {"upperTriangular": 2}
    assert found["weight_bytes"] == {"immediate": 4 * 4 * 48}
    assert [f["kind"] for f in function["outputs"]] == ["dictionary", "string"]
    with pytest.raises(UnsupportedOpError, match=r"upperTriangular \(2, first at 'tri_1'\)"):
        read_package(path)


def test_pipeline_is_listed_with_the_models_in_it(tmp_path: Path, capsys: Capture) -> None:
    network = network_with_an_unknown_layer()
    model = ct.proto.Model_pb2.Model(specificationVersion=4, description=network.description)
    model.pipelineClassifier.pipeline.models.add().CopyFrom(network)
    model.pipelineClassifier.pipeline.models.add().treeEnsembleClassifier.SetInParent()
    path = tmp_path / "pipeline.mlmodel"
    path.write_bytes(model.SerializeToString())
    found = run(capsys, "inspect", str(path), "--json").json
    (function,) = found["functions"]
    assert found["kind"] == "pipelineClassifier"
    assert function["op_counts"] == {"neuralNetworkClassifier": 1, "treeEnsembleClassifier": 1}
    assert "expected an ML Program or a neural network" in function["unsupported"]["reason"]
    assert run(capsys, "inspect", str(path)).code == 0
