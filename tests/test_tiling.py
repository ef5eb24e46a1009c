"""Images from tiles: where the tiles lie, and how near they come to the image in one go."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from fluxvae.artifact.open import open_artifact
from fluxvae.artifact.record import Tiles, read_record
from fluxvae.artifact.tiles import cut, grid, pooled, sample_indices, samples
from fluxvae.convert.rewrite.split import Frozen, Measuring, front_and_up
from fluxvae.data.latents import Latent
from fluxvae.errors import LatentError, UsageError
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import Weights
from fluxvae.recipes import HALO, Recipe, Size, check_tile
from fluxvae.recipes.sizes import best_tile
from fluxvae.validation.metrics import compare
from fluxvae.validation.tile_costs import STRIDED_DB, WHOLE_DB, tile_costs
from fluxvae.validation.validate import validate
from tests.cli.run import run
from tests.kl_hot import kl_decoder
from tests.tiles import KL, TINY, kl_photo_latent, photo_latent, tiled, torch_image, whole_image


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Path]:
    return tiled(TINY, tmp_path_factory.mktemp("tiles"))


@pytest.fixture(scope="module")
def kl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Path]:
    return tiled(KL, tmp_path_factory.mktemp("kl-tiles"))


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 300))
def test_every_place_is_made_once_and_knows_its_surroundings(
    halo: int, own: int, extra: int
) -> None:
    size = 2 * halo + own
    total = size + extra
    tiles = cut(total, size, halo)
    assert [place for t in tiles for place in range(t.low, t.high)] == list(range(total))
    for tile in tiles:
        assert 0 <= tile.start <= total - size
        assert tile.start <= max(0, tile.low - halo) or tile.start == 0
        assert min(total, tile.high + halo) <= tile.start + size
    # The fewest that can be: one less does not reach.
    assert (len(tiles) - 1) * own + 2 * halo < total


def test_two_tiles_of_half_an_image_make_it() -> None:
    recipe = Recipe("flux1", tile=512)
    assert len(grid(128, 128, recipe.tile_shape(Size(1024, 1024)), recipe.halo)) == 4
    # What a third of the memory and 1.4 times the work come from: (73 / 128)^2, and 4 of them.
    assert (recipe.tile_input / 128) ** 2 <= 1 / 3
    assert 4 * (recipe.tile_input / 128) ** 2 <= 1.4


@pytest.mark.parametrize(
    ("size", "shape"),
    [(Size(1024, 1024), (73, 73)), (Size(832, 1216), (61, 85)), (Size(768, 1344), (57, 93))],
    ids=str,
)
def test_tiles_of_odd_sizes_are_as_cheap(size: Size, shape: tuple[int, int]) -> None:
    recipe = Recipe("flux2", tile=512, sizes=(size,))
    assert recipe.tile_shape(size) == shape
    cells = grid(size.height // 8, size.width // 8, shape, recipe.halo)
    places = size.height * size.width // 64
    assert len(cells) == 4
    assert shape[0] * shape[1] <= places / 3
    assert 4 * shape[0] * shape[1] <= 1.4 * places


@settings(deadline=None, max_examples=40)
@given(st.integers(8, 40), st.integers(8, 40), st.integers(1, 9), st.integers(1, 30))
def test_no_other_tiles_of_that_area_are_less_work(
    height: int, width: int, halo: int, own: int
) -> None:
    """Every shape of tile, tried."""
    side = 2 * halo + own
    rows, columns = best_tile(height, width, side, halo)
    work = len(grid(height, width, (rows, columns), halo)) * rows * columns
    assert rows * columns <= side**2

    def counts(total: int) -> list[tuple[int, int]]:
        return [(n, len(cut(total, n, halo))) for n in range(2 * halo + 1, total)] + [(total, 1)]

    least = min(
        n * m * i * j for n, i in counts(height) for m, j in counts(width) if n * m <= side**2
    )
    assert work == least


def test_tiles_larger_than_the_image_or_smaller_than_their_halo_are_refused() -> None:
    with pytest.raises(LatentError, match=r"an image of 128 px is smaller than .* take 152 px"):
        cut(16, 19, 9)
    with pytest.raises(UsageError, match=r"18 latent pixels are smaller than their halo of 9"):
        cut(64, 18, 9)
    for decoder, halo in HALO.items():
        with pytest.raises(UsageError, match=rf"smaller than its halo: {8 * halo} px"):
            check_tile(8 * halo, decoder)
        check_tile(8 * halo + 8, decoder)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_pooled_statistics_are_those_of_all_numbers_together(seed: int, count: int) -> None:
    samples = np.random.default_rng(seed).normal(3, 2, (count, 4, 50))
    parts = [np.stack([s.mean(1), s.std(1)], -1)[None, None] for s in samples]
    everything = samples.transpose(1, 0, 2).reshape(4, -1)
    found = pooled(parts)[0, 0]
    np.testing.assert_allclose(found[:, 0], everything.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], everything.std(1), rtol=1e-12)


@given(st.integers(1, 90))
def test_samples_take_every_place_once_in_blocks(half: int) -> None:
    parts = sample_indices(2 * half, 2)
    assert [len(part) for part in parts] == [half, half]
    assert sorted(np.concatenate(parts)) == list(range(2 * half))
    block = min(8, half & -half)  # the largest power of two that divides
    assert parts[0].tolist()[: block + 1] == [*range(block), *([2 * block] if half > block else [])]
    features = np.arange(4 * half * 2).reshape(1, 1, 2 * half, 4)
    found = np.concatenate([part.ravel() for part in samples(features, 2)])
    assert sorted(found) == features.ravel().tolist()


@pytest.mark.parametrize("size", [Size(256, 240), Size(232, 304)], ids=str)
def test_tiles_of_a_tiny_decoder_are_the_whole_image_bit_by_bit(
    tiny: tuple[Weights, Path], size: Size, tmp_path: Path
) -> None:
    weights, path = tiny
    latent = photo_latent(weights, size)
    image = open_artifact(path).runner(None, "reference")(latent)
    assert image.shape == (1, 3, size.height, size.width)
    assert np.array_equal(image, whole_image(weights, latent, TINY, tmp_path))


def test_tiled_artifact_says_what_it_is(
    tiny: tuple[Weights, Path], kl: tuple[Weights, Path]
) -> None:
    assert tiny[1].name == "flux2_tiny_decoder_nchw_float16_tile160_demo.mlpackage"
    assert kl[1].name == "flux1_full_decoder_nhwc_float32_hw192x224_tile104_random.mlpackage"
    programs = [read_package(path) for _, path in (tiny, kl)]
    assert list(programs[0].functions) == ["front", "tile", "tile_h256w240"]
    assert sorted(programs[1].functions) == [
        "front_h192w224",
        "statistics_h192w224",
        "tile_h192w224",
    ]
    records = [read_record(program) for program in programs]
    tiles = [record.tiles for record in records if record is not None]
    assert tiles == [
        Tiles({"tile": (29, 29), "tile_h256w240": (25, 30)}, halo=9, stride=None),
        Tiles({"tile_h192w224": (19, 21)}, halo=7, stride=2),
    ]


@pytest.mark.parametrize("photo", [pytest.param("chelsea", marks=pytest.mark.full), "coffee"])
def test_kl_tiles_keep_what_they_promise(photo: str) -> None:
    """The scheme itself, in torch, at 384 px: exact statistics, and strided ones."""
    decoder = kl_decoder("flux1").float()
    latent = torch.from_numpy(kl_photo_latent(Size(384, 384), photo))
    front, up = front_and_up(decoder)
    features, measure, frozen = front(latent), Measuring(up), Frozen(up)
    parts = samples(features.numpy(), 2)
    passes = [measure(torch.from_numpy(part)).numpy() for part in parts]
    whole = decoder(latent).numpy()
    for statistics, bound in ((measure(features).numpy(), WHOLE_DB), (pooled(passes), STRIDED_DB)):
        given = torch.from_numpy(statistics)
        image = np.empty_like(whole)
        for row, column in grid(48, 48, (31, 31), HALO["full"]):
            part = features[:, :, row.start : row.start + 31, column.start : column.start + 31]
            made = frozen(part, given).numpy()
            inner = [slice(8 * (c.low - c.start), 8 * (c.high - c.start)) for c in (row, column)]
            outer = [slice(8 * c.low, 8 * c.high) for c in (row, column)]
            image[:, :, outer[0], outer[1]] = made[:, :, inner[0], inner[1]]
        assert compare(image, whole, peak=2).psnr_db >= bound


def test_program_of_kl_tiles_does_the_same(kl: tuple[Weights, Path]) -> None:
    """Strided statistics through the saved program; NHWC. Torch's tiles are the oracle."""
    weights, path = kl
    latent = kl_photo_latent(KL.sizes[0])
    image = open_artifact(path).runner(None, "reference")(latent)
    front, up = front_and_up(build_decoder(weights))
    features = front(torch.from_numpy(latent))
    parts = [Measuring(up)(torch.from_numpy(p)).numpy() for p in samples(features.numpy(), 2)]
    statistics = torch.from_numpy(pooled(parts))
    frozen = Frozen(up)(features, statistics).numpy()  # the whole at once, with these statistics
    assert compare(image, frozen, peak=2).psnr_db >= WHOLE_DB
    whole = torch_image(weights, latent)
    assert 30 < compare(image, whole, peak=2).psnr_db < 60  # small maps: 24 x 28 latent pixels


@pytest.mark.full
def test_program_of_kl_tiles_with_exact_statistics_is_the_whole_decode(tmp_path: Path) -> None:
    weights, path = tiled(replace(KL, tile_statistics="whole"), tmp_path)
    latent = kl_photo_latent(KL.sizes[0])
    image = open_artifact(path).runner(None, "reference")(latent)
    assert compare(image, torch_image(weights, latent), peak=2).psnr_db >= WHOLE_DB


def test_validate_knows_what_strided_statistics_can_do(kl: tuple[Weights, Path]) -> None:
    weights, path = kl
    latent = Latent("coffee", kl_photo_latent(KL.sizes[0]))
    report = validate(path, weights, encoder=None, latents=(latent,))
    assert report.passed
    assert report.cases[0].limit.bound == STRIDED_DB


def test_kl_tiles_of_another_size_are_refused(kl: tuple[Weights, Path]) -> None:
    decode = open_artifact(kl[1]).runner(None, "reference")
    with pytest.raises(LatentError, match=r"makes images of 192x224, not of 256"):
        decode(np.zeros((1, 16, 32, 32), np.float32))


def test_costs_are_those_of_the_graph(tiny: tuple[Weights, Path], kl: tuple[Weights, Path]) -> None:
    costs = tile_costs(open_artifact(tiny[1]), Size(1024, 1024))
    # 403 MB: measured before, on the whole decoder's program.
    assert costs.whole_live_bytes == pytest.approx(402.7e6, rel=0.01)
    assert costs.live_bytes == pytest.approx(402.7e6 * (29 / 128) ** 2, rel=0.01)
    assert costs.held_bytes == 64 * 128 * 128 * 2 + 3 * 1024 * 1024 * 2
    assert costs.bound_db is None
    frozen = tile_costs(open_artifact(kl[1]), KL.sizes[0])
    assert frozen.tiles == 4
    assert frozen.bound_db == STRIDED_DB
    assert frozen.work > 2  # every place once for its statistics, and the tiles


def test_validate_judges_the_image_that_tiles_make(tiny: tuple[Weights, Path]) -> None:
    weights, path = tiny
    latent = Latent("coffee", photo_latent(weights, TINY.sizes[0]))
    report = validate(path, weights, encoder=None, latents=(latent,))
    assert report.passed
    assert [case.case for case in report.cases][:2] == ["coffee", "normal"]
    assert {(case.function, str(case.size)) for case in report.cases} == {("tiled", "256x240")}


def test_decode_makes_any_size_and_says_what_it_costs(
    tiny: tuple[Weights, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, path = tiny
    latents = {str(s): photo_latent(weights, s) for s in (Size(240, 304), Size(256, 240))}
    save_file(latents, tmp_path / "latents.safetensors")
    out = tmp_path / "raw.safetensors"
    arguments = [str(path), str(tmp_path / "latents.safetensors"), "--out", str(out)]
    printed = run(capsys, "decode", *arguments, "--tile", "160", "--json")
    assert printed.code == 0
    tiles = json.loads(printed.out)["tiles"]
    assert [(t["size"], t["tiles"]) for t in tiles] == [("240x304", 4), ("256x240", 2)]
    assert "the whole decode's own numbers" in printed.err
    made = load_file(out)
    assert {name: image.shape for name, image in made.items()} == {
        "240x304": (1, 3, 240, 304),
        "256x240": (1, 3, 256, 240),
    }


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    ran = run(capsys, *arguments)
    assert ran.code == 2
    return ran.err.strip().splitlines()[-1]


def test_decode_refuses_tiles_of_what_is_not_made_for_them(
    demo_package: Path,
    tiny: tuple[Weights, Path],
    demo_latents: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    latents = str(demo_latents)
    for package, tile, expected in (
        (demo_package, "512", r"its GroupNorms see the whole picture.*convert with --tile 512"),
        (tiny[1], "512", r"makes tiles of 160 px, as it was converted: got --tile 512"),
        (tiny[1], "64", r"--tile 64 is smaller than its halo: 72 px"),
        (tiny[1], "100", r"--tile 100 is not possible: expected a multiple of 8"),
    ):
        line = refusal(["decode", str(package), latents, "--tile", tile], capsys)
        assert re.search(expected, line)


def test_plain_kl_tiles_are_refused_with_the_reason() -> None:
    from fluxvae.artifact.decode import check_tiles

    whole = replace(KL, tile=None)
    with pytest.raises(UsageError, match=r"its attention and its GroupNorms see the whole picture"):
        check_tiles("x.mlpackage", whole, 512)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--tile 72", r"--tile 72 is smaller than its halo: 72 px .* expected 80 or more"),
        ("--decoder full --tile 56", r"--tile 56 is smaller than its halo: 56 px"),
        ("--tile 512 --chunks 2", r"--tile goes without --chunks"),
        ("--tile 512 --output image", r"use --output tensor"),
        ("--tile 512 --latents packed", r"use --latents vae or sampler"),
        ("--tile 512 --target iOS17", r"needs iOS18 or newer"),
        ("--tile 512 --tile-statistics whole", r"the tiny decoders' tiles need none"),
        ("--decoder full --tile 256 --size 1032", r"expected multiples of 16 px, got --size 1032"),
    ],
)
def test_convert_refuses_tiles_that_cannot_be(
    arguments: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--latents" in arguments:
        with pytest.raises(UsageError, match=expected):
            Recipe("flux1", tile=512, latents="packed")
        return
    given = ["convert", "--variant", "flux1", "--dry-run", *arguments.split()]
    assert re.search(expected, refusal(given, capsys))
