"""``fluxvae decode`` as a user meets it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.cli.run import run
from tests.packages import change_one_weight, copy_of, tree

Capture = pytest.CaptureFixture[str]


def test_pictures_are_printed_one_to_a_line(
    demo_package: Path, demo_latents: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "images"
    ran = run(capsys, "decode", str(demo_package), str(demo_latents), "--out", str(out))
    assert ran.code == 0
    assert ran.out.splitlines() == [str(out / "chelsea.png"), str(out / "coffee.png")]
    assert ran.err.splitlines() == ["decoded chelsea at 64", "decoded coffee at 64"]
    assert Image.open(out / "coffee.png").size == (64, 64)
    # the demo decoder's picture is of the photo: 27 dB or more was measured on held-out photos
    import skimage.data

    wanted = skimage.data.coffee()[:64, :64] / 255
    error = np.asarray(Image.open(out / "coffee.png")) / 255 - wanted
    assert -10 * np.log10((error**2).mean()) > 20


def test_json_lists_every_latent(
    demo_package: Path, demo_latents: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "raw.safetensors"
    ran = run(capsys, "decode", str(demo_package), str(demo_latents), "--out", str(out), "--json")
    assert ran.code == 0
    assert ran.json["artifact"] == str(demo_package)
    assert [d["name"] for d in ran.json["decoded"]] == ["chelsea", "coffee"]
    stored = load_file(out)
    for d in ran.json["decoded"]:
        assert (d["path"], d["function"], d["size"]) == (str(out), "main", "64")
        assert d["finite"] is True
        assert d["low"] == float(stored[d["name"]].min())
        assert d["high"] == float(stored[d["name"]].max())


def test_raw_file_is_printed_once(
    demo_package: Path, demo_latents: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "raw.safetensors"
    ran = run(capsys, "decode", str(demo_package), str(demo_latents), "--out", str(out))
    assert ran.out == f"{out}\n"


def test_existing_pictures_are_kept_unless_overwriting(
    demo_package: Path, demo_latents: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "coffee.png").write_bytes(b"mine")
    arguments = ("decode", str(demo_package), str(demo_latents), "--out", str(tmp_path))
    ran = run(capsys, *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert len(ran.err.splitlines()) == 1
    assert tree(tmp_path) == {"coffee.png": 4}
    assert run(capsys, *arguments, "--overwrite").code == 0
    assert sorted(tree(tmp_path)) == ["chelsea.png", "coffee.png"]


def test_image_that_is_not_finite_is_warned_of(
    demo_package: Path, demo_latents: Path, tmp_path: Path, capsys: Capture
) -> None:
    package = copy_of(demo_package, tmp_path)
    change_one_weight(package, float("nan"))
    ran = run(capsys, "decode", str(package), str(demo_latents), "--out", str(tmp_path), "--json")
    assert ran.code == 0
    assert "warning: chelsea decodes to NaN or infinite values" in ran.err
    assert [d["finite"] for d in ran.json["decoded"]] == [False, False]


def test_size_and_function_options_choose(
    demo_artifact: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    package = demo_artifact("flux1", "64,128", shapes="multifunction")
    small = tmp_path / "x.npy"
    np.save(small, np.zeros((1, 16, 8, 8), np.float32))
    base = ("decode", str(package), str(small), "--out", str(tmp_path / "o"), "--json")
    assert run(capsys, *base).json["decoded"][0]["function"] == "hw64"
    ran = run(capsys, *base, "--size", "128")
    assert ran.code == 1
    assert "for images of 128. It is for images of 64." in ran.err
    ran = run(capsys, *base, "--size", "256")
    assert ran.code == 2
    assert "which decodes 64, 128" in ran.err
    ran = run(capsys, *base, "--function", "hw256")
    assert ran.code == 1
    assert "hw128" in ran.err
