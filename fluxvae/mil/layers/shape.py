"""Layers that rearrange, cut and join tensors, and those that compute with shapes."""

from typing import Any

from fluxvae.mil.layers.graph import Layer, Shape, Translate, positive, product
from fluxvae.mil.program import Ref


def _load_constant(layer: Layer) -> None:
    p = layer.params
    layer.result_constant(layer.weights(p.data, tuple(p.shape), "the values"))


def _get_shape(layer: Layer) -> None:
    x = layer.x
    layer.result("cast", (layer.rank(x),), x=_shape_of(layer, x), dtype="fp32")


def _shape_of(layer: Layer, x: Ref) -> Ref:
    return layer.emit("shape", (layer.rank(x),), "int32", x=x)


def _rank_preserving_reshape(layer: Layer) -> None:
    target = tuple(int(d) for d in layer.params.targetShape)
    if len(target) != layer.rank(layer.x):
        raise layer.damaged(f"has {len(target)} dimensions for rank {layer.rank(layer.x)}")
    _reshape(layer, target)


def _reshape(layer: Layer, target: tuple[int, ...]) -> None:
    """To ``target``, where 0 keeps a dimension and -1 takes what is left."""
    shape = layer.shape(layer.x)
    if 0 in target and len(target) != len(shape):
        raise layer.damaged("keeps a dimension while the rank changes")
    out: list[int | None] = [shape[i] if d == 0 else d for i, d in enumerate(target)]
    if -1 in target:
        hole = target.index(-1)
        total, rest = product(shape), product(tuple(out[:hole] + out[hole + 1 :]))
        out[hole] = total // rest if total is not None and rest else None
    layer.result("reshape", tuple(out), x=layer.x, shape=target)


def _reshape_dynamic(layer: Layer) -> None:
    x, target = layer.take(2)
    length = layer.shape(target)[0]
    if layer.rank(target) != 1 or length is None:
        raise layer.unsupported("a shape whose length is known at run time only")
    layer.result("reshape", (None,) * length, x=x, shape=layer.cast(target, "int32"))


def _reshape_like(layer: Layer) -> None:
    x, like = layer.take(2)
    layer.result("reshape", layer.shape(like), x=x, shape=_shape_of(layer, like))


def _flatten_to_2d(layer: Layer) -> None:
    shape = layer.shape(layer.x)
    axis = layer.params.axis + (len(shape) if layer.params.axis < 0 else 0)
    rows, columns = product(shape[:axis]), product(shape[axis:])
    if rows is None and columns is None:
        raise layer.unsupported("dimensions that are known at run time only")
    target = (-1 if rows is None else rows, -1 if columns is None else columns)
    layer.result("reshape", (rows, columns), x=layer.x, shape=target)


def _transpose(layer: Layer) -> None:
    axes = tuple(int(a) for a in layer.params.axes)
    shape = layer.shape(layer.x)
    if sorted(axes) != list(range(len(shape))):
        raise layer.damaged(f"permutes rank {len(shape)} by {list(axes)}")
    layer.result("transpose", tuple(shape[a] for a in axes), x=layer.x, perm=axes)


def _expand_dims(layer: Layer) -> None:
    shape = list(layer.shape(layer.x))
    rank = len(shape) + len(layer.params.axes)
    axes = sorted(positive(a, rank) for a in layer.params.axes)
    for axis in axes:
        shape.insert(axis, 1)
    layer.result("expand_dims", tuple(shape), x=layer.x, axes=tuple(axes))


def _squeeze(layer: Layer) -> None:
    p, shape = layer.params, layer.shape(layer.x)
    if p.squeezeAll:
        if None in shape:
            raise layer.unsupported("dimensions that are known at run time only")
        axes = tuple(i for i, d in enumerate(shape) if d == 1)
    else:
        axes = tuple(positive(a, len(shape)) for a in p.axes)
    if not axes:
        layer.result("identity", shape, x=layer.x)
        return
    out = tuple(d for i, d in enumerate(shape) if i not in axes)
    layer.result("squeeze", out, x=layer.x, axes=axes)


def _concat(layer: Layer, axis: int, *, interleave: bool = False) -> None:
    if not layer.inputs:
        raise layer.damaged("has no inputs")
    shapes = [layer.shape(x) for x in layer.inputs]
    axis = positive(axis, len(shapes[0]))
    if any(len(s) != len(shapes[0]) for s in shapes):
        raise layer.damaged("joins tensors of different ranks")
    sizes = [s[axis] for s in shapes]
    out = list(shapes[0])
    out[axis] = None if None in sizes else sum(s for s in sizes if s is not None)
    layer.result("concat", tuple(out), values=layer.inputs, axis=axis, interleave=interleave)


def _stack(layer: Layer) -> None:
    shape = list(layer.shape(layer.inputs[0]))
    axis = positive(layer.params.axis, len(shape) + 1)
    shape.insert(axis, len(layer.inputs))
    layer.result("stack", tuple(shape), values=layer.inputs, axis=axis)


def _split(layer: Layer, axis: int, sizes: tuple[int, ...] = ()) -> None:
    """Into ``sizes`` along an axis, or into equal parts, one for each output."""
    shape, count = layer.shape(layer.x), len(layer.outputs)
    axis = positive(axis, len(shape))
    whole = shape[axis]
    parts: list[int | None] = list(sizes)
    if not sizes:
        parts = [None if whole is None else whole // count] * count
    outs = [(*shape[:axis], part, *shape[axis + 1 :]) for part in parts]
    how: dict[str, Any] = {"split_sizes": sizes} if sizes else {"num_splits": count}
    layer.results("split", outs, x=layer.x, axis=axis, **how)


def _slice(layer: Layer) -> None:
    """``slice``: one of the last three axes."""
    p, shape = layer.params, layer.shape(layer.x)
    axis = positive({p.CHANNEL_AXIS: -3, p.HEIGHT_AXIS: -2, p.WIDTH_AXIS: -1}[p.axis], len(shape))
    here = tuple(i == axis for i in range(len(shape)))
    begin = tuple(p.startIndex if h else 0 for h in here)
    end = tuple(p.endIndex if h else 0 for h in here)
    strides = tuple(max(1, int(p.stride)) if h else 1 for h in here)
    kept = tuple(not h for h in here)
    _slice_by_index(
        layer, begin=begin, end=end, stride=strides, begin_mask=kept, end_mask=kept, squeeze_mask=()
    )


def _slice_static(layer: Layer) -> None:
    p = layer.params
    _slice_by_index(
        layer,
        begin=tuple(p.beginIds),
        end=tuple(p.endIds),
        stride=tuple(p.strides),
        begin_mask=tuple(p.beginMasks),
        end_mask=tuple(p.endMasks),
        squeeze_mask=tuple(p.squeezeMasks),
    )


def _slice_by_index(layer: Layer, **bounds: tuple[int, ...]) -> None:
    """Every argument of MIL's operation, one value for each axis; no ``squeeze_mask``: none."""
    shape = layer.shape(layer.x)
    bounds["squeeze_mask"] = bounds["squeeze_mask"] or (False,) * len(shape)
    if any(len(values) != len(shape) for values in bounds.values()):
        raise layer.damaged(f"does not give one value for each of {len(shape)} axes")
    out: list[int | None] = []
    axes = zip(shape, *bounds.values(), strict=True)
    for size, begin, end, stride, open_begin, open_end, squeeze in axes:
        span = slice(None if open_begin else begin, None if open_end else end, stride)
        if not squeeze:
            out.append(None if size is None else len(range(*span.indices(size))))
    layer.result("slice_by_index", tuple(out), x=layer.x, **bounds)


def _slice_dynamic(layer: Layer) -> None:
    """Like ``sliceStatic``, with begin, end and strides from inputs 2, 3 and 4."""
    p = layer.params
    if not 2 <= len(layer.inputs) <= 4:
        raise layer.unsupported("masks computed at run time")
    x, *bounds = layer.inputs
    rank = layer.rank(x)
    begin, *rest = [layer.cast(b, "int32") for b in bounds]
    squeeze = tuple(p.squeezeMasks) or (False,) * rank
    layer.result(
        "slice_by_index",
        (None,) * (rank - sum(squeeze)),
        x=x,
        begin=begin,
        end=rest[0] if rest else tuple(p.endIds),
        stride=rest[1] if len(rest) > 1 else tuple(p.strides) or (1,) * rank,
        begin_mask=tuple(p.beginMasks) or (False,) * rank,
        end_mask=tuple(p.endMasks) or (False,) * rank,
        squeeze_mask=squeeze,
    )


def _tile(layer: Layer) -> None:
    if len(layer.inputs) != 1:
        raise layer.unsupported("repetitions computed at run time")
    shape = layer.shape(layer.x)
    reps = (1,) * (len(shape) - len(layer.params.reps)) + tuple(int(r) for r in layer.params.reps)
    out = tuple(None if d is None else d * r for d, r in zip(shape, reps, strict=True))
    layer.result("tile", out, x=layer.x, reps=reps)


def _gather(layer: Layer) -> None:
    x, indices = layer.take(2)
    shape: Shape = layer.shape(x)
    axis = positive(layer.params.axis, len(shape))
    out = (*shape[:axis], *layer.shape(indices), *shape[axis + 1 :])
    layer.result("gather", out, x=x, indices=layer.cast(indices, "int32"), axis=axis)


TABLE: dict[str, Translate] = {
    "concat": lambda layer: _concat(layer, -5 if layer.params.sequenceConcat else -3),
    "concatND": lambda layer: _concat(layer, layer.params.axis, interleave=layer.params.interleave),
    "expandDims": _expand_dims,
    "flattenTo2D": _flatten_to_2d,
    "gather": _gather,
    "getShape": _get_shape,
    "loadConstantND": _load_constant,
    "rankPreservingReshape": _rank_preserving_reshape,
    "reshapeDynamic": _reshape_dynamic,
    "reshapeLike": _reshape_like,
    "reshapeStatic": lambda layer: _reshape(layer, tuple(layer.params.targetShape)),
    "slice": _slice,
    "sliceDynamic": _slice_dynamic,
    "sliceStatic": _slice_static,
    "split": lambda layer: _split(layer, -3),
    "splitND": lambda layer: _split(layer, layer.params.axis, tuple(layer.params.splitSizes)),
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
}
