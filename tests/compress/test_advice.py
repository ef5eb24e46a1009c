"""What is said of bytes and time: by kind, labelled, once."""

import pytest

from fluxvae.compress.advice import advice, advice_on_time
from fluxvae.recipes import parse_label

WEIGHTS = ("pal4", "pal8-tensor-plain", "int8", "int4-block32", "mixed-900KB")


@pytest.mark.parametrize("label", [*WEIGHTS, "w8a8", "w8a8-plain-symmetric"])
def test_time_is_promised_of_w8a8_only_and_never_as_ours(label: str) -> None:
    text = advice(parse_label(label))
    assert "others' measurements, not ours" in text
    assert ("not time" in text) == (label in WEIGHTS)
    assert ("A17 Pro, M4 and later" in text) == (label not in WEIGHTS)
    assert "\n" not in text


@pytest.mark.parametrize(
    ("label", "words"),
    [("pal6", "6 of 16 bits"), ("int8", "8 of 16 bits"), ("mixed-40dB", "the budget 40dB asks")],
)
def test_bytes_follow_from_the_bits(label: str, words: str) -> None:
    assert words in advice(parse_label(label))


def test_a_table_says_each_thing_once() -> None:
    both = advice_on_time(map(parse_label, ("pal4", "int8", "w8a8", "w8a8-85")))
    assert len(both) == len(set(both)) == 3
    assert advice_on_time([]) == ()
