"""A variant's parts: one change each, the reference first, the whole variant at the end."""

import math
from dataclasses import replace

import pytest

from fluxvae.recipes import Recipe, Size, parse_label
from fluxvae.records.ablation import ALL, CONVERTED, combined_psnr, parts_of

SIZES = (Size(64, 64),)
PAL4 = Recipe("flux2", sizes=SIZES, compression=parse_label("pal4"))


def test_each_part_changes_one_thing_of_the_reference() -> None:
    parts = parts_of(PAL4)
    base = parts[0].recipe
    assert parts[0].name == CONVERTED
    assert (base.precision, base.io_dtype, base.compression) == ("float32", "float32", None)
    changed = {
        part.name: {
            field for field in ("precision", "layout", "nhwc_model", "output", "compression")
            if getattr(part.recipe, field) != getattr(base, field)
        } | ({"io"} if part.recipe.io_dtype != base.io_dtype else set())
        for part in parts
    }  # fmt: skip
    assert changed == {
        CONVERTED: set(),
        "precision": {"precision"},
        "I/O precision": {"io"},
        "pal4": {"compression"},
        "NHWC inside": {"layout", "nhwc_model"},  # it takes and gives NHWC
        ALL: {"precision", "io", "compression", "layout", "nhwc_model"},
    }
    assert parts[-1].recipe == replace(PAL4, layout="nhwc", nhwc_model=True)


def test_parts_of_a_full_decoder_have_no_nhwc_graph() -> None:
    parts = parts_of(replace(PAL4, decoder="full"))
    assert [p.name for p in parts] == [CONVERTED, "precision", "I/O precision", "pal4", ALL]
    assert {p.recipe.decoder for p in parts} == {"full"}


def test_parts_that_a_variant_has_not_are_left_out() -> None:
    plain = parts_of(Recipe("flux2", sizes=SIZES, io_precision="float32"))
    assert [p.name for p in plain] == [CONVERTED, "precision", "NHWC inside", ALL]
    full = replace(PAL4, layout="nhwc", nhwc_model=True, output="image")
    assert "8-bit image output" in [p.name for p in parts_of(full)]
    assert parts_of(full)[-1].recipe == full


def test_independent_errors_add_as_powers() -> None:
    # mean square errors 1e-3 and 3e-3 give 4e-3
    both = combined_psnr([30.0, -10 * math.log10(3e-3), None])
    assert both == pytest.approx(-10 * math.log10(4e-3))
    assert combined_psnr([None]) is None
