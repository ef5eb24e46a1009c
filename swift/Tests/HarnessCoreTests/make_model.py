"""A small model for the Swift tests: y = 2x + 1 of shape 1x2x3x5 in float32.

Usage: make_model.py FOLDER. Writes ``affine.mlmodelc``.
"""

import logging
import os
import sys
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"
logging.getLogger("coremltools").setLevel(logging.ERROR)

import coremltools as ct  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402, N813

from fluxvae.mil.compiler import compile_program  # noqa: E402


@mb.program(input_specs=[mb.TensorSpec((1, 2, 3, 5))])
def affine(x):  # type: ignore[no-untyped-def]
    return mb.add(x=mb.mul(x=x, y=2.0), y=1.0, name="y")


def main(folder: Path) -> None:
    model = ct.convert(
        affine,
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    model.save(str(folder / "affine.mlpackage"))
    compile_program(folder / "affine.mlpackage", folder)


main(Path(sys.argv[1]))
