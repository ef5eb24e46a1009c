"""What training sees: the same crops in every split of a run, and never a held-out photo."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fluxvae.compress.qat.data import (
    Picture,
    calibration_images,
    calibration_pictures,
    crops,
    folder_pictures,
    pieces,
    split,
)
from fluxvae.data.photos import CALIBRATION_PHOTOS, EVALUATION_PHOTOS, load_photo
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


def test_the_lowest_quarter_is_kept_to_judge_by() -> None:
    """Neither crops nor what a start is calibrated on come from there."""
    found = split("mine", [Picture(str(i), coded(80, 100, i)) for i in range(5)])
    trained = crops(found.training, 16, 0, 0, range(300), recolour=0)
    assert np.rint(trained[:, 1:].max(axis=(0, 2, 3)) * 255).tolist() == [59, 99]
    images = calibration_images(found)
    assert len(images) == 20  # 5 pictures, 4 places of each
    assert {i.shape for i in images} == {(1, 3, 56, 56)}
    assert max(i[:, 1].max() for i in images) * 255 < 59.5
    judged = pieces(found.validation, 64)
    assert [i.shape for i in judged] == [(1, 3, 16, 64)] * 5  # of 20 rows: a multiple of 8
    assert min(i[:, 1].min() for i in judged) * 255 > 59.5


def test_a_start_of_many_pictures_looks_at_some() -> None:
    many = split("many", [Picture(str(i), coded(32, 300, i)) for i in range(40)])
    seen = [round(float(i[0, 0, 0, 0]) * 255) for i in calibration_images(many)]
    assert seen == [i * 40 // 16 for i in range(16)]


def test_small_pictures_are_mirrored() -> None:
    (made,) = crops([Picture("a", coded(12, 16, 0))], 16, 0, 0, [0], recolour=0)
    rows, columns = (np.rint(plane * 255).astype(int) for plane in made[1:])
    height = rows if rows.max() == 11 else columns  # it may be turned
    assert set(height.ravel()) == set(range(12))


def test_none_of_the_shipped_photos_is_held_out() -> None:
    found = calibration_pictures()
    assert [p.name for p in found.training] == [p.name for p in CALIBRATION_PHOTOS]
    held_out = {p.sha256 for p in EVALUATION_PHOTOS}
    for top, rest in zip(found.training, found.validation, strict=True):
        whole = np.concatenate([top.pixels, rest.pixels])
        assert hashlib.sha256(whole.tobytes()).hexdigest() not in held_out


def test_a_folder(tmp_path: Path) -> None:
    found = folder_pictures(image_folder(tmp_path / "mine"))
    assert (found.name, len(found.training), len(found.validation)) == ("mine", 3, 3)
    again = folder_pictures(tmp_path / "mine")
    assert found.digest == again.digest
    Image.new("RGB", (72, 72), "red").save(tmp_path / "mine" / "1.png")
    assert folder_pictures(tmp_path / "mine").digest != found.digest


def test_what_macos_leaves_beside_photos_is_passed_over(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "mine")
    found = folder_pictures(folder)
    (folder / "._0.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")  # AppleDouble
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (folder / "notes.txt").write_text("hello")
    said: list[str] = []
    assert folder_pictures(folder, said.append).digest == found.digest
    assert said == ["note: passed over notes.txt"]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match=r"no images in .*, or leave --images out"):
        folder_pictures(tmp_path)
    with pytest.raises(CompressionError, match=r"is not a folder .*, or leave --images out"):
        folder_pictures(tmp_path / "none")
    small = image_folder(tmp_path / "small", 1, 24)
    with pytest.raises(CompressionError, match=r"0\.png has 24 x 24 pixels: expected 32 or more"):
        folder_pictures(small)
    image_folder(tmp_path / "one", 1)
    Image.fromarray(load_photo(EVALUATION_PHOTOS[0])).save(tmp_path / "one" / "cat.png")
    with pytest.raises(CompressionError, match=r"cat\.png is the evaluation photo chelsea"):
        folder_pictures(tmp_path / "one")
