"""A function against its description, and its operations against each other: by names and types."""

from collections import Counter

from fluxvae.errors import ArtifactError
from fluxvae.mil.program import FLOATS, Feature, Function, Signature, TensorType, within


def check_wiring(function: Function, signature: Signature) -> None:
    """Raise ArtifactError unless every value is defined once, and before it is read.

    The inputs must be those that are described; with states, nothing runs and none are compared.
    """
    names = [v.name for v in function.inputs]
    taken, described = sorted(names), sorted(f.name for f in signature.inputs)
    if described != taken and not signature.states:
        raise ArtifactError(f"the program takes {taken}, but the model describes {described}")
    known = set(names)
    for operation in function.ops:
        unknown = next((name for name in operation.refs() if name not in known), None)
        if unknown is not None:
            raise ArtifactError(f"operation {operation.name!r} reads {unknown!r} before it exists")
        outputs = [v.name for v in operation.outputs]
        names += outputs
        known.update(outputs)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ArtifactError(f"the program defines {twice[0]!r} twice; it is damaged")
    missing = next((name for name in function.outputs if name not in known), None)
    if missing is not None:
        raise ArtifactError(f"the program returns {missing!r}, which nothing computes")


def check_types(function: Function, signature: Signature) -> None:
    """Raise ArtifactError when a function's inputs and outputs are not of the described types.

    An fp16 feature may be an fp32 value of the program, and the other way round. A dimension of
    ``None`` is free; an output's shape need not be described.
    """
    types = {v.name: v.type for v in function.inputs}
    for features, verb in ((signature.inputs, "takes"), (signature.outputs, "returns")):
        if verb == "returns":
            types |= {v.name: v.type for o in function.ops for v in o.outputs}
        for feature in features:
            known = feature.name in types and feature.kind in ("tensor", "image")
            if known and not _fits(types[feature.name], feature):
                raise ArtifactError(
                    f"function {function.name!r} {verb} {feature.name!r} as "
                    f"{types[feature.name]}, but the model describes {_described(feature)}; "
                    "it is damaged"
                )


def _fits(declared: TensorType, feature: Feature) -> bool:
    if feature.kind == "image":
        same_type = declared.dtype in FLOATS
        head: tuple[tuple[int, int], ...] = ((1, 1), (feature.channels,) * 2)
    else:
        both_float = declared.dtype in FLOATS and feature.dtype in FLOATS
        same_type, head = both_float or declared.dtype == feature.dtype, ()
    shapes = feature.shapes or ((feature.shape,) if feature.shape else ())
    spans = [feature.ranges] if feature.ranges else [[(d, d) for d in shape] for shape in shapes]
    return same_type and (
        not spans or any(within(declared.shape, (*head, *span)) for span in spans)
    )


def _described(feature: Feature) -> str:
    what = f"{feature.color} image" if feature.kind == "image" else feature.dtype
    return f"{what} {'' if feature.ranges else 'of '}{feature.allowed}"
