"""Every figure is its library's own: other entrances of the libraries, and stored figures."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fluxvae.data.photos import EVALUATION_PHOTOS, load_photo
from fluxvae.errors import ToolError
from fluxvae.validation import metrics as image_metrics
from fluxvae.validation.metrics import flip_and_map, make_meter, shown

METER = make_meter(Path("no such folder"))
ALWAYS = ["psnr", "ssim", "ms_ssim", "flip", "ssimulacra2", "max_abs"]


def _pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A photo's 192 x 176 pixels and the same with fewer levels, uint8."""
    photo = next(p for p in EVALUATION_PHOTOS if p.name == name)
    pixels = np.ascontiguousarray(load_photo(photo)[:192, :176])
    step = {"chelsea": 16, "coffee": 48}[name]
    levels = pixels.astype(int) // step * step + step // 2
    return pixels, levels.clip(0, 255).astype(np.uint8)


# From ssimulacra2 0.3.0's and flip-evaluator 1.7's own command lines on the pairs as PNG files.
STORED = {
    "chelsea": {"ssimulacra2": 65.35307414, "flip": 0.061271},
    "coffee": {"ssimulacra2": 24.57151691, "flip": 0.144331},
}


@pytest.fixture(params=["chelsea", "coffee"])
def pair(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    return _pair(request.param)


def _figures(candidate: np.ndarray, reference: np.ndarray) -> dict[str, float | None]:
    return METER.measure(*(x.astype(np.float32) / 255 for x in (candidate, reference)))


def test_figures_are_the_libraries_own(pair: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    import flip_evaluator
    import torch
    from ssimulacra2 import compute_ssimulacra2
    from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

    reference, candidate = pair
    files = [tmp_path / "reference.png", tmp_path / "candidate.png"]
    for pixels, file in zip(pair, files, strict=True):
        Image.fromarray(pixels).save(file)
    found = _figures(candidate, reference)
    # the libraries on 8 bits and in float64, ours on float32 of [0, 1]: 1e-6 of either
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(*pair), rel=1e-6)
    whole = structural_similarity(*pair, channel_axis=2)
    assert found["ssim"] == pytest.approx(whole, rel=1e-6)
    measure = MultiScaleStructuralSimilarityIndexMeasure(data_range=255.0)
    planes = [torch.from_numpy(x.transpose(2, 0, 1)[None]).double() for x in (candidate, reference)]
    assert found["ms_ssim"] == pytest.approx(float(measure(*planes)), rel=1e-5)  # float32
    assert found["ssimulacra2"] == compute_ssimulacra2(*map(str, files))
    _, flip, _ = flip_evaluator.evaluate(*map(str, files), "LDR")
    assert found["flip"] == pytest.approx(flip, rel=1e-5)  # floats from 8 bits, rounded twice
    largest = np.abs(reference.astype(int) - candidate).max()
    assert found["max_abs"] == pytest.approx(largest, rel=1e-6)


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_figures_are_those_stored(name: str) -> None:
    reference, candidate = _pair(name)
    found = _figures(candidate, reference)
    for metric, figure in STORED[name].items():
        assert found[metric] == pytest.approx(figure, abs=1e-6), metric


def test_identical_images_are_equal_by_every_measure(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    found = _figures(pair[0], pair[0])
    assert found == {
        "psnr": None, "ssim": 1, "ms_ssim": 1, "flip": 0, "ssimulacra2": 100, "max_abs": 0
    }  # fmt: skip


def test_small_images_have_no_ms_ssim() -> None:
    image = np.zeros((175, 200, 3), np.float32)
    assert METER.measure(image, image)["ms_ssim"] is None
    image = np.zeros((176, 200, 3), np.float32)
    assert METER.measure(image, image)["ms_ssim"] == 1


def test_overshoot_and_nan_are_measured_as_shown() -> None:
    image = np.full((64, 64, 3), 0.5, np.float32)
    image[0, 0], image[1, 1], image[2, 2] = math.nan, 1.5, -0.5
    assert shown(image)[0, 0].tolist() == [0, 0, 0]
    clamped = np.full((64, 64, 3), 0.5, np.float32)
    clamped[0, 0], clamped[1, 1], clamped[2, 2] = 0, 1, 0
    assert METER.measure(image, clamped)["psnr"] is None
    plain = np.full((64, 64, 3), 0.5, np.float32)
    # three pixels of 4096 half the range away
    assert METER.measure(image, plain)["psnr"] == pytest.approx(-10 * math.log10(3 / 4096 / 4))


def test_flips_map_is_dark_where_nothing_differs_and_bright_where_it_does() -> None:
    reference = np.full((96, 96, 3), 0.5, np.float32)
    candidate = reference.copy()
    candidate[:, 60:] = (1, 0, 0)
    mean, colours = flip_and_map(candidate, reference)
    assert mean == METER.functions["flip"](candidate, reference)
    assert (colours.shape, colours.dtype) == ((96, 96, 3), np.uint8)
    assert colours[:, :20].max() <= 4  # magma's first colour is (0, 0, 4)
    assert colours[:, 70:].mean() > 60


def test_every_metric_names_its_library_or_why_it_is_left_out() -> None:
    assert [m.name for m in METER.metrics][: len(ALWAYS)] == ALWAYS
    assert set(METER.functions) == {m.name for m in METER.metrics if m.left_out is None}
    left = {m.name: m.left_out for m in METER.metrics if m.left_out is not None}
    assert "lpips" in left  # the folder has no weights
    for reason in left.values():
        assert "not installed" in reason or "cache" in reason
    assert all(" " in m.library for m in METER.metrics)


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_metrics, "PACKAGES", ("numpy", "no-such-package"))
    with pytest.raises(ToolError, match=r"no-such-package: pip install 'fluxvae\[roundtrip\]'"):
        make_meter()


def test_lpips_is_left_out_until_its_weights_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Stands in for torchvision, which the tests do not install."""
    monkeypatch.setattr(image_metrics, "_installed", lambda _: True)
    left = image_metrics._lpips(tmp_path)
    assert left == (None, f"its weights ({image_metrics.LPIPS_FILE}) are not in torch's cache")
    (tmp_path / image_metrics.LPIPS_FILE).write_bytes(b"")
    function, reason = image_metrics._lpips(tmp_path)
    if function is None:  # the file is empty, or torchvision is really not there
        assert (reason or "").startswith("torchvision does not work here (")


def test_metric_that_fails_is_left_out_with_its_error() -> None:
    def fails(candidate: np.ndarray, reference: np.ndarray) -> float:
        raise RuntimeError("operator\nis missing")

    assert image_metrics._tried(fails, "torchvision") == (
        None,
        "torchvision does not work here (RuntimeError: operator is missing)",
    )
    assert image_metrics._tried(image_metrics.psnr, "x") == (image_metrics.psnr, None)
