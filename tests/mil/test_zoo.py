"""Other people's models, with outputs of another runtime, in ``../shared/golden/zoo``.

Each ``NAME.mlpackage`` or ``NAME.mlmodel`` there has a ``NAME_case.npz`` with its inputs and
outputs by name. It is run as it is and, if it is an ML Program, compiled by the portable compiler.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from fluxvae.mil.compiler import compile_program
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from tests.conftest import SHARED

ZOO = SHARED / "golden" / "zoo"
CASES = sorted(ZOO.glob("*_case.npz"))
# Absolute, and relative to the largest value where that is above 1. Measured: at most 2.0e-6.
TOLERANCE = 5e-6

every_model = pytest.mark.parametrize(
    "case",
    CASES
    or [pytest.param(ZOO, marks=pytest.mark.skip(f"no models of others here (looked in {ZOO})"))],
    ids=lambda case: case.stem.removesuffix("_case"),
)


def model_of(case: Path) -> Path:
    stem = case.stem.removesuffix("_case")
    found = [case.with_name(stem + end) for end in (".mlpackage", ".mlmodel")]
    return next(path for path in found if path.exists())


def check(model: Path, case: Path) -> None:
    """Run the case's inputs and compare every stored output that the model has."""
    session = Session(read_package(model))
    with np.load(case) as arrays:
        stored = dict(arrays)
    got = session.run({f.name: stored[f.name] for f in session.signature.inputs})
    compared = stored.keys() & got.keys()
    assert compared, f"{case.name} holds none of the outputs {list(got)}"
    for name in compared:
        assert_close(name, got, stored)


def assert_close(name: str, got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray]) -> None:
    ours = got[name]
    if ours.dtype.kind in "US":  # a class label
        assert ours == want[name]
        return
    # Old networks drop or add axes of length 1 at either end.
    assert ours.size == want[name].size
    error = np.abs(ours.astype(np.float64).reshape(want[name].shape) - want[name]).max()
    assert error <= TOLERANCE * max(1, np.abs(want[name]).max()), f"{name} is off by {error:.2g}"


@every_model
def test_model_gives_what_another_runtime_gave(case: Path) -> None:
    check(model_of(case), case)


@every_model
def test_bundle_of_the_portable_compiler_gives_what_another_runtime_gave(
    case: Path, tmp_path: Path
) -> None:
    model = model_of(case)
    if read_package(model).kind != "mlprogram":
        pytest.skip("the portable compiler takes ML Programs only")
    check(compile_program(model, tmp_path).path, case)
