"""What compression may look at: held-out photos stay out, folders are read or refused in words."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fluxvae.data.calibration import (
    MOST,
    folder_calibration,
    load_calibration,
    photo_calibration,
    read_image,
)
from fluxvae.data.latents import space_metadata
from fluxvae.data.photos import CALIBRATION_PHOTOS, EVALUATION_PHOTOS, load_photo, photo_crops
from fluxvae.errors import CompressionError
from fluxvae.networks.build import build_encoder
from fluxvae.networks.weights import Weights


def _picture(path: Path, height: int = 80, width: int = 72, mode: str = "RGB") -> np.ndarray:
    pixels = np.random.Generator(np.random.PCG64(7)).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


def test_calibration_never_sees_a_held_out_photo() -> None:
    held_out = {p.name for p in EVALUATION_PHOTOS} | {p.sha256 for p in EVALUATION_PHOTOS}
    assert not held_out & {f for p in CALIBRATION_PHOTOS for f in (p.name, p.sha256)}


@pytest.mark.parametrize("photo", CALIBRATION_PHOTOS, ids=lambda p: p.name)
def test_every_listed_photo_is_there_as_rgb(photo) -> None:
    pixels = load_photo(photo)  # raises for other pixels
    assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 3)
    crops = photo_crops(photo, 64)
    assert len(crops) == photo.crops
    assert len({crop.tobytes() for crop in crops}) == photo.crops
    for crop in crops:
        assert (crop.shape, crop.dtype) == ((1, 3, 64, 64), np.float32)


def test_crops_are_parts_of_the_photo() -> None:
    photo = next(p for p in CALIBRATION_PHOTOS if p.crops == 3)  # 500 x 741 pixels
    pixels = load_photo(photo)
    left, middle, right = photo_crops(photo, 256)
    places = [(left, 0, 0), (middle, 244, 242), (right, 0, 485)]
    for crop, top, start in places:
        part = pixels[top : top + 256, start : start + 256].transpose(2, 0, 1)
        assert np.array_equal(np.rint(crop[0] * 255), part)


def test_photos_give_sixteen_latents_twice_the_same(encoder: Weights) -> None:
    first, again = (photo_calibration(encoder, side=64) for _ in range(2))
    assert [latent.shape for latent in first.latents] == 16 * [(1, 32, 8, 8)]
    assert first.name == "photos"
    assert first.digest == again.digest
    crop = photo_crops(CALIBRATION_PHOTOS[0], 64)[0]
    expected = build_encoder(encoder)(torch.from_numpy(crop)).numpy()
    assert np.array_equal(first.latents[0], expected)


def test_folder_of_images_becomes_latents(tmp_path: Path, encoder: Weights) -> None:
    for index, mode in enumerate(("RGB", "L", "P", "RGBA")):
        _picture(tmp_path / f"{index}.png", mode=mode)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    found = folder_calibration(tmp_path, "flux2", encoder, side=64)
    assert found.name == tmp_path.name
    assert found.notes == ("passed over notes.txt",)
    assert [latent.shape for latent in found.latents] == MOST * [(1, 32, 8, 8)]
    assert all(latent.dtype == np.float32 for latent in found.latents)
    assert folder_calibration(tmp_path, "flux2", encoder, side=64).digest == found.digest


def test_many_images_are_spread_evenly(tmp_path: Path, encoder: Weights) -> None:
    for index in range(2 * MOST):
        Image.new("RGB", (64, 64), (index * 7, 0, 0)).save(tmp_path / f"{index:02}.png")
    found = folder_calibration(tmp_path, "flux2", encoder, side=64)
    network = build_encoder(encoder)
    reds = [torch.zeros(1, 3, 64, 64) for _ in range(MOST)]
    for place, red in enumerate(reds):
        red[:, 0] = 2 * place * 7 / 255
    for latent, red in zip(found.latents, reds, strict=True):
        assert np.allclose(latent, network(red).numpy(), atol=1e-5)


def test_image_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[0, 0] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # stored turned: show it a quarter clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    upright = read_image(tmp_path / "turned.png")
    assert upright.shape == (96, 64, 3)
    assert np.array_equal(upright, np.rot90(pixels, -1))


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(levels).save(tmp_path / "deep.png")
    grey = np.rint(levels / 257).astype(np.uint8)
    assert np.array_equal(read_image(tmp_path / "deep.png"), np.repeat(grey[..., None], 3, 2))


def test_floats_of_an_unknown_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(CompressionError, match="save it with 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


def test_camera_pictures_are_reduced(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 2000), (10, 20, 30)).save(tmp_path / "camera.jpg")
    pixels = read_image(tmp_path / "camera.jpg")
    assert pixels.shape == (1024, 1536, 3)


def test_latent_files_need_no_encoder(tmp_path: Path) -> None:
    noise = np.random.Generator(np.random.PCG64(0)).standard_normal((2, 16, 8, 12), np.float32)
    np.save(tmp_path / "b.npy", noise)
    large = np.zeros((1, 16, 80, 100), np.float32)
    np.save(tmp_path / "a.npy", large)
    found = folder_calibration(tmp_path, "flux1", None)
    shapes = [latent.shape for latent in found.latents]
    assert shapes == [(1, 16, 64, 64), (1, 16, 8, 12), (1, 16, 8, 12)]
    assert np.array_equal(found.latents[1], noise[:1])


def _refused(folder: Path, variant: str, encoder: Weights | None, *words: str) -> None:
    with pytest.raises(CompressionError) as caught:
        load_calibration(str(folder), variant, encoder)
    for word in words:
        assert word in str(caught.value)


def test_empty_folder_names_the_way_out(tmp_path: Path, encoder: Weights) -> None:
    _refused(tmp_path, "flux2", encoder, "found nothing", "--calibration photos", ".png")


def test_folder_without_anything_readable_says_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "photo.psd").write_bytes(b"x")
    _refused(tmp_path, "flux2", None, "photo.psd", ".jpg")


def test_missing_folder_and_file_are_refused(tmp_path: Path) -> None:
    _refused(tmp_path / "none", "flux2", None, "is not a folder", "photos")
    (tmp_path / "file").write_bytes(b"x")
    _refused(tmp_path / "file", "flux2", None, "is not a folder")


def test_images_without_an_encoder_are_refused(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    _refused(tmp_path, "flux2", None, "--encoder PATH", "latent files")


def test_broken_image_is_named(tmp_path: Path, encoder: Weights) -> None:
    _picture(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    _refused(tmp_path, "flux2", encoder, "b.png", "cannot be read as an image")


def test_latents_of_another_decoder_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 16, 8, 8), np.float32))
    _refused(
        tmp_path,
        "flux2",
        None,
        "(1, 32, H/8, W/8)",
        "16 channels belong to another model, FLUX.1; ",
    )


def test_latents_of_another_space_are_refused(tmp_path: Path, encoder: Weights) -> None:
    metadata = space_metadata(encoder.contract)  # the demo pair's own space
    save_file({"a": torch.zeros(1, 32, 8, 8)}, tmp_path / "a.safetensors", metadata)
    assert len(load_calibration(str(tmp_path), "flux2", encoder).latents) == 1
    _refused(tmp_path, "flux2", None, "fluxvae-demo-flux2", "flux2-sampler")


def test_photos_without_an_encoder_are_refused() -> None:
    with pytest.raises(CompressionError, match="--encoder PATH"):
        load_calibration("photos", "flux2", None)
