"""``fluxvae encode``, and ``--part encoder`` of other commands, as a user meets them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.run import run

NAME = "flux2_tiny_encoder_nchw_float16_hw96_image_demo.mlpackage"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A demo encoder of 96 px that takes images, and the decoder."""
    from fluxvae.networks.weights import load_weights
    from tests.artifacts import recipe, save

    folder = tmp_path_factory.mktemp("models")
    made = recipe("flux2", "96", part="encoder", input="image")
    encoder = save(load_weights("flux2", "demo", part="encoder"), made, folder)
    return encoder, save(load_weights("flux2", "demo"), recipe("flux2", "96"), folder)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A picture of 96 x 96 pixels."""
    levels = np.arange(96, dtype=np.uint8)
    pixels = np.stack([levels[:, None] + 0 * levels, levels + 0 * levels[:, None]] * 2, 2)[..., :3]
    path = tmp_path / "picture.png"
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    return path


def test_encode_and_decode_are_a_round_trip(
    capsys: pytest.CaptureFixture[str], models: tuple[Path, Path], image: Path, tmp_path: Path
) -> None:
    latents, out = tmp_path / "x.safetensors", tmp_path / "images"
    first = run(capsys, "encode", str(models[0]), str(image), "--out", str(latents), "--json")
    assert (first.code, first.json["encoded"][0]["size"]) == (0, "96")
    second = run(capsys, "decode", str(models[1]), str(latents), "--out", str(out))
    assert second.code == 0
    with Image.open(out / "picture.png") as found, Image.open(image) as given:
        assert np.abs(np.asarray(found, float) - np.asarray(given, float)).mean() < 8  # measured: 2


def test_each_bad_input_gets_one_clear_line(
    capsys: pytest.CaptureFixture[str], models: tuple[Path, Path], image: Path, tmp_path: Path
) -> None:
    encoder, decoder = map(str, models)
    latents, large = tmp_path / "latents.safetensors", tmp_path / "large.png"
    assert run(capsys, "encode", encoder, str(image), "--out", str(latents)).code == 0
    Image.new("RGB", (200, 100)).save(large)
    empty = tmp_path / "empty"
    empty.mkdir()
    out = str(tmp_path / "out.safetensors")
    for arguments, code, words in (
        (
            ("encode", decoder, str(image), "--out", out),
            2,
            "use fluxvae decode",
        ),
        (
            ("decode", encoder, str(latents)),
            2,
            "use fluxvae encode",
        ),
        (("decode", decoder, str(image)), 1, "latents come as .safetensors"),
        (("encode", encoder, str(latents), "--out", out), 1, "cannot be read as an image"),
        (("encode", encoder, str(large), "--out", out), 1, "the model takes 96 x 96"),
        (("encode", encoder, str(empty), "--out", out), 1, "has no images"),
        (("encode", encoder, str(image), "--out", str(latents)), 1, "--overwrite"),
        (("encode", encoder, str(image), "--out", "x.npy"), 2, "expected a name in .safetensors"),
        (("encode", encoder, str(image), "--size", "64", "--out", out), 2, "which encodes 96"),
        (("validate", encoder, "--latents", str(latents)), 2, "an encoder takes images"),
        (("convert", "--variant", "flux2", "--input", "image"), 2, "--part encoder"),
        (("convert", "--variant", "flux1", "--part", "encoder", "--tile", "512"), 2, "no tiles"),
        (("convert", "--variant", "flux1", "--part", "encoder", "--output", "image"), 2, "latents"),
    ):
        done = run(capsys, *arguments)
        assert (done.code, done.err.count("\n")) == (code, 1), done.err
        assert words in done.err


def test_what_is_changed_of_an_image_is_said(
    capsys: pytest.CaptureFixture[str], models: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGBA", (96, 96), (9, 9, 9, 50)).save(folder / "alpha.png")
    Image.new("CMYK", (96, 96)).save(folder / "cmyk.tif")
    Image.fromarray(np.full((96, 96), 40000, np.uint16)).save(folder / "deep.png")
    Image.new("RGB", (200, 96)).save(folder / "wide.png")
    (folder / "notes.txt").write_text("not an image")
    out = str(tmp_path / "x.safetensors")
    done = run(capsys, "encode", str(models[0]), str(folder), "--crop", "--out", out)
    assert done.code == 0
    for words in (
        "passed over notes.txt",
        "encoded alpha at 96 (alpha laid on white)",
        "encoded cmyk at 96 (CMYK changed to RGB)",
        "encoded deep at 96 (reduced from 16 to 8 bits; grey repeated to RGB)",
        "encoded wide at 96 (cropped from 96 x 200)",
    ):
        assert words in done.err


def test_convert_and_census_take_the_encoder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    common = ("--variant", "flux2", "--weights", "demo", "--part", "encoder", "--size", "96")
    made = run(
        capsys,
        "convert",
        *common,
        "--input",
        "image",
        "--validate",
        "--out",
        str(tmp_path),
        "--json",
    )
    assert made.code == 0, made.err
    assert Path(made.json["path"]).name == NAME
    census = run(capsys, "census", *common, "--json")
    assert (census.code, census.json["beyond"]) == (0, 0)
    refused = run(capsys, "census", *common, "--encoder", "x.pth")
    assert (refused.code, refused.err.count("--weights")) == (2, 1)
