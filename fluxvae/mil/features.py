"""A model's description (protobuf) to Signature and Metadata: what an app sees of a model.

``ml_program`` puts it together with the functions, however those were stored.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from fluxvae.errors import ArtifactError, LatentError
from fluxvae.mil.program import FLOATS, Feature, Function, Metadata, Program, Signature, TensorType

# ArrayFeatureType.ArrayDataType and ImageFeatureType.ColorSpace of FeatureTypes.proto
_ARRAY_DTYPES = {65568: "fp32", 65600: "fp64", 131104: "int32", 131080: "int8", 65552: "fp16"}
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
    for name, function in functions.items():
        check_interface(function, signatures[name])
    return Program(
        kind="mlprogram",
        specification=specification,
        functions=functions,
        signatures=signatures,
        default_function=default,
        metadata=read_metadata(description),
        path=path,
    )


def read_metadata(description: Any) -> Metadata:
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
    """Inputs and outputs of a ModelDescription, or of one of its FunctionDescriptions.

    Raises ArtifactError for states and for feature types other than arrays and images.
    """
    if len(description.state):
        raise ArtifactError("the model has states; the executor runs stateless models only")
    return Signature(
        tuple(_feature(f) for f in description.input),
        tuple(_feature(f) for f in description.output),
    )


def check_shape(feature: Feature, shape: tuple[int, ...]) -> None:
    """Raise LatentError when ``shape`` is not one the feature declares."""
    if feature.shapes:
        fits = shape in feature.shapes
        wanted = " or ".join(str(list(s)) for s in feature.shapes)
    elif feature.ranges:
        fits = len(shape) == len(feature.ranges) and all(
            low <= d and (high < 0 or d <= high)
            for d, (low, high) in zip(shape, feature.ranges, strict=True)
        )
        wanted = f"within {list(feature.ranges)}"
    else:
        fits = shape == feature.shape
        wanted = str(list(feature.shape))
    if not fits:
        raise LatentError(f"input {feature.name!r} wants the shape {wanted}, got {list(shape)}")


def check_interface(function: Function, signature: Signature) -> None:
    """Raise ArtifactError when a function's inputs and outputs are not of the described types.

    An fp16 feature may be an fp32 value of the program, and the other way round. A dimension of
    ``None`` is free; an output's shape need not be described.
    """
    types = {v.name: v.type for v in function.inputs}
    for features, verb in ((signature.inputs, "takes"), (signature.outputs, "returns")):
        if verb == "returns":
            types |= {v.name: v.type for o in function.ops for v in o.outputs}
        for feature in features:
            if feature.name in types and not _fits(types[feature.name], feature):
                raise ArtifactError(
                    f"function {function.name!r} {verb} {feature.name!r} as "
                    f"{types[feature.name]}, but the model describes {_described(feature)}"
                )


def _fits(declared: TensorType, feature: Feature) -> bool:
    if feature.kind == "image":
        channels = 3 if feature.color in ("RGB", "BGR") else 1
        same_type = declared.dtype in FLOATS
        head: tuple[tuple[int, int], ...] = ((1, 1), (channels, channels))
    else:
        both_float = declared.dtype in FLOATS and feature.dtype in FLOATS
        same_type, head = both_float or declared.dtype == feature.dtype, ()
    shapes = feature.shapes or ((feature.shape,) if feature.shape else ())
    spans = [feature.ranges] if feature.ranges else [[(d, d) for d in shape] for shape in shapes]
    return same_type and (
        not spans or any(_within(declared.shape, (*head, *span)) for span in spans)
    )


def _within(shape: tuple[int | None, ...], spans: tuple[tuple[int, int], ...]) -> bool:
    return len(shape) == len(spans) and all(
        d is None or (low <= d and (high < 0 or d <= high))
        for d, (low, high) in zip(shape, spans, strict=True)
    )


def _described(feature: Feature) -> str:
    what = f"{feature.color} image" if feature.kind == "image" else feature.dtype
    if feature.ranges:
        return f"{what} within {list(feature.ranges)}"
    return f"{what} of {' or '.join(str(list(s)) for s in feature.shapes or (feature.shape,))}"


def _feature(feature: Any) -> Feature:
    kind = feature.type.WhichOneof("Type")
    if kind == "multiArrayType":
        return _array(feature)
    if kind == "imageType":
        return _image(feature)
    raise ArtifactError(
        f"feature {feature.name!r} is of kind {kind}; expected a multi-array or an image"
    )


def _array(feature: Any) -> Feature:
    array = feature.type.multiArrayType
    if array.dataType not in _ARRAY_DTYPES:
        raise ArtifactError(f"feature {feature.name!r} has the unknown data type {array.dataType}")
    flexibility = array.WhichOneof("ShapeFlexibility")
    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()
    if flexibility == "enumeratedShapes":
        shapes = tuple(tuple(s.shape) for s in array.enumeratedShapes.shapes)
    elif flexibility == "shapeRange":
        ranges = tuple((r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges)
    return Feature(
        feature.name,
        "tensor",
        _ARRAY_DTYPES[array.dataType],
        tuple(array.shape),
        shapes,
        ranges,
        None,
        feature.shortDescription,
    )


def _image(feature: Any) -> Feature:
    image = feature.type.imageType
    if image.colorSpace not in _COLORS:
        raise ArtifactError(f"image {feature.name!r} has the unknown colour {image.colorSpace}")
    flexibility = image.WhichOneof("SizeFlexibility")
    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()
    if flexibility == "enumeratedSizes":
        shapes = tuple((s.height, s.width) for s in image.enumeratedSizes.sizes)
    elif flexibility == "imageSizeRange":
        span = image.imageSizeRange
        ranges = tuple((r.lowerBound, r.upperBound) for r in (span.heightRange, span.widthRange))
    return Feature(
        feature.name,
        "image",
        "uint8",
        (image.height, image.width),
        shapes,
        ranges,
        _COLORS[image.colorSpace],
        feature.shortDescription,
    )
