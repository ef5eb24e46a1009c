"""Small models for the Swift tests: y = 2x + 1, which floating point computes exactly.

Usage: make_models.py FOLDER. Writes ``fixed32``, ``fixed16``, ``enumerated``, ``ranged``,
``picture`` (its output is an RGB image, 6 high and 4 wide) and ``functions`` (``double`` of shape
1x2x3x5, ``wide`` of shape 1x2x3x7), each as an .mlpackage and compiled, as an .mlmodelc.
"""

import logging
import os
import sys
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"
logging.getLogger("coremltools").setLevel(logging.ERROR)

import coremltools as ct  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from fluxvae.mil.compiler import compile_program  # noqa: E402


class Affine(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 1


def save(
    folder: Path,
    name: str,
    shape: object,
    dtype: type,
    default: tuple[int, ...],
    output: object = None,
) -> Path:
    traced = torch.jit.trace(Affine().eval(), torch.zeros(default))
    model = ct.convert(
        traced,
        inputs=[ct.TensorType("x", shape=shape, dtype=dtype)],
        outputs=[output or ct.TensorType("y", dtype=dtype)],
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    model.author = "a test"
    model.license = "MIT"
    model.version = "1.2"
    model.short_description = "Twice and one more."
    model.user_defined_metadata["com.github.fluxvae.test"] = "värde"
    path = folder / f"{name}.mlpackage"
    model.save(str(path))
    return path


def main(folder: Path) -> None:
    usual = (1, 2, 3, 5)
    fixed = save(folder, "fixed32", usual, np.float32, usual)
    save(folder, "fixed16", usual, np.float16, usual)
    sizes = ct.EnumeratedShapes([usual, (1, 2, 4, 6)], default=usual)
    save(folder, "enumerated", sizes, np.float32, usual)
    ranged = ct.Shape((1, 2, ct.RangeDim(2, 8, default=3), 5))
    save(folder, "ranged", ranged, np.float32, usual)
    wide = save(folder, "wide", (1, 2, 3, 7), np.float32, (1, 2, 3, 7))
    image = ct.ImageType("y", color_layout=ct.colorlayout.RGB)
    save(folder, "picture", (1, 3, 6, 4), np.float32, (1, 3, 6, 4), image)
    both = ct.utils.MultiFunctionDescriptor()
    both.add_function(str(fixed), "main", "double")
    both.add_function(str(wide), "main", "wide")
    both.default_function_name = "double"
    ct.utils.save_multifunction(both, str(folder / "functions.mlpackage"))
    for package in sorted(folder.glob("*.mlpackage")):
        compile_program(package, folder)


main(Path(sys.argv[1]))
