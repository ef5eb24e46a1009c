"""Evaluation photos: the pixels that were measured with, cut and mirrored as documented."""

from dataclasses import replace

import numpy as np
import pytest
import skimage.data

from fluxvae.data.photos import EVALUATION_PHOTOS, load_photo, photo_image
from fluxvae.errors import ToolError

CHELSEA = EVALUATION_PHOTOS[0]  # 300 x 451 pixels


@pytest.mark.parametrize("photo", EVALUATION_PHOTOS, ids=lambda p: p.name)
def test_photos_are_those_of_scikit_image(photo) -> None:
    pixels = load_photo(photo)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert np.array_equal(pixels, getattr(skimage.data, photo.name)())


def test_other_pixels_are_refused_with_both_digests() -> None:
    wrong = replace(CHELSEA, sha256="0" * 64)
    with pytest.raises(ToolError) as caught:
        load_photo(wrong)
    assert "'chelsea' has other pixels" in str(caught.value)
    assert CHELSEA.sha256[:12] in str(caught.value)
    assert "0" * 12 in str(caught.value)


def test_missing_photo_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> np.ndarray:
        raise OSError("no such file")

    monkeypatch.setattr(skimage.data, "chelsea", missing)
    with pytest.raises(ToolError, match="reinstall it with pip install"):
        load_photo(CHELSEA)


def test_image_is_the_top_left_corner_in_zero_to_one() -> None:
    image = photo_image(CHELSEA, 64, 96)
    assert (image.shape, image.dtype) == ((1, 3, 64, 96), np.float32)
    assert image.flags.c_contiguous
    pixels = skimage.data.chelsea()
    assert np.array_equal(np.rint(image[0] * 255), pixels[:64, :96].transpose(2, 0, 1))


@pytest.mark.parametrize(("height", "width"), [(304, 456), (512, 512), (1024, 448)])
def test_too_small_photo_is_mirrored_at_its_edges(height: int, width: int) -> None:
    image = photo_image(CHELSEA, height, width)
    pixels = skimage.data.chelsea()

    def mirrored(index: int, length: int) -> int:
        """Walk to the end, then back, and so on, the end pixels twice."""
        lap, rest = divmod(index, length)
        return rest if lap % 2 == 0 else length - 1 - rest

    rows = [mirrored(y, pixels.shape[0]) for y in range(height)]
    columns = [mirrored(x, pixels.shape[1]) for x in range(width)]
    expected = pixels[rows][:, columns].transpose(2, 0, 1)
    assert np.array_equal(np.rint(image[0] * 255), expected)
