"""MIL as text: Apple's own texts, numbers against C's printf, and damage."""

import ctypes
import math
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxvae.errors import ArtifactError
from fluxvae.mil.blobs import WeightFiles
from fluxvae.mil.bundle import executable
from fluxvae.mil.program import Ref, TensorType
from fluxvae.mil.text.document import Blob, ListType, StateType, Value
from fluxvae.mil.text.reader import parse_text
from fluxvae.mil.text.tokens import TOKEN
from fluxvae.mil.text.writer import hex_float, print_text
from tests.mil.golden import texts

BODY = """\
            tensor<fp16, [2, 2]> w = const()[name = string("w"), val = \
tensor<fp16, [2, 2]>([[0x1p+0, -0x1.8p-3], [0x0p+0, inf]])];
            tensor<fp16, [2, 2]> blob = const()[val = tensor<fp16, [2, 2]>(\
BLOBFILE(path = string("@model_path/weights/weight.bin"), offset = uint64(64)))];
            tensor<bool, [2]> mask = const()[val = tensor<bool, [2]>([true, false])];
            fp16 a, tensor<int32, [?]> b = odd(x = (w, blob), y = int32(-3))[name = string("odd")];
"""
TEXT = f"""\
program(1.3)
[buildInfo = dict<string, string>({{{{"coremlc-version", "3600.25.1"}}}})]
{{
    func main<ios17>(tensor<fp16, [1, ?]> x, state<tensor<fp16, [4]>> y) \
[Sizes = tuple<tuple<string, dict<string, list<tensor<int32, [2]>, ?>>>>\
((("RangeDims", {{{{"x", [[1, 1], [8, 64]]}}}})))] {{
{BODY}        }} -> (a, b);
}}"""
C = ctypes.CDLL(None)
LIMIT_SECONDS = 0.3  # for 600 kB; measured 0.09 s of CPU time on a slow, shared machine


def test_apples_own_texts_come_out_byte_for_byte(shared: Path) -> None:
    found = texts(shared)
    assert len(found) >= 12
    for path in found:
        text = path.read_text()
        assert print_text(parse_text(text)) == text.removesuffix("\n"), path


def test_everything_the_grammar_has_is_read_and_printed_again() -> None:
    document = parse_text(TEXT)
    assert print_text(document) == TEXT
    (function,) = document.functions
    assert function.parameters[1].type == StateType(TensorType("fp16", (4,)))
    weight, blob, mask, odd = function.ops
    assert weight.attributes["val"].body == (1.0, -0.1875, 0.0, math.inf)
    assert blob.attributes["val"].body == Blob("@model_path/weights/weight.bin", 64)
    assert mask.attributes["val"].body == (True, False)
    assert odd.arguments["x"] == (Ref("w"), Ref("blob"))
    assert odd.arguments["y"] == Value(TensorType("int32", ()), (-3,))
    ranges = function.attributes["Sizes"]
    assert ranges.type.items[0].items[1].value == ListType(TensorType("int32", (2,)), None)  # type: ignore[union-attr]
    assert ranges.body == (((("RangeDims",)), ((("x",), ((1, 1), (8, 64))),)),)


def test_either_dialect_is_accepted_anywhere_and_printed_in_its_own() -> None:
    old = TEXT.replace("program(1.3)", "program(1.0)")
    printed = print_text(parse_text(old))
    assert 'tensor<string, []>("w")' in printed
    assert "tensor<uint64, []>(64)" in printed
    assert "tensor<fp16, []> a, tensor<int32, [?]> b" in printed
    assert " string" not in printed
    again = print_text(parse_text(printed.replace("program(1.0)", "program(1.3)")))
    assert again == TEXT


def test_sorted_as_apple_sorts() -> None:
    shuffled = TEXT.replace(
        "odd(x = (w, blob), y = int32(-3))", "odd(y = int32(-3), x = (w, blob))"
    )
    assert shuffled != TEXT
    assert print_text(parse_text(shuffled)) == TEXT


def _printf(value: float) -> str:
    buffer = ctypes.create_string_buffer(64)
    C.snprintf(buffer, 64, b"%a", ctypes.c_double(value))
    return buffer.value.decode()


def test_every_half_prints_as_c_prints_it_and_reads_back() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = [v for v in bits.view(np.float16).astype(np.float64).tolist() if not math.isnan(v)]
    assert [hex_float(v) for v in values] == [_printf(v) for v in values]
    row = ", ".join(map(hex_float, values))
    type_ = f"tensor<fp16, [{len(values)}]>"
    text = TEXT.replace(BODY, f"            {type_} a = const()[val = {type_}([{row}])];\n")
    read = parse_text(text).functions[0].ops[0].attributes["val"].body
    assert struct.pack(f"{len(read)}d", *read) == struct.pack(f"{len(values)}d", *values)


@given(st.floats(width=32, allow_nan=False))
def test_floats_print_as_c_prints_them(value: float) -> None:
    assert hex_float(value) == _printf(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_keep_their_value_and_normalise_their_mantissa(value: float) -> None:
    printed = hex_float(value)
    assert struct.pack("d", float.fromhex(printed)) == struct.pack("d", value)
    assert printed.lstrip("-").startswith("0x1" if value else "0x0")


def test_escapes_are_read_and_not_written() -> None:
    document = parse_text(TEXT.replace('string("odd")', r'string("o\"d\\d\n")'))
    assert document.functions[0].ops[3].attributes["name"].body == ('o"d\\d\n',)
    with pytest.raises(ArtifactError, match="escapes"):
        print_text(document)


@pytest.mark.parametrize(
    ("type_", "body"),
    [("bf16", "0x1p+0"), ("uint4", "3"), ("tensor<int4, [2]>", "[1, 2]")],
)
def test_numbers_of_unseen_forms_are_read_and_not_written(type_: str, body: str) -> None:
    document = parse_text(TEXT.replace("int32(-3)", f"{type_}({body})"))
    with pytest.raises(ArtifactError, match="outside its weight file"):
        print_text(document)


def test_600_kilobytes_parse_within_the_limit() -> None:
    text = TEXT.replace(BODY, BODY * (600_000 // len(BODY) + 1))
    assert len(text) >= 600_000
    parse_text(TEXT)
    spent = []
    for _ in range(3):
        start = time.process_time()
        parse_text(text)
        spent.append(time.process_time() - start)
    print(f"{len(text)} bytes: {min(spent):.3f} s")
    assert min(spent) < LIMIT_SECONDS


@pytest.mark.parametrize(
    ("found", "replacement", "message"),
    [
        ("program(1.3)", "program(x)", "line 1: expected a version"),
        ("int32(-3)", "int32(-3.5)", "expected an integer"),
        ("int32(-3)", "int32(3000000000)", "3000000000 is not of the type int32"),
        ("int32(-3)", "int32(" + "9" * 5000 + ")", "expected an integer"),
        ("int32(-3)", "fp16(0x1p+99999999)", "too large"),
        ("int32(-3)", "fp16(1_0)", "expected a number"),
        ("int32(-3)", "bool(1)", "expected true or false"),
        ("int32(-3)", "int99(1)", r"line 9: .*'int99'|expected a type"),
        ("[1, ?]", f"[{'9' * 19}, ?]", "a dimension of 9"),
        ("[1, ?]", f"[{'1, ' * 40}1]", "a tensor of rank 41"),
        ("[true, false]", "[true]", "1 values along axis 0"),
        ("0x0p+0, inf", "0x0p+0", "1 values along axis 1"),
        ("offset = uint64(64)", "offset = int32(64)", "a string and a uint64"),
        ("    } -> (a, b);", "    } -> (a, b)", "expected ';'"),
        ("y = int32(-3)", "x = int32(-3)", "'x' is given twice"),
        ("y = int32(-3)", "y = ", "expected a name"),
        ("-> (a, b);\n}", "-> (a, b);\n}\n}", "expected the end of the text"),
    ],
)
def test_damage_is_named_with_its_line(found: str, replacement: str, message: str) -> None:
    assert found in TEXT
    with pytest.raises(ArtifactError, match=message) as caught:
        parse_text(TEXT.replace(found, replacement), "m.mlmodelc/model.mil")
    assert str(caught.value).startswith("m.mlmodelc/model.mil is damaged at line ")


NESTED = ["(", "[", "{", "((", "tuple<", "list<", "dict<string, ", "state<", '"', "\\", "tensor<"]


@pytest.mark.parametrize("piece", NESTED)
def test_deep_nesting_ends_in_an_error(piece: str) -> None:
    for place in ("int32(-3)", "state<tensor<fp16, [4]>>", "{{", "[[0x1p+0"):
        start = time.process_time()
        with pytest.raises(ArtifactError):
            parse_text(TEXT.replace(place, piece * 100_000, 1))
        assert time.process_time() - start < 2, place


def test_a_tensor_nested_as_deep_as_allowed_is_read() -> None:
    rank = 16
    type_ = f"tensor<int32, [{', '.join('1' * rank)}]>"
    document = parse_text(TEXT.replace("int32(-3)", f"{type_}({'[' * rank}7{']' * rank})"))
    assert document.functions[0].ops[3].arguments["y"].body == (7,)  # type: ignore[union-attr]


TOKENS = [m.group() for m in TOKEN.finditer(TEXT)]
LETTERS = 'aim 019xp.-+?@_()[]{}<>,=;"\\\n\0\N{GREEK SMALL LETTER MU}'
HUGE = ["9" * 30, "-" + "9" * 30, "0x1p+99999", "1e999", "0xffffffffffffffffffffffffp+1", "nan"]


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """The text with tokens cut, swapped, repeated, nested or replaced by huge numbers."""
    tokens = list(TOKENS)
    for _ in range(draw(st.integers(1, 4))):
        if not tokens:
            break
        at = draw(st.integers(0, len(tokens) - 1))
        to = draw(st.integers(0, len(tokens) - 1))
        match draw(st.sampled_from(["cut", "end", "swap", "repeat", "huge", "nest", "letters"])):
            case "cut":
                del tokens[min(at, to) : max(at, to)]
            case "end":
                tokens = tokens[:at]
            case "swap":
                tokens[at], tokens[to] = tokens[to], tokens[at]
            case "repeat":
                part = tokens[min(at, to) : max(at, to) + 1]
                tokens[at:at] = part * draw(st.integers(1, 20))
            case "huge":
                tokens[at] = draw(st.sampled_from(HUGE))
            case "nest":
                tokens[at:at] = [draw(st.sampled_from(NESTED))] * draw(st.integers(1, 2000))
            case "letters":
                tokens[at] = draw(st.text(LETTERS, max_size=12))
    return " ".join(tokens)


def complaint(text: str) -> str:
    """What is wrong with a text; empty when the executor could run it. Nothing else is raised."""
    try:
        document = parse_text(text)
        print_text(document)
        executable(document.functions, WeightFiles(Path("nowhere")))
    except ArtifactError as error:
        return str(error)
    return ""


@settings(max_examples=400)
@given(damaged())
def test_damaged_texts_are_read_or_refused_in_words(text: str) -> None:
    assert len(complaint(text)) < 500


@settings(max_examples=200)
@given(st.integers(0, len(TEXT)), st.integers(0, len(TEXT)), st.text(LETTERS, max_size=3))
def test_damaged_letters_are_read_or_refused_in_words(a: int, b: int, put: str) -> None:
    start, end = min(a, b), max(a, b)
    assert len(complaint(TEXT[:start] + put + TEXT[start:])) < 500
    assert len(complaint(TEXT[:start] + put + TEXT[end:])) < 500
