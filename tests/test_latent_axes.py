"""Which axis is which: the artifact's own order decides, another only where it alone can fit."""

from pathlib import Path

import numpy as np
import pytest

from fluxvae.data.latents import read_latents
from fluxvae.errors import LatentError
from fluxvae.recipes.axes import LatentInput
from tests.latents import takes

# How each order of axes becomes (batch, channels, rows, columns); tokens with rows and columns.
ORDERS = {
    "nchw": lambda x, _: x,
    "nhwc": lambda x, _: np.transpose(x, (0, 3, 1, 2)),
    "chw": lambda x, _: x[None],
    "hwc": lambda x, _: np.transpose(x, (2, 0, 1))[None],
    "tokens": lambda x, sides: np.swapaxes(x, -1, -2).reshape(-1, x.shape[-1], *sides),
    "frame": lambda x, _: x[:, :, 0],
    "last frame": lambda x, _: np.transpose(x[:, 0], (0, 3, 1, 2)),
    "two in front": lambda x, _: x[0],
    "batch in third": lambda x, _: x[0],
}


def save(folder: Path, shape: tuple[int, ...]) -> tuple[Path, np.ndarray]:
    values = np.random.Generator(np.random.PCG64(1)).standard_normal(shape, np.float32)
    np.save(folder / "x.npy", values)
    return folder / "x.npy", values


def refusal(folder: Path, shape: tuple[int, ...], wanted: LatentInput) -> str:
    path, _ = save(folder, shape)
    with pytest.raises(LatentError) as caught:
        read_latents(path, wanted)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FLUX1, FLUX2 = {"variant": "flux1"}, {"variant": "flux2"}
NHWC = {"layout": "nhwc"}
PACKED = {"latents": "packed"}


def asked(fields: dict[str, str], sizes: tuple[str, ...]) -> LatentInput:
    return takes(fields["variant"], *sizes, **{k: v for k, v in fields.items() if k != "variant"})


@pytest.mark.parametrize(
    ("fields", "sizes", "shape", "order"),
    [
        # A side as long as the channels: the own order decides.
        (FLUX2 | NHWC, ("256",), (1, 32, 32, 32), "nhwc"),
        (FLUX2, ("256",), (1, 32, 32, 32), "nchw"),
        (FLUX2 | NHWC, ("256",), (32, 32, 32), "hwc"),
        (FLUX1 | NHWC, ("128",), (1, 16, 16, 16), "nhwc"),
        (FLUX1, ("128",), (1, 16, 16, 16), "nchw"),
        (FLUX2 | PACKED | NHWC, ("2048",), (1, 128, 128, 128), "nhwc"),
        (FLUX2 | PACKED, ("2048",), (1, 128, 128, 128), "nchw"),
        (FLUX2 | NHWC, ("256x384",), (1, 32, 48, 32), "nhwc"),
        (FLUX2 | NHWC, ("256x384", "384x256"), (1, 32, 48, 32), "nhwc"),
        (FLUX2, ("256x384", "384x256"), (1, 32, 48, 32), "nchw"),
        # Only the other order fits.
        (FLUX2 | NHWC, ("384x256",), (1, 32, 48, 32), "nchw"),
        (FLUX2 | NHWC, ("128",), (1, 32, 16, 16), "nchw"),
        (FLUX1 | NHWC, ("256",), (1, 16, 32, 32), "nchw"),
        (FLUX2, ("64",), (1, 8, 8, 32), "nhwc"),
        (FLUX2, ("1024",), (1, 128, 128, 32), "nhwc"),
        (FLUX1, ("64x96",), (8, 12, 16), "hwc"),
        # Axes of length 1, a batch, a frame.
        (FLUX1, ("64",), (1, 16, 1, 8, 8), "frame"),
        (FLUX1, ("64",), (3, 16, 1, 8, 8), "frame"),
        (FLUX1, ("64",), (1, 1, 8, 8, 16), "last frame"),
        (FLUX1, ("64",), (1, 1, 16, 8, 8), "two in front"),
        (FLUX1, ("64",), (1, 5, 16, 8, 8), "batch in third"),
        (FLUX1, ("64",), (5, 16, 8, 8), "nchw"),
        (FLUX1, ("64",), (16, 16, 8, 8), "nchw"),
        # Tokens, which pipelines give of FLUX.2 too.
        (FLUX1 | PACKED, ("64x96",), (1, 24, 64), "tokens"),
        (FLUX1 | PACKED, ("64x96",), (24, 64), "tokens"),
        (FLUX1 | PACKED, ("64x96",), (2, 24, 64), "tokens"),
        (FLUX1 | PACKED, ("128",), (64, 64), "tokens"),
        (FLUX1 | PACKED, ("128",), (64, 64, 64), "tokens"),
        (FLUX1 | PACKED, ("64x96",), (1, 1, 1, 24, 64), "tokens"),
        (FLUX1 | PACKED, ("64x96",), (1, 64, 4, 6), "nchw"),
        (FLUX1 | PACKED, ("64x96",), (1, 4, 6, 64), "nhwc"),
        (FLUX2 | PACKED, ("64x96",), (1, 24, 128), "tokens"),
        (FLUX2 | PACKED, ("128x256",), (128, 128), "tokens"),
        (FLUX2 | PACKED | NHWC, ("64x96",), (1, 24, 128), "tokens"),
        (FLUX2 | PACKED, ("64x96",), (1, 128, 4, 6), "nchw"),
        (FLUX2 | PACKED | NHWC, ("64x96",), (1, 4, 6, 128), "nhwc"),
    ],
)  # fmt: skip
def test_array_is_read_in_the_one_order_that_fits(
    tmp_path: Path, fields: dict[str, str], sizes: tuple[str, ...], shape: tuple[int, ...],
    order: str,
) -> None:  # fmt: skip
    wanted = asked(fields, sizes)
    path, values = save(tmp_path, shape)
    maps = ORDERS[order](values, wanted.sides[0])
    found = read_latents(path, wanted).latents
    assert len(found) == len(maps)
    for latent, right in zip(found, maps, strict=True):
        assert latent.values.flags.c_contiguous
        assert np.array_equal(latent.values[0], right)


@pytest.mark.parametrize(
    ("fields", "sizes", "shape", "words"),
    [
        # Another model's channels are named, before any size.
        (FLUX1, ("128",), (1, 32, 16, 16), "32 channels belong to another model, FLUX.2."),
        (FLUX1, ("64",), (1, 32, 16, 16), "32 channels belong to another model, FLUX.2."),
        (FLUX1, ("64",), (1, 128, 8, 8), "128 channels belong to another model, FLUX.2, packed."),
        (FLUX2, ("64",), (1, 16, 8, 8), "16 channels belong to another model, FLUX.1."),
        (FLUX2, ("64",), (4, 8, 8), "4 channels belong to another model, Stable Diffusion."),
        (FLUX1 | NHWC, ("64",), (1, 8, 8, 32), "32 channels belong to another model, FLUX.2."),
        (FLUX1 | NHWC, ("128",), (1, 32, 16, 16), "FLUX.2. It is for images of 256x128."),
        # A wrong size is given in the order of the artifact.
        (FLUX2 | NHWC, ("64",), (1, 32, 48, 32), "It is for images of 256x384."),
        (FLUX2, ("64",), (1, 32, 48, 32), "It is for images of 384x256."),
        (FLUX1, ("64", "64x96"), (1, 16, 16, 16), "H/8, W/8) for images of 64, 64x96. It is for "
                                                  "images of 128."),
        (FLUX1, ("64",), (12, 8, 16), "It is for images of 96x64, channels last."),
        # Both readings are named.
        (FLUX1, ("256x128",), (1, 32, 16, 16),
         "two ways: channels first (32 channels belong to another model, FLUX.2) or channels last "
         "(an image of 256x128); save it as this model takes it, (1, 16, H/8, W/8)"),
        (FLUX1, ("256x128",), (32, 16, 16), "32 channels belong to another model, FLUX.2"),
        (FLUX2, ("128",), (1, 16, 16, 32), "channels first (16 channels belong to another model"),
        (FLUX1 | PACKED, ("1024",), (64, 64, 64),
         "channels first (an image of 1024) or channels last (an image of 1024)"),
        (FLUX1, ("64",), (1, 16, 16, 8, 8), "channels first (16 latents of an image of 64) or "
                                            "frames of one latent"),
        # Frames, tokens and patches.
        (FLUX1, ("64",), (1, 16, 5, 8, 8), "[1, 16, 5, 8, 8], 5 frames: cut out one of them"),
        (FLUX1 | PACKED, ("64x96",), (1, 25, 64), "'x' has 25 tokens; expected 24"),
        (FLUX2 | PACKED, ("64x96",), (1, 25, 128), "'x' has 25 tokens; expected 24"),
        (FLUX2 | PACKED, ("64x96",), (1, 32, 8, 12), "look unpacked: convert with --latents"),
        (FLUX2, ("64",), (1, 16, 128), "look packed (2 x 2 patches in 128 channels): convert with"),
        (FLUX1, ("64",), (1, 64, 4, 4), "torch.nn.functional.pixel_shuffle(latent, 2)"),
        # No latents at all.
        (FLUX2, ("64",), (8, 8), "has the shape [8, 8]; expected (1, 32, H/8, W/8)"),
        (FLUX2, ("64",), (), "has the shape []; expected (1, 32, H/8, W/8)"),
        (FLUX2, ("64",), (1, 1, 1), "has the shape [1, 1, 1]; expected (1, 32, H/8, W/8)"),
        (FLUX2, ("64",), (1, 3, 64, 64), "has the shape [1, 3, 64, 64]; expected (1, 32, H/8"),
    ],
)  # fmt: skip
def test_array_that_does_not_fit_or_fits_twice_is_refused(
    tmp_path: Path, fields: dict[str, str], sizes: tuple[str, ...], shape: tuple[int, ...],
    words: str,
) -> None:  # fmt: skip
    assert words in refusal(tmp_path, shape, asked(fields, sizes))


def test_foreign_channels_are_refused_without_a_wrong_size_beside_them(tmp_path: Path) -> None:
    text = refusal(tmp_path, (1, 32, 16, 16), takes("flux1", "128"))
    assert "256x128" not in text


def test_every_size_is_taken_where_none_is_named(tmp_path: Path) -> None:
    for shape, rows in (((1, 32, 24, 40), 24), ((1, 32, 24, 32), 24), ((1, 24, 40, 32), 24)):
        path, _ = save(tmp_path, shape)
        (latent,) = read_latents(path, takes("flux2")).latents
        assert latent.values.shape[2] == rows
    assert "32 channels belong" in refusal(tmp_path, (1, 32, 24, 16), takes("flux1"))
