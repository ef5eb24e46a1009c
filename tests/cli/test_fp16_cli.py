"""Values that float16 cannot hold, from the command line: census, convert's warning, validate."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import validate as check_schema
from safetensors.torch import save_file

from fluxvae.data.latents import SPACE_KEY
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import load_weights
from tests.cli.run import run

Capture = pytest.CaptureFixture[str]
DOCS = Path(__file__).resolve().parents[2] / "docs"
# A branch in front of a GroupNorm, times ten thousand: the image hardly changes in float32. In
# float16 the norm's squares are infinite, the branch is zero, and the image is finite and wrong.
HOT = "3.pool.0.weight"


def schema(name: str) -> Any:
    return json.loads((DOCS / f"{name}.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def hot_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = load_weights("flux2", "demo")
    tensors = dict(weights.tensors)
    tensors[HOT] = tensors[HOT] * 1e4
    path = tmp_path_factory.mktemp("hot") / "hot_decoder.safetensors"
    save_file(tensors, path)
    return path


def test_census_names_what_goes_beyond_float16(
    hot_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    latent = torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    save_file({"x": latent}, tmp_path / "x.safetensors")
    asked = ("census", "--variant", "flux2", "--weights", str(hot_file), "--size", "64",
             "--latents", str(tmp_path / "x.safetensors"))  # fmt: skip
    ran = run(capsys, *asked, "--json")
    assert ran.code == 0, ran.err
    rows = ran.json["operations"]
    beyond = [row for row in rows if row["largest"] > 65504]
    assert ran.json["beyond"] == len(beyond) > 0
    assert {row["kind"] for row in beyond} >= {"square", "reduce_mean"}
    assert all(row["latent"] == "x" for row in rows)
    decoder = build_decoder(load_weights("flux2", str(hot_file)))
    with torch.no_grad():
        first = decoder[:2](latent).abs().max()  # type: ignore[index]
    found = next(row for row in rows if row["kind"] == "conv")
    assert found["largest"] == pytest.approx(float(first), rel=1e-5)
    assert found["headroom"] == pytest.approx(65504 / float(first), rel=1e-5)
    table = run(capsys, *asked)
    assert f"{len(beyond)} of {len(rows)} operations go beyond float16's 65504" in table.out
    assert table.widest <= 100


def test_convert_warns_validate_refuses_and_mixed_mends(
    hot_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    convert = ("convert", "--variant", "flux2", "--weights", str(hot_file), "--size", "64")
    plain = tmp_path / "plain.mlpackage"
    ran = run(capsys, *convert, "--out", str(plain))
    assert ran.code == 0, ran.err
    assert "warning: values go beyond float16's 65504" in ran.err
    assert "the squares in the norm of 3.pool.1" in ran.err
    judged = ("--weights", str(hot_file), "--json")
    ran = run(capsys, "validate", str(plain), *judged, "--intermediates")
    assert ran.code == 3
    check_schema(ran.json, schema("validate"))
    case = ran.json["cases"][0]
    assert (case["nan"], case["inf"], case["pass"]) == (0, 0, False)
    assert case["nonfinite"]["kind"] == "square"
    strange = [row for row in ran.json["intermediates"]["operations"] if row["nonfinite"]]
    assert strange[0]["name"] == case["nonfinite"]["first"]
    text = run(capsys, "validate", str(plain), "--weights", str(hot_file))
    assert f"first square {case['nonfinite']['first']}" in text.out

    mixed = tmp_path / "mixed.mlpackage"
    ran = run(capsys, *convert, "--out", str(mixed), "--fp16-safety", "mixed")
    assert ran.code == 0, ran.err
    assert "operations stay float32" in ran.err
    assert "bytes more than in float16" in ran.err
    ran = run(capsys, "validate", str(mixed), *judged)
    assert all(c["nonfinite"] is None for c in ran.json["cases"])
    assert ran.json["cases"][0]["psnr_db"] > case["psnr_db"] + 10


def test_convert_with_validation_does_not_keep_what_overflows_inside(
    hot_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    ran = run(
        capsys, "convert", "--variant", "flux2", "--weights", str(hot_file), "--size", "64",
        "--validate", "--out", str(tmp_path / "x.mlpackage"),
    )  # fmt: skip
    assert ran.code == 3
    assert "failed validation" in ran.err
    assert not (tmp_path / "x.mlpackage").exists()


def test_latents_of_another_space_are_refused(tmp_path: Path, capsys: Capture) -> None:
    noise = {"x": torch.zeros(1, 32, 8, 8)}
    save_file(noise, tmp_path / "x.safetensors", {SPACE_KEY: "flux1-sampler"})
    ran = run(
        capsys, "census", "--variant", "flux2", "--weights", "random", "--size", "64",
        "--latents", str(tmp_path / "x.safetensors"),
    )  # fmt: skip
    assert ran.code == 1
    assert "holds latents of the space 'flux1-sampler'" in ran.err


def test_a_bundle_of_packed_latents_is_exported(tmp_path: Path, capsys: Capture) -> None:
    ran = run(
        capsys, "export-io", "--variant", "flux1", "--weights", "demo", "--size", "64",
        "--latent-form", "packed", "--out", str(tmp_path / "io"), "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    manifest = ran.json["manifest"]
    assert manifest["input"]["shape"] == [1, 16, 64]
    assert manifest["latent_space"] == "fluxvae-demo-flux1-packed"
    check_schema(manifest, schema("io"))
    assert np.fromfile(tmp_path / "io" / "input.bin", "<f4").size == 16 * 64
