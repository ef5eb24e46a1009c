"""Neural networks for tests: built layer by layer with coremltools, run by our executor."""

import logging
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Program

# before coremltools is imported: it logs and draws progress bars
logging.getLogger("coremltools").setLevel(logging.ERROR)
os.environ.setdefault("TQDM_DISABLE", "1")

# Float32 results of a few operations against float64 ones, relative to the largest expected
# value. Measured over all cases: at most 2.0e-7.
TOLERANCE = 1e-6

Add = Callable[[Any], Any]


@dataclass(frozen=True)
class LayerCase:
    """Layers that read ``inputs`` and write ``outputs``, and what they must compute.

    ``rank_5``: inputs (C) and (C, H, W) reach the layers as (1, 1, C, H, W).
    """

    id: str
    add: Add
    inputs: Mapping[str, np.ndarray]
    expected: tuple[np.ndarray, ...]
    rank_5: bool = False

    def __str__(self) -> str:
        return self.id


def layer(
    name: str,
    method: str,
    x: np.ndarray,
    *expected: np.ndarray,
    rank_5: bool = False,
    **params: Any,
) -> LayerCase:
    """A case of the one layer that a method of coremltools' builder adds."""
    outputs: dict[str, Any] = {"output_name": "y0"}
    if len(expected) > 1:
        outputs = {"output_names": [f"y{i}" for i in range(len(expected))]}
    return LayerCase(
        name,
        lambda b: getattr(b, method)("layer", input_name="x", **outputs, **params),
        {"x": x},
        tuple(map(np.asarray, expected)),
        rank_5,
    )


def save_network(
    path: Path,
    add: Add,
    inputs: Mapping[str, tuple[int, ...]],
    outputs: tuple[str, ...],
    *,
    rank_5: bool = False,
) -> Path:
    """An ``.mlmodel`` with the layers ``add(builder)`` adds; inputs and outputs are float32."""
    from coremltools.models import datatypes
    from coremltools.models.neural_network import NeuralNetworkBuilder

    builder = NeuralNetworkBuilder(
        [(name, datatypes.Array(*shape)) for name, shape in inputs.items()],
        [(name, None) for name in outputs],
        disable_rank5_shape_mapping=not rank_5,
        use_float_arraytype=True,
    )
    add(builder)
    path.write_bytes(builder.spec.SerializeToString())
    return path


def run(program: Program, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of a program; every operation's result must have its declared shape."""

    def check(op: Any, outputs: Mapping[str, Any]) -> None:
        for variable in op.outputs:
            got, declared = outputs[variable.name].shape, variable.type.shape
            assert len(got) == len(declared), (op, got)
            assert all(d in (None, g) for d, g in zip(declared, got, strict=True)), (op, got)

    return Session(program).run(inputs, on_op=check)


def check_case(case: LayerCase, folder: Path) -> None:
    """Save, read and run the case's network; its outputs must be the expected ones."""
    names = tuple(f"y{i}" for i in range(len(case.expected)))
    shapes = {k: v.shape for k, v in case.inputs.items()}
    path = save_network(folder / "case.mlmodel", case.add, shapes, names, rank_5=case.rank_5)
    got = run(read_package(path), {k: v.astype(np.float32) for k, v in case.inputs.items()})
    for name, expected in zip(names, case.expected, strict=True):
        assert got[name].dtype == np.float32
        assert got[name].shape == expected.shape
        error = np.abs(got[name] - expected).max()
        assert error <= TOLERANCE * np.abs(expected).max()


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float64 values that float32 holds exactly."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return values.astype(np.float32).astype(np.float64)


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    """Values in 0.5..2 that float32 holds exactly."""
    values = np.random.default_rng(seed).uniform(0.5, 2, shape)
    return values.astype(np.float32).astype(np.float64)


def convert_network(
    module: nn.Module,
    example: torch.Tensor,
    inputs: Any,
    outputs: Any,
    *,
    dynamic: Any = None,
    trace: bool = False,
) -> Any:
    """The module as a neural network (an MLModel), through torch.export or a trace."""
    import coremltools as ct

    module = module.eval()
    with warnings.catch_warnings():
        # torch's own deprecations, which coremltools and tracing trigger
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        if trace:
            source = torch.jit.trace(module, example)
        else:
            exported = torch.export.export(module, (example,), dynamic_shapes=dynamic)
            source = exported.run_decompositions({})
        return ct.convert(source, inputs=[inputs], outputs=[outputs], convert_to="neuralnetwork")
