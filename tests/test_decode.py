"""Decoding with the artifact: its pixels are torch's, its raw outputs the executor's own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import save_file

import fluxvae.artifact.open
from fluxvae.artifact.decode import decode_file
from fluxvae.data.arrays import pixels
from fluxvae.errors import ArtifactError, LatentError, OutputError, UsageError
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Size
from tests.artifacts import normal_latent
from tests.packages import tree

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def flux1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise for flux1's decoder at 64, 128, and 64 x 128 (which no test's artifact takes)."""
    path = tmp_path_factory.mktemp("flux1") / "noise.safetensors"
    sizes = {"small": Size(64, 64), "large": Size(128, 128), "wide": Size(64, 128)}
    save_file({n: torch.from_numpy(normal_latent(16, s)) for n, s in sizes.items()}, path)
    return path


@pytest.fixture(scope="module")
def several(demo_artifact: Make) -> Path:
    return demo_artifact("flux1", "64,128", shapes="multifunction")


def torch_image(variant: str, latent: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return build_decoder(load_weights(variant, "demo"))(torch.from_numpy(latent)).numpy()


def test_pictures_are_torchs_within_one_level(
    demo_package: Path, demo_latents: Path, tmp_path: Path
) -> None:
    decoded = decode_file(demo_package, demo_latents, tmp_path / "images", backend="reference")
    assert [d.name for d in decoded] == ["chelsea", "coffee"]
    for d in decoded:
        assert d.path == tmp_path / "images" / f"{d.name}.png"
        with Image.open(d.path) as picture:
            assert (picture.mode, picture.size) == ("RGB", (64, 64))
            got = np.asarray(picture).astype(int)
        latent = load_file(demo_latents)[d.name]
        wanted = (torch_image("flux2", latent)[0].clip(0, 1) * 255).transpose(1, 2, 0)
        # float16 errs by at most 1e-3 here, a quarter of a level; rounding adds a half
        assert np.abs(got - wanted).max() <= 1
        assert (d.function, d.size, d.finite) == ("main", "64", True)
        assert -0.5 < d.low < d.high < 1.5


def test_raw_output_is_the_executors_own(
    demo_package: Path, demo_latents: Path, tmp_path: Path
) -> None:
    out = tmp_path / "raw.safetensors"
    decode_file(demo_package, demo_latents, out, backend="reference")
    session = Session(read_package(demo_package))
    stored, latents = load_file(out), load_file(demo_latents)
    assert sorted(stored) == sorted(latents)
    for name, latent in latents.items():
        wanted = session.run({"latent": latent})["image"]
        assert (stored[name].dtype, stored[name].shape) == (np.float16, (1, 3, 64, 64))
        assert np.array_equal(stored[name], wanted)


def test_latent_beyond_float16_is_noted(demo_package: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.full((1, 32, 8, 8), 1e30, np.float32))
    notes: list[str] = []
    out = tmp_path / "images"
    decode_file(demo_package, tmp_path / "mine.npy", out, backend="reference", on_note=notes.append)
    assert any("mine holds 1e+30, and float16's largest value is 65504" in n for n in notes)


def test_raw_output_keeps_the_models_layout(
    demo_artifact: Make, flux1: Path, tmp_path: Path
) -> None:
    out = tmp_path / "raw.safetensors"
    package = demo_artifact("flux1", layout="nhwc", precision="float32")
    decode_file(package, flux1, out, backend="reference")
    stored = load_file(out)["small"]
    assert (stored.dtype, stored.shape) == (np.float32, (1, 64, 64, 3))
    wanted = torch_image("flux1", load_file(flux1)["small"]).transpose(0, 2, 3, 1)
    assert np.abs(stored - wanted).max() <= 2e-5  # must-show 3 of the executor


def test_image_model_gives_the_same_pictures(
    demo_artifact: Make, flux1: Path, tmp_path: Path
) -> None:
    package = demo_artifact("flux1", output="image")
    decode_file(package, flux1, tmp_path, backend="reference")
    got = np.asarray(Image.open(tmp_path / "small.png")).astype(int)
    wanted = torch_image("flux1", load_file(flux1)["small"])[0].clip(0, 1).transpose(1, 2, 0)
    # fp16 between 128 and 256 has steps of 1/8 level: still within one level of the exact value
    assert np.abs(got - wanted * 255).max() <= 1
    decode_file(package, flux1, tmp_path / "raw.safetensors", backend="reference")
    raw = load_file(tmp_path / "raw.safetensors")["small"]
    assert raw.dtype == np.uint8
    assert np.array_equal(raw, got)


@pytest.mark.parametrize("shapes", ["multifunction", "enumerated"])
def test_function_is_chosen_by_the_latents_size(
    demo_artifact: Make, flux1: Path, tmp_path: Path, shapes: str
) -> None:
    package = demo_artifact("flux1", "64,128", shapes=shapes)
    decoded = decode_file(package, flux1, tmp_path, backend="reference")
    multi = shapes == "multifunction"
    assert {d.name: (d.function, d.size) for d in decoded} == {
        "small": ("hw64" if multi else "main", "64"),
        "large": ("hw128" if multi else "main", "128"),
    }
    assert Image.open(tmp_path / "large.png").size == (128, 128)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"size": "64"}, ["small"]),
        ({"size": "128x128"}, ["large"]),
        ({"size": "128,64"}, ["large", "small"]),
        ({"function": "hw64"}, ["small"]),
        ({"function": "hw128", "size": "128"}, ["large"]),
    ],
)
def test_function_and_size_narrow_the_choice(
    several: Path, flux1: Path, tmp_path: Path, choice: dict[str, str], names: list[str]
) -> None:
    decoded = decode_file(several, flux1, tmp_path, backend="reference", **choice)
    assert sorted(d.name for d in decoded) == sorted(names)


@pytest.mark.parametrize(
    ("choice", "kind", "words"),
    [
        ({"size": "256"}, UsageError, "--size 256 is not in flux1_tiny"),
        ({"size": "256"}, UsageError, "which decodes 64, 128"),
        ({"size": "big"}, UsageError, "is not understood"),
        ({"function": "hw64", "size": "128"}, UsageError, "is not in function hw64 of"),
        ({"function": "hw256"}, ArtifactError, "hw64"),
    ],
)
def test_choice_that_is_not_there_is_refused(
    several: Path,
    flux1: Path,
    tmp_path: Path,
    choice: dict[str, str],
    kind: type[Exception],
    words: str,
) -> None:
    with pytest.raises(kind) as caught:
        decode_file(several, flux1, tmp_path / "out", **choice)
    assert words in str(caught.value)
    assert tree(tmp_path) == {}


def test_size_tells_raw_bytes_apart(several: Path, tmp_path: Path, demo_artifact: Make) -> None:
    package = demo_artifact("flux1", "64x72,72x64", shapes="multifunction")
    (tmp_path / "x.bin").write_bytes(normal_latent(16, Size(72, 64)).tobytes())
    with pytest.raises(LatentError, match="which could be"):
        decode_file(package, tmp_path / "x.bin", tmp_path)
    (decoded,) = decode_file(
        package, tmp_path / "x.bin", tmp_path, size="72x64", backend="reference"
    )
    assert decoded.function == "h72w64"
    assert Image.open(tmp_path / "x.png").size == (64, 72)


def test_latents_of_no_size_of_the_artifact_are_refused(
    demo_artifact: Make, flux1: Path, tmp_path: Path
) -> None:
    package = demo_artifact("flux1", "64,128", shapes="multifunction")
    save_file({"x": torch.zeros(1, 16, 9, 9)}, tmp_path / "x.safetensors")
    with pytest.raises(LatentError, match=r"for images of 64, 128\. It is for images of 72\."):
        decode_file(package, tmp_path / "x.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_existing_picture_stops_everything_before_it_begins(
    demo_package: Path, demo_latents: Path, tmp_path: Path
) -> None:
    (tmp_path / "coffee.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"coffee\.png exists already: pass --overwrite"):
        decode_file(demo_package, demo_latents, tmp_path)
    assert tree(tmp_path) == {"coffee.png": 4}
    decode_file(demo_package, demo_latents, tmp_path, overwrite=True, backend="reference")
    assert Image.open(tmp_path / "coffee.png").size == (64, 64)


def test_raw_file_appears_whole_or_not_at_all(
    demo_package: Path, demo_latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_fails(d: object) -> None:
        if d.name == "coffee":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_file(demo_package, demo_latents, tmp_path / "raw.safetensors", on_image=second_fails)
    assert tree(tmp_path) == {}


def test_names_become_safe_file_names(demo_package: Path, tmp_path: Path) -> None:
    names = ["../up", "a b/c", ".hidden", "ok-1.5_x", "Ä"]
    latent = torch.from_numpy(normal_latent(32, Size(64, 64)))
    save_file({name: latent.clone() for name in names}, tmp_path / "l.safetensors")
    decode_file(demo_package, tmp_path / "l.safetensors", tmp_path / "out", backend="reference")
    found = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert found == ["_up.png", "a_b_c.png", "hidden.png", "ok-1.5_x.png", "Ä.png"]


@pytest.mark.parametrize("out", ["images", "raw.safetensors"])
def test_two_latents_of_one_name_are_refused(demo_package: Path, tmp_path: Path, out: str) -> None:
    latent = torch.from_numpy(normal_latent(32, Size(64, 64)))
    # a batch is split into x-0 and x-1
    save_file({"x": torch.cat([latent, latent]), "X-1": latent}, tmp_path / "l.safetensors")
    with pytest.raises(OutputError, match="two latents would be written under the name"):
        decode_file(demo_package, tmp_path / "l.safetensors", tmp_path / out)
    assert not (tmp_path / out).exists()


def test_pixels_are_rounded_to_nearest_and_clamped() -> None:
    values = np.array([-0.3, 0.0, 0.4 / 255, 0.6 / 255, 127.4 / 255, 1.0, 1.4, np.nan, np.inf])
    image = np.stack([values] * 3)[None, :, None].astype(np.float32)
    assert pixels(image)[0, :, 0].tolist() == [0, 0, 0, 1, 127, 255, 255, 0, 255]


def test_output_that_is_not_finite_is_said_so(
    demo_package: Path, demo_latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Callable[[np.ndarray], np.ndarray]:
        return lambda latent: np.full((1, 3, 64, 64), np.nan, np.float16)

    monkeypatch.setattr(fluxvae.artifact.open, "raw_runner", broken)
    decoded = decode_file(demo_package, demo_latents, tmp_path)
    assert [d.finite for d in decoded] == [False, False]
    assert [(d.low, d.high) for d in decoded] == [(0.0, 0.0)] * 2


def test_pixels_span_the_decoder_s_own_range() -> None:
    values = np.array([-1.2, -1, 0, 0.5, 1, 1.1, np.nan, np.inf], np.float32)
    image = np.broadcast_to(values, (1, 3, 1, len(values)))
    # (x + 1) / 2 * 255, by hand; NaN is black.
    assert pixels(image, (-1.0, 1.0))[0, :, 0].tolist() == [0, 0, 128, 191, 255, 255, 0, 255]
    assert pixels(image)[0, :, 0].tolist() == [0, 0, 0, 128, 255, 255, 0, 255]
