"""I/O bundles: one latent and its image by PyTorch, as plain files for any language.

An encoder's is an image and the latent that PyTorch makes of it.

A bundle is a folder of ``input.bin`` and ``output.bin`` (raw, little-endian, C order) and a
``manifest.json`` that says what they are (docs/io.schema.json). The bytes are a function of the
request alone, so that two machines can be compared: noise comes from PCG64 with a stated dtype;
photos are encoded, and every image is decoded, in float64 and rounded once at the end.

Rounding once makes different CPU kernels agree because their float64 sums differ by 3e-16 on
average (measured: MKL's newest kernels against its SSE ones, TAEF2 at 256): the chance that this
moves any of the 1.8 million float32 values of a 768 image is about 1.5 %, and then by one ulp.
The manifest's digests show it. Threads and oneDNN change nothing: torch keeps float64
convolutions out of oneDNN and its sums in one order.
"""

import hashlib
import math
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fluxvae import __version__
from fluxvae.artifact.record import make_record
from fluxvae.data.arrays import to_model
from fluxvae.data.latents import Latent, beyond_float16
from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.data.spaces import latent_transform
from fluxvae.errors import BundleError, LatentError, OutputError, UsageError
from fluxvae.files import commit, refuse_existing, require_writable, staging
from fluxvae.networks.build import build_encoder, build_network
from fluxvae.networks.weights import Weights
from fluxvae.recipes import PRECISIONS, Compression, Recipe, Size
from fluxvae.recipes.bounds import check_bound
from fluxvae.recipes.functions import INPUT_NAME, OUTPUT_NAME
from fluxvae.recipes.latents import artifact_contract
from fluxvae.records.harness import Limit
from fluxvae.records.manifest import MANIFEST, NUMPY_DTYPES, Manifest, Origin, TensorFile
from fluxvae.schema import build, load, save
from fluxvae.validation.limits import limit_for

NORMAL = "normal"
GENERATOR = "numpy PCG64 standard_normal float32"
IMAGE_GENERATOR = "numpy PCG64 random float32"  # of an encoder's noise, in [0, 1)
CASES = (NORMAL, *(photo.name for photo in EVALUATION_PHOTOS))


@dataclass(frozen=True)
class Request:
    """What to export: one size, one layout, one case.

    ``case``: ``normal`` (with ``seed``) or an evaluation photo's name; the latent's name when
    ``latent`` (1, C, h, w) is given, of the form ``latents`` (FLUX.1's tokens as the map that they
    are the pixels of). ``io_precision`` is the dtype of ``input.bin``; a float16
    bundle's image is that of the rounded latent. ``output.bin`` is always float32, since a
    rounded reference would spoil the measure. Raises UsageError for what does not exist.
    """

    size: Size
    layout: str = "nchw"
    case: str = NORMAL
    seed: int = 0
    io_precision: str = "float32"
    latent: Latent | None = None
    latent_sha256: str | None = None  # of the file that ``latent`` came from
    latents: str | None = None  # a recipe's: which latent it is; None for the decoder's own
    compression: Compression | None = None  # of the model to be judged: it decides the limits

    def __post_init__(self) -> None:
        if self.latent is None and self.case not in CASES:
            raise UsageError(f"unknown case {self.case!r}; known: {', '.join(CASES)}")
        if self.io_precision not in PRECISIONS:
            raise UsageError(f"io precision {self.io_precision!r} is none of {list(PRECISIONS)}")
        if self.seed < 0:
            raise UsageError(f"the seed must be a whole number from 0 on, got {self.seed}")

    @property
    def kind(self) -> str:
        """``normal``, ``photo`` or ``user``: which of validate's limits holds."""
        if self.latent is not None:
            return "user"
        return "normal" if self.case == NORMAL else "photo"


@dataclass(frozen=True)
class Bundle:
    """A bundle read or written: manifest, input and output, in the manifest's layout and dtype."""

    path: Path
    manifest: Manifest
    input: np.ndarray
    output: np.ndarray


def export_bundle(
    weights: Weights,
    request: Request,
    out: Path,
    *,
    encoder: Weights | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Compute one bundle and write it to the folder ``out``, whole or not at all.

    Measured on two slow shared cores: 4.0 GB and 40 s for a 768 image, 6.6 GB and 110 s for 1024
    (float64 convolutions unfold their input). Raises OutputError when ``out`` is taken,
    LatentError when the latent does not fit, UsageError when a photo is wanted of weights that
    have no ``encoder``.
    """
    check_target(out, overwrite)
    recipe = _recipe(weights, request)
    given, transform = _given(weights, request, recipe, encoder), latent_transform(recipe, weights)
    made = _float64(build_network(weights), transform.into_network(given, "float64"))
    output = transform.out_of_network(made, "float64").astype(np.float32)
    tokens = artifact_contract(recipe, weights.contract).tokens
    stored = (
        _arranged(given, request.layout, tokens=tokens and not recipe.encodes),
        _arranged(output, request.layout, tokens=tokens and recipe.encodes),
    )
    manifest = _manifest(weights, request, *stored)
    with staging(out, overwrite=overwrite) as folder:
        draft = folder / out.name
        draft.mkdir()
        (draft / manifest.input.file).write_bytes(stored[0].tobytes())
        (draft / manifest.output.file).write_bytes(stored[1].tobytes())
        save(manifest, draft / MANIFEST)
        commit(folder, out, overwrite=overwrite)
    return Bundle(out, manifest, *stored)


def check_target(out: Path, overwrite: bool) -> None:
    """Raise OutputError when ``out`` is taken, or its folder cannot be written.

    Only a bundle, or an empty folder, is replaced.
    """
    refuse_existing(out, overwrite)
    require_writable(out)
    harmless = out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir()))
    if out.exists() and not harmless:
        raise OutputError(
            f"{out} is not an I/O bundle, so --overwrite does not replace it: give another --out"
        )


def _float64(network: nn.Module, array: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        result: np.ndarray = network.double()(torch.from_numpy(array.astype(np.float64))).numpy()
    return result


def _recipe(weights: Weights, request: Request) -> Recipe:
    """What a model that the bundle is for was made by, as far as a bundle has to know."""
    return Recipe(
        weights.variant,
        layout=request.layout,
        sizes=(request.size,),
        decoder=weights.kind,
        part=weights.part,
        latents=request.latents,
        compression=request.compression,
    )


def _given(
    weights: Weights, request: Request, recipe: Recipe, encoder: Weights | None
) -> np.ndarray:
    """The input in its dtype, every value rounded once from where it is made: a latent
    (1, C, h, w), or an image (1, 3, H, W) for an encoder.
    """
    if recipe.encodes:
        values = _photo(request)
        if request.case == NORMAL:
            generator = np.random.Generator(np.random.PCG64(request.seed))
            values = generator.random(values.shape, np.float32)
        return values.astype(request.io_precision)
    contract = artifact_contract(recipe, weights.contract)
    sides = (request.size.height // contract.scale, request.size.width // contract.scale)
    shape = (1, contract.channels, *sides)
    if request.latent is not None:
        values = request.latent.values
        if values.shape != shape:
            raise LatentError(
                f"{request.latent.name!r} has the shape {list(values.shape)}; an image of "
                f"{request.size} needs {list(shape)}"
            )
    elif request.case == NORMAL:
        generator = np.random.Generator(np.random.PCG64(request.seed))
        values = generator.standard_normal(shape, np.float32)
    else:
        values = latent_transform(recipe, weights).from_decoder(
            _photo_latent(request, encoder), "float64"
        )
    beyond = beyond_float16(values)
    if beyond is not None and request.io_precision == "float16":
        raise LatentError(f"the latent {beyond}: export with --io-precision float32")
    return values.astype(request.io_precision)


def _photo_latent(request: Request, encoder: Weights | None) -> np.ndarray:
    if encoder is None:
        raise UsageError(
            f"the case {request.case!r} needs an encoder, and none belongs to these weights: "
            "pass --encoder PATH, or use --case normal"
        )
    return _float64(build_encoder(encoder), _photo(request))


def _photo(request: Request) -> np.ndarray:
    """The photo (1, 3, H, W) of a case; the first one for noise."""
    photos = {photo.name: photo for photo in EVALUATION_PHOTOS}
    photo = photos.get(request.case, EVALUATION_PHOTOS[0])
    return photo_image(photo, request.size.height, request.size.width)


def _arranged(planes: np.ndarray, layout: str, *, tokens: bool = False) -> np.ndarray:
    """NCHW to the bundle's layout, little-endian and contiguous."""
    array = to_model(planes, layout, tokens=tokens)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _manifest(
    weights: Weights, request: Request, given: np.ndarray, output: np.ndarray
) -> Manifest:
    recipe = _recipe(weights, request)
    names = (OUTPUT_NAME, INPUT_NAME) if recipe.encodes else (INPUT_NAME, OUTPUT_NAME)
    limits = {
        precision: limit_for(
            make_record(replace(recipe, precision=precision), weights), request.kind
        )
        for precision in PRECISIONS
    }
    return Manifest(
        variant=weights.variant,
        size=f"{request.size.height}x{request.size.width}",
        case=request.case if request.latent is None else request.latent.name,
        input=_tensor_file(names[0], "input.bin", given, request),
        output=_tensor_file(names[1], "output.bin", output, request),
        source=_source(request, IMAGE_GENERATOR if recipe.encodes else GENERATOR),
        weights=Origin(weights.source.kind, weights.digest),
        latent_space=artifact_contract(recipe, weights.contract).space,
        limits={p: build(Limit, asdict(limit)) for p, limit in limits.items()},
        versions={
            "fluxvae": __version__,
            "numpy": version("numpy"),
            "torch": version("torch"),
        },
    )


def _tensor_file(name: str, file: str, array: np.ndarray, request: Request) -> TensorFile:
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return TensorFile(
        name=name,
        file=file,
        dtype=array.dtype.name,  # type: ignore[arg-type]
        shape=array.shape,
        layout=request.layout,  # type: ignore[arg-type]
        sha256=digest,
    )


def _source(request: Request, generator: str) -> dict[str, Any]:
    if request.latent is not None:
        return {"kind": "file", "name": request.latent.name, "sha256": request.latent_sha256}
    if request.case == NORMAL:
        return {"kind": "normal", "seed": request.seed, "generator": generator}
    (photo,) = (p for p in EVALUATION_PHOTOS if p.name == request.case)
    return {"kind": "photo", "photo": photo.name, "sha256": photo.sha256}


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle, strictly: every key known, lengths and digests as the manifest says.

    Raises BundleError, in one sentence, for anything that is not exactly a version 1 bundle.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{folder} is not an I/O bundle: its {MANIFEST} cannot be read (no such file); "
            "make one with fluxvae export-io"
        )
    manifest = load(Manifest, path)
    for precision, limit in manifest.limits.items():
        check_bound(limit.metric, limit.bound, f"{path}: limits.{precision}")
    latent, image = (_read_tensor(folder, t) for t in (manifest.input, manifest.output))
    return Bundle(folder, manifest, latent, image)


def _read_tensor(folder: Path, tensor: TensorFile) -> np.ndarray:
    path = folder / tensor.file
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}): make the bundle again with fluxvae "
            "export-io --overwrite"
        ) from error
    dtype = np.dtype(NUMPY_DTYPES[tensor.dtype])
    expected = dtype.itemsize * math.prod(tensor.shape)
    if len(raw) != expected:
        raise BundleError(
            f"{path} has {len(raw)} bytes; {list(tensor.shape)} as {tensor.dtype} needs "
            f"{expected}: make the bundle again with fluxvae export-io --overwrite"
        )
    digest = hashlib.sha256(raw).hexdigest()
    if digest != tensor.sha256:
        raise BundleError(
            f"{path} is not what was exported: sha256 {digest[:12]}…, the manifest says "
            f"{tensor.sha256[:12]}…; export the bundle again"
        )
    array = np.frombuffer(raw, dtype).reshape(tensor.shape)
    if not np.isfinite(array).all():
        raise BundleError(
            f"{path} holds NaN or infinity, so that nothing can be measured with it: export again "
            "from a sound latent"
        )
    return array
