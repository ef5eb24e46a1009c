"""Whole models, latents and weights to damage, each made when it is first asked for."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from fluxvae.mil.compiler import compile_program
from fluxvae.networks.weights import load_weights
from tests.artifacts import convert, recipe
from tests.checkpoint_files import in_style, write
from tests.mil.cases import CASES as EVERY_CASE
from tests.mil.layers import test_elementwise, test_linear, test_reduce, test_shape, test_spatial
from tests.mil.networks import LayerCase, save_network
from tests.mil.programs import save

# Apple's spelling of offsets that are not in a weight file is not known: it cannot be compiled.
CASES = [case for case in EVERY_CASE if case.id != "uint4-offset"]
NETWORKS: tuple[LayerCase, ...] = tuple(
    case
    for module in (test_elementwise, test_linear, test_reduce, test_shape, test_spatial)
    for case in module.CASES
)
DECODERS = (
    {"variant": "flux1"},
    {"variant": "flux2", "sizes": "64,64x96", "shapes": "enumerated"},
    {"variant": "flux2", "output": "image", "target": "iOS18"},
)
LATENTS = (".safetensors", ".npy", ".bin")
STYLES = ("taesd.safetensors", "diffusers.safetensors", "taesd.pth", "old.pth")


class Corpus:
    """Files below ``folder``, by kind and number; ``decoders``: whole ones too, which take long."""

    def __init__(self, folder: Path, *, decoders: bool) -> None:
        self._folder = folder
        self._decoders = DECODERS if decoders else ()

    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        packages = len(CASES) + 40 * len(self._decoders)  # decoders more often
        return {
            "package": packages,
            "bundle": packages,
            "network": len(NETWORKS),
            "latents": len(LATENTS),
            "weights": len(STYLES),
        }

    def get(self, kind: str, number: int) -> Path:
        """The path of one; made now if it is not there."""
        makers: dict[str, Callable[[int, Path], Path]] = {
            "package": self._package,
            "bundle": lambda n, _: (
                compile_program(self.get("package", n), self._home(kind, n)).path
            ),
            "network": _network,
            "latents": _latents,
            "weights": _weights,
        }
        if kind in ("package", "bundle") and number >= len(CASES):
            number = len(CASES) + number % len(self._decoders)
        home = self._home(kind, number)
        ready = home / "ready"
        if not ready.exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
            made = makers[kind](number, home)
            ready.write_text(str(made))
        return Path(ready.read_text())

    def _home(self, kind: str, number: int) -> Path:
        return self._folder / kind / str(number)

    def _package(self, number: int, home: Path) -> Path:
        if number < len(CASES):
            case = CASES[number]
            return save(case, case.dtypes[-1], home)[0]
        options = dict(self._decoders[number - len(CASES)])
        variant = options.pop("variant")
        made = recipe(variant, options.pop("sizes", "64"), **options)
        return convert(load_weights(variant, "random:0"), made, home)


def _network(number: int, home: Path) -> Path:
    case = NETWORKS[number]
    names = tuple(f"y{i}" for i in range(len(case.expected)))
    shapes = {k: v.shape for k, v in case.inputs.items()}
    return save_network(home / "network.mlmodel", case.add, shapes, names)


def _latents(number: int, home: Path) -> Path:
    path = home / f"latents{LATENTS[number]}"
    values = np.random.default_rng(0).standard_normal((1, 16, 8, 8), np.float32)
    if path.suffix == ".safetensors":
        save_file({"a": values, "b": values.astype(np.float16)}, path, {"format": "pt"})
    elif path.suffix == ".npy":
        np.save(path, values)
    else:
        path.write_bytes(values.tobytes())
    return path


def _weights(number: int, home: Path) -> Path:
    style, _, suffix = STYLES[number].partition(".")
    weights = load_weights("flux1", "random:0")
    tensors = in_style("diffusers" if style == "diffusers" else "taesd", weights)
    path = home / f"weights.{suffix}"
    if style == "old":
        torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=False)
        return path
    return write(path, tensors)
