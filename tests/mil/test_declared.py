"""What a program declares of its values: compared with what they are, and with what can be held."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxvae.errors import ArtifactError
from fluxvae.mil.compiler import compile_program
from fluxvae.mil.executor import Session
from fluxvae.mil.growth import MAX_ELEMENTS, bound
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Constant, Feature, Op, TensorType
from fluxvae.mil.registry import REGISTRY
from tests.mil.cases import CASES
from tests.mil.hand import constant, operation, program, tensor
from tests.mil.test_ops import Trial
from tests.mil.test_serve import load, predict, talk
from tests.packages import copy_of, edited

Artifact = Callable[..., Path]
LATENT = np.zeros((1, 16, 8, 8), np.float16)
HUGE = 99_999_999


@pytest.fixture(scope="module")
def sound(demo_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled model that runs as it is."""
    made = compile_program(demo_artifact("flux1"), tmp_path_factory.mktemp("bundle")).path
    run(made)
    return made


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    """A compiled model to damage."""
    return Path(shutil.copytree(sound, tmp_path / sound.name))


def replaced(bundle: Path, found: str, replacement: str) -> Path:
    """The bundle with the first of a piece of its text replaced."""
    file = bundle / "model.mil"
    text = file.read_text("utf-8")
    assert found in text
    file.write_text(text.replace(found, replacement, 1), "utf-8")
    return bundle


def run(path: Path) -> None:
    Session(read_package(path)).run({"latent": LATENT})


DECLARATIONS = {
    "huge output": (
        "fp16, [1, 3, 64, 64]> image",
        f"fp16, [1, 3, {HUGE}, {HUGE}]> image",
        rf"returns 'image' as fp16\[1, 3, {HUGE}, {HUGE}\], but .* describes fp16 of \[1, 3, 64",
    ),
    "integer output": (
        "fp16, [1, 3, 64, 64]> image", "int32, [1, 3, 64, 64]> image", r"returns 'image' as int32",
    ),
    "huge input": (
        "fp16, [1, 16, 8, 8]> latent", f"fp16, [1, 16, {HUGE}, 8]> latent",
        r"\.mlmodelc: function 'main' takes 'latent' as .* it is damaged",
    ),
    "rank of the input": (
        "fp16, [1, 16, 8, 8]> latent", "fp16, [16, 8, 8]> latent", "takes 'latent' as fp16",
    ),
    "huge value inside": (
        "tensor<fp16, [1, 64, 8, 8]>", f"tensor<fp16, [1, 64, {HUGE}, {HUGE}]>",
        r"operation 'conv' at '\w+' asks for a value of \d{18} elements; .* 4294967296 \(16 GiB",
    ),
    "other size inside": (
        "tensor<fp16, [1, 64, 8, 8]>", "tensor<fp16, [1, 64, 8, 9]>",
        r"'conv' at '\w+' declares '\w+' as fp16\[1, 64, 8, 9\], but computes \[1, 64, 8, 8\]",
    ),
    "other rank inside": (
        "tensor<fp16, [1, 64, 8, 8]>", "tensor<fp16, [64, 8, 8]>", r"but computes \[1, 64, 8, 8\]",
    ),
    "other float inside": (
        "tensor<fp16, [1, 64, 8, 8]>", "tensor<fp32, [1, 64, 8, 8]>",
        r"'conv' at '\w+' declares '\w+' as fp32\[1, 64, 8, 8\], but computes fp16",
    ),
    "integer inside": (
        "tensor<fp16, [1, 64, 8, 8]>", "tensor<int32, [1, 64, 8, 8]>", "but computes float32",
    ),
    "number of strides": (
        "tensor<int32, [2]> ", "tensor<int32, [3]> ",
        r"'const' at '\w+' declares '\w+' as int32\[3\], but computes int32\[2\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DECLARATIONS)
def test_declared_type_that_is_not_the_computed_one_is_refused_with_both(
    bundle: Path, case: str
) -> None:
    found, replacement, message = DECLARATIONS[case]
    with pytest.raises(ArtifactError, match=message):
        run(replaced(bundle, found, replacement))


@pytest.mark.parametrize("case", ["huge output", "other size inside"])
def test_app_gets_the_words_about_a_wrong_declaration(bundle: Path, case: str) -> None:
    found, replacement, message = DECLARATIONS[case]
    header, _ = talk(load(replaced(bundle, found, replacement)), predict(LATENT))[
        0 if case == "huge output" else 1
    ]
    assert not header["ok"]
    assert header["error"]["kind"] == "io"
    with pytest.raises(ArtifactError, match=message):
        raise ArtifactError(json.loads(json.dumps(header["error"]["message"])))


def test_unknown_dimension_stands_for_any(bundle: Path) -> None:
    run(replaced(bundle, "tensor<fp16, [1, 64, 8, 8]>", "tensor<fp16, [?, 64, 8, ?]>"))


def test_cast_must_declare_the_type_that_it_names() -> None:
    made = program(
        [tensor("x", (2,))],
        [operation("cast", "y", (2,), "fp32", x="x", dtype=constant("fp16"))],
        [tensor("y", (2,))],
    )
    with pytest.raises(ArtifactError, match=r"'cast' at 'y' declares 'y' as fp32\[2\].* fp16"):
        Session(made)


@pytest.mark.parametrize("shape", [(2**62, 2), (1, -1), (1,) * 40])
def test_feature_of_an_impossible_shape_is_refused(
    demo_artifact: Artifact, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    package = copy_of(demo_artifact("flux1"), tmp_path)
    with edited(package) as model:
        model.description.input[0].type.multiArrayType.shape[:] = shape
    with pytest.raises(ArtifactError, match=r"'latent' has the impossible shape \["):
        read_package(package)


WRONG_ARGUMENTS: dict[str, tuple[Op, str]] = {
    "text for numbers": (
        operation("reshape", "y", (2,), x="x", shape=constant("two")), "'shape' of 'y' is text"
    ),
    "text for a tensor": (
        operation("add", "y", (2,), x="x", y=constant("two")), "'y' of 'y' is text; expected num"
    ),
    "several for one": (
        operation("leaky_relu", "y", (2,), x="x", alpha=[1.0, 2.0]), "'alpha' of 'y' has 2 elements"
    ),
    "NaN for a size": (
        operation("reshape", "y", (2,), x="x", shape=[float("nan")]), "'shape' of 'y' is nan"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_ARGUMENTS)
def test_argument_of_the_wrong_kind_is_refused_by_its_name(case: str) -> None:
    made, message = WRONG_ARGUMENTS[case]
    with pytest.raises(ArtifactError, match=message):
        Session(program([tensor("x", (2,))], [made], [tensor("y", (2,))]))


@pytest.mark.parametrize(
    "feature", [Feature("y", "image", "uint8", (2, 2), color="RGB"), tensor("y", (2,), "int64")]
)
def test_output_that_is_not_what_is_described_is_refused_by_its_name(feature: Feature) -> None:
    made = program([tensor("x", (2,))], [operation("relu", "y", (2,), x="x")], [feature])
    with pytest.raises(ArtifactError, match=r"output 'y' of shape \[2\] is not what the mod"):
        Session(made).run({"x": np.zeros(2, np.float32)})


# --- values that are too large ---

ROW = np.zeros((1, 1, 1, 100_000), np.float32)
TOO_LARGE: dict[str, Op] = {
    "pad": operation("pad", "y", (None,) * 4, x="x", pad=[0, 10**6, 0, 10**6]),
    "tile": operation("tile", "y", (None,) * 4, x="x", reps=[1, 10**5, 1, 1]),
    "fill": operation("fill", "y", (None,) * 2, shape=[2**20, 2**20], value=0.0),
    "range_1d": operation("range_1d", "y", (None,), end=1e12, start=0.0, step=1.0),
    "add": operation("add", "y", (None,) * 4, x="x", y=np.zeros((100_000, 1), np.float32)),
    "select": operation(
        "select", "y", (None,) * 4, cond=np.zeros((100_000, 1), bool), a="x", b="x"
    ),
    "matmul": operation(
        "matmul", "y", (None,) * 4, x="x", y=np.zeros((1, 100_000), np.float32), transpose_x=True
    ),
    "linear": operation("linear", "y", (None,) * 4, x="t", weight=np.zeros((100_000, 1))),
    "gather": operation("gather", "y", (None,) * 5, x="x", indices=np.zeros(50_000, int), axis=0),
    "upsample_nearest_neighbor": operation(
        "upsample_nearest_neighbor", "y", (None,) * 4, x="x", scale_factor_height=100_000.0
    ),
    "resize_bilinear": operation(
        "resize_bilinear", "y", (None,) * 4, x="x", target_size_height=2**20,
        target_size_width=2**20,
    ),
    "conv": operation(
        "conv", "y", (None,) * 4, x="x", weight=np.zeros((1, 1, 1, 1)), pad_type=constant("custom"),
        pad=[0, 100_000, 0, 0],
    ),
    "conv_transpose": operation(
        "conv_transpose", "y", (None,) * 4, x="x", weight=np.zeros((1, 1, 1, 1)),
        strides=[1, 100_000],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_operation_that_asks_for_too_much_is_refused_before_it_runs(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(**_: Any) -> None:
        raise AssertionError("the operation was run")

    first = operation("transpose", "t", (1, 1, 100_000, 1), x="x", perm=[0, 1, 3, 2])
    last = TOO_LARGE[kind]
    made = program([tensor("x", ROW.shape)], [first, last], [tensor("y", ())])
    spec = REGISTRY[kind]
    monkeypatch.setitem(REGISTRY._specs, kind, type(spec)(**{**vars(spec), "run": never}))
    with pytest.raises(ArtifactError, match=rf"'{kind}' at 'y' asks for a value of \d+ elements"):
        Session(made).run({"x": ROW})


def test_results_are_never_larger_than_their_bound() -> None:
    bounded = set()
    for case in CASES:
        trial = Trial(case, case.dtypes[0])
        converted = trial.converted()
        limit = bound(case.op, converted)
        largest = max(r.numel() for r in trial.call(converted))
        if limit:
            bounded.add(case.op)
            assert largest <= limit, case
        else:
            given = [t for v in converted.values() for t in (v if isinstance(v, tuple) else (v,))]
            sizes = [t.numel() for t in given if hasattr(t, "numel")]
            known = case.op in ("shape", "fill") or case.op.startswith("constexpr_")
            assert known or largest <= sum(sizes), case
    assert set(TOO_LARGE) <= bounded


def test_largest_value_of_a_decoder_is_within_the_limit() -> None:
    assert math.prod((1, 256, 4096, 4096)) <= MAX_ELEMENTS
    assert Constant(TensorType("fp16", (1, 256, 4096, 4096))).elements <= MAX_ELEMENTS
