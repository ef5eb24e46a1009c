"""What training sees: the same crops in every split of a run, and never a held-out photo."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fluxvae.compress.qat_data import (
    Picture,
    calibration_images,
    calibration_pictures,
    crops,
    folder_pictures,
    pieces,
    split,
)
from fluxvae.data import CALIBRATION_PHOTOS, EVALUATION_PHOTOS, load_photo
from fluxvae.errors import CompressionError
from tests.compress.qat_starts import image_folder


def coded(height: int, width: int, picture: int) -> np.ndarray:
    """Pixels that say where they are: (picture, row, column)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.full_like(rows, picture), rows, columns], -1).astype(np.uint8)


def test_a_crop_depends_on_seed_step_and_place_alone() -> None:
    pictures = [Picture(str(i), coded(60, 80, i)) for i in range(3)]
    whole = crops(pictures, 16, 7, 5, range(8))
    assert whole.shape == (8, 3, 16, 16)
    assert whole.dtype == np.float32
    parts = [crops(pictures, 16, 7, 5, range(rank, 8, 2)) for rank in range(2)]
    assert np.array_equal(whole[0::2], parts[0])
    assert np.array_equal(whole[1::2], parts[1])
    for other in (crops(pictures, 16, 8, 5, range(8)), crops(pictures, 16, 7, 6, range(8))):
        assert not np.array_equal(whole, other)


def test_crops_are_turned_pieces_of_the_pictures_at_their_own_scale() -> None:
    pictures = [Picture(str(i), coded(40, 50, i)) for i in range(3)]
    made = np.rint(crops(pictures, 16, 0, 0, range(200), recolour=0) * 255).astype(int)
    seen = set()
    for picture, rows, columns in made:
        index, top, left = picture[0, 0], rows.min(), columns.min()
        assert top + 16 <= 40
        assert left + 16 <= 50
        piece = pictures[index].pixels[top : top + 16, left : left + 16].astype(int)
        here = np.stack([picture, rows, columns], -1)
        turned = [np.rot90(m, k) for m in (piece, piece[:, ::-1]) for k in range(4)]
        matches = [i for i, t in enumerate(turned) if np.array_equal(t, here)]
        assert len(matches) == 1
        seen.add((int(index), matches[0]))
    assert len(seen) == 3 * 8  # every picture, in all eight ways round


def test_half_of_the_crops_have_other_colours() -> None:
    grey = [Picture(str(i), np.repeat(coded(40, 50, i)[..., 1:2], 3, -1)) for i in range(2)]
    made = crops(grey, 16, 0, 0, range(200))
    assert made.min() >= 0
    assert made.max() <= 1
    coloured = sum(not np.array_equal(c[0], c[1]) for c in made)
    assert 70 < coloured < 130  # of 200 at a chance of a half: 4 standard deviations


def test_a_start_sees_none_of_the_pictures_that_are_judged_by() -> None:
    found = split("mine", [Picture(str(i), coded(40, 50, i)) for i in range(6)])
    judged = {int(p.name) for p in found.validation}
    assert judged == {1}
    images = calibration_images(found)
    assert len(images) == 15  # 5 pictures, 3 places of each
    assert {i.shape for i in images} == {(1, 3, 40, 40)}
    assert {round(float(i[0, 0, 0, 0]) * 255) for i in images} == {0, 2, 3, 4, 5}
    many = split("many", [Picture(str(i), coded(8, 300, i)) for i in range(40)])
    assert len(calibration_images(many)) == 16


def test_small_pictures_are_mirrored() -> None:
    small = [Picture("a", coded(10, 12, 0)), Picture("b", coded(10, 12, 1))]
    assert crops(small, 16, 0, 0, [0]).shape == (1, 3, 16, 16)
    (piece, _) = pieces(small, 16)
    assert np.array_equal(piece[0, 1, 10:], piece[0, 1, 9:3:-1])


def test_shipped_photos_are_split_and_none_is_held_out() -> None:
    found = calibration_pictures()
    names = [p.name for p in (*found.training, *found.validation)]
    assert sorted(names) == sorted(p.name for p in CALIBRATION_PHOTOS)
    assert len(found.validation) == 3
    held_out = {p.sha256 for p in EVALUATION_PHOTOS}
    for picture in (*found.training, *found.validation):
        assert hashlib.sha256(picture.pixels.tobytes()).hexdigest() not in held_out


def test_a_folder(tmp_path: Path) -> None:
    found = folder_pictures(image_folder(tmp_path / "mine"))
    assert (found.name, len(found.training), len(found.validation)) == ("mine", 2, 1)
    again = folder_pictures(tmp_path / "mine")
    assert found.digest == again.digest
    Image.new("RGB", (72, 72), "red").save(tmp_path / "mine" / "1.png")
    assert folder_pictures(tmp_path / "mine").digest != found.digest


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="found none; leave --images out"):
        folder_pictures(tmp_path)
    with pytest.raises(CompressionError, match="found none"):
        folder_pictures(tmp_path / "none")
    with pytest.raises(CompressionError, match="at least two images, found 1"):
        folder_pictures(image_folder(tmp_path / "one", 1))
    Image.fromarray(load_photo(EVALUATION_PHOTOS[0])).save(tmp_path / "one" / "cat.png")
    with pytest.raises(CompressionError, match=r"cat\.png is the evaluation photo chelsea"):
        folder_pictures(tmp_path / "one")
    with pytest.raises(CompressionError, match="at least two"):
        split("none", [])
