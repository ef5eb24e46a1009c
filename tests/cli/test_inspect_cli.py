"""``fluxvae inspect`` as a user meets it."""

from collections.abc import Callable
from pathlib import Path

import coremltools as ct
import pytest

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
