"""Models that the executor cannot run, as Programs that say what is in them.

Their one function ``main`` has an operation for each layer of a network, or for each model of a
pipeline, of the kind the format gives it, with the bytes of its weights but without shapes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fluxvae.mil.features import read_signature, single_program
from fluxvae.mil.program import (
    OPSETS,
    Constant,
    Function,
    Op,
    Program,
    Ref,
    TensorType,
    Unsupported,
    Variable,
)


def listed_model(model: Any, path: Path) -> Program:
    """A Model message that is neither an ML Program nor a neural network."""
    kind = model.WhichOneof("Type")
    parts = [model]
    if kind.startswith("pipeline"):
        pipeline = model.pipeline if kind == "pipeline" else getattr(model, kind).pipeline
        parts = list(pipeline.models)
    ops = []
    for number, part in enumerate(parts):
        d, what = part.description, part.WhichOneof("Type") or "unknown"
        names = [f.name for f in d.input], [f.name for f in d.output]
        ops.append(_op(what, f"model {number}", *names, part))
    reason = f"it holds a {kind}; expected an ML Program or a neural network"
    why = Unsupported(dict(Counter(op.kind for op in ops).most_common()), reason)
    return _program(model, path, kind, tuple(ops), why)


def listed_network(model: Any, layers: Iterable[Any], path: Path, why: Unsupported) -> Program:
    """A neural network with layers that are not translated."""
    ops = (_op(layer_kind(m), m.name, m.input, m.output, m) for m in layers)
    return _program(model, path, "neuralnetwork", tuple(ops), why)


def layer_kind(layer: Any) -> str:
    """The name of a NeuralNetworkLayer's kind in the format."""
    return layer.WhichOneof("layer") or "of a newer format"


def _op(kind: str, name: str, inputs: Iterable[str], outputs: Iterable[str], message: Any) -> Op:
    sizes: Counter[str] = Counter()
    for dtype, size in _weights(message):
        sizes[dtype] += size
    stored = {f"{d} weights": Constant(TensorType(d, (n,))) for d, n in sizes.items() if n}
    results = tuple(Variable(o, TensorType("fp32", (None,))) for o in outputs)
    return Op(kind, name, {"inputs": tuple(Ref(i) for i in inputs)}, results, stored)


def _weights(message: Any) -> Iterator[tuple[str, int]]:
    """Element type and number of elements of every WeightParams in a message."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            continue  # maps hold texts and parts of ML Programs, whose weights are in a file
        for part in value if field.is_repeated else (value,):
            if field.message_type.name == "WeightParams":
                yield from _stored(part)
            else:
                yield from _weights(part)


def _stored(weights: Any) -> Iterator[tuple[str, int]]:
    yield "fp32", len(weights.floatValue)
    yield "fp16", len(weights.float16Value) // 2
    yield "uint8", len(weights.rawValue) + len(weights.int8RawValue)


def _program(model: Any, path: Path, kind: str, ops: tuple[Op, ...], why: Unsupported) -> Program:
    signature = read_signature(model.description)
    outputs = tuple(f.name for f in signature.outputs)
    inputs = tuple(Variable(f.name, TensorType(f.dtype, f.shape)) for f in signature.inputs)
    # the first opset: what runs of these formats is translated to it
    function = Function("main", OPSETS[0], inputs, ops, outputs, why)
    return single_program(kind, model, function, signature, path)
