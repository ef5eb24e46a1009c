"""Latents through an artifact: its own pictures, or its raw output, on any OS."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluxvae.artifact.open import TILED, Artifact, open_artifact, require_command
from fluxvae.artifact.record import Record
from fluxvae.data.arrays import pixels, to_model, to_planes
from fluxvae.data.latents import Latent, float16_note, read_latents, size_of, write_tensors
from fluxvae.errors import OutputError, UsageError
from fluxvae.files import refuse_existing, write_file
from fluxvae.networks.catalog import find_decoder
from fluxvae.recipes import Recipe, Size, check_tile, parse_sizes
from fluxvae.recipes.axes import latent_input


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
    tile: int | None = None,
    backend: str = "auto",
    compute_units: str = "all",
    overwrite: bool = False,
    strict: bool = False,
    on_image: Callable[[Decoded], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
) -> tuple[Decoded, ...]:
    """Decode every latent of a file that fits; PNGs into the folder ``out``, or raw outputs.

    With ``out`` ending in ``.safetensors`` the model's outputs are stored as they come (its
    layout and dtype) under the latents' names. ``function`` and ``size`` narrow the choice where
    an artifact has several; ``tile`` says that tiles of so many pixels are expected. ``on_note``
    gets the notes about the latents (see ``read_latents``, ``strict`` too). Raises
    UsageError when the artifact makes other tiles or none, LatentError when no latent fits,
    OutputError when a file exists already.
    """
    opened = open_artifact(artifact)
    record = opened.record
    require_command(artifact.name, record, "decode")
    if tile is not None:
        check_tiles(artifact.name, record.recipe, tile)
    choices = size_choices(opened, function, size)
    any_size = opened.any_size and size is None
    wanted = latent_input(record.recipe, record.contract, tuple(choices), any_size=any_size)
    found = read_latents(latents, wanted, strict=strict)
    for note in (*found.notes, *(float16_note(latent, record.recipe) for latent in found.latents)):
        if note is not None:
            on_note(note)
    functions = {str(s): f for s, f in choices.items()}
    jobs = [
        (latent, TILED if any_size else functions[size_of(latent, record.contract)])
        for latent in found.latents
    ]
    raw = out.suffix == ".safetensors"
    targets = [out if raw else out / f"{_file_name(latent.name)}.png" for latent, _ in jobs]
    for target in set(targets):
        refuse_existing(target, overwrite)
    _refuse_same_names([latent.name for latent, _ in jobs] if raw else [t.name for t in targets])
    runners = {name: opened.raw_runner(name, backend, compute_units) for _, name in jobs}
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
        write_tensors(out, outputs, overwrite=overwrite)
    return tuple(decoded)


def check_tiles(name: str, recipe: Recipe, tile: int) -> None:
    """Raise UsageError when an artifact does not make tiles of ``tile`` px, with the reason."""
    check_tile(tile, recipe.decoder)
    if recipe.tile is None:
        raise UsageError(
            f"{name} cannot be used in tiles: {_why_whole(recipe)}; convert with --tile {tile}, "
            "which keeps that part whole"
        )
    if recipe.tile != tile:
        raise UsageError(
            f"{name} makes tiles of {recipe.tile} px, as it was converted: got --tile {tile}; "
            "leave --tile out, or convert again"
        )


def _why_whole(recipe: Recipe) -> str:
    if recipe.decoder != "tiny":
        return (
            "its attention and its GroupNorms see the whole picture, and plain tiles come out far "
            "from it (about 19 dB)"
        )
    if find_decoder(recipe.variant).pool:
        return (
            "its GroupNorms see the whole picture, and plain tiles come out far from it (about "
            "40 dB, with any halo)"
        )
    return "its one program takes whole latents, and plain tiles would be 2.5 times the work"


def size_choices(opened: Artifact, function: str | None, sizes: str | None) -> dict[Size, str]:
    """Image size -> function for it, narrowed to what was asked for. Raises UsageError."""
    program = opened.programs[0]
    if function is not None and opened.record.tiles is not None:
        raise UsageError(f"--function is not for {program.path.name}: tiles need all its functions")
    if function is not None:
        program.function(function)  # names what there is when it is not there
    every = {s: f for f, s in opened.functions_and_sizes()}
    choices = {s: f for s, f in every.items() if function in (None, f)}
    if sizes is None:
        return choices
    wanted = parse_sizes(sizes)
    if opened.any_size:
        return dict.fromkeys(wanted, TILED)
    for size in wanted:
        if size not in choices:
            does = "encodes" if opened.record.recipe.encodes else "decodes"
            where = f"function {function} of {program.path.name}" if function else program.path.name
            raise UsageError(
                f"--size {size} is not in {where}, which {does} {', '.join(map(str, choices))}"
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


def _write_png(path: Path, image: np.ndarray, span: tuple[float, float], overwrite: bool) -> None:
    from PIL import Image

    picture = Image.fromarray(pixels(image, span))
    write_file(path, lambda temporary: picture.save(temporary, format="PNG"), overwrite=overwrite)


def _file_name(name: str) -> str:
    """A latent's name as a file name: anything but letters, digits, ``.-_`` becomes ``_``."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "latent"
