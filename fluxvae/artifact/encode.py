"""Images through an encoder's artifact, into one file of latents that says its space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluxvae.artifact.decode import size_choices
from fluxvae.artifact.open import open_artifact, require_command
from fluxvae.data.arrays import to_model
from fluxvae.data.images import Pixels, fit, image_files, open_image, passed_over, unique_names
from fluxvae.data.latents import space_metadata, write_tensors
from fluxvae.errors import ImageError, LatentError, UsageError
from fluxvae.files import refuse_existing
from fluxvae.recipes import Size


@dataclass(frozen=True)
class Encoded:
    """One encoded image: its latent's name, the function and size, and what was done to it."""

    name: str
    function: str
    size: str
    changes: tuple[str, ...]


def encode_files(
    artifact: Path,
    images: Path,
    out: Path,
    *,
    function: str | None = None,
    size: str | None = None,
    crop: bool = False,
    backend: str = "auto",
    compute_units: str = "all",
    overwrite: bool = False,
    on_image: Callable[[Encoded], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
) -> tuple[Encoded, ...]:
    """Encode an image, or a folder's, into the safetensors file ``out``.

    Latents are float32 under the images' names, (1, C, h, w) or FLUX.1's tokens, whatever the
    artifact's layout; the metadata names their space. ``crop`` takes the middle of images of
    another size, mirrored at the edges where they are small. Raises UsageError for a decoder's
    artifact, ImageError for an image that cannot be read or is of another size, LatentError for a
    latent that is not finite, OutputError when ``out`` is there.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out} is a file of latents: expected a name in .safetensors")
    refuse_existing(out, overwrite)
    opened = open_artifact(artifact)
    record = opened.record
    require_command(artifact.name, record, "encode")
    choices = size_choices(opened, function, size)
    if crop and len(choices) != 1:
        raise UsageError(f"--crop needs one of {', '.join(map(str, choices))}: give --size")
    paths, notes = _images(images)
    for note in notes:
        on_note(note)
    runners = {n: opened.runner(n, backend, compute_units) for n in dict.fromkeys(choices.values())}
    latents, encoded = {}, []
    for path, name in zip(paths, unique_names([p.stem for p in paths]), strict=True):
        image = _fitted(path, tuple(choices), crop)
        found = Size(*image.pixels.shape[:2])
        planes = image.pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        latent = runners[choices[found]](planes)
        if not np.isfinite(latent).all():
            raise LatentError(
                f"{path.name} encodes to NaN or infinity: convert with --fp16-safety mixed, or "
                "--precision float32"
            )
        stored = to_model(latent, "nchw", tokens=record.contract.tokens)
        latents[name] = np.ascontiguousarray(stored)
        encoded.append(Encoded(name, choices[found], str(found), image.changes))
        on_image(encoded[-1])
    write_tensors(out, latents, space_metadata(record.contract), overwrite=overwrite)
    return tuple(encoded)


def _images(path: Path) -> tuple[Sequence[Path], tuple[str, ...]]:
    """The files to encode, and a note of those passed over."""
    if not path.is_dir():
        return [path], ()
    images, others = image_files(path)
    if not images:
        raise ImageError(f"{path} has no images: expected .png, .jpg, .webp and the like")
    return images, passed_over(others)


def _fitted(path: Path, sizes: tuple[Size, ...], crop: bool) -> Pixels:
    image = open_image(path)
    if crop:
        try:
            return fit(image, sizes[0].height, sizes[0].width)
        except ImageError as error:
            raise ImageError(f"{path.name}: {error}") from error
    height, width = image.pixels.shape[:2]
    if (height, width) not in [(s.height, s.width) for s in sizes]:
        raise ImageError(
            f"{path.name} has {height} x {width} pixels (height x width); the model takes "
            f"{' or '.join(f'{s.height} x {s.width}' for s in sizes)}: scale it first, or use "
            "--crop for its middle"
        )
    return image
