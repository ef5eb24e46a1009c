"""The numbers that Swift's tests compare with are numpy's, as the script gives them today."""

import json
import math

from scripts.harness_vectors import PLACE, vectors


def test_the_committed_vectors_are_what_numpy_gives() -> None:
    committed = json.loads(PLACE.read_text())
    fresh = json.loads(json.dumps(vectors()))
    assert _same({**committed, "source": ""}, {**fresh, "source": ""})


def _same(a: object, b: object) -> bool:
    """Equal, floats to 1e-12: another machine's libm and SIMD may differ in the last bits."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)
    return a == b
