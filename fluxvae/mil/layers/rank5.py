"""Layers of the format's first versions, whose values all have the axes of ``AXES``.

The layers of other families count their axes from the end and so hold for these values too. Those
that MIL has for images of rank 4 only take the leading axes as one batch (``per_image``).
"""

import math

import numpy as np

from fluxvae.mil.layers.graph import Layer, Shape, Translate, product
from fluxvae.mil.program import Ref

AXES = ("sequence", "batch", "channel", "height", "width")


def rank_5(shape: Shape) -> Shape:
    """Shape that the array of an input feature gets: (C) or (C, H, W) of one step and sample.

    Raises ValueError for any other rank (``RANK5_ARRAY_MAPPING`` in NeuralNetwork.proto).
    """
    if len(shape) not in (1, 3):
        raise ValueError(f"the shape {list(shape)} is neither (C) nor (C, H, W)")
    return (1, 1, *shape, *(1,) * (3 - len(shape)))


def per_image(translate: Translate) -> Translate:
    """A translation of images (batch, C, H, W), for values with any axes before C, H and W."""

    def translated(layer: Layer) -> None:
        shape = layer.shape(layer.inputs[0]) if layer.inputs else ()
        if len(shape) <= 4:
            translate(layer)
            return
        lead, count = shape[:-3], product(shape[:-3])
        if count is None:
            raise layer.unsupported("a sequence or batch that is known at run time only")
        images = (count, *shape[-3:])
        # 0 keeps a dimension, counted from the right
        x = layer.emit("reshape", images, x=layer.inputs[0], shape=(count, 0, 0, 0))
        inner = layer.inside((x, *layer.inputs[1:]))
        translate(inner)
        result = Ref(inner.outputs[0])
        out = (*lead, *layer.shape(result)[-3:])
        keep = tuple(0 if d is None else d for d in out)
        layer.result("reshape", out, x=result, shape=keep)

    return translated


def _flatten(layer: Layer) -> None:
    """C, H and W to the channel axis, in this order or, channels last, as H, W, C."""
    x, shape = layer.x, _static(layer)
    if layer.params.mode == layer.params.CHANNEL_LAST:
        x = _swapped(layer, x, shape, (1, 2, 0))
    out = (*shape[:-3], math.prod(shape[-3:]), 1, 1)
    layer.result("reshape", out, x=x, shape=out)


def _reshape(layer: Layer) -> None:
    """To (C, H, W) or (sequence, C, H, W); channels last, the elements keep the order H, W, C."""
    shape, target = _of_rank_5(layer), tuple(int(d) for d in layer.params.targetShape)
    if len(target) not in (3, 4):
        raise layer.damaged(f"has the target shape {list(target)}")
    out = (target[0] if len(target) == 4 else shape[0], shape[1], *target[-3:])
    if math.prod(out) != math.prod(shape) or min(out) < 1:
        raise layer.damaged(f"makes {list(out)} of {list(shape)}")
    if layer.params.mode != layer.params.CHANNEL_LAST:
        layer.result("reshape", out, x=layer.x, shape=out)
        return
    x = _swapped(layer, layer.x, shape, (1, 2, 0))
    channels, height, width = out[-3:]
    last = (*out[:-3], height, width, channels)
    layer.result(
        "transpose", out, x=layer.emit("reshape", last, x=x, shape=last), perm=(0, 1, 4, 2, 3)
    )


def _permute(layer: Layer) -> None:
    """The axes sequence, C, H and W in another order; the batch stays."""
    shape = _of_rank_5(layer)
    axes = tuple(int(a) for a in layer.params.axis) or (0, 1, 2, 3)
    if sorted(axes) != [0, 1, 2, 3]:
        raise layer.damaged(f"permutes four axes by {list(axes)}")
    first, *rest = (a + (a > 0) for a in axes)
    perm = (first, 1, *rest)
    layer.result("transpose", tuple(shape[a] for a in perm), x=layer.x, perm=perm)


def _sequence_repeat(layer: Layer) -> None:
    shape, count = _of_rank_5(layer), int(layer.params.nRepetitions) or 1
    out = (shape[0] * count, *shape[1:])
    layer.result("tile", out, x=layer.x, reps=(count, 1, 1, 1, 1))


def _load_constant(layer: Layer) -> None:
    shape = tuple(int(d) for d in layer.params.shape)
    values = layer.weights(layer.params.data, shape, "the values")
    layer.result_constant(values.reshape(1, 1, *shape))


def _embedding(layer: Layer) -> None:
    """Columns of a matrix chosen by numbers, as channels."""
    p, shape = layer.params, _static(layer)
    if shape[-3:] != (1, 1, 1):
        raise layer.damaged(f"has an input of {list(shape)}; its last three sizes must be 1")
    inputs, outputs = int(p.inputDim), int(p.outputChannels)
    table = layer.weights(p.weights, (outputs, inputs), "the weights").T
    if p.hasBias:
        table = table + layer.weights(p.bias, (outputs,), "the biases")
    flat = layer.emit("reshape", shape[:-3], x=layer.x, shape=shape[:-3])
    chosen = layer.emit(
        "gather", (*shape[:-3], outputs), x=np.ascontiguousarray(table),
        indices=layer.cast(flat, "int32"), axis=0,
    )  # fmt: skip
    out = (*shape[:-3], outputs, 1, 1)
    layer.result("reshape", out, x=chosen, shape=out)


def _swapped(layer: Layer, x: Ref, shape: tuple[int, ...], order: tuple[int, ...]) -> Ref:
    """The last three axes in another order."""
    lead = len(shape) - 3
    perm = (*range(lead), *(lead + a for a in order))
    return layer.emit("transpose", tuple(shape[a] for a in perm), x=x, perm=perm)


def _static(layer: Layer) -> tuple[int, ...]:
    """Shape of the only input, of rank 3 or more and known before run time."""
    shape = layer.shape(layer.x)
    known = tuple(d for d in shape if d is not None)
    if len(known) < len(shape):
        raise layer.unsupported("dimensions that are known at run time only")
    if len(shape) < 3:
        raise layer.damaged(f"has an input of rank {len(shape)}")
    return known


def _of_rank_5(layer: Layer) -> tuple[int, ...]:
    shape = _static(layer)
    if len(shape) != len(AXES):
        raise layer.damaged(f"has an input of rank {len(shape)}; expected {', '.join(AXES)}")
    return shape


TABLE: dict[str, Translate] = {
    "embedding": _embedding,
    "flatten": _flatten,
    "loadConstant": _load_constant,
    "permute": _permute,
    "reshape": _reshape,
    "sequenceRepeat": _sequence_repeat,
}
