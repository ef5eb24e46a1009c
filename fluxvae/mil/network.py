"""Neural networks (single-file ``.mlmodel``, before ML Programs) as a Program.

Each layer becomes one or a few MIL operations (``fluxvae.mil.layers``), all in float32, which
is what the format stores and computes in; from there on the executor knows no difference.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.classifier import classify, computed
from fluxvae.mil.features import read_signature, single_program
from fluxvae.mil.layers import TRANSLATORS, Graph, Layer
from fluxvae.mil.layers.graph import Shape, product
from fluxvae.mil.layers.rank5 import AXES, rank_5
from fluxvae.mil.layers.weights import sized
from fluxvae.mil.listing import layer_kind, listed_network
from fluxvae.mil.program import (
    Feature,
    Function,
    Program,
    Ref,
    TensorType,
    Unsupported,
    Variable,
)

EXACT = 1  # EXACT_ARRAY_MAPPING and RANK4_IMAGE_MAPPING
# The first opset; every operation a layer is translated to is in it.
OPSET = "CoreML5"
# Types of a Model that are networks of layers
NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")


def network_program(model: Any, path: Path) -> Program:
    """The Program, with the one function ``main``, of a Model message of a type in ``NETWORKS``.

    Values are float32; images are (1, channels, height, width) in 0..255. A network with layers
    that the executor does not know, or in a form it does not support, is only listed: its
    function says why. Raises ArtifactError for a network that contradicts itself.
    """
    network = getattr(model, model.WhichOneof("Type"))
    try:
        _refuse_unknown_layers(network.layers)
        return _translated(model, network, path)
    except UnsupportedOpError as error:
        counts = _unknown(network.layers)
        return listed_network(model, network.layers, path, Unsupported(counts, str(error)))


def _translated(model: Any, network: Any, path: Path) -> Program:
    signature = read_signature(model.description)
    graph = Graph()
    inputs = tuple(_input(f, path) for f in signature.inputs)
    for variable in inputs:
        graph.define(variable.name, variable.type.shape)
    aliases = _to_rank_5(graph, signature.inputs, network, path)
    arrays = [f for f in signature.outputs if f.kind in ("tensor", "image")]
    unmapped = {f.name: f"{f.name}:rank 5" for f in arrays} if aliases else {}
    aliases |= _preprocess(graph, network.preprocessing, signature.inputs, aliases, path)
    scores = model.description.predictedProbabilitiesName  # also the name of a layer's output
    aliases |= unmapped | ({scores: f"{scores}:computed"} if scores else {})
    for message in network.layers:
        _translate(Layer(graph, message, aliases))
    for feature in arrays:
        if feature.name in unmapped:
            _from_rank_5(graph, unmapped[feature.name], feature)
        graph.shape(feature.name)
    _classify(graph, model.description, network, aliases)
    outputs = tuple(f.name for f in signature.outputs)
    function = Function("main", OPSET, inputs, tuple(graph.ops), outputs)
    function, signature = computed(function, signature)
    reason = signature.unsupported()
    if reason:
        raise UnsupportedOpError(reason)
    return single_program("neuralnetwork", model, function, signature, path)


def _classify(graph: Graph, description: Any, network: Any, aliases: Mapping[str, str]) -> None:
    """Write MIL's ``classify`` for the labels of a classifier."""
    kind = network.WhichOneof("ClassLabels") if hasattr(network, "stringClassLabels") else None
    if kind is None or not len(network.layers):
        return
    name = network.labelProbabilityLayerName or network.layers[-1].output[0]
    scores, labels = aliases.get(name, name), tuple(getattr(network, kind).vector)
    if product(graph.shape(scores)) != len(labels):
        raise ArtifactError(
            f"the scores {name!r} have the shape {list(graph.shape(scores))}, and there are "
            f"{len(labels)} labels"
        )
    results = (description.predictedFeatureName, description.predictedProbabilitiesName)
    graph.ops.append(classify(scores, labels, results))


def _translate(layer: Layer) -> None:
    try:
        TRANSLATORS[layer.kind](layer)
    except (ArithmeticError, LookupError, ValueError) as error:
        # fields that are too short, zero, or of no known choice; which of them is in the error
        raise layer.damaged(f"has impossible parameters ({error!r})") from error


def _unknown(layers: Sequence[Any]) -> dict[str, int]:
    """Kinds of layers that the executor does not know, with their counts."""
    kinds = Counter(layer_kind(layer) for layer in layers)
    return {kind: n for kind, n in kinds.most_common() if kind not in TRANSLATORS}


def _refuse_unknown_layers(layers: Sequence[Any]) -> None:
    unknown = _unknown(layers)
    if not unknown:
        return
    first = {layer_kind(layer): layer.name for layer in reversed(layers)}
    found = ", ".join(f"{kind} ({n}, first at {first[kind]!r})" for kind, n in unknown.items())
    near = difflib.get_close_matches(next(iter(unknown)), TRANSLATORS, 1)
    hint = f"; the nearest known one is {near[0]!r}" if near else ""
    raise UnsupportedOpError(
        f"the executor does not support these layers: {found}{hint}; "
        "convert the model to an ML Program instead"
    )


def _input(feature: Feature, path: Path) -> Variable:
    """The value an input feature arrives in; dimensions that may vary are unknown."""
    if feature.kind == "image":
        shape: Shape = (1, feature.channels, *_varying(feature))
    else:
        shape = _varying(feature)
    if not shape:
        raise ArtifactError(f"input {feature.name!r} of {path.name} has no shape")
    return Variable(feature.name, TensorType("fp32", shape))


def _to_rank_5(
    graph: Graph, features: Iterable[Feature], network: Any, path: Path
) -> dict[str, str]:
    """Reshape inputs that are mapped to rank 5; returns which value layers read in their place."""
    aliases = {}
    for feature in features:
        exact, shape = network.arrayInputShapeMapping, graph.shape(feature.name)
        if feature.kind == "image":
            exact, shape = network.imageInputShapeMapping, shape[1:]
        if exact == EXACT:
            continue
        try:
            out = rank_5(shape)
        except ValueError as error:
            raise ArtifactError(
                f"input {feature.name!r} of {path.name} is mapped to rank 5: {error}"
            ) from error
        axes = (0, 1, 3, 4) if len(shape) == 1 else (0,) if feature.kind == "image" else (0, 1)
        aliases[feature.name] = name = f"{feature.name}:rank 5"
        graph.write("expand_dims", name, ((name, out),), x=Ref(feature.name), axes=axes)
    return aliases


def _from_rank_5(graph: Graph, value: str, feature: Feature) -> None:
    """An output as described, where that has as many elements; otherwise as it is computed."""
    shape = out = graph.shape(value)
    op, how = "identity", dict[str, Shape]()
    if feature.kind == "image" and len(shape) == len(AXES):
        op, out, how = "squeeze", shape[1:], {"axes": (0,)}
    elif feature.shape and product(shape) == product(feature.shape):
        op, out, how = "reshape", feature.shape, {"shape": feature.shape}
    graph.write(op, feature.name, ((feature.name, out),), x=Ref(value), **how)


def _varying(feature: Feature) -> Shape:
    if feature.ranges:
        return tuple(low if low == high else None for low, high in feature.ranges)
    shapes = feature.shapes or (feature.shape,)
    columns = zip(*shapes, strict=True)
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in columns)


def _preprocess(
    graph: Graph,
    steps: Iterable[Any],
    features: tuple[Feature, ...],
    mapped: Mapping[str, str],
    path: Path,
) -> dict[str, str]:
    """Write the scaling of image inputs; returns which value layers read in place of which.

    ``mapped``: the values that inputs of rank 5 were reshaped to.
    """
    images = {f.name: f for f in features if f.kind == "image"}
    aliases = dict(mapped)
    for step in steps:
        name = step.featureName or next(iter(images), "")  # one image needs no name
        if name not in images:
            raise ArtifactError(f"{path.name} preprocesses {name!r}, which is not an image input")
        if step.WhichOneof("preprocessor") == "scaler":
            scale, bias = step.scaler.channelScale, _channel_bias(images[name], step.scaler)
        else:
            scale, bias = 1.0, _mean_image(graph.shape(name), step.meanImage.meanImage, name)
        value = aliases.get(name, name)
        for op, operand in (("mul", np.float32(scale)), ("add", bias)):
            result, shape = graph.fresh(value), graph.shape(value)
            graph.write(op, result, ((result, shape),), x=Ref(value), y=operand)
            value = result
        aliases[name] = value
    return aliases


def _channel_bias(image: Feature, scaler: Any) -> np.ndarray:
    """One value for each channel, in the image's own channel order; shape (channels, 1, 1)."""
    by_color = {
        "RGB": (scaler.redBias, scaler.greenBias, scaler.blueBias),
        "BGR": (scaler.blueBias, scaler.greenBias, scaler.redBias),
    }
    bias = by_color.get(image.color or "", (scaler.grayBias,))
    return np.array(bias, np.float32).reshape(-1, 1, 1)


def _mean_image(shape: Shape, values: Any, name: str) -> np.ndarray:
    """Minus the mean image, shape (channels, height, width)."""
    dims = tuple(d for d in shape[1:] if d is not None)
    mean = np.fromiter(values, np.float32, len(values))
    return -sized(mean, int(np.prod(dims)), f"the mean image of {name!r}").reshape(dims)
