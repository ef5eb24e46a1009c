"""Latents through an artifact: its own pictures, or its raw output, on any OS."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluxvae.backends import raw_runner, to_model, to_planes
from fluxvae.errors import LatentError, OutputError, UsageError
from fluxvae.latent_files import Latent, size_of
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Program
from fluxvae.output import refuse_existing, write_file
from fluxvae.package import Record
from fluxvae.recipes import Size, parse_sizes
from fluxvae.validate import functions_and_sizes, read_for, require_record


@dataclass(frozen=True)
class Decoded:
    """One decoded latent: where it was written, and how far its values overshoot."""

    name: str
    function: str
    size: str
    path: Path
    low: float
    high: float
    finite: bool


def decode_file(
    artifact: Path,
    latents: Path,
    out: Path,
    *,
    function: str | None = None,
    size: str | None = None,
    backend: str = "auto",
    compute_units: str = "all",
    overwrite: bool = False,
    on_image: Callable[[Decoded], None] = lambda _: None,
) -> tuple[Decoded, ...]:
    """Decode every latent of a file that fits; PNGs into the folder ``out``, or raw outputs.

    With ``out`` ending in ``.safetensors`` the model's outputs are stored as they come (its
    layout and dtype) under the latents' names. ``function`` and ``size`` narrow the choice where
    an artifact has several. Raises LatentError when no latent fits, OutputError when a file
    exists already.
    """
    program = read_package(artifact)
    record = require_record(program)
    choices = _choices(program, record, function, size)
    found = read_for(record, latents, tuple(choices))
    functions = {str(s): f for s, f in choices.items()}
    sizes = [size_of(latent, record.contract) for latent in found]
    jobs = [
        (latent, functions[s]) for latent, s in zip(found, sizes, strict=True) if s in functions
    ]
    if not jobs:
        raise LatentError(
            f"{latents.name} holds latents for images of {', '.join(sorted(set(sizes)))}; "
            f"{artifact.name} was asked for {', '.join(functions)}"
        )
    raw = out.suffix == ".safetensors"
    targets = [out if raw else out / f"{_file_name(latent.name)}.png" for latent, _ in jobs]
    for target in set(targets):
        refuse_existing(target, overwrite)
    _refuse_same_names([latent.name for latent, _ in jobs] if raw else [t.name for t in targets])
    runners = {name: raw_runner(program, name, backend, compute_units) for _, name in jobs}
    decoded, outputs = [], {}
    for (latent, name), target in zip(jobs, targets, strict=True):
        layout = record.recipe.layout
        values = to_model(latent.values, layout, tokens=record.contract.tokens)
        output = runners[name](np.ascontiguousarray(values))
        image = to_planes(output, layout, record.contract.span)
        if raw:
            outputs[latent.name] = np.ascontiguousarray(output)
        else:
            _write_png(target, image, record.contract.span, overwrite)
        decoded.append(_summary(latent, name, image, record, target))
        on_image(decoded[-1])
    if raw:
        _write_tensors(out, outputs, overwrite)
    return tuple(decoded)


def _choices(
    program: Program, record: Record, function: str | None, sizes: str | None
) -> dict[Size, str]:
    """Image size -> function that decodes it, narrowed to what was asked for."""
    if function is not None:
        program.function(function)  # names what there is when it is not there
    every = {s: f for f, s in functions_and_sizes(program, record)}
    choices = {s: f for s, f in every.items() if function in (None, f)}
    if sizes is None:
        return choices
    wanted = parse_sizes(sizes)
    for size in wanted:
        if size not in choices:
            where = f"function {function} of {program.path.name}" if function else program.path.name
            raise UsageError(
                f"--size {size} is not in {where}, which decodes {', '.join(map(str, choices))}"
            )
    return {size: choices[size] for size in wanted}


def _refuse_same_names(names: list[str]) -> None:
    """Raise OutputError when one output would replace another. macOS ignores case in file names."""
    seen = set()
    for name in names:
        if name.casefold() in seen:
            raise OutputError(
                f"two latents would be written under the name {name!r}; rename one of them"
            )
        seen.add(name.casefold())


def _summary(
    latent: Latent, function: str, image: np.ndarray, record: Record, target: Path
) -> Decoded:
    finite = bool(np.isfinite(image).all())
    low, high = (float(image.min()), float(image.max())) if finite else (0.0, 0.0)
    size = size_of(latent, record.contract)
    return Decoded(latent.name, function, size, target, low, high, finite)


def pixels(image: np.ndarray, span: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """(1, 3, H, W) in about ``span`` to uint8 (H, W, 3): clamped, rounded to nearest."""
    low, high = span
    unit = (image[0] - low) / (high - low)
    finite = np.nan_to_num(unit, nan=0.0, posinf=1.0, neginf=0.0)
    scaled = np.rint(finite.clip(0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(scaled.transpose(1, 2, 0))


def _write_png(path: Path, image: np.ndarray, span: tuple[float, float], overwrite: bool) -> None:
    from PIL import Image

    picture = Image.fromarray(pixels(image, span))
    write_file(path, lambda temporary: picture.save(temporary, format="PNG"), overwrite=overwrite)


def _write_tensors(path: Path, outputs: dict[str, np.ndarray], overwrite: bool) -> None:
    from safetensors.numpy import save

    # not save_file: it reports a full disk as an error of its own without a number
    write_file(path, lambda temporary: temporary.write_bytes(save(outputs)), overwrite=overwrite)


def _file_name(name: str) -> str:
    """A latent's name as a file name: anything but letters, digits, ``.-_`` becomes ``_``."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "latent"
