"""Who runs an artifact: our reference executor on any OS, or Core ML itself on a Mac.

Both take a float32 NCHW latent and give a float32 NCHW image in the contract's range, or for an
encoder the other way, so that nothing above has to know layouts, dtypes or images. The Core ML side
has not been run on a Mac yet.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fluxvae.data.arrays import from_model, taken_by, to_model, to_planes
from fluxvae.errors import ArtifactError, ToolError
from fluxvae.mil.executor import OnOp, Session
from fluxvae.mil.program import Feature, Program, Signature
from fluxvae.networks.catalog import LatentContract
from fluxvae.recipes import Recipe

# Apple's spelling on the left, coremltools' enumeration on the right.
COMPUTE_UNITS = {
    "all": "ALL",
    "cpuOnly": "CPU_ONLY",
    "cpuAndGPU": "CPU_AND_GPU",
    "cpuAndNeuralEngine": "CPU_AND_NE",
}
Runner = Callable[[np.ndarray], np.ndarray]
# Arrays by the names of a function's inputs, to its one output.
FunctionRunner = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def choose_backend(backend: str) -> str:
    """``reference`` or ``coreml``. Raises ToolError for Core ML where there is none."""
    on_mac = sys.platform == "darwin"
    if backend == "coreml" and not on_mac:
        raise ToolError(
            "--backend coreml needs macOS: Core ML exists on Apple's systems only; "
            "--backend reference runs the same program here"
        )
    return "coreml" if on_mac and backend != "reference" else "reference"


def single_input(signature: Signature) -> tuple[Feature, Feature]:
    """The input and the output. Raises ArtifactError when there are others."""
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        raise ArtifactError(
            "a decoder or encoder has one input and one output; this model has "
            f"{len(signature.inputs)} and {len(signature.outputs)}"
        )
    return signature.inputs[0], signature.outputs[0]


def raw_runner(
    program: Program,
    function: str | None,
    backend: str,
    units: str = "all",
    on_op: OnOp | None = None,
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from the model's own input array to its own output array, unchanged.

    ``on_op`` sees every operation's outputs, where the executor runs: Core ML shows none.
    """
    name = function or program.default_function
    given, _ = single_input(program.signatures[name])
    run = function_runner(program, name, backend, units, on_op)
    return lambda array: run({given.name: array})


def function_runner(
    program: Program, name: str, backend: str, units: str = "all", on_op: OnOp | None = None
) -> FunctionRunner:
    """One function with any number of inputs; its only output, unchanged. See ``raw_runner``."""
    if name not in program.signatures or len(program.signatures[name].outputs) != 1:
        raise ArtifactError(
            f"{program.path.name} has no function {name!r} with one output; the model is damaged"
        )
    (output,) = program.signatures[name].outputs
    if choose_backend(backend) == "reference":
        session = Session(program, name)
        return lambda arrays: session.run(arrays, on_op=on_op)[output.name]
    return _coreml_runner(program.path, name, program, units)


def make_runner(
    program: Program, function: str | None, layout: str, backend: str, units: str = "all"
) -> Runner:
    """From latent (1, C, h, w) to image (1, 3, H, W), both float32, by a model of one program
    without a record, whose image is in [0, 1] or a tensor.
    """
    latent, _ = single_input(program.signatures[function or program.default_function])
    run = raw_runner(program, function, backend, units)

    def decode(values: np.ndarray) -> np.ndarray:
        array = to_model(values, layout, tokens=len(latent.shape) == 3)
        return to_planes(run(np.ascontiguousarray(array, np.float32)), layout)

    return decode


def on_network(run: Runner, recipe: Recipe, contract: LatentContract) -> Runner:
    """``run`` of an artifact, between a latent (1, C, h, w) and an image (1, 3, H, W), float32.

    FLUX.1's tokens are the map whose pixels they are. The levels of an 8-bit output stand for the
    contract's range. An encoder takes the image in [0, 1], rounded if it takes 8 bits.
    """

    def between_maps(values: np.ndarray) -> np.ndarray:
        output = run(taken_by(recipe, contract, values))
        if recipe.encodes:
            return from_model(output, recipe.layout, contract, values.shape[2:])
        return to_planes(output, recipe.layout, contract.span)

    return between_maps


def _coreml_runner(path: Path, function: str, program: Program, units: str) -> FunctionRunner:
    """Core ML through coremltools' macOS binding, packages and compiled models alike.

    Not yet run on a Mac.
    """
    import coremltools as ct

    signature = program.signatures[function]
    (output,) = signature.outputs
    dtypes = {f.name: np.float16 if f.dtype == "fp16" else np.float32 for f in signature.inputs}
    pictures = {f.name for f in signature.inputs if f.kind == "image"}
    options: dict[str, Any] = {"compute_units": ct.ComputeUnit[COMPUTE_UNITS[units]]}
    if len(program.functions) > 1:
        options["function_name"] = function
    load = ct.models.CompiledMLModel if path.suffix == ".mlmodelc" else ct.models.MLModel
    model = load(str(path), **options)

    def run(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        given = {
            name: _pil(array) if name in pictures else array.astype(dtypes[name])
            for name, array in arrays.items()
        }
        result = model.predict(given)[output.name]
        return np.asarray(result)[..., :3] if output.kind == "image" else np.asarray(result)

    return run


def _pil(array: np.ndarray) -> Any:
    """uint8 (H, W, 3) as coremltools takes an image."""
    from PIL import Image

    return Image.fromarray(array)
