"""``FlexibleShapeInformation``: the attribute in which a compiled function lists its sizes.

Apple's compiler derives it from the model's description. Without it Core ML was reported to
compute NaN, so it is never left out. The ranged form is known from Apple's output in both
dialects; of the enumerated form one sample with one input is known, and not how its labels are
computed.
"""

import hashlib
from typing import Any

from fluxvae.errors import ArtifactError
from fluxvae.mil.program import TensorType
from fluxvae.mil.text.document import DictType, ListType, TupleType, Type, Value

_STRING = TensorType("string", ())
_SHAPE = TensorType("int32", (None,))
_SHAPES = DictType(_STRING, _SHAPE)
_RANGES = DictType(_STRING, ListType(TensorType("int32", (2,)), None))
Shapes = dict[str, list[tuple[int, ...]]]  # of each input, the default one first


def flexible_shapes(interface: Any) -> tuple[Value | None, list[str]]:
    """The attribute of one function (None when its sizes are fixed), and what was guessed.

    ``interface`` is its description (protobuf). Raises ArtifactError when inputs mix enumerated and
    ranged shapes.
    """
    enumerated: Shapes = {}
    ranged: dict[str, tuple[tuple[int, int], ...]] = {}
    defaults: dict[str, tuple[int, ...]] = {}
    warnings: list[str] = []
    for feature in sorted(interface.input, key=lambda f: f.name):
        array = feature.type.multiArrayType
        kind = array.WhichOneof("ShapeFlexibility")
        if kind == "enumeratedShapes":
            enumerated[feature.name] = [tuple(s.shape) for s in array.enumeratedShapes.shapes]
            if not enumerated[feature.name]:
                raise ArtifactError(f"input {feature.name!r} enumerates shapes and names none")
            defaults[feature.name] = tuple(array.shape) or enumerated[feature.name][0]
        elif kind == "shapeRange":
            spans = [(r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges]
            ranged[feature.name] = tuple(spans)
            defaults[feature.name] = tuple(array.shape) or tuple(low for low, _ in spans)
            if any(high < 0 for _, high in spans):
                warnings.append("how Apple writes a range without an upper end is not known: -1")
        elif feature.type.imageType.WhichOneof("SizeFlexibility"):
            raise ArtifactError(
                f"the image input {feature.name!r} has flexible sizes; how Apple's compiler "
                "writes those is not known: use --compiler xcode on a Mac"
            )
    if enumerated and ranged:
        raise ArtifactError(
            "some inputs have enumerated and others ranged shapes; how Apple's compiler writes "
            "that is not known: use --compiler xcode on a Mac"
        )
    if enumerated:
        value, guesses = _enumerated(enumerated)
        return _attribute(defaults, "EnumeratedShapes", value), [*warnings, *guesses]
    if ranged:
        body = tuple(((name,), spans) for name, spans in ranged.items())
        return _attribute(defaults, "RangeDims", Value(_RANGES, body)), warnings
    return None, warnings


def _attribute(defaults: dict[str, tuple[int, ...]], key: str, value: Value) -> Value:
    kinds: tuple[Type, ...] = (_SHAPES, value.type)
    shapes = tuple(((name,), shape) for name, shape in defaults.items())
    items = ((("DefaultShapes",), shapes), ((key,), value.body))
    return Value(TupleType(tuple(TupleType((_STRING, k)) for k in kinds)), items)


def _enumerated(shapes: Shapes) -> tuple[Value, list[str]]:
    """Every combination under a label of eight hexadecimal digits, sorted by label."""
    warnings = ["the labels of enumerated shapes are guesses: Apple's rule is not known"]
    if len({len(s) for s in shapes.values()}) > 1:
        raise ArtifactError(
            "inputs have different numbers of enumerated shapes; how Apple's compiler pairs them "
            "is not known: use --compiler xcode on a Mac"
        )
    if len(shapes) > 1:
        warnings.append("enumerated shapes of several inputs were paired in their order: a guess")
    entries = {}
    for combination in zip(*shapes.values(), strict=True):
        body = tuple(((n,), s) for n, s in zip(shapes, combination, strict=True))
        entries[hashlib.sha256(repr(body).encode()).hexdigest()[:8]] = body
    ordered = tuple(((label,), entries[label]) for label in sorted(entries))
    return Value(DictType(_STRING, _SHAPES), ordered), warnings
