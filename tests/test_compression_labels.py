"""Names of compressions, as file names hold them and as compare-variants takes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxvae.errors import UsageError
from fluxvae.recipes import ACTIVATIONS, METHODS, PALETTE_BITS, Compression, parse_label
from fluxvae.recipes.compression import GROUP_SIZES

NAMED = {
    "pal4": Compression("palette", bits=4),
    "pal4-plain": Compression("palette", bits=4, method="plain"),
    "pal6-tensor": Compression("palette", bits=6, granularity="tensor"),
    "pal3-channel-scale-plain": Compression(
        "palette", bits=3, granularity="channel-scale", method="plain"
    ),
    "pal2-grouped16": Compression("palette", bits=2, granularity="grouped:16"),
    "int8": Compression("int8"),
    "int8-channel-plain": Compression("int8", granularity="channel", method="plain"),
    "int4-block32": Compression("int4", granularity="block:32"),
    "mixed-900KB": Compression("mixed", budget="900KB"),
    "mixed-0.9MB-tensor": Compression("mixed", budget="0.9MB", granularity="tensor"),
    "mixed-40dB": Compression("mixed", budget="40dB"),
    "w8a8": Compression("w8a8"),
    "w8a8-85": Compression("w8a8", int8_share=0.85),
    "w8a8-plain": Compression("w8a8", method="plain"),
    "w8a8-trained": Compression("w8a8", method="trained"),
    "w8a8-symmetric": Compression("w8a8", activations="symmetric"),
    "w8a8-plain-symmetric-99.5": Compression(
        "w8a8", method="plain", activations="symmetric", int8_share=0.995
    ),
}


@pytest.mark.parametrize("label", NAMED)
def test_label_names_its_compression(label: str) -> None:
    assert NAMED[label].label() == label
    assert parse_label(label) == NAMED[label]


@st.composite
def compressions(draw: st.DrawFn) -> Compression:
    kind = draw(st.sampled_from(("palette", "int8", "int4", "mixed", "w8a8")))
    count = draw(st.integers(1, 9999))
    group = draw(st.sampled_from(GROUP_SIZES))
    grains = {
        "palette": ("tensor", "channel-scale", f"grouped:{group}"),
        "int8": ("tensor", "channel"),
        "int4": ("channel", f"block:{group}"),
        "mixed": ("tensor", "channel-scale"),
        "w8a8": ("channel",),
    }
    size = draw(
        st.sampled_from((f"{count}KB", f"{count / 100:g}MB", f"{min(count, 2000) / 10:g}dB"))
    )
    quantized = kind == "w8a8"
    return Compression(
        kind,
        bits=draw(st.sampled_from(PALETTE_BITS)) if kind == "palette" else None,
        granularity=draw(st.sampled_from((None, *grains[kind]))),
        method=draw(st.sampled_from(METHODS)),
        budget=size if kind == "mixed" else None,
        activations=draw(st.sampled_from(ACTIVATIONS)) if quantized else "zero-point",
        int8_share=draw(st.integers(1, 1000)) / 1000 if quantized else 0.95,
    )


@given(compressions())
def test_parsing_is_the_inverse_of_the_label(compression: Compression) -> None:
    assert parse_label(compression.label()) == compression


@given(compressions(), compressions())
def test_different_compressions_have_different_labels(one: Compression, two: Compression) -> None:
    assert (one.label() == two.label()) == (one == two)


@pytest.mark.parametrize(
    "text", ["", "fp16", "pal", "pal44", "PAL4", "int8-", "w8a8-x", "mixed", "plain", "int8 int4"]
)
def test_what_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"not understood: expected a name such as|need a budget"):
        parse_label(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pal5", "palettes have 1, 2, 3, 4, 6 or 8 bits"),
        ("int8-block32", "is not for int8"),
        ("pal4-85", "for w8a8 only"),
        ("int8-symmetric", "for w8a8 only"),
        ("w8a8-101", "between 0 and 1"),
        ("mixed-40GB", "is not understood: give a size or a PSNR"),
    ],
)
def test_what_cannot_be_made_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_label(text)
