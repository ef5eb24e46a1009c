"""One mutated file or folder, given to everything that reads its kind."""

import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fluxvae.data.latents import read_latents
from fluxvae.errors import FluxVAEError
from fluxvae.mil.compiler import compile_program
from fluxvae.mil.executor import Session
from fluxvae.mil.package import check_model, read_package
from fluxvae.mil.program import Feature, Program
from fluxvae.mil.protobuf import message_module
from fluxvae.networks.catalog import find_decoder
from fluxvae.networks.describe import describe_file
from fluxvae.networks.weights import load_weights
from fluxvae.recipes.axes import LatentInput
from fluxvae.validation.inspect import inspect_model
from tests.fuzz.mutate import mutate_bytes, mutate_json, mutate_message, mutate_text

LARGEST_INPUT = 1 << 20  # elements; what is larger is a model's right, and takes long


def run_case(kind: str, source: Path, folder: Path, random: Random) -> bool:
    """Copy ``source`` into ``folder``, damage the copy and read it; whether all readers took it.

    Raises what they raise, if it is not a FluxVAEError.
    """
    copy = folder / source.name
    if source.is_dir():
        shutil.copytree(source, copy)
    else:
        shutil.copy(source, copy)
    MUTATIONS[kind](copy, random)
    taken = [_accepts(read, copy) for read in READERS[kind](folder)]
    return all(taken)


def _accepts(read: Callable[[Path], object], path: Path) -> bool:
    try:
        read(path)
    except FluxVAEError as error:
        str(error)
        return False
    return True


# --- damage ---


def _damage_package(path: Path, random: Random) -> None:
    model = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    weights = [p for p in (model.parent / "weights").glob("*") if p.is_file()]
    choice = random.random()
    if choice < 0.65:
        _damage_message(model, random)
    elif choice < 0.8:
        _damage_bytes(model, random)
    elif choice < 0.9 and weights:
        _damage_bytes(weights[0], random)
    elif choice < 0.95:
        manifest = path / "Manifest.json"
        manifest.write_bytes(mutate_json(manifest.read_bytes(), random))
    else:
        _damage_tree(path, random)


def _damage_bundle(path: Path, random: Random) -> None:
    text, data = path / "model.mil", path / "coremldata.bin"
    choice = random.random()
    if choice < 0.7:
        text.write_text(mutate_text(text.read_text("utf-8"), random), "utf-8", "surrogatepass")
    elif choice < 0.8:
        _damage_bytes(text, random)
    elif choice < 0.92:
        _damage_bytes(data, random)
    else:
        _damage_tree(path, random)


def _damage_network(path: Path, random: Random) -> None:
    (_damage_message if random.random() < 0.75 else _damage_bytes)(path, random)


def _damage_message(path: Path, random: Random) -> None:
    model = message_module("Model_pb2").Model()
    model.ParseFromString(path.read_bytes())
    mutate_message(model, random)
    path.write_bytes(model.SerializeToString())


def _damage_bytes(path: Path, random: Random) -> None:
    path.write_bytes(mutate_bytes(path.read_bytes(), random))


def _damage_tree(path: Path, random: Random) -> None:
    """Remove one entry of a folder, or put another thing in its place."""
    entries = sorted(path.rglob("*"))
    entry, other = random.choice(entries), random.choice(entries)
    content = other.read_bytes() if other.is_file() else b""
    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    kind = random.choice(("gone", "folder", "link", "loop", "file"))
    if kind == "folder":
        entry.mkdir()
    elif kind == "link":
        entry.symlink_to("nowhere")
    elif kind == "loop":
        entry.symlink_to(entry)
    elif kind == "file":
        entry.write_bytes(content)


MUTATIONS = {
    "package": _damage_package,
    "bundle": _damage_bundle,
    "network": _damage_network,
    "latents": _damage_bytes,
    "weights": _damage_bytes,
}

# --- readers ---


def _execute(path: Path) -> None:
    program = read_package(path)
    for name in program.functions:
        _execute_function(program, name)


def _execute_function(program: Program, name: str) -> None:
    session, random = Session(program, name), np.random.default_rng(0)
    feeds: dict[str, Any] = {}
    for feature in program.signatures[name].inputs:
        shape = _smallest(feature)
        if math.prod(shape) > LARGEST_INPUT:
            return
        feeds[feature.name] = random.standard_normal(shape, np.float32)
    with suppress(FluxVAEError):  # an image is fed as it comes, a tensor of the described shape
        session.run(feeds)


def _smallest(feature: Feature) -> tuple[int, ...]:
    if feature.ranges:
        return tuple(max(0, low) for low, _ in feature.ranges)
    shape = feature.shapes[0] if feature.shapes else feature.shape
    return tuple(max(0, d) for d in shape)


def _model_readers(folder: Path) -> list[Callable[[Path], object]]:
    return [_execute, inspect_model]


def _package_readers(folder: Path) -> list[Callable[[Path], object]]:
    def compile_into(path: Path) -> None:
        out = folder / "out"
        out.mkdir()
        try:
            made = compile_program(path, out).path
        except FluxVAEError:
            assert not list(out.iterdir()), "a refused model left files"
            raise
        with suppress(FluxVAEError):
            read_package(made)

    return [check_model, compile_into, *_model_readers(folder)]


def _latent_readers(folder: Path) -> list[Callable[[Path], object]]:
    wanted = LatentInput(
        find_decoder("flux1").contract, "flux1", "sampler", sides=((8, 8), (8, 12))
    )
    return [lambda path: read_latents(path, wanted)]


def _weight_readers(folder: Path) -> list[Callable[[Path], object]]:
    return [describe_file, lambda path: load_weights("flux1", str(path))]


READERS: dict[str, Callable[[Path], list[Callable[[Path], object]]]] = {
    "package": _package_readers,
    "bundle": _model_readers,
    "network": _model_readers,
    "latents": _latent_readers,
    "weights": _weight_readers,
}
