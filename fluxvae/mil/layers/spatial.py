"""Layers on images (..., channels, height, width): convolution, resizing, borders."""

from typing import Any

from fluxvae.mil.layers.graph import Layer, Shape, Translate
from fluxvae.mil.layers.rank5 import per_image
from fluxvae.mil.layers.reduce import reduce_last

Dim = int | None


@per_image
def _convolution(layer: Layer) -> None:
    """2-D convolution, or its transpose; weights may be the second input."""
    p = layer.params
    shape = _image(layer)
    kernel = _pair(p.kernelSize, (3, 3))
    strides = _pair(p.stride, (1, 1))
    groups = int(p.nGroups) or 1
    arguments: dict[str, Any] = {"x": layer.inputs[0], "strides": strides, "groups": groups}
    arguments |= _padding_arguments(layer, p.WhichOneof("ConvolutionPaddingType"))
    if p.hasBias:
        arguments["bias"] = layer.weights(p.bias, (p.outputChannels,), "the biases")
    if p.isDeconvolution:
        _transposed(layer, shape, kernel, arguments)
        return
    dilations = _pair(p.dilationFactor, (1, 1))
    channels, inputs = int(p.outputChannels), int(p.kernelChannels)
    if shape[1] not in (None, inputs * groups):
        raise layer.damaged(f"wants {inputs * groups} channels, its input has {shape[1]}")
    arguments["weight"] = _kernel(layer, (channels, inputs, *kernel))
    borders = arguments.get("pad", (0, 0, 0, 0))
    same = arguments["pad_type"].startswith("same")
    size = [
        _window(shape[2 + i], kernel[i], strides[i], dilations[i], borders[2 * i : 2 * i + 2], same)
        for i in range(2)
    ]
    layer.result("conv", (shape[0], channels, *size), **arguments, dilations=dilations)


def _transposed(
    layer: Layer, shape: Shape, kernel: tuple[int, int], arguments: dict[str, Any]
) -> None:
    p = layer.params
    outputs = int(p.outputChannels)
    per_group = outputs // arguments["groups"]
    arguments["weight"] = _kernel(layer, (int(p.kernelChannels), per_group, *kernel), channel=1)
    if len(p.outputShape):
        # coremltools writes the shape of every static transposed convolution, mostly the one
        # that padding and strides imply; the executor refuses any other.
        size: tuple[Dim, ...] = tuple(int(d) for d in p.outputShape)
        if shape[0] is None:
            raise layer.unsupported("an output shape for a batch that is known at run time only")
        arguments["output_shape"] = (shape[0], outputs, *size)
    elif arguments["pad_type"].startswith("same"):
        size = tuple(
            None if d is None else d * s
            for d, s in zip(shape[2:], arguments["strides"], strict=True)
        )
    else:
        borders = arguments.get("pad", (0, 0, 0, 0))
        size = tuple(
            None if d is None else (d - 1) * s + k - sum(borders[2 * i : 2 * i + 2])
            for i, (d, s, k) in enumerate(zip(shape[2:], arguments["strides"], kernel, strict=True))
        )
    layer.result("conv_transpose", (shape[0], outputs, *size), **arguments)


def _kernel(layer: Layer, shape: tuple[int, ...], channel: int = 0) -> Any:
    if len(layer.inputs) == 2:
        return layer.inputs[1]
    return layer.weights(layer.params.weights, shape, "the weights", channel=channel)


def _padding_arguments(layer: Layer, kind: str | None) -> dict[str, Any]:
    """``pad_type`` and ``pad`` of MIL from the layer's padding of the given kind."""
    p = layer.params
    if kind == "same":
        lower = p.same.asymmetryMode == p.same.TOP_LEFT_HEAVY
        return {"pad_type": "same_lower" if lower else "same"}
    borders = _borders(p.valid.paddingAmounts)
    if not any(borders):
        return {"pad_type": "valid"}
    return {"pad_type": "custom", "pad": borders}


def _window(
    size: Dim, kernel: int, stride: int, dilation: int, borders: tuple[int, ...], same: bool
) -> Dim:
    if size is None:
        return None
    if same:
        return -(-size // stride)
    return (size + sum(borders) - (kernel - 1) * dilation - 1) // stride + 1


def _pooling(layer: Layer) -> None:
    """Pooling by windows, or of whole images, as coremltools also writes a mean or maximum."""
    p = layer.params
    if not p.globalPooling:
        _windows(layer)
        return
    ops = {p.MAX: "reduce_max", p.AVERAGE: "reduce_mean", p.L2: "reduce_l2_norm"}
    reduce_last(layer, ops[p.type], (-2, -1))


@per_image
def _windows(layer: Layer) -> None:
    p, shape = layer.params, _image(layer)
    kernel, strides = _pair(p.kernelSize, (3, 3)), _pair(p.stride, (1, 1))
    kind = p.WhichOneof("PoolingPaddingType")
    arguments: dict[str, Any] = {}
    if p.type == p.AVERAGE:
        arguments["exclude_padding_from_average"] = p.avgPoolExcludePadding
    if kind == "includeLastPixel":
        rows, columns = _pair(p.includeLastPixel.paddingAmounts, (0, 0))
        borders = (rows, rows, columns, columns)
        arguments |= {"pad_type": "custom", "pad": borders, "ceil_mode": True}
    elif kind is None:
        raise layer.damaged("has no padding type")
    else:
        arguments |= _padding_arguments(layer, kind)
        borders = arguments.get("pad", (0, 0, 0, 0))
    same = arguments["pad_type"].startswith("same")
    size = []
    for i in range(2):
        before, after = borders[2 * i : 2 * i + 2]
        if kind == "includeLastPixel":
            size.append(_up_to_the_last_pixel(shape[2 + i], kernel[i], strides[i], before))
        else:
            window = kernel[i], strides[i], 1, (before, after)
            size.append(_window(shape[2 + i], *window, same))
    op = {p.MAX: "max_pool", p.AVERAGE: "avg_pool", p.L2: "l2_pool"}[p.type]
    out = (*shape[:2], *size)
    layer.result(op, out, x=layer.x, kernel_sizes=kernel, strides=strides, **arguments)


def _up_to_the_last_pixel(size: Dim, kernel: int, stride: int, border: int) -> Dim:
    """Number of windows of ``includeLastPixel``, by the formula in NeuralNetwork.proto."""
    if size is None:
        return None
    count = -(-(size + 2 * border - kernel) // stride) + 1
    return count - (border > 0 and (count - 1) * stride >= size + border)


def _upsample(layer: Layer) -> None:
    p, shape = layer.params, layer.shape(layer.x)
    factors = _pair(p.scalingFactor, (1, 1))
    if len(p.fractionalScalingFactor):
        if any(f != int(f) for f in p.fractionalScalingFactor):
            raise layer.unsupported("a fractional scale")
        factors = _pair(p.fractionalScalingFactor, (1, 1))
    size = tuple(None if d is None else d * f for d, f in zip(shape[-2:], factors, strict=True))
    out = (*shape[:-2], *size)
    scales = {"scale_factor_height": float(factors[0]), "scale_factor_width": float(factors[1])}
    if p.mode == p.NN:
        layer.result("upsample_nearest_neighbor", out, x=layer.x, **scales)
    elif p.linearUpsampleMode == p.DEFAULT:
        _resize(layer, size, "DEFAULT")
    else:
        corners = p.linearUpsampleMode == p.ALIGN_CORNERS_TRUE
        layer.result("upsample_bilinear", out, x=layer.x, **scales, align_corners=corners)


def _resize_bilinear(layer: Layer) -> None:
    modes = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS")
    p = layer.params
    _resize(layer, _pair(p.targetSize, (1, 1)), modes[p.mode.samplingMethod])


def _resize(layer: Layer, size: tuple[Dim, ...], mode: str) -> None:
    height, width = size
    if height is None or width is None:
        raise layer.unsupported("bilinear resizing to a size that is known at run time only")
    layer.result(
        "resize_bilinear",
        (*layer.shape(layer.x)[:-2], height, width),
        x=layer.x,
        target_size_height=height,
        target_size_width=width,
        sampling_mode=mode,
    )


def _padding(layer: Layer) -> None:
    p, shape = layer.params, layer.shape(layer.x)
    borders = _borders(p.paddingAmounts)
    modes = {"constant": "constant", "reflection": "reflect", "replication": "replicate"}
    kind = p.WhichOneof("PaddingType")
    if kind not in modes:
        raise layer.unsupported("a border that is neither constant, reflected nor replicated")
    layer.result(
        "pad",
        _bordered(shape, (0, 0) * (len(shape) - 2) + borders),
        x=layer.x,
        pad=borders,
        mode=modes[kind],
        constant_val=float(p.constant.value),
    )


def _constant_pad(layer: Layer) -> None:
    p, x = layer.params, layer.inputs[0]
    if p.padToGivenOutputSizeMode:
        raise layer.unsupported("padding to a given size")
    value, shape = float(p.value), layer.shape(x)
    if len(layer.inputs) == 2:
        pad: Any = layer.cast(layer.inputs[1], "int32")
        out: Shape = (None,) * len(shape)
    else:
        pad = tuple(int(v) for v in p.padAmounts)
        out = _bordered(shape, pad)
    layer.result("pad", out, x=x, pad=pad, mode="constant", constant_val=value)


def _bordered(shape: Shape, pad: tuple[int, ...]) -> Shape:
    return tuple(
        None if d is None else d + pad[2 * i] + pad[2 * i + 1] for i, d in enumerate(shape)
    )


def _crop(layer: Layer) -> None:
    if len(layer.inputs) != 1:
        raise layer.unsupported("the size of a second input")
    shape = layer.shape(layer.x)
    borders = (0, 0) * (len(shape) - 2) + _borders(layer.params.cropAmounts)
    begin, cut = borders[::2], borders[1::2]
    layer.result(
        "slice_by_index",
        tuple(None if d is None else d - b - c for d, b, c in zip(shape, begin, cut, strict=True)),
        x=layer.x,
        begin=begin,
        end=tuple(-c for c in cut),
        end_mask=tuple(c == 0 for c in cut),
    )


@per_image
def _reorganize(layer: Layer) -> None:
    """Blocks of pixels to channels, or back."""
    p, shape = layer.params, layer.shape(layer.x)
    block = int(p.blockSize)
    if len(shape) != 4:
        raise layer.unsupported(f"a tensor of rank {len(shape)}")
    batch, channels, height, width = shape
    if p.mode == p.SPACE_TO_DEPTH:
        out = (batch, _times(channels, block**2), _over(height, block), _over(width, block))
        layer.result("space_to_depth", out, x=layer.x, block_size=block)
        return
    out = (batch, _over(channels, block**2), _times(height, block), _times(width, block))
    if p.mode == p.DEPTH_TO_SPACE:
        layer.result("depth_to_space", out, x=layer.x, block_size=block)
    else:
        layer.result("pixel_shuffle", out, x=layer.x, upscale_factor=block)


def _image(layer: Layer) -> Shape:
    if len(layer.inputs) not in (1, 2):
        raise layer.damaged(f"has {len(layer.inputs)} inputs, expected 1 or 2")
    shape = layer.shape(layer.inputs[0])
    if len(shape) != 4:
        raise layer.unsupported(f"a tensor of rank {len(shape)}")
    return shape


def _borders(amounts: Any) -> tuple[int, ...]:
    """Top, bottom, left, right."""
    if not len(amounts.borderAmounts):
        return (0, 0, 0, 0)
    rows, columns = amounts.borderAmounts
    return tuple(int(v) for e in (rows, columns) for v in (e.startEdgeSize, e.endEdgeSize))


def _pair(values: Any, default: tuple[int, int]) -> tuple[int, int]:
    return (int(values[0]), int(values[1])) if len(values) else default


def _times(size: Dim, factor: int) -> Dim:
    return None if size is None else size * factor


def _over(size: Dim, factor: int) -> Dim:
    return None if size is None else size // factor


TABLE: dict[str, Translate] = {
    "constantPad": _constant_pad,
    "convolution": _convolution,
    "crop": _crop,
    "padding": _padding,
    "pooling": _pooling,
    "reorganizeData": _reorganize,
    "resizeBilinear": _resize_bilinear,
    "upsample": _upsample,
}
