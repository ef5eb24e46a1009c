"""What is inside a saved model: operations, types, bytes, arithmetic, transposes, metadata.

Shapes are the declared ones; where a flexible model leaves them open, they come from a dry run on
torch's ``meta`` device, which computes no values. A model that the executor cannot run is listed
all the same, with what the executor lacks; shapes that only a run would show stay unknown.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluxvae.artifact.record import read_record
from fluxvae.errors import UnsupportedOpError
from fluxvae.files import size_of
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import BITS, Feature, Function, Op, Program, Ref, Unsupported
from fluxvae.mil.registry import REGISTRY
from fluxvae.validation.evidence import Evidence, gather

# Operations whose output has the bytes of its input in the same order.
_VIEWS = ("reshape", "expand_dims", "squeeze", "identity", "flatten2d")


@dataclass(frozen=True)
class LivePeak:
    """The most bytes that are alive at once, and the operation (1-based, of all) where."""

    bytes: int
    op: str
    kind: str
    index: int


@dataclass(frozen=True)
class Stage:
    """All operations whose output has one map size (height x width in the graph)."""

    map: str
    ops: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True)
class Placed:
    """A transpose or a cast: where it stands, and on what."""

    kind: str
    name: str
    index: int
    of: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FunctionReport:
    """One function, counted at its default input shape.

    ``unsupported`` says what keeps the executor from running it: a sentence, and the operations
    (of a network: layers) it lacks with their counts. ``unknown_shapes`` counts the operations
    that the sums leave out for it.
    """

    name: str
    opset: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]
    unsupported: Unsupported | None
    unknown_shapes: int
    op_counts: Mapping[str, int]
    dtype_counts: Mapping[str, int]
    macs: int
    stages: tuple[Stage, ...]
    placed: tuple[Placed, ...]
    live: LivePeak  # of no bytes where shapes are unknown
    evidence: Evidence


@dataclass(frozen=True)
class Inspection:
    """One saved model. ``weights`` maps a storage kind to bytes, shared blobs counted once."""

    path: Path
    kind: str
    specification: int
    bytes_on_disk: int
    weights: Mapping[str, int]
    functions: tuple[FunctionReport, ...]
    program: Program


def inspect_model(path: Path) -> Inspection:
    """Read and count a model, compiled or not. Raises ArtifactError when it cannot be read."""
    program = read_package(path, listing=True)
    return Inspection(
        path=path,
        kind=program.kind,
        specification=program.specification,
        bytes_on_disk=size_of(path),
        weights=_weight_bytes(program),
        functions=tuple(_function_report(program, name) for name in program.functions),
        program=program,
    )


def _weight_bytes(program: Program) -> dict[str, int]:
    """Bytes by storage kind: element type of the stored blob, or ``immediate`` for small ones.

    Raises ArtifactError when a weight file is truncated or disagrees with the program.
    """
    sizes: Counter[str] = Counter()
    seen = set()
    for function in program.functions.values():
        for operation in function.every_op():
            for constant in operation.constants():
                if constant.blob is None:
                    sizes["immediate"] += constant.nbytes
                    continue
                place = (constant.blob.file.path, constant.blob.offset)
                if place not in seen:
                    seen.add(place)
                    constant.check()
                    sizes[constant.type.dtype] += constant.nbytes
    return dict(sizes.most_common())


def _function_report(program: Program, name: str) -> FunctionReport:
    function = program.function(name)
    signature = program.signatures[name]
    rows, shapes = _rows(program, name), _shapes(program, name)
    firsts = [v for r in rows for v in r.op.outputs[:1]]
    unknown = sum(None in shapes[v.name] for v in firsts)
    return FunctionReport(
        name=name,
        opset=function.opset,
        inputs=signature.inputs,
        outputs=signature.outputs,
        states=signature.states,
        unsupported=_unsupported(program, name),
        unknown_shapes=unknown,
        op_counts=dict(Counter(r.op.kind for r in rows).most_common()),
        dtype_counts=dict(Counter(v.type.dtype for v in firsts).most_common()),
        macs=sum(r.macs for r in rows),
        stages=_stages(rows),
        placed=tuple(
            Placed(r.op.kind, r.op.name, index + 1, len(rows), r.shape)
            for index, r in enumerate(rows)
            if r.op.kind in ("transpose", "cast")
        ),
        live=LivePeak(0, "", "", 0) if unknown else peak_live(function, shapes),
        evidence=_evidence(program, name, rows),
    )


@dataclass(frozen=True)
class _Row:
    """One operation. ``map`` is (height, width) of a four-axis float value."""

    op: Op
    shape: tuple[int, ...]
    map: tuple[int, int] | None
    macs: int


def quantization_evidence(program: Program, function: str | None = None) -> Evidence:
    """What one function of a saved model (the default one) does in integers."""
    name = program.function(function).name
    return _evidence(program, name, _rows(program, name))


def _evidence(program: Program, name: str, rows: list[_Row]) -> Evidence:
    return gather(program, name, {id(row.op): row.macs for row in rows})


def _unsupported(program: Program, name: str) -> Unsupported | None:
    found = REGISTRY.unsupported(program.function(name))
    reason = program.signatures[name].unsupported()
    return found or (Unsupported({}, reason) if reason else None)


def _stages(rows: list[_Row]) -> tuple[Stage, ...]:
    sums: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        if row.map is not None:
            total = sums.setdefault(row.map, [0, 0, 0])
            total[0] += 1
            total[1] += row.macs
            total[2] += math.prod(row.shape) * BITS.get(row.op.outputs[0].type.dtype, 0) // 8
    return tuple(Stage(f"{h}x{w}", *total) for (h, w), total in sums.items())


def _rows(program: Program, name: str) -> list[_Row]:
    """Every operation but plain constants, with its output shape, in program order."""
    function, signature = program.function(name), program.signatures[name]
    shapes = _shapes(program, name)
    record = read_record(program)
    last = record is not None and record.recipe.layout == "nhwc"
    channels_last = {feature.name: last for feature in signature.inputs}
    rows = []
    for operation in function.every_op():
        if operation.kind == "const":
            continue
        last = _channels_last(operation, channels_last)
        channels_last.update(dict.fromkeys((v.name for v in operation.outputs), last))
        first = operation.outputs[0] if operation.outputs else None
        shape = tuple(d or 0 for d in shapes[first.name]) if first else ()
        floats = len(shape) == 4 and first is not None and first.type.dtype in ("fp16", "fp32")
        floats = floats and not operation.kind.startswith("constexpr_")  # a weight is no map
        size = ((shape[1], shape[2]) if last else (shape[2], shape[3])) if floats else None
        rows.append(_Row(operation, shape, size, _macs(operation, shape, shapes)))
    return rows


def _shapes(program: Program, name: str) -> dict[str, tuple[int | None, ...]]:
    """Shape of every value: as declared, or by a dry run where dimensions are left open.

    What the executor cannot run keeps its declared shapes.
    """
    function, signature = program.function(name), program.signatures[name]
    made = (v for o in function.every_op() for v in o.outputs)
    shapes = {v.name: v.type.shape for v in (*function.inputs, *made)}
    shapes |= {feature.name: feature.shape for feature in signature.inputs}
    if all(d is not None for shape in shapes.values() for d in shape):
        return shapes
    zero = np.float32(0)  # repeated without taking memory
    zeros = {f.name: np.broadcast_to(zero, _array_shape(f)) for f in signature.inputs}
    with contextlib.suppress(UnsupportedOpError):
        for _, outputs in Session(program, name, device="meta").iterate(zeros):
            shapes.update({k: tuple(v.shape) for k, v in outputs.items()})
    return shapes


def _array_shape(feature: Feature) -> tuple[int, ...]:
    return (*feature.shape, 3) if feature.color in ("RGB", "BGR") else feature.shape


def _channels_last(operation: Op, known: Mapping[str, bool]) -> bool:
    """Whether a value is NHWC: transposes toggle it, everything else inherits it."""
    inherited = next((known[name] for name in operation.refs() if name in known), False)
    return not inherited if operation.kind == "transpose" else inherited


def _macs(
    operation: Op, shape: tuple[int, ...], shapes: Mapping[str, tuple[int | None, ...]]
) -> int:
    """Multiply-accumulates of convolutions, linear layers and products of matrices; else 0."""

    def argument(name: str) -> tuple[int, ...]:
        for binding in operation.inputs.get(name, ()):
            found = shapes.get(binding.name, ()) if isinstance(binding, Ref) else binding.type.shape
            return tuple(d or 0 for d in found)
        return (0,)  # of a damaged model, or an input of a nested block

    if operation.kind == "conv":
        return math.prod(shape) * math.prod(argument("weight")[1:])
    if operation.kind == "conv_transpose":
        return math.prod(argument("x")) * math.prod(argument("weight")[1:])
    if operation.kind == "linear":
        return math.prod(shape) * math.prod(argument("weight")[1:])
    if operation.kind == "matmul":
        return math.prod(argument("x")) * math.prod(shape[-1:])
    return 0


def peak_live(function: Function, shapes: Mapping[str, tuple[int | None, ...]]) -> LivePeak:
    """How much memory a function's values take at once, if it runs in the program's order.

    A model, not a device's figure: every value lives from the operation that makes it to the last
    one that reads it; views (reshapes) are free; nothing is computed in place and nothing is fused;
    weights do not count. It bounds from above what an engine of any skill needs, and compares two
    programs. ``shapes``: of every value, all sizes known.
    """
    ops = [op for op in function.ops if not _is_weight(op)]
    sizes = {v.name: _bytes(v.type.dtype, shapes[v.name]) for v in function.inputs}
    owner = {name: name for name in sizes}  # a view belongs to the value it looks at
    for op in ops:
        source = next((owner[n] for n in op.refs() if n in owner), None)
        for variable in op.outputs:
            if op.kind in _VIEWS and source is not None:
                owner[variable.name] = source
            else:
                owner[variable.name] = variable.name
                sizes[variable.name] = _bytes(variable.type.dtype, shapes[variable.name])
    last = dict.fromkeys(sizes, 0)
    for index, op in enumerate(ops):
        for name in (*op.refs(), *(v.name for v in op.outputs)):
            if name in owner:
                last[owner[name]] = index
    for name in function.outputs:
        if name in owner:  # a damaged program can name what nothing computes
            last[owner[name]] = len(ops)
    return _walk(ops, [v.name for v in function.inputs], owner, sizes, last)


def _walk(
    ops: list[Op],
    inputs: list[str],
    owner: Mapping[str, str],
    sizes: Mapping[str, int],
    last: Mapping[str, int],
) -> LivePeak:
    alive = set(inputs)
    peak = LivePeak(0, "", "", 0)
    for index, op in enumerate(ops):
        alive |= {owner[v.name] for v in op.outputs}
        total = sum(sizes[name] for name in alive)
        if total > peak.bytes:
            peak = LivePeak(total, op.name, op.kind, index + 1)
        alive = {name for name in alive if last[name] > index}
    return peak


def _is_weight(op: Op) -> bool:
    return op.kind == "const" or op.kind.startswith("constexpr_")


def _bytes(dtype: str, shape: tuple[int | None, ...]) -> int:
    return math.ceil(math.prod(d or 0 for d in shape) * BITS.get(dtype, 8) / 8)
