"""The table's figures against numpy's, artifacts kept and refused, recipes as they are named."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import uniform_filter

from fluxvae.data.calibration import calibration_of
from fluxvae.errors import CompressionError, OutputError, UsageError
from fluxvae.experiments.compare import (
    Comparison,
    View,
    compare_variants,
    load_views,
    parse_recipes,
)
from fluxvae.experiments.maker import Maker
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_network
from fluxvae.networks.weights import Weights
from fluxvae.recipes import Recipe, Size
from fluxvae.validation.metrics import similarity
from tests.artifacts import Reference, recipe
from tests.compress.simple import save_simple
from tests.kl_hot import small_weights

SIZE = Size(64, 64)
BASE = recipe("flux2", "64", target="iOS18")


@pytest.fixture(scope="module")
def views(weights: Weights, encoder: Weights) -> tuple[View, ...]:
    return load_views("photos", weights, encoder, SIZE)


@dataclass(frozen=True)
class Simple(Maker):
    """Rounds simply, by the ranges of one latent."""

    latent: np.ndarray | None = None

    def save(self, recipe: Recipe) -> Path:
        if recipe.compression is None:
            return super().save(recipe)
        assert self.latent is not None
        return save_simple(self.weights, recipe, self.path(recipe), self.latent)


class Never(Maker):
    """Has everything, or fails."""

    def save(self, recipe: Recipe) -> Path:
        raise AssertionError(f"made again: {recipe}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def compared(weights: Weights, views: tuple[View, ...], folder: Path) -> Comparison:
    recipes = parse_recipes("int8-plain,w8a8-plain", BASE)
    return compare_variants(Simple(weights, folder, latent=views[0].values), recipes, views)


@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_full_networks_and_encoders_are_compared_too(tmp_path: Path, part: str) -> None:
    weights = small_weights("flux1", part)
    encoder = small_weights("flux1", "encoder") if part == "decoder" else None
    base = recipe("flux1", "64", decoder="full", part=part)
    wanted = parse_recipes("int8-plain", base)
    views = load_views("photos", weights, encoder, SIZE)
    compared = compare_variants(Maker(weights, tmp_path), wanted, views)
    plain, int8 = compared.rows
    assert plain.psnr_db > 60 > int8.psnr_db > 30
    assert math.isnan(int8.ssim) == (part == "encoder")
    with torch.no_grad():
        output = build_network(weights)(torch.from_numpy(views[0].values))
    assert np.array_equal(views[0].reference, output.numpy())
    again = compare_variants(Never(weights, tmp_path), wanted, views)
    assert [row.psnr_db for row in again.rows] == [row.psnr_db for row in compared.rows]


def test_views_are_what_torch_decodes(views: tuple[View, ...]) -> None:
    reference = Reference.load("flux2", "demo")
    assert [view.name for view in views] == ["chelsea", "coffee"]
    for view in views:
        latent, image = reference.pair(view.name, SIZE)
        assert np.allclose(view.values, latent, atol=1e-6)
        assert np.allclose(view.reference, image, atol=1e-5)


def test_rows_are_numpys_figures_of_the_saved_packages(
    compared: Comparison, views: tuple[View, ...]
) -> None:
    assert [row.label for row in compared.rows] == ["float16", "int8-plain", "w8a8-plain"]
    for row in compared.rows:
        session = Session(read_package(row.path))
        found = []
        for view in views:
            image = session.run({"latent": view.values})["image"].astype(np.float64)
            found.append(-10 * np.log10(np.mean((image - view.reference) ** 2)))
        assert [view.psnr_db for view in row.views] == pytest.approx(found, abs=1e-6)
        assert row.psnr_db == pytest.approx(np.mean(found), abs=1e-6)


def test_bytes_are_those_of_the_weight_file(compared: Comparison) -> None:
    plain, int8, w8a8 = compared.rows
    for row in compared.rows:
        files = [f for f in row.path.rglob("*") if f.is_file()]
        weight = [f for f in files if f.name == "weight.bin"]
        assert row.bytes == sum(f.stat().st_size for f in weight)
        assert row.package_bytes == sum(f.stat().st_size for f in files)
    assert plain.fraction == 1
    # 8 of 16 bits; scales of 64 output channels beside 576 weights each add 0.4%, padding the rest
    assert 0.50 < int8.fraction < 0.51
    assert int8.fraction == int8.bytes / plain.bytes
    assert w8a8.fraction == pytest.approx(int8.fraction, abs=0.005)


def test_only_w8a8_computes_in_integers(compared: Comparison) -> None:
    plain, int8, w8a8 = compared.rows
    assert (plain.evidence.int8_macs, int8.evidence.int8_macs) == (0, 0)
    # all but the first (32 channels at 8 x 8) and the last (3 channels at 64 x 64) convolution
    assert 0.97 < w8a8.evidence.int8_macs < 1
    assert int8.evidence.classification == "weights only"
    assert w8a8.evidence.classification == "weights and activations"


def test_similarity_is_ssim_by_its_formula(views: tuple[View, ...]) -> None:
    """Wang et al. 2004 with a 7 x 7 box, unbiased moments, K = 0.01 and 0.03; borders left out."""
    noise = np.random.Generator(np.random.PCG64(3)).normal(0, 0.05, views[0].reference.shape)
    other = (views[0].reference + noise).astype(np.float32)
    a, b = (np.clip(x[0], 0, 1).astype(np.float64) for x in (other, views[0].reference))

    def box(x: np.ndarray) -> np.ndarray:
        return np.stack([uniform_filter(plane, 7)[3:-3, 3:-3] for plane in x])

    unbiased = 49 / 48
    ma, mb = box(a), box(b)
    va, vb = (unbiased * (box(x * x) - m * m) for x, m in ((a, ma), (b, mb)))
    cov = unbiased * (box(a * b) - ma * mb)
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    assert similarity(other, views[0].reference) == pytest.approx(ssim.mean(), abs=1e-9)


def test_artifacts_that_are_there_are_measured_and_not_made_again(
    compared: Comparison, weights: Weights, views: tuple[View, ...], folder: Path
) -> None:
    again = compare_variants(Never(weights, folder), [row.recipe for row in compared.rows], views)
    assert all(row.kept for row in again.rows)
    assert not any(row.kept for row in compared.rows)
    assert [row.psnr_db for row in again.rows] == [row.psnr_db for row in compared.rows]


def test_artifacts_of_other_weights_are_not_taken_for_ours(
    compared: Comparison, weights: Weights, views: tuple[View, ...], folder: Path
) -> None:
    recipes = [row.recipe for row in compared.rows]
    other = replace(weights, digest="0" * 64)
    with pytest.raises(OutputError, match="--overwrite, or another folder with --out"):
        compare_variants(Never(other, folder), recipes, views)
    seen = calibration_of("other photos", [views[1].values])
    with pytest.raises(OutputError, match="calibration"):
        compare_variants(Never(weights, folder, seen), recipes, views)


def test_views_of_a_folder_are_the_middles_of_its_images(
    tmp_path: Path, weights: Weights, encoder: Weights
) -> None:
    pixels = np.random.Generator(np.random.PCG64(5)).integers(0, 256, (100, 84, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "b.png")
    Image.fromarray(pixels[18:82, 10:74]).save(tmp_path / "a.png")
    first, second = load_views(str(tmp_path), weights, encoder, SIZE)
    assert (first.name, second.name) == ("a.png", "b.png")
    assert np.array_equal(first.values, second.values)


def test_folder_without_images_is_refused(
    tmp_path: Path, weights: Weights, encoder: Weights
) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(
            CompressionError, match=r"(no images in|is not a folder) .* --images photos"
        ):
            load_views(str(place), weights, encoder, SIZE)


def test_recipes_start_with_float16_asked_for_or_not() -> None:
    for text in ("pal4,int8", "fp16,pal4,int8", "pal4,float16,int8"):
        plain, first, second = parse_recipes(text, BASE)
        assert plain.compression is None
        assert [r.compression.label() for r in (first, second) if r.compression] == ["pal4", "int8"]
        assert {r.sizes for r in (plain, first, second)} == {BASE.sizes}


def test_recipes_that_are_none_are_refused() -> None:
    for text, words in {
        "pal4,pal4": "is given twice",
        "pal4,fp15": "'fp15' is not understood",
        "pal5": "palettes have 1, 2, 3, 4, 6 or 8 bits",
    }.items():
        with pytest.raises(UsageError, match=words):
            parse_recipes(text, BASE)


def test_target_too_old_for_a_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match="needs iOS18 or newer"):
        parse_recipes("pal3", recipe("flux2", "64", target="iOS17"))
