"""How far a decoder's output is from its reference: arrays in, numbers out.

``compare`` is for the decoder's own arrays, in float64. A ``Meter`` is for images that people see,
by the libraries people know; each column says which. Its images are float32 (H, W, 3), sRGB in
[0, 1]; what lies outside is clamped first and NaN is black, as in the picture that people see.
SSIMULACRA2 reads 8 bits a channel, the others floats.

Sources: PSNR ``20 log10(1 / rmse)``; SSIM Wang et al. 2004; MS-SSIM Wang et al. 2003; FLIP
Andersson et al. 2020 (67 pixels a degree, mean of the map); SSIMULACRA2 Sneyers (Cloudinary) 2022;
LPIPS Zhang et al. 2018 (AlexNet); CLIP score 100 times the cosine of the two images' embeddings.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fluxvae.errors import ToolError
from fluxvae.records.roundtrip import Figures, Metric
from fluxvae.records.statistics import decibels

SMALLEST_MS_SSIM = 176  # shorter side in pixels: 16 windows of 11, as torchmetrics asks for
PACKAGES = ("flip-evaluator", "ssimulacra2", "torchmetrics")
CLIP = "openai/clip-vit-base-patch16"
LPIPS_FILE = "alexnet-owt-7be5be79.pth"  # torchvision's AlexNet in torch.hub's cache

_Measure = Callable[[np.ndarray, np.ndarray], float | None]


@dataclass(frozen=True)
class Metrics:
    """How far a candidate is from its reference.

    ``psnr_db`` is ``20 log10(peak / rmse)`` (``decibels``): infinite for equal arrays, and
    not-a-number (as are all distances) when the candidate holds a NaN or an infinity. ``nan`` and
    ``inf`` count those. ``worst`` is the index of the largest difference, or of the first
    non-finite value.
    """

    max_abs: float
    mae: float
    rmse: float
    psnr_db: float
    cosine: float
    nan: int
    inf: int
    worst: tuple[int, ...]


def compare(candidate: np.ndarray, reference: np.ndarray, *, peak: float = 1.0) -> Metrics:
    """Distance of two arrays of one shape; ``peak`` is the reference's range (1 for [0, 1]).

    Raises ValueError when the shapes differ.
    """
    if candidate.shape != reference.shape:
        raise ValueError(f"shapes differ: {candidate.shape} and {reference.shape}")
    a, b = candidate.astype(np.float64), reference.astype(np.float64)
    nan, inf = int(np.isnan(a).sum()), int(np.isinf(a).sum())
    if nan or inf:
        where = np.unravel_index(int(np.argmax(~np.isfinite(a))), a.shape)
        bad = math.nan
        return Metrics(bad, bad, bad, bad, bad, nan, inf, tuple(int(i) for i in where))
    error = np.abs(a - b)
    where = np.unravel_index(int(np.argmax(error)), error.shape)
    squared = float(np.mean(error**2))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return Metrics(
        max_abs=float(error.max()),
        mae=float(error.mean()),
        rmse=math.sqrt(squared),
        psnr_db=decibels(squared / peak**2),
        cosine=float(np.vdot(a, b)) / norms if norms else float(np.array_equal(a, b)),
        nan=0,
        inf=0,
        worst=tuple(int(i) for i in where),
    )


def similarity(candidate: np.ndarray, reference: np.ndarray) -> float:
    """Mean SSIM of two images (1, 3, H, W), clamped to [0, 1]."""
    return ssim(*(np.clip(x[0], 0, 1).transpose(1, 2, 0) for x in (candidate, reference)))


@dataclass(frozen=True)
class Meter:
    """The metrics that can be computed here, as ``measure`` uses them; ``metrics`` names all."""

    metrics: tuple[Metric, ...]
    functions: Mapping[str, _Measure]

    def measure(
        self, candidate: np.ndarray, reference: np.ndarray, known: Figures | None = None
    ) -> Figures:
        """Every figure of two images (H, W, 3); None as ``records.roundtrip.Metric`` says.

        ``known`` are figures of these images that the caller has already.
        """
        a, b, known = shown(candidate), shown(reference), known or {}
        return {n: known[n] if n in known else f(a, b) for n, f in self.functions.items()}


def make_meter(weights_cache: Path | None = None) -> Meter:
    """All metrics that work on this machine; LPIPS and CLIP where their weights are cached.

    ``weights_cache`` is torch.hub's folder of checkpoints (default: its own). Raises ToolError when
    a package is missing.
    """
    _require(PACKAGES)
    lpips, lpips_reason = _lpips(weights_cache)
    clip, clip_reason = _clip()
    functions = {
        "psnr": psnr,
        "ssim": ssim,
        "ms_ssim": ms_ssim,
        "flip": flip,
        "ssimulacra2": ssimulacra2,
        "max_abs": max_abs,
        **({} if lpips is None else {"lpips": lpips}),
        **({} if clip is None else {"clip": clip}),
    }
    torchmetrics = _named("torchmetrics")
    metrics = (
        Metric("psnr", "PSNR", "dB", "higher", _named("numpy"), None),
        Metric("ssim", "SSIM", "", "higher", _named("scikit-image"), None),
        Metric("ms_ssim", "MS-SSIM", "", "higher", torchmetrics, None),
        Metric("flip", "FLIP", "", "lower", _named("flip-evaluator"), None),
        Metric("ssimulacra2", "SSIMULACRA2", "", "higher", _named("ssimulacra2"), None),
        Metric("max_abs", "largest difference", "levels of 255", "lower", _named("numpy"), None),
        Metric("lpips", "LPIPS", "", "lower", torchmetrics, lpips_reason),
        Metric("clip", "CLIP score", "", "higher", torchmetrics, clip_reason),
    )
    return Meter(metrics, functions)


def shown(image: np.ndarray) -> np.ndarray:
    """The image as a screen shows it: float32 in [0, 1], NaN black. The result is contiguous."""
    finite = np.nan_to_num(image.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return np.ascontiguousarray(finite.clip(0, 1))


def psnr(candidate: np.ndarray, reference: np.ndarray) -> float | None:
    """Peak signal-to-noise ratio in dB, of all three channels together; None for equal images."""
    error = np.mean((candidate.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return decibels(float(error)) if error else None


def ssim(candidate: np.ndarray, reference: np.ndarray) -> float:
    """Mean structural similarity: scikit-image's, 7 x 7 windows, mean of the channels."""
    from skimage.metrics import structural_similarity

    a, b = candidate.astype(np.float64), reference.astype(np.float64)
    return float(structural_similarity(a, b, data_range=1.0, channel_axis=2))


def ms_ssim(candidate: np.ndarray, reference: np.ndarray) -> float | None:
    """Multi-scale SSIM of five scales; None below ``SMALLEST_MS_SSIM``.

    In float32, as in float64 torch's convolution takes fifteen times as long for 1e-6.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    if min(candidate.shape[:2]) < SMALLEST_MS_SSIM:
        return None
    found = multiscale_structural_similarity_index_measure(
        _tensor(candidate), _tensor(reference), data_range=1.0
    )
    return float(found)


def flip(candidate: np.ndarray, reference: np.ndarray) -> float | None:
    """Mean FLIP error, 0 (no difference that people see) to 1."""
    import flip_evaluator

    _, mean, _ = flip_evaluator.evaluate(reference, candidate, "LDR", applyMagma=False)
    return float(mean)


def flip_and_map(candidate: np.ndarray, reference: np.ndarray) -> tuple[float, np.ndarray]:
    """``flip`` and its error map in magma colours, uint8 (H, W, 3), in one go: FLIP is slow."""
    import flip_evaluator

    colours, mean, _ = flip_evaluator.evaluate(shown(reference), shown(candidate), "LDR")
    return float(mean), np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def ssimulacra2(candidate: np.ndarray, reference: np.ndarray) -> float | None:
    """SSIMULACRA2: 100 equal, 90 not told apart in a flicker test, 70 high, 50 medium quality."""
    from ssimulacra2 import compute_ssimulacra2

    return float(compute_ssimulacra2(_file(reference), _file(candidate)))


def max_abs(candidate: np.ndarray, reference: np.ndarray) -> float | None:
    """The largest difference of any channel of any pixel, in levels of 255."""
    return float(np.abs(candidate.astype(np.float64) - reference.astype(np.float64)).max() * 255)


def _tensor(image: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def _file(image: np.ndarray) -> io.BytesIO:
    """The image with 8 bits a channel as a file: the package takes nothing else."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(file, format="BMP")
    return file


def _lpips(folder: Path | None) -> tuple[_Measure | None, str | None]:
    """LPIPS when torchvision and its AlexNet are here, else why not."""
    if not _installed("torchvision"):
        return None, "torchvision is not installed"
    import torch

    weights = (folder or Path(torch.hub.get_dir()) / "checkpoints") / LPIPS_FILE
    if not weights.is_file():
        return None, f"its weights ({LPIPS_FILE}) are not in torch's cache"
    return _tried(_measure_lpips, "torchvision")


def _measure_lpips(candidate: np.ndarray, reference: np.ndarray) -> float | None:
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    found = learned_perceptual_image_patch_similarity(
        _tensor(candidate), _tensor(reference), net_type="alex", normalize=True
    )
    return float(found)


def _clip() -> tuple[_Measure | None, str | None]:
    """CLIP score of image and image when transformers and the model are here, else why not."""
    if not _installed("transformers"):
        return None, "transformers is not installed"
    from huggingface_hub import try_to_load_from_cache

    files = ("config.json", "preprocessor_config.json")
    kept = [try_to_load_from_cache(CLIP, name) for name in files]
    models = [try_to_load_from_cache(CLIP, f) for f in ("model.safetensors", "pytorch_model.bin")]
    if not all(isinstance(k, str) for k in kept) or not any(isinstance(m, str) for m in models):
        return None, f"its weights ({CLIP}) are not in the Hugging Face cache"
    return _tried(_measure_clip, "transformers")


def _measure_clip(candidate: np.ndarray, reference: np.ndarray) -> float | None:
    from torchmetrics.functional.multimodal import clip_score

    images = [(_tensor(x)[0] * 255).round().byte() for x in (candidate, reference)]
    return float(clip_score(images[0], images[1], CLIP))


def _tried(measure: _Measure, package: str) -> tuple[_Measure | None, str | None]:
    """The function if it works, else why not: optional packages that may be broken."""
    grey = np.full((64, 64, 3), 0.5, np.float32)
    try:
        measure(grey, grey)
    except Exception as error:  # a damaged cache, a package of another torch, ...
        words = " ".join(str(error).split())[:120]
        return None, f"{package} does not work here ({type(error).__name__}: {words})"
    return measure, None


def _installed(package: str) -> bool:
    return _version(package) is not None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _named(package: str) -> str:
    return f"{package} {_version(package)}"


def _require(packages: Sequence[str]) -> None:
    missing = [p for p in packages if not _installed(p)]
    if missing:
        raise ToolError(
            f"a round trip needs {', '.join(missing)}: pip install 'fluxvae[roundtrip]'"
        )
