"""A round trip's folder without running one: photos, JPEG's errors as variants, real figures."""

import hashlib
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fluxvae.records.roundtrip import (
    REFERENCE,
    Ablation,
    Crop,
    Figures,
    Metric,
    Picture,
    Result,
    Roundtrip,
    Skipped,
    Variant,
)
from fluxvae.schema import load, save

GAIN = 8.0
QUALITIES = {"fp16": 99, "pal8": 95, "int8": 88, "pal6": 75, "w8a8": 60, "pal4": 25}
BYTES = {"fp16": 2_450_000, "pal8": 1_240_000, "int8": 1_235_000, "pal6": 940_000,
         "w8a8": 1_260_000, "pal4": 640_000}  # fmt: skip
FEW = {k: v for k, v in QUALITIES.items() if k in ("fp16", "pal6", "w8a8", "pal4")}
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
METRICS = (
    Metric("psnr", "PSNR", "dB", "higher", "scikit-image", None),
    Metric("ssim", "SSIM", "", "higher", "scikit-image", None),
    Metric("max_abs", "max abs", "", "lower", "numpy", None),
    Metric("lpips", "LPIPS", "", "lower", "lpips", "its weights are not in the cache"),
)


def photo(name: str, size: int) -> np.ndarray:
    """A square uint8 RGB piece of one of scikit-image's photos, shape (size, size, 3)."""
    pixels = getattr(data, name)()[..., :3]
    side = min(pixels.shape[:2])
    whole = Image.fromarray(np.ascontiguousarray(pixels[:side, -side:]))
    return np.asarray(whole.resize((size, size), Image.Resampling.LANCZOS))


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """The same picture with JPEG's errors."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def figures(image: np.ndarray, reference: np.ndarray) -> Figures:
    with np.errstate(divide="ignore"):
        psnr = float(peak_signal_noise_ratio(reference, image))
    difference = np.abs(image.astype(int) - reference)
    return {
        "psnr": None if math.isinf(psnr) else psnr,
        "ssim": float(structural_similarity(reference, image, channel_axis=2)),
        "max_abs": float(difference.max() / 255),
    }


def amplified(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """|a - b| times ``GAIN``, clipped."""
    return np.clip(np.abs(image.astype(int) - reference) * GAIN, 0, 255).astype(np.uint8)


def heat(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Stands for a FLIP map: a colour for each pixel's error."""
    error = np.abs(image.astype(float) - reference).mean(axis=2, keepdims=True) / 64
    colours = np.concatenate([error * 3, error * 3 - 1, 0.15 + error * 3 - 2], axis=2)
    return (np.clip(colours, 0, 1) * 255).astype(np.uint8)


def make(folder: Path, *, size: int = 96, photos: tuple[str, ...] = PHOTOS,
         qualities: dict[str, int] = QUALITIES) -> Path:  # fmt: skip
    """A folder as ``fluxvae roundtrip`` leaves it; the path of its record."""
    results: list[Result] = []
    pictures = []
    for name in photos:
        original = photo(name, size)
        save_pixels(folder / f"{name}/original.png", original)
        reference = jpeg(original, 90)
        worst = jpeg(reference, min(qualities.values()))
        pictures.append(picture(name, original, amplified(worst, reference)))
        results.append(result(folder, name, REFERENCE, reference, reference, original))
        for label, quality in qualities.items():
            image = jpeg(reference, quality)
            results.append(result(folder, name, label, image, reference, original))
    return save(record(pictures, results, qualities, size), folder / "record.json")


def picture(name: str, original: np.ndarray, errors: np.ndarray) -> Picture:
    side = original.shape[0] // 2
    return Picture(
        name=name,
        source=f"skimage:{name}",
        sha256=hashlib.sha256(original.tobytes()).hexdigest(),
        height=original.shape[0],
        width=original.shape[1],
        file=f"{name}/original.png",
        changes=("cropped from 512 x 512",) if name == "chelsea" else (),
        crop=Crop(side // 2, side // 3, side),
    )


def result(folder: Path, name: str, label: str, image: np.ndarray, reference: np.ndarray,
           original: np.ndarray) -> Result:  # fmt: skip
    slug = hashlib.sha256(label.encode()).hexdigest()[:8]
    file = f"{name}/{slug}.png"
    save_pixels(folder / file, image)
    if label == REFERENCE:
        return Result(name, label, file, None, None, {}, figures(image, original))
    difference, flip = f"{name}/{slug}-difference.png", f"{name}/{slug}-flip.png"
    save_pixels(folder / difference, amplified(image, reference))
    save_pixels(folder / flip, heat(image, reference))
    loss = figures(image, reference)
    return Result(name, label, file, difference, flip, loss, figures(image, original))


def save_pixels(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def record(pictures: list[Picture], results: list[Result], qualities: dict[str, int],
           size: int) -> Roundtrip:  # fmt: skip
    loss = {(r.picture, r.variant): r.loss for r in results}
    variants = [Variant(REFERENCE, "float32 in PyTorch", None, None, None, None, None)]
    for label, quality in qualities.items():
        count = BYTES.get(label, 10_000 * quality)
        variants.append(Variant(label, f"stands for {label}", f"{label}.mlpackage", {"quality":
                        quality}, count, count / BYTES["fp16"], "weights only"))  # fmt: skip
    labels = list(qualities)
    parts = {
        "fp32 program": labels[0],
        "precision": labels[0],
        "palette of 6 bits": labels[-2],
        "all": labels[-1],
    }
    return Roundtrip(
        family="flux2",
        size=str(size),
        weights="flux2_demo_decoder.safetensors",
        weights_digest="1" * 64,
        encoder="flux2_demo_encoder.safetensors",
        encoder_digest="2" * 64,
        source="photos",
        gain=GAIN,
        tools={"fluxvae": "0", "torch": "2.13"},
        metrics=METRICS,
        pictures=tuple(pictures),
        skipped=(Skipped("notes.txt", "not a picture"),),
        variants=tuple(variants),
        results=tuple(results),
        ablations=tuple(
            Ablation(labels[-1], part, {}, {p.name: loss[p.name, label] for p in pictures})
            for part, label in parts.items()
        ),
    )


def renamed(path: Path, name: str, label: str) -> Path:
    """Give the record's first picture and its last variant other names; files stay as they are."""
    from fluxvae.records.roundtrip import Roundtrip

    old = load(Roundtrip, path)
    first, last = old.pictures[0].name, old.variants[-1].label
    new = replace(
        old,
        pictures=tuple(replace(p, name=name if p.name == first else p.name) for p in old.pictures),
        variants=tuple(replace(v, label=label if v.label == last else v.label)
                       for v in old.variants),
        results=tuple(replace(r, picture=name if r.picture == first else r.picture,
                              variant=label if r.variant == last else r.variant)
                      for r in old.results),
        ablations=tuple(
            replace(a, variant=label if a.variant == last else a.variant,
                    loss={name if k == first else k: v for k, v in a.loss.items()})
            for a in old.ablations
        ),
    )  # fmt: skip
    return save(new, path)
