"""Write tests/vectors/harness.json: numbers from numpy and hashlib that Swift's tests compare with.

Run it again after changing it: ``python scripts/harness_vectors.py``. A test fails when the file
is not what this script gives.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fluxvae.validation.metrics import compare

PLACE = Path(__file__).resolve().parents[1] / "tests" / "vectors" / "harness.json"
FRACTIONS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0, 0.123456789)


def vectors() -> dict[str, object]:
    """Everything, as plain data: percentiles, statistics, metrics and digests."""
    generator = np.random.Generator(np.random.PCG64(7))
    samples = [
        [4.0],
        [1.0, 2.0],
        [3.0, 1.0, 2.0],
        [0.1, 0.2, 0.30000000000000004, 0.4],
        [5.0] * 7,
        *(generator.lognormal(2.0, 0.3, size).tolist() for size in (10, 11, 200, 1001)),
    ]
    return {
        "source": f"numpy {np.__version__}: percentile (linear), mean, std(ddof=1)",
        "latency": [_latency(values) for values in samples],
        "metrics": [_metrics(*pair) for pair in _pairs(generator)],
        "sha256": [_digest(n) for n in (0, 1, 3, 55, 56, 63, 64, 65, 119, 120, 127, 128, 1000)],
    }


def _latency(values: list[float]) -> dict[str, object]:
    return {
        "samples": values,
        "fractions": FRACTIONS,
        "percentiles": {f"p{p}": float(np.percentile(values, p)) for p in (10, 90, 95, 99)},
        "quantiles": [float(np.quantile(values, f)) for f in FRACTIONS],
        "mean": float(np.mean(values)),
        "stddev": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
    }


def _pairs(generator: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    image = generator.random((1, 3, 4, 5), dtype=np.float32)
    noise = generator.standard_normal(image.shape, dtype=np.float32)
    broken = image.copy()
    broken[0, 1, 2, 3], broken[0, 2, 0, 0] = np.nan, np.inf
    large = generator.random((1, 16, 16, 3), dtype=np.float32)
    return [
        (image, image),
        (image + np.float32(1e-4) * noise, image),
        ((image + np.float32(0.01) * noise).astype(np.float16).astype(np.float32), image),
        (broken, image),
        (np.zeros_like(image), image),
        (np.zeros_like(image), np.zeros_like(image)),
        (-large, large),
    ]


def _metrics(candidate: np.ndarray, reference: np.ndarray) -> dict[str, object]:
    found = asdict(compare(candidate, reference))
    return {
        "shape": candidate.shape,
        "candidate": [_plain(v) for v in candidate.ravel().tolist()],
        "reference": reference.ravel().tolist(),
        # As the harness reports it: null for what is not finite.
        "expected": {
            key: value if np.all(np.isfinite(value)) else None for key, value in found.items()
        },
    }


def _plain(value: float) -> float | str:
    """NaN and infinity as words: JSON has neither."""
    return value if np.isfinite(value) else str(value)


def _digest(length: int) -> dict[str, object]:
    content = bytes(7 * i % 256 for i in range(length))  # byte i is 7 i modulo 256
    return {"length": length, "hex": hashlib.sha256(content).hexdigest()}


def text() -> str:
    """The file's content."""
    return json.dumps(vectors(), indent=1, allow_nan=False) + "\n"


if __name__ == "__main__":
    PLACE.parent.mkdir(exist_ok=True)
    PLACE.write_text(text())
