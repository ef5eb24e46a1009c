"""Classifiers: MIL's ``classify``, whose results are no tensors, as operations that compute some.

The scores become a vector in the order of the labels, and the label its index in them; which labels
these are is written into the features (``Feature.labels``).
"""

from dataclasses import replace

import numpy as np

from fluxvae.mil.program import (
    Argument,
    Constant,
    Function,
    Op,
    Ref,
    Signature,
    TensorType,
    Variable,
)

CLASSIFY = "classify"


def labels_constant(labels: tuple[str | int, ...]) -> Constant:
    """Labels as the list that ``classify`` takes."""
    return Constant(TensorType("list", (len(labels),)), labels)


def classify(scores: str, labels: tuple[str | int, ...], results: tuple[str, str]) -> Op:
    """MIL's operation for the value ``scores``; ``results`` names the best label and all scores."""
    inputs: dict[str, tuple[Argument, ...]] = {
        "probabilities": (Ref(scores),),
        "classes": (labels_constant(labels),),
    }
    variables = tuple(Variable(name, TensorType("string", ())) for name in results)
    return Op(CLASSIFY, CLASSIFY, inputs, variables)


def computed(function: Function, signature: Signature) -> tuple[Function, Signature]:
    """The function with every ``classify`` replaced, and the signature with its labels.

    One that is not as the converter writes it stays, an operation that the executor lacks.
    """
    types = {v.name: v.type for op in function.ops for v in op.outputs}
    types |= {v.name: v.type for v in function.inputs}
    lists = {
        op.outputs[0].name: op.attributes["val"]
        for op in function.ops
        if op.kind == "const" and op.outputs and op.outputs[0].type.dtype == "list"
    }
    ops: list[Op] = []
    labels: dict[str, tuple[str | int, ...]] = {}
    for op in function.ops:
        scores, classes = (op.inputs.get(name, ()) for name in ("probabilities", "classes"))
        found = [lists.get(c.name) if isinstance(c, Ref) else c for c in classes]
        usable = len(scores) == len(found) == 1 and len(op.outputs) == 2
        if op.kind != CLASSIFY or not usable or not isinstance(scores[0], Ref):
            ops += [op] if not op.outputs or op.outputs[0].name not in lists else []
            continue
        data = found[0].data if found[0] is not None else None
        if not isinstance(data, tuple) or scores[0].name not in types:
            ops.append(op)
            continue
        labels |= {variable.name: data for variable in op.outputs}
        ops += _operations(op, scores[0], types[scores[0].name].dtype, len(data))
    if not labels:
        return function, signature
    outputs = tuple(replace(f, labels=labels.get(f.name, ())) for f in signature.outputs)
    return replace(function, ops=tuple(ops)), replace(signature, outputs=outputs)


def _operations(op: Op, scores: Ref, dtype: str, count: int) -> tuple[Op, Op]:
    label, vector = (v.name for v in op.outputs)
    shape = Constant(TensorType("int32", (1,)), np.array([count], np.int32))
    axis = Constant(TensorType("int32", ()), np.array(0, np.int32))
    keep = Constant(TensorType("bool", ()), np.array(True))
    flat = Variable(vector, TensorType(dtype, (count,)))
    best = Variable(label, TensorType("int32", (1,)))
    return (
        Op("reshape", vector, {"x": (scores,), "shape": (shape,)}, (flat,)),
        Op(
            "reduce_argmax",
            label,
            {"x": (Ref(vector),), "axis": (axis,), "keep_dims": (keep,)},
            (best,),
        ),
    )
