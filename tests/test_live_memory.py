"""Peak of live activations: by hand on small functions, and the figures of the KL attention."""

from pathlib import Path

import pytest
from torch import nn

from fluxvae.convert.program import write_model
from fluxvae.convert.rewrite.attention import with_attention
from fluxvae.mil.program import Function, Op, Ref, TensorType, Variable
from fluxvae.networks.attention import Attention
from fluxvae.recipes import Recipe, parse_sizes
from fluxvae.validation.inspect import FunctionReport, inspect_model, peak_live


def value(name: str, *shape: int, dtype: str = "fp16") -> Variable:
    return Variable(name, TensorType(dtype, shape))


def op(kind: str, output: Variable, *read: str) -> Op:
    inputs = {f"x{i}": (Ref(name),) for i, name in enumerate(read)}
    return Op(kind, output.name, inputs, (output,), {})


def peak(*ops: Op, outputs: tuple[str, ...]) -> tuple[int, str]:
    made = Function("main", "CoreML7", (value("in", 10),), ops, outputs)
    shapes = {v.name: v.type.shape for o in ops for v in o.outputs} | {"in": (10,)}
    found = peak_live(made, shapes)
    return found.bytes, found.op


def test_a_value_lives_from_its_maker_to_its_last_reader() -> None:
    a, b, c = value("a", 100), value("b", 1), value("c", 50)
    # in 20 + a 200 at a; a 200 + b 2 at b; b 2 + c 100 at c.
    assert peak(op("relu", a, "in"), op("sum", b, "a"), op("tile", c, "b"), outputs=("c",)) == (
        220,
        "a",
    )
    # As soon as c reads a again, a lives on: a 200 + b 2 + c 100.
    again = (op("relu", a, "in"), op("sum", b, "a"), op("tile", c, "b", "a"))
    assert peak(*again, outputs=("c",)) == (302, "c")


def test_views_are_free_and_keep_what_they_look_at_alive() -> None:
    a, view, c = value("a", 100), value("view", 10, 10), value("c", 50)
    ops = (op("relu", a, "in"), op("reshape", view, "a"), op("tile", c, "in", "view"))
    assert peak(*ops, outputs=("c",)) == (20 + 200 + 100, "c")


def test_weights_do_not_count_and_wider_types_do() -> None:
    weight, a = value("w", 1000), value("a", 100, dtype="fp32")
    ops = (op("constexpr_lut_to_dense", weight), op("add", a, "in", "w"))
    assert peak(*ops, outputs=("a",)) == (20 + 400, "a")


def test_value_that_nobody_reads_counts_where_it_is_made() -> None:
    unused, a = value("unused", 500), value("a", 1)
    assert peak(op("relu", unused, "in"), op("relu", a, "in"), outputs=("a",)) == (1020, "unused")


@pytest.fixture(scope="module")
def block() -> nn.Sequential:
    return nn.Sequential(Attention(512, 32)).eval().requires_grad_(False)


def attention_at_1024(block: nn.Module, form: str, folder: Path) -> FunctionReport:
    """A KL decoder's attention as it stands in a program for 1024 px: (1, 512, 128, 128)."""
    made = Recipe("flux1", sizes=parse_sizes("1024"), target="iOS17")
    path = folder / "attention.mlpackage"
    write_model(with_attention(block, form), made, 512, path)
    return inspect_model(path).functions[0]


def test_auto_attention_at_1024_px_needs_an_eighth_of_the_plain_one_s_memory(
    block: nn.Sequential, tmp_path: Path
) -> None:
    form, why = Recipe("flux1", decoder="full", sizes=parse_sizes("1024")).auto_attention()
    assert form == "chunked:1024"
    assert "16384 at once 1.07e+03 MB" in why
    found = attention_at_1024(block, form, tmp_path)
    assert found.live.bytes <= 150e6  # 133.2 measured
    assert found.op_counts.get("transpose", 0) <= 2
    assert "transpose" not in found.op_counts


def test_plain_attention_at_1024_px_holds_all_scores_twice(
    block: nn.Sequential, tmp_path: Path
) -> None:
    found = attention_at_1024(block, "plain", tmp_path)
    # Scores and their softmax, 16384 x 16384 each, the values and the residual, 512 x 16384 each.
    assert found.live.bytes == 2 * (2 * 16384**2 + 2 * 512 * 16384)
    assert found.live.kind == "softmax"
