"""The executor: planning, values that share memory, rounding, inputs, outputs, liveness."""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fluxvae.errors import ArtifactError, LatentError, UnsupportedOpError
from fluxvae.mil.blobs import BlobRef
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Constant, Feature, Op, Program, TensorType
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import load_weights
from fluxvae.recipes.functions import INPUT_NAME, OUTPUT_NAME
from tests.artifacts import VARIANTS, convert, normal_latent, recipe
from tests.mil.hand import constant, operation, program, tensor

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
SHAPE = X.shape


def simple(*ops: Op, output: str = "y", dtype: str = "fp32", **more: Any) -> Program:
    """From ``x`` to ``output``, both of X's shape."""
    return program([tensor("x", SHAPE, dtype)], ops, [tensor(output, SHAPE, dtype)], **more)


def evaluate(made: Program, x: np.ndarray = X, output: str = "y") -> np.ndarray:
    return Session(made).run({"x": x})[output]


class Untouched(BlobRef):
    """A stored constant that must not be read."""

    def read(self, dtype: str, elements: int) -> np.ndarray:
        raise AssertionError("a constant was read before the program was checked")


def stored() -> Constant:
    return Constant(TensorType("fp32", SHAPE), blob=Untouched(None, 64))  # type: ignore[arg-type]


# --- planning ---


def test_unknown_operation_is_refused_by_name_before_any_constant_is_read() -> None:
    made = simple(
        operation("add", "a", SHAPE, x="x", y=stored()), operation("warp", "y", SHAPE, x="a")
    )
    with pytest.raises(UnsupportedOpError, match=r"operation 'warp' at 'y' is not supported"):
        Session(made)


def test_operation_newer_than_the_opset_is_refused_before_any_constant_is_read() -> None:
    made = simple(
        operation("add", "a", SHAPE, x="x", y=stored()),
        operation("scaled_dot_product_attention", "y", SHAPE, query="a", key="a", value="a"),
    )
    with pytest.raises(UnsupportedOpError, match=r"attention' at 'y' exists since iOS18.*iOS17"):
        Session(made)


def test_value_that_is_read_before_it_exists_is_refused_by_name() -> None:
    made = simple(
        operation("relu", "y", SHAPE, x="later"), operation("relu", "later", SHAPE, x="x")
    )
    with pytest.raises(ArtifactError, match="operation 'y' reads 'later' before it exists"):
        Session(made)


def test_output_that_nothing_computes_is_refused_by_name() -> None:
    with pytest.raises(ArtifactError, match="returns 'y', which nothing computes"):
        Session(simple(operation("relu", "a", SHAPE, x="x")))


def test_argument_the_executor_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOpError, match=r"'relu' at 'y' has the argument 'slope'"):
        Session(simple(operation("relu", "y", SHAPE, x="x", slope=0.1)))


def test_missing_argument_is_refused_by_name() -> None:
    with pytest.raises(ArtifactError, match=r"'add' at 'y' lacks its argument 'y'"):
        Session(simple(operation("add", "y", SHAPE, x="x")))


def test_constant_without_a_value_is_refused_by_name() -> None:
    with pytest.raises(ArtifactError, match=r"the constant 'c' has no value"):
        Session(simple(operation("const", "c", SHAPE), operation("add", "y", SHAPE, x="x", y="c")))


def test_constant_without_an_output_is_refused_by_name() -> None:
    """One changed byte of a model makes such a constant."""
    nameless = replace(operation("const", "c", SHAPE), outputs=(), attributes={"val": stored()})
    with pytest.raises(ArtifactError, match=r"the constant 'c' has no single output"):
        Session(simple(nameless, operation("relu", "y", SHAPE, x="x")))


@pytest.mark.parametrize("source", ["x", "folded"])
def test_other_number_of_outputs_than_the_operation_gives_is_refused(source: str) -> None:
    x = "x" if source == "x" else np.zeros(SHAPE, np.float32)
    made = simple(operation("relu", ("y", "z"), SHAPE, x=x))
    with pytest.raises(ArtifactError, match=r"'relu' at 'y' gives 1 values, the program names 2"):
        evaluate(made)


def test_described_input_that_the_program_does_not_take_is_refused() -> None:
    made = simple(operation("relu", "y", SHAPE, x="x"))
    signature = replace(made.signatures["main"], inputs=(tensor("z", SHAPE),))
    with pytest.raises(ArtifactError, match=r"takes \['x'\], but the model describes \['z'\]"):
        Session(replace(made, signatures={"main": signature}))


def test_unknown_function_is_refused_with_those_there_are() -> None:
    made = simple(operation("relu", "y", SHAPE, x="x"))
    with pytest.raises(ArtifactError, match="has no function 'other'; it has: main"):
        Session(made, "other")


def test_failure_inside_an_operation_names_it_and_the_shapes() -> None:
    made = simple(operation("add", "y", SHAPE, x="x", y=np.zeros((5, 5), np.float32)))
    with pytest.raises(ArtifactError, match=r"'add' at 'y' failed on .*x\[2, 3, 4\]"):
        evaluate(made)


# --- values that share memory ---


def test_value_used_again_after_relu_is_not_overwritten() -> None:
    made = simple(operation("relu", "a", SHAPE, x="x"), operation("sub", "y", SHAPE, x="a", y="x"))
    np.testing.assert_array_equal(evaluate(made), np.maximum(X, 0) - X)


def test_value_used_twice_by_one_operation_is_not_overwritten() -> None:
    made = simple(operation("abs", "a", SHAPE, x="x"), operation("mul", "y", SHAPE, x="a", y="a"))
    np.testing.assert_array_equal(evaluate(made), np.abs(X) * np.abs(X))


def test_value_behind_a_reshape_is_not_overwritten() -> None:
    made = simple(
        operation("add", "a", SHAPE, x="x", y=1.0),
        operation("reshape", "view", (6, 4), x="a", shape=[6, 4]),
        operation("relu", "r", (6, 4), x="view"),  # the view dies here, its memory does not
        operation("reshape", "back", SHAPE, x="r", shape=list(SHAPE)),
        operation("sub", "y", SHAPE, x="back", y="a"),
    )
    np.testing.assert_array_equal(evaluate(made), np.maximum(X + 1, 0) - (X + 1))


def test_output_behind_a_reshape_is_not_overwritten() -> None:
    made = program(
        [tensor("x", SHAPE)],
        [
            operation("add", "a", SHAPE, x="x", y=1.0),
            operation("reshape", "view", (6, 4), x="a", shape=[6, 4]),
            operation("square", "y", (6, 4), x="view"),
        ],
        [tensor("a", SHAPE), tensor("y", (6, 4))],
    )
    result = Session(made).run({"x": X})
    np.testing.assert_array_equal(result["a"], X + 1)
    np.testing.assert_array_equal(result["y"], ((X + 1) ** 2).reshape(6, 4))


def test_constant_behind_a_run_time_reshape_is_not_overwritten() -> None:
    weight = np.arange(-12, 12, dtype=np.float32)
    made = simple(
        operation("shape", "s", (3,), "int32", x="x"),
        operation("reshape", "w", SHAPE, x=constant(weight), shape="s"),
        operation("relu", "r", SHAPE, x="w"),
        operation("add", "y", SHAPE, x="r", y="x"),
    )
    session = Session(made)
    expected = np.maximum(weight.reshape(SHAPE), 0) + X
    for _ in range(2):  # a spoilt constant would show in the second run
        np.testing.assert_array_equal(session.run({"x": X})["y"], expected)


def test_fp16_rounding_does_not_reach_a_value_that_shares_memory() -> None:
    made = program(
        [tensor("x", SHAPE)],
        [
            operation("add", "a", SHAPE, x="x", y=0.0),
            operation("cast", "half", SHAPE, "fp16", x="a", dtype=constant("fp16")),
            operation("cast", "y", SHAPE, x="half", dtype=constant("fp32")),
        ],
        [tensor("a", SHAPE), tensor("y", SHAPE)],
    )
    result = Session(made).run({"x": X})
    np.testing.assert_array_equal(result["a"], X)
    np.testing.assert_array_equal(result["y"], X.astype(np.float16).astype(np.float32))


def test_smaller_first_argument_is_not_the_place_of_the_result() -> None:
    made = simple(
        operation("reduce_sum", "a", (2, 1, 1), x="x", axes=[1, 2], keep_dims=True),
        operation("add", "y", SHAPE, x="a", y="x"),
    )
    expected = X.astype(np.float64).sum((1, 2), keepdims=True) + X
    np.testing.assert_allclose(evaluate(made), expected, atol=2e-6)  # float32 sum of 12 numbers


def test_callers_array_is_not_changed() -> None:
    x = X.copy()
    evaluate(simple(operation("square", "y", SHAPE, "fp16", x="x"), dtype="fp16"), x)
    np.testing.assert_array_equal(x, X)


UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "abs": np.abs,
    "square": lambda x: x * x,
    "floor": np.floor,
    "identity": lambda x: x,
}
BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
}
FORMS = ((4, 6), (6, 4), (2, 3, 4))


@dataclass
class Built:
    """A random program and numpy's value of everything in it, each in memory of its own."""

    ops: list[Op]
    values: dict[str, np.ndarray]
    input_type: str = "fp32"


@st.composite
def random_programs(draw: st.DrawFn) -> tuple[Built, list[str]]:
    dtypes = ("fp16", "fp32")
    kinds = {"x": draw(st.sampled_from(dtypes))}
    x = np.arange(-12, 12, dtype=np.float32).reshape(4, 6) / 3
    built = Built([], {"x": _rounded(x, kinds["x"])}, kinds["x"])
    for index in range(draw(st.integers(1, 14))):
        name, source = f"v{index}", draw(st.sampled_from(sorted(built.values)))
        _append(draw, built, kinds, name, source, draw(st.sampled_from(dtypes)))
    names = sorted(set(built.values) - {"x"})
    return built, draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))


def _append(
    draw: st.DrawFn, built: Built, kinds: dict[str, str], name: str, source: str, dtype: str
) -> None:
    x = built.values[source]
    same = [
        k for k in built.values if built.values[k].shape == x.shape and kinds[k] == kinds[source]
    ]
    kind = draw(st.sampled_from([*UNARY, *BINARY, "reshape", "transpose", "cast"]))
    if kind in BINARY:
        other = draw(st.sampled_from(same))
        value, arguments = BINARY[kind](x, built.values[other]), {"y": other}
    elif kind == "reshape":
        form = draw(st.sampled_from(FORMS))
        value, arguments = x.reshape(form), {"shape": list(form)}
    elif kind == "transpose":
        order = tuple(reversed(range(x.ndim)))
        value, arguments = x.transpose(order), {"perm": list(order)}
    elif kind == "cast":
        value, arguments = x, {"dtype": constant(dtype)}
    else:
        value, arguments = UNARY[kind](x), {}
    kinds[name] = dtype if kind == "cast" else kinds[source]
    built.values[name] = _rounded(value, kinds[name])
    shape = built.values[name].shape
    built.ops.append(operation(kind, name, shape, kinds[name], x=source, **arguments))


def _rounded(value: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        return value.astype(np.float16).astype(np.float32) if dtype == "fp16" else value.copy()


@settings(max_examples=300, deadline=None)
@given(random_programs())
def test_random_programs_equal_numpy_with_every_value_in_its_own_memory(
    drawn: tuple[Built, list[str]],
) -> None:
    built, names = drawn
    features = [tensor(n, built.values[n].shape) for n in names]
    made = program([tensor("x", (4, 6), built.input_type)], built.ops, features)
    with np.errstate(all="ignore"):
        result = Session(made).run({"x": built.values["x"]})
    for name in names:
        np.testing.assert_array_equal(result[name], built.values[name], err_msg=name)


# --- rounding ---


def test_fp16_result_is_rounded_to_nearest_even() -> None:
    # 2049 and 2051 lie between the fp16 numbers 2048, 2050, 2052: halves go to the even one.
    x = np.array([1, 3], np.float16)
    made = program(
        [tensor("x", (2,), "fp16")],
        [operation("add", "y", (2,), "fp16", x="x", y=np.float16(2048))],
        [tensor("y", (2,), "fp16")],
    )
    np.testing.assert_array_equal(evaluate(made, x), np.array([2048, 2052], np.float16))


def test_fp16_overflow_becomes_infinity() -> None:
    x = np.array([300, -300, 255.875], np.float16)
    made = program(
        [tensor("x", (3,), "fp16")],
        [
            operation("abs", "a", (3,), "fp16", x="x"),
            operation("mul", "y", (3,), "fp16", x="a", y="x"),
        ],
        [tensor("y", (3,), "fp16")],
    )
    # 300 * 300 is above 65504, the largest fp16 number; 255.875 ** 2 = 65472.02 is not.
    np.testing.assert_array_equal(evaluate(made, x), np.array([np.inf, -np.inf, 65472], np.float16))


def test_sums_inside_an_operation_stay_wide() -> None:
    # 2048 + 1 + 1 + ... in fp16 would stay at 2048: each 1 is half a step.
    x = np.array([[2048, *[1] * 64]], np.float16)
    made = program(
        [tensor("x", x.shape, "fp16")],
        [operation("reduce_sum", "y", (1,), "fp16", x="x", axes=[1], keep_dims=False)],
        [tensor("y", (1,), "fp16")],
    )
    assert evaluate(made, x)[0] == 2112


def test_fp16_input_is_rounded_before_it_is_used() -> None:
    made = simple(operation("mul", "y", SHAPE, "fp16", x="x", y=np.float16(2)), dtype="fp16")
    np.testing.assert_array_equal(evaluate(made, X), X.astype(np.float16) * np.float16(2))


def test_fp16_feature_of_a_program_that_widens_it_is_rounded_too() -> None:
    made = program(
        [tensor("x", SHAPE, "fp16")],
        [operation("mul", "y", SHAPE, x="x", y=1.0)],
        [tensor("y", SHAPE)],
        dtype="fp32",
    )
    np.testing.assert_array_equal(evaluate(made, X), X.astype(np.float16).astype(np.float32))


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random decoders in fp16 at 64 x 96 pixels."""
    folder = tmp_path_factory.mktemp("decoders")
    return {v: convert(load_weights(v, "random:0"), recipe(v, "64x96"), folder) for v in VARIANTS}


@pytest.fixture(scope="module")
def enumerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enumerated")
    made = recipe("flux2", "64,96x128", shapes="enumerated", precision="float32")
    return convert(load_weights("flux2", "random:0"), made, folder)


def latent_for(variant: str) -> np.ndarray:
    (size,) = recipe(variant, "64x96").sizes
    return normal_latent({"flux1": 16, "flux2": 32}[variant], size)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_fp16_value_of_a_decoder_is_exactly_representable(
    decoders: dict[str, Path], variant: str
) -> None:
    checked = 0

    def check(op: Op, outputs: Any) -> None:
        nonlocal checked
        for variable in op.outputs:
            if variable.type.dtype == "fp16":
                value = outputs[variable.name]
                assert torch.equal(value.half().float(), value), op.name
                checked += 1

    session = Session(read_package(decoders[variant]))
    session.run({INPUT_NAME: latent_for(variant)}, on_op=check)
    assert checked > 80  # a decoder has 82 operations and more


@pytest.mark.parametrize("variant", VARIANTS)
def test_decoder_is_the_same_bit_for_bit_without_overwriting(
    decoders: dict[str, Path], variant: str
) -> None:
    made, latent = read_package(decoders[variant]), latent_for(variant)
    session, careful = Session(made), Session(made)
    careful._steps = [replace(s, first=None) for s in careful._steps]
    assert any(s.first is not None for s in session._steps)
    feed = {INPUT_NAME: latent}
    np.testing.assert_array_equal(session.run(feed)[OUTPUT_NAME], careful.run(feed)[OUTPUT_NAME])


# --- running ---


def test_iterate_gives_what_run_gives(decoders: dict[str, Path]) -> None:
    session, feed = Session(read_package(decoders["flux2"])), {INPUT_NAME: latent_for("flux2")}
    seen: dict[str, Tensor] = {}
    session.run(feed, on_op=lambda _, out: seen.update({k: v.clone() for k, v in out.items()}))
    names = []
    for op, outputs in session.iterate(feed):
        for name, value in outputs.items():
            assert torch.equal(value, seen[name]), op.name
            names.append(name)
    assert names == list(seen)


def test_two_runs_advanced_in_turn_do_not_disturb_each_other(decoders: dict[str, Path]) -> None:
    session, latent = Session(read_package(decoders["flux1"])), latent_for("flux1")
    alone = session.run({INPUT_NAME: latent})[OUTPUT_NAME]
    image = None
    runs = (session.iterate({INPUT_NAME: v}) for v in (latent, -latent))
    for (_, ours), _ in zip(*runs, strict=True):
        image = ours.get(OUTPUT_NAME)
    assert image is not None
    np.testing.assert_array_equal(image.numpy().astype(np.float16), alone)


@pytest.mark.parametrize("variant", VARIANTS)
def test_meta_device_gives_the_real_shapes(decoders: dict[str, Path], variant: str) -> None:
    made, feed = read_package(decoders[variant]), {INPUT_NAME: latent_for(variant)}

    def shapes(device: str) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
        for op, outputs in Session(made, device=device).iterate(feed):
            assert all(v.device.type == device for v in outputs.values())
            yield op.name, {k: tuple(v.shape) for k, v in outputs.items()}

    assert list(shapes("meta")) == list(shapes("cpu"))


def test_meta_device_follows_flexible_shapes(enumerated: Path) -> None:
    made = read_package(enumerated)
    for latent in ((1, 32, 8, 8), (1, 32, 12, 16)):
        feed = {INPUT_NAME: np.zeros(latent, np.float32)}
        *_, (_, last) = Session(made, device="meta").iterate(feed)
        assert tuple(last[OUTPUT_NAME].shape) == (1, 3, latent[2] * 8, latent[3] * 8)


def _needed(session: Session) -> list[int]:
    """For each operation, how many values are alive right after it: known from the program."""
    ops = [o for o in session.function.ops if o.kind != "const"]
    last: dict[str, int] = {n: i for i, o in enumerate(ops) for n in o.refs()}
    last |= dict.fromkeys(session.function.outputs, len(ops))
    born = {v.name: i for i, o in enumerate(ops) for v in o.outputs}
    return [
        sum(born[n] <= i < last.get(n, i + 1) or born[n] == i for n in born)
        for i in range(len(ops))
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_more_values_are_alive_than_the_program_needs(
    decoders: dict[str, Path], variant: str
) -> None:
    session = Session(read_package(decoders[variant]))
    references: list[weakref.ref[Tensor]] = []
    alive = []

    def count(_: Op, outputs: Any) -> None:
        references.extend(weakref.ref(v) for v in outputs.values())
        tensors = [r() for r in references]
        alive.append(len({t.untyped_storage().data_ptr() for t in tensors if t is not None}))

    session.run({INPUT_NAME: latent_for(variant)}, on_op=count)
    needed = _needed(session)
    assert len(alive) == len(needed) > 80
    assert max(needed) <= 4  # two ends of a skip, and what is computed between them
    assert all(a <= n for a, n in zip(alive, needed, strict=True))


def test_value_that_is_never_read_is_dropped_at_once() -> None:
    made = simple(
        operation("square", "unused", SHAPE, x="x"),
        operation("abs", "a", SHAPE, x="x"),
        operation("exp", "y", SHAPE, x="a"),
    )
    unused: list[weakref.ref[Tensor]] = []
    gone = []

    def watch(op: Op, outputs: Any) -> None:
        if op.name == "unused":
            unused.append(weakref.ref(outputs["unused"]))
        gone.append(unused[0]() is None)

    Session(made).run({"x": X}, on_op=watch)
    assert gone == [False, True, True]


# --- inputs ---


def test_missing_and_extra_inputs_are_refused_with_the_names() -> None:
    session = Session(simple(operation("relu", "y", SHAPE, x="x")))
    for wrong in ({}, {"z": X}, {"x": X, "z": X}):
        with pytest.raises(LatentError, match=r"wants the inputs \['x'\], got"):
            session.run(wrong)


def test_wrong_shape_is_refused_with_the_right_one() -> None:
    session = Session(simple(operation("relu", "y", SHAPE, x="x")))
    with pytest.raises(LatentError, match=r"input 'x' wants the shape \[2, 3, 4\], got \[3, 4\]"):
        session.run({"x": X[0]})


def test_range_of_shapes_is_kept_to() -> None:
    ranges = ((1, 1), (2, 4), (3, -1))  # -1: no upper end
    made = program(
        [tensor("x", (1, 2, 3), ranges=ranges)],
        [operation("relu", "y", (1, None, None), x="x")],
        [tensor("y", ())],
    )
    session = Session(made)
    for good in ((1, 2, 3), (1, 4, 99)):
        assert session.run({"x": np.ones(good, np.float32)})["y"].shape == good
    for bad in ((1, 5, 3), (1, 2, 2), (2, 2, 3), (1, 2)):
        with pytest.raises(LatentError, match="wants the shape within"):
            session.run({"x": np.ones(bad, np.float32)})


def test_enumerated_model_equals_torch_at_each_size_and_refuses_others(enumerated: Path) -> None:
    session = Session(read_package(enumerated))
    weights = load_weights("flux2", "random:0")
    decoder = build_decoder(weights)
    for size in recipe("flux2", "64,96x128", shapes="enumerated").sizes:
        latent = normal_latent(32, size)
        expected = decoder(torch.from_numpy(latent)).numpy()
        got = session.run({INPUT_NAME: latent})[OUTPUT_NAME]
        # The project's bar for fp32 programs. Measured: 1e-6.
        assert np.abs(got - expected).max() <= 2e-5
    with pytest.raises(LatentError, match=r"\[1, 32, 8, 8\] or \[1, 32, 12, 16\], got \[1, 32, 8"):
        session.run({INPUT_NAME: np.zeros((1, 32, 8, 16), np.float32)})


# --- outputs ---


@pytest.mark.parametrize(("dtype", "wanted"), [("fp16", np.float16), ("fp32", np.float32)])
def test_output_has_the_dtype_of_the_description(dtype: str, wanted: type) -> None:
    made = program(
        [tensor("x", SHAPE)], [operation("relu", "y", SHAPE, x="x")], [tensor("y", SHAPE, dtype)]
    )
    assert evaluate(made).dtype == wanted


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_image_output_is_rounded_clamped_and_in_rgb_order(color: str) -> None:
    levels = np.array([-5, 0.4, 1.6, 254.7, 255.4, 300], np.float32)
    x = np.stack([levels, levels + 10, levels + 20])[None, :, None, :]  # (1, 3, 1, 6)
    made = program(
        [tensor("x", x.shape)],
        [operation("identity", "y", x.shape, x="x")],
        [Feature("y", "image", "uint8", (1, 6), color=color)],
    )
    planes = np.clip(np.floor(x[0] + 0.5), 0, 255).astype(np.uint8)  # no halves among them
    if color == "BGR":
        planes = planes[::-1]  # the program's first channel is blue
    got = evaluate(made, x)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, planes.transpose(1, 2, 0))


def test_described_output_that_the_program_does_not_return_is_refused() -> None:
    made = simple(operation("relu", "y", SHAPE, x="x"))
    signature = replace(made.signatures["main"], outputs=(tensor("other", SHAPE),))
    with pytest.raises(ArtifactError, match="does not return the described output 'other'"):
        evaluate(replace(made, signatures={"main": signature}))


def test_constant_that_is_an_output_is_returned() -> None:
    value = np.arange(6, dtype=np.float32)
    const = Op("const", "y", {}, operation("const", "y", (6,)).outputs, {"val": constant(value)})
    made = program(
        [tensor("x", SHAPE)],
        [const, operation("relu", "z", SHAPE, x="x")],
        [tensor("y", (6,)), tensor("z", SHAPE)],
    )
    result = Session(made).run({"x": X})
    np.testing.assert_array_equal(result["y"], value)
