"""A model's description (protobuf) to Signature and Metadata: what an app sees of a model.

``ml_program`` puts it together with the functions, however those were stored.
"""

import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fluxvae.errors import ArtifactError, LatentError, UnsupportedOpError
from fluxvae.mil.blobs import NUMPY
from fluxvae.mil.classifier import computed
from fluxvae.mil.interface import check_types, check_wiring
from fluxvae.mil.program import Feature, Function, Metadata, Program, Signature

# ArrayFeatureType.ArrayDataType and ImageFeatureType.ColorSpace of FeatureTypes.proto
ARRAY_DTYPES = {65568: "fp32", 65600: "fp64", 131104: "int32", 131080: "int8", 65552: "fp16"}
_OUT = {dtype: NUMPY[dtype] for dtype in ARRAY_DTYPES.values()}
MAX_RANK, MAX_ARRAY = 32, 2**60  # what numpy can describe; Core ML's highest rank is 5
_COLORS = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}


def ml_program(
    description: Any, specification: int, functions: dict[str, Function], path: Path
) -> Program:
    """An ML Program from its description (protobuf ModelDescription) and its functions.

    Raises ArtifactError when there are none, or when the description is of others.
    """
    if not functions:
        raise ArtifactError(f"{path.name} holds an ML Program without functions")
    signatures, default = read_signatures(description, functions, path.name)
    both = {name: computed(functions[name], signatures[name]) for name in functions}
    for function, signature in both.values():
        try:
            check_wiring(function, signature)
            check_types(function, signature)
        except ArtifactError as error:
            raise ArtifactError(f"{path.name}: {error}") from error
    return Program(
        kind="mlprogram",
        specification=specification,
        functions={name: function for name, (function, _) in both.items()},
        signatures={name: both[name][1] for name in signatures},
        default_function=default,
        metadata=_metadata(description),
        path=path,
    )


def single_program(
    kind: str, model: Any, function: Function, signature: Signature, path: Path
) -> Program:
    """A Program of one function from a Model message that is not an ML Program."""
    return Program(
        kind=kind,
        specification=model.specificationVersion,
        functions={function.name: function},
        signatures={function.name: signature},
        default_function=function.name,
        metadata=_metadata(model.description),
        path=path,
    )


def _metadata(description: Any) -> Metadata:
    """Author, licence, version, text and user-defined entries."""
    m = description.metadata
    return Metadata(m.author, m.license, m.versionString, m.shortDescription, dict(m.userDefined))


def read_signatures(
    description: Any, functions: Collection[str], what: str
) -> tuple[dict[str, Signature], str]:
    """Signatures by function, and the default function, of a model that holds ``functions``.

    Raises ArtifactError, naming ``what``, when the description is of other functions.
    """
    if len(description.functions):
        signatures = {f.name: read_signature(f) for f in description.functions}
        default = description.defaultFunctionName
    else:
        default = "main" if "main" in functions else next(iter(functions), "main")
        signatures = {default: read_signature(description)}
    if set(signatures) != set(functions) or default not in functions:
        raise ArtifactError(
            f"{what} describes the functions {sorted(signatures)} but holds {sorted(functions)}"
        )
    return signatures, default


def read_signature(description: Any) -> Signature:
    """Inputs, outputs and states of a ModelDescription, or of one of its FunctionDescriptions."""
    return Signature(
        tuple(_feature(f) for f in description.input),
        tuple(_feature(f) for f in description.output),
        tuple(_feature(f) for f in description.state),
    )


def refuse_unsupported(program: Program) -> None:
    """Raise UnsupportedOpError for a program that could only be listed."""
    for name, function in program.functions.items():
        reason = program.signatures[name].unsupported()
        if function.unsupported is not None:
            reason = function.unsupported.reason
        if reason:
            raise UnsupportedOpError(f"{program.path.name} cannot be run: {reason}")


def accept(feature: Feature, array: np.ndarray) -> np.ndarray:
    """What a program gets for an input: the array itself, or an image's planes.

    An image is (height, width, 3) in RGB order, or (height, width) in grey, in 0..255; the program
    takes (1, channels, height, width) in the feature's own order. Raises LatentError when the
    shape is not one the feature declares.
    """
    if feature.kind != "image":
        check_shape(feature, array.shape)
        return array
    check_shape(feature, array.shape[:2])
    if array.shape[2:] != ((3,) if feature.channels == 3 else ()):
        raise LatentError(
            f"input {feature.name!r} is a {feature.color} image of {list(array.shape[:2])} pixels; "
            f"got an array of the shape {list(array.shape)}"
        )
    if array.ndim == 2:
        return array[None, None]
    planes = array.transpose(2, 0, 1)[None]
    return planes[:, ::-1] if feature.color == "BGR" else planes


def give(feature: Feature, array: np.ndarray) -> np.ndarray:
    """What an app gets for an output: the array in the described type, an image as uint8.

    An image is (height, width, 3) in RGB order, from planes (1, channels, height, width). Raises
    what numpy does when the array is not what the feature describes.
    """
    if feature.labels:
        return array if feature.kind == "dictionary" else np.array(feature.labels[array.item()])
    with np.errstate(invalid="ignore", over="ignore"):  # of NaN there is no right level
        if feature.kind == "tensor":
            return array.astype(_OUT[feature.dtype])
        # Device rounding of image outputs is not documented; nearest is at most one level off.
        planes = np.clip(np.rint(array[0]), 0, 255).astype(np.uint8)
    if feature.color == "BGR":
        planes = planes[::-1]
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def check_shape(feature: Feature, shape: tuple[int, ...]) -> None:
    """Raise LatentError when ``shape`` is not one the feature declares."""
    if not feature.takes(shape):
        raise LatentError(
            f"input {feature.name!r} wants the shape {feature.allowed}, got {list(shape)}"
        )


def _feature(feature: Any) -> Feature:
    kind = feature.type.WhichOneof("Type")
    if kind in ("multiArrayType", "imageType"):
        found = _array(feature) if kind == "multiArrayType" else _image(feature)
        for shape in (found.shape, *found.shapes):
            large = len(shape) > MAX_RANK or math.prod(shape) > MAX_ARRAY
            if large or min(shape, default=0) < 0:
                raise ArtifactError(
                    f"feature {feature.name!r} has the impossible shape {list(shape)[:9]}"
                )
        return found
    # "dictionaryType" and the like, and a state, whose array is one level down
    kind = (kind or "unknown").removesuffix("Type")
    return Feature(feature.name, kind, kind, (), description=feature.shortDescription)


def _array(feature: Any) -> Feature:
    array = feature.type.multiArrayType
    if array.dataType not in ARRAY_DTYPES:
        raise ArtifactError(f"feature {feature.name!r} has the unknown data type {array.dataType}")
    return Feature(
        name=feature.name,
        kind="tensor",
        dtype=ARRAY_DTYPES[array.dataType],
        shape=tuple(array.shape),
        shapes=tuple(tuple(s.shape) for s in array.enumeratedShapes.shapes),
        ranges=_bounds(array.shapeRange.sizeRanges),
        description=feature.shortDescription,
    )


def _image(feature: Any) -> Feature:
    image = feature.type.imageType
    if image.colorSpace not in _COLORS:
        raise ArtifactError(f"image {feature.name!r} has the unknown colour {image.colorSpace}")
    span = image.imageSizeRange
    sides = (span.heightRange, span.widthRange) if image.HasField("imageSizeRange") else ()
    return Feature(
        name=feature.name,
        kind="image",
        dtype="uint8",
        shape=(image.height, image.width),
        shapes=tuple((s.height, s.width) for s in image.enumeratedSizes.sizes),
        ranges=_bounds(sides),
        color=_COLORS[image.colorSpace],
        description=feature.shortDescription,
    )


def _bounds(ranges: Iterable[Any]) -> tuple[tuple[int, int], ...]:
    return tuple((r.lowerBound, r.upperBound) for r in ranges)
