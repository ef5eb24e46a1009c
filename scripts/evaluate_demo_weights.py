"""Round-trip PSNR of the demo pairs on photos left out of their training.

    python scripts/evaluate_demo_weights.py --real ../shared/weights

Each photo is cut to multiples of 8 from the top left, encoded, decoded, clamped to [0, 1] and
compared with itself in float32. With ``--real``, a folder with the published TAEF1 and TAEF2
encoders and decoders, their figures stand beside. Prints the table of ``fluxvae/demo/README.md``.
chelsea and coffee are scikit-image's; china.jpg and flower.jpg are scikit-learn's.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.catalog import CATALOG
from fluxvae.networks.weights import load_weights


def held_out_photos() -> dict[str, Tensor]:
    """Photo name -> (1, 3, H, W) in [0, 1], H and W multiples of 8."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    arrays = {name: getattr(skimage.data, name)() for name in ("chelsea", "coffee")}
    arrays |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    return {name: _image(array) for name, array in arrays.items()}


def _image(array: np.ndarray) -> Tensor:
    height, width = (d // 8 * 8 for d in array.shape[:2])
    crop = np.ascontiguousarray(array[:height, :width].transpose(2, 0, 1))
    return torch.from_numpy(crop)[None].float() / 255


def pair(variant: str, spec: str) -> Callable[[Tensor], Tensor]:
    """The round trip image -> latent -> image of one variant's pair."""
    encoder = build_encoder(load_weights(variant, spec, part="encoder"))
    decoder = build_decoder(load_weights(variant, spec))
    return lambda image: decoder(encoder(image)).clamp(0, 1)


def round_trip_psnr(variant: str, spec: str, photos: dict[str, Tensor]) -> dict[str, float]:
    """PSNR in dB (peak 1) by photo."""
    trip = pair(variant, spec)
    with torch.no_grad():
        errors = {n: float((trip(x) - x).double().square().mean()) for n, x in photos.items()}
    return {name: -10 * math.log10(error) for name, error in errors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, help="folder with the published encoders and decoders")
    options = parser.parse_args()
    photos = held_out_photos()
    specs = {"demo": "demo"} | ({"published": str(options.real)} if options.real else {})
    columns = [(v, label, spec) for v in sorted(CATALOG) for label, spec in specs.items()]
    figures = [round_trip_psnr(v, spec, photos) for v, _, spec in columns]
    print("| photo |" + "".join(f" {v} {label} |" for v, label, _ in columns))
    print("|---|" + "---|" * len(columns))
    for name in photos:
        print(f"| {name} |" + "".join(f" {f[name]:.2f} |" for f in figures))
    means = [sum(f.values()) / len(f) for f in figures]
    print("| mean |" + "".join(f" {m:.2f} |" for m in means))


if __name__ == "__main__":
    main()
