"""``metadata.json`` of a compiled model: what Xcode shows of it.

The rules are inferred from Apple's output; names and forms of images, from coremltools'
``mlmodel/src/FeatureType.cpp``. Keys come in an order of ours: Apple's is that of a hash table.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fluxvae.mil.compiler.ops import histogram
from fluxvae.mil.compiler.program import document_blobs
from fluxvae.mil.features import ARRAY_DTYPES
from fluxvae.mil.program import BITS, TensorType
from fluxvae.mil.text.document import Document, TextFunction, TextOp, Value

Json = dict[str, Any]
TIMES = " \N{MULTIPLICATION SIGN} "
# specification: macOS; iOS, tvOS and macCatalyst; watchOS; visionOS
_AVAILABILITY = {
    6: ("12.0", "15.0", "8.0", "1.0"),
    7: ("13.0", "16.0", "9.0", "1.0"),
    8: ("14.0", "17.0", "10.0", "1.0"),
    9: ("15.0", "18.0", "11.0", "2.0"),
    10: ("26.0", "26.0", "26.0", "26.0"),
}
_COLORS = {10: "Grayscale", 20: "RGB", 30: "BGR", 40: "GrayscaleFloat16"}


def bundle_metadata(model: Any, document: Document, stem: str) -> tuple[Json, list[str]]:
    """The one entry of ``metadata.json``, and what in it was guessed.

    ``model`` is the protobuf, ``document`` its text, ``stem`` the bundle's name.
    """
    description = model.description
    described = {f.name: f for f in description.functions}
    default = description.defaultFunctionName if described else ""
    parts = {f.name: _function(f, document) for f in document.functions}
    chosen = parts.get(default) or next(iter(parts.values()), {})
    # Of several functions: inputs of the default one, outputs of the first (one sample).
    interface = described.get(default, description)
    first = next(iter(described.values()), description)
    metadata: Json = {
        "metadataOutputVersion": "3.0",
        **_written(description.metadata),
        "inputSchema": _schemas(interface.input),
        "outputSchema": _schemas(first.output),
        "stateSchema": _schemas(interface.state),
        "modelParameters": [],
        "specificationVersion": model.specificationVersion,
        **chosen,
        "isUpdatable": "1" if model.isUpdatable else "0",
        "availability": _availability(model.specificationVersion),
        "modelType": {"name": "MLModelType_mlProgram"},
        "userDefinedMetadata": dict(description.metadata.userDefined),
        "generatedClassName": re.sub(r"\W", "_", stem, flags=re.ASCII),
        "method": "predict",
    }
    if described:
        metadata["defaultFunctionName"] = default
        metadata["functions"] = [
            {
                "name": name,
                "inputSchema": _schemas(function.input),
                "outputSchema": _schemas(function.output),
                "stateSchema": _schemas(function.state),
                **parts.get(name, {}),
            }
            for name, function in described.items()
        ]
    return metadata, _guesses(model, document)


def _guesses(model: Any, document: Document) -> list[str]:
    guesses = []
    kinds = set().union(*(histogram(f)[1] for f in document.functions))
    if kinds:
        guesses.append(
            "in metadata.json the versions of these operations are guesses: "
            + ", ".join(sorted(kinds))
        )
    if any(f.opset not in ("ios15", "ios16", "ios17") for f in document.functions) and any(
        op.kind.startswith("constexpr_") for op, _, _ in document_blobs(document)
    ):
        guesses.append("metadata.json names the storage of compressed weights; guessed for iOS18")
    interfaces = list(model.description.functions) or [model.description]
    features = [f for i in interfaces for f in (*i.input, *i.output, *i.state)]
    if any(f.type.WhichOneof("Type") != "multiArrayType" for f in features):
        guesses.append("metadata.json describes images and states; Apple's form was not seen")
    if model.specificationVersion not in _AVAILABILITY or model.specificationVersion > 9:
        guesses.append(
            f"metadata.json names systems; guessed for specification {model.specificationVersion}"
        )
    return guesses


def _written(metadata: Any) -> Json:
    """What the author filled in."""
    texts = {
        "shortDescription": metadata.shortDescription,
        "version": metadata.versionString,
        "author": metadata.author,
        "license": metadata.license,
    }
    return {key: text for key, text in texts.items() if text}


def _availability(specification: int) -> Json:
    newest = _AVAILABILITY[max(_AVAILABILITY)]
    mac, phone, watch, vision = _AVAILABILITY.get(specification, newest)
    return {
        "macOS": mac,
        "iOS": phone,
        "tvOS": phone,
        "macCatalyst": phone,
        "watchOS": watch,
        "visionOS": vision,
    }


def _function(function: TextFunction, document: Document) -> Json:
    """Precisions and the histogram of one function."""
    types = [p.type for p in function.parameters]
    types += [o.type for op in function.ops for o in op.outputs]
    plain = {t.dtype for t in types if isinstance(t, TensorType)} - {"bool", "string"}
    only = Document(document.dialect, {}, (function,))
    stored = {_storage(*blob) for blob in document_blobs(only)}
    part: Json = {"computePrecision": _mixed(_type_name(t) for t in plain)}
    if stored:
        part["storagePrecision"] = _mixed(stored)
    return {**part, "mlProgramOperationTypeHistogram": histogram(function)[0]}


def _mixed(names: Iterable[str]) -> str:
    ordered = sorted(set(names))
    return ordered[0] if len(ordered) == 1 else f"Mixed ({', '.join(ordered)})"


def _type_name(dtype: str) -> str:
    """``Float16``, ``Int32``, ``UInt8``."""
    if dtype.startswith("fp"):
        return f"Float{dtype[2:]}"
    return "BFloat16" if dtype == "bf16" else dtype.replace("uint", "UInt").replace("int", "Int")


def _storage(op: TextOp, key: str, value: Value) -> str:
    """How the values of one blob are stored."""
    dtype = value.type.dtype if isinstance(value.type, TensorType) else ""
    if op.kind.startswith("constexpr_lut_to") and key.startswith("indices") and "mask" not in key:
        table = op.attributes.get("lut")
        if table is None or not isinstance(table.type, TensorType):  # since iOS18: typed indices
            bits = BITS[dtype]
        else:
            bits = round(math.log2(max(1, table.type.shape[0] or 1)))
        return f"Palettized ({bits} bits)"
    if key == "mask" or key.endswith("_mask"):
        return "Sparse"
    return _type_name(dtype)


def _schemas(features: Iterable[Any]) -> list[Json]:
    return [_schema(f) for f in features]


def _schema(feature: Any) -> Json:
    kind = feature.type.WhichOneof("Type")
    readers: dict[str, Callable[[Any], Json]] = {
        "multiArrayType": lambda t: _array(t.multiArrayType),
        "imageType": lambda t: _image(t.imageType),
        "stateType": lambda t: _state(t.stateType.arrayType),
    }
    other = (kind or "unknown").removesuffix("Type").capitalize()
    known = readers.get(kind, lambda _: {"type": other, "formattedType": other})(feature.type)
    return {
        "name": feature.name,
        "shortDescription": feature.shortDescription,
        "isOptional": "1" if feature.type.isOptional else "0",
        **known,
    }


def _array(array: Any) -> Json:
    flexibility = array.WhichOneof("ShapeFlexibility")
    shape = list(array.shape)
    more: Json = {}
    if flexibility == "enumeratedShapes":
        shapes = [list(s.shape) for s in array.enumeratedShapes.shapes]
        shape = shape or next(iter(shapes), [])
        more = {"enumeratedShapes": str(shapes), "shapeFlexibility": _alternatives(shapes)}
    elif flexibility == "shapeRange":
        spans = [[r.lowerBound, r.upperBound] for r in array.shapeRange.sizeRanges]
        shape = shape or [low for low, _ in spans]
        more = {"shapeRange": str(spans), "shapeFlexibility": _spans(spans)}
    dtype = _type_name(ARRAY_DTYPES.get(array.dataType, "")).replace("Float64", "Double")
    return {
        "type": "MultiArray",
        "dataType": dtype,
        "shape": str(shape),
        "formattedType": f"MultiArray ({' '.join(filter(None, (dtype, _times(shape))))})",
        "hasShapeFlexibility": "1" if flexibility else "0",
        **more,
    }


def _state(array: Any) -> Json:
    plain = _array(array)
    del plain["hasShapeFlexibility"]
    formatted = plain["formattedType"].replace("MultiArray", "State", 1)
    return {**plain, "type": "State", "formattedType": formatted}


def _image(image: Any) -> Json:
    flexibility = image.WhichOneof("SizeFlexibility")
    color = _COLORS.get(image.colorSpace, "")
    gray = color.startswith("Grayscale")
    more: Json = {}
    if flexibility == "enumeratedSizes":
        sizes = [[s.width, s.height] for s in image.enumeratedSizes.sizes]
        more = {"enumeratedSizes": str(sizes), "sizeFlexibility": _alternatives(sizes)}
    elif flexibility == "imageSizeRange":
        span = image.imageSizeRange
        spans = [[r.lowerBound, r.upperBound] for r in (span.widthRange, span.heightRange)]
        more = {"sizeRange": str(spans), "sizeFlexibility": _spans(spans)}
    size = _times((image.width, image.height))
    return {
        "type": "Image",
        "width": str(image.width),
        "height": str(image.height),
        "colorspace": color,
        "isColor": "0" if gray else "1",
        "formattedType": f"Image ({'Grayscale' if gray else 'Color'} {size})",
        "hasSizeFlexibility": "1" if flexibility else "0",
        **more,
    }


def _times(sizes: Sequence[int]) -> str:
    return TIMES.join(map(str, sizes))


def _alternatives(shapes: Iterable[Sequence[int]]) -> str:
    return " | ".join(_times(s) for s in shapes)


def _spans(spans: Iterable[Sequence[int]]) -> str:
    """``1 x 1...2048``; an open range ends in the dots."""

    def span(low: int, high: int) -> str:
        return str(low) if low == high else f"{low}...{high if high >= 0 else ''}"

    return TIMES.join(span(*s) for s in spans)
