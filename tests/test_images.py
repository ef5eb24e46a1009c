"""Image files of every kind become RGB, cut and turned as they should; the rest is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from fluxvae.data.images import LARGEST_PIXELS, Pixels, fit, image_files, open_image, unique_names
from fluxvae.errors import ImageError

COLOURS = np.random.Generator(np.random.PCG64(3)).integers(0, 256, (70, 90, 3), np.uint8)


def _saved(folder: Path, name: str, image: Image.Image, **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def _turned(folder: Path, turn: int) -> tuple[Path, np.ndarray]:
    """A file that says it is turned, and Pillow's own reading of it."""
    image = Image.fromarray(COLOURS)
    exif = image.getexif()
    exif[0x0112] = turn
    path = _saved(folder, "a.png", image, exif=exif)
    return path, np.asarray(ImageOps.exif_transpose(Image.open(path)))


def test_plain_rgb_is_unchanged(tmp_path: Path) -> None:
    found = open_image(_saved(tmp_path, "a.png", Image.fromarray(COLOURS)))
    assert np.array_equal(found.pixels, COLOURS)
    assert (found.pixels.dtype, found.changes) == (np.uint8, ())


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_exif_rotation_is_pillows(tmp_path: Path, turn: int) -> None:
    path, expected = _turned(tmp_path, turn)
    found = open_image(path)
    assert np.array_equal(found.pixels, expected)
    assert bool(found.changes) == (turn != 1)


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_cutting_before_turning_gives_the_same_pixels(tmp_path: Path, turn: int) -> None:
    path, whole = _turned(tmp_path, turn)
    top, left = ((length - side) // 2 for length, side in zip(whole.shape, (64, 66), strict=False))
    found = fit(open_image(path, (64, 66)), 64, 66)
    assert np.array_equal(found.pixels, whole[top : top + 64, left : left + 66])
    assert f"cropped from {whole.shape[0]} x {whole.shape[1]}" in found.changes


def test_alpha_lies_on_white(tmp_path: Path) -> None:
    layer = np.dstack([COLOURS, np.tile(np.array([0, 128, 255], np.uint8), (70, 30))])
    found = open_image(_saved(tmp_path, "a.png", Image.fromarray(layer)))
    alpha = layer[..., 3:] / 255
    expected = COLOURS * alpha + 255 * (1 - alpha)
    assert np.abs(found.pixels - expected).max() <= 1  # Pillow's integers round
    assert found.changes == ("alpha laid on white",)


def test_transparent_colour_of_a_palette_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((5, 4), 1)
    path = _saved(tmp_path, "a.png", image, transparency=0)
    found = open_image(path)
    assert found.pixels[0, 0].tolist() == [255, 255, 255]
    assert found.pixels[4, 5].tolist() == [0, 0, 200]


def test_opaque_alpha_is_no_change(tmp_path: Path) -> None:
    found = open_image(_saved(tmp_path, "a.png", Image.fromarray(COLOURS).convert("RGBA")))
    assert np.array_equal(found.pixels, COLOURS)
    assert found.changes == ()


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_is_repeated(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    found = open_image(_saved(tmp_path, "a.png", image))
    grey = np.asarray(image.convert("L"))
    assert np.array_equal(found.pixels, np.repeat(grey[..., None], 3, 2))
    assert found.changes == ("grey repeated to RGB",)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    found = open_image(_saved(tmp_path, "a.tif", Image.new("CMYK", (64, 64), (0, 255, 255, 0))))
    assert found.pixels[0, 0].tolist() == [255, 0, 0]
    assert found.changes == ("CMYK changed to RGB",)


def test_cmyk_jpeg_has_the_colours_of_its_rgb_twin(tmp_path: Path) -> None:
    ink = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    found = open_image(_saved(tmp_path, "a.jpg", ink, quality=95))
    assert np.abs(found.pixels.astype(int) - [255, 0, 0]).max() <= 4  # JPEG


def test_sixteen_bit_colours_are_named(tmp_path: Path) -> None:
    from skimage.io import imsave  # Pillow writes no 16-bit colours

    deep = COLOURS.astype(np.uint16) * 257
    for name in ("a.png", "a.tif"):
        if name.endswith("png"):
            _write_png16(tmp_path / name, deep)
        else:
            imsave(tmp_path / name, deep, check_contrast=False)
        found = open_image(tmp_path / name)
        assert np.array_equal(found.pixels, COLOURS)
        assert found.changes == ("reduced from 16 to 8 bits",)


def _write_png16(path: Path, values: np.ndarray) -> None:
    """A PNG of 16 bits a channel by the specification: signature, IHDR, IDAT, IEND."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_panorama_beyond_pillows_limit_is_cut(tmp_path: Path) -> None:
    wide = Image.new("L", (20_000, 9_100), 10)
    wide.paste(200, (9_000, 4_000, 11_000, 5_000))
    assert wide.width * wide.height > 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow alone refuses it
    path = _saved(tmp_path, "wide.png", wide, compress_level=1)
    found = fit(open_image(path, (64, 128)), 64, 128)
    assert found.pixels.shape == (64, 128, 3)
    assert set(found.pixels.ravel()) == {200}
    assert found.changes == ("cropped from 9100 x 20000", "grey repeated to RGB")
    with pytest.raises(Image.DecompressionBombError):  # its own guard is back
        Image.open(path)


def test_what_unpacks_to_more_than_memory_is_refused(tmp_path: Path) -> None:
    side = int(LARGEST_PIXELS**0.5) + 2
    header = b"BM" + bytes(8) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    header += side.to_bytes(4, "little") * 2 + b"\1\0\x18\0" + bytes(24)
    (tmp_path / "bomb.bmp").write_bytes(header)
    with pytest.raises(ImageError, match=r"bomb.bmp has 20002 x 20002 pixels, more than .* cut it"):
        open_image(tmp_path / "bomb.bmp")


def test_text_named_as_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(ImageError, match=r"a\.png cannot be read .*not a kind of image"):
        open_image(tmp_path / "a.png")


def test_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    whole = _saved(tmp_path, "a.jpg", Image.fromarray(COLOURS)).read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="truncated"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["gif", "webp", "apng", "tiff", "avif"])
def test_of_several_frames_the_first_is_taken_and_said(tmp_path: Path, suffix: str) -> None:
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    shades = [Image.new("RGB", (64, 64), (50 * i, 200, 90)) for i in range(3)]
    path = _saved(tmp_path, f"a.{suffix}", shades[0], save_all=True, append_images=shades[1:])
    found = open_image(path)
    assert np.abs(found.pixels.astype(int) - (0, 200, 90)).max() <= 4  # lossy formats
    assert found.changes == ("first of 3 frames",)


def test_avif_of_one_frame_is_read(tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    plain = Image.new("RGB", (70, 90), (120, 30, 200))
    found = open_image(_saved(tmp_path, "a.avif", plain))
    assert found.changes == ()
    assert np.abs(found.pixels.astype(int) - (120, 30, 200)).max() <= 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF, which this Pillow cannot read: use Pillow 11.3"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC, which Pillow cannot read: save it as PNG"),
        (b"\xff\x0a\0\0", "JPEG XL, which Pillow cannot read: save it as PNG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer, not the image: run"),
        (b"", "the file is empty"),
    ],
)
def test_what_pillow_cannot_read_says_what_to_do(
    tmp_path: Path, content: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.init()
    without = [kind for kind in Image.ID if kind != "AVIF"]
    monkeypatch.setattr(Image, "ID", without)  # as in a Pillow without it
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=words):
        open_image(tmp_path / "a.jpg")


def test_small_images_are_mirrored_and_tiny_ones_refused() -> None:
    found = fit(Pixels(COLOURS, ()), 80, 64)
    assert np.array_equal(found.pixels[:70], COLOURS[:, 13 : 13 + 64])
    assert np.array_equal(found.pixels[70:], COLOURS[69:59:-1, 13 : 13 + 64])
    assert found.changes == ("cropped from 70 x 90", "mirrored at the edges from 70 x 90")
    with pytest.raises(ImageError, match="1 x 1 pixels; at least 64 x 64"):
        fit(Pixels(np.zeros((1, 1, 3), np.uint8), ()), 64, 64)


def test_folder_is_listed_by_name_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "c.HEIC", "notes.txt", ".DS_Store", "._a.jpeg", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "sub").mkdir()
    images, others = image_files(tmp_path)
    assert [f.name for f in images] == ["a.jpeg", "b.PNG", "c.HEIC"]
    assert [f.name for f in others] == ["notes.txt"]
    with pytest.raises(ImageError, match="is not a folder"):
        image_files(tmp_path / "none")


def test_names_fit_for_files_are_told_apart() -> None:
    found = unique_names(["a b.png", "a_b.png", "A_B.PNG", "..", "é/x.jpg", "a_b.png-2"])
    assert found == ("a_b.png", "a_b.png-2", "A_B.PNG-3", "image", "é_x.jpg", "a_b.png-2-2")
    assert len({name.casefold() for name in found}) == len(found)
