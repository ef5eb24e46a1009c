"""Compression as data: what can be made, on which release, under which name."""

import itertools
from pathlib import Path

import pytest

from fluxvae.artifact.save import save_artifact
from fluxvae.compress.forms import Scheme
from fluxvae.compress.plain import by_schemes
from fluxvae.errors import CompressionError, UsageError
from fluxvae.networks.build import build_decoder
from fluxvae.networks.structure import conv_sites
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Compression, Recipe, Size, parse_sizes
from fluxvae.recipes.compression import GROUP_SIZES, Budget, parse_budget

NOT_DIVISORS = ("0", "3", "7", "48", "63", "016", "128", "256", "1000", "-4", "")

SIZES = (Size(64, 64),)


def recipe(compression: Compression, **fields: object) -> Recipe:
    return Recipe("flux2", sizes=SIZES, compression=compression, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("compression", "oldest", "granularity"),
    [
        (Compression("palette", bits=4), "iOS16", "tensor"),
        (Compression("palette", bits=8, granularity="tensor"), "iOS16", "tensor"),
        (Compression("palette", bits=3), "iOS18", "channel-scale"),
        (Compression("palette", bits=4, granularity="grouped:16"), "iOS18", "grouped:16"),
        (Compression("palette", bits=4, granularity="channel-scale"), "iOS18", "channel-scale"),
        (Compression("int8"), "iOS16", "channel"),
        (Compression("int8", granularity="tensor"), "iOS16", "tensor"),
        (Compression("int4"), "iOS18", "block:32"),
        (Compression("w8a8"), "iOS17", "channel"),
        (Compression("mixed", budget="40dB"), "iOS16", "tensor"),
        (
            Compression("mixed", budget="40dB", granularity="channel-scale"),
            "iOS18",
            "channel-scale",
        ),
    ],
)
def test_the_oldest_release_and_its_granularity(
    compression: Compression, oldest: str, granularity: str
) -> None:
    made = recipe(compression, target=oldest)
    assert made.granularity == granularity
    older = {"iOS16": "iOS15", "iOS17": "iOS16", "iOS18": "iOS17"}[oldest]
    with pytest.raises(UsageError, match=oldest):
        recipe(compression, target=older, io_precision="float32")


@pytest.mark.parametrize(
    ("bits", "target", "granularity"),
    [(4, None, "channel-scale"), (3, None, "channel-scale"), (4, "iOS17", "tensor")],
)
def test_palettes_are_as_fine_as_the_target_allows(
    bits: int, target: str | None, granularity: str
) -> None:
    made = recipe(Compression("palette", bits=bits), target=target)
    assert made.granularity == granularity


def test_names_are_distinct() -> None:
    compressions = [
        *(Compression("palette", bits=b) for b in (1, 2, 3, 4, 6, 8)),
        *(Compression("palette", bits=4, method=m) for m in ("plain", "trained")),
        *(
            Compression("palette", bits=4, granularity=g)
            for g in ("tensor", "channel-scale", "grouped:8", "grouped:16")
        ),
        *(Compression("int8", method=m) for m in ("compensated", "plain")),
        Compression("int8", granularity="tensor"),
        Compression("int4"),
        Compression("int4", granularity="block:64"),
        *(Compression("mixed", budget=b) for b in ("900KB", "40dB")),
        *(
            Compression("w8a8", activations=a, int8_share=s, method=m)
            for a, s, m in itertools.product(
                ("zero-point", "symmetric"), (0.85, 0.95, 1.0), ("compensated", "plain")
            )
        ),
    ]
    names = [recipe(c).name() for c in compressions]
    assert len(set(names)) == len(compressions)
    for made in map(recipe, compressions):
        assert Recipe.from_dict(made.to_dict()) == made


def test_several_sizes_keep_their_names_apart() -> None:
    made = Recipe(
        "flux1",
        sizes=parse_sizes("64,128"),
        shapes="multifunction",
        compression=Compression("int8"),
    )
    assert made.name() == "flux1_tiny_decoder_nchw_float16_hw64-128_multifunction_int8"


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("900KB", Budget("bytes", 900e3)),
        ("0.9 mb", Budget("bytes", 900e3)),
        ("40dB", Budget("dB", 40.0)),
        ("36.5 DB", Budget("dB", 36.5)),
    ],
)
def test_budgets(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize(
    "text", ["", "40", "dB", "-3dB", "0KB", "9GB", "1e3KB", "nanKB", "9" * 400 + "MB"]
)
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="900KB or 40dB"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["200.1dB", "1000000000dB"])
def test_budgets_that_no_decoder_keeps(text: str) -> None:
    with pytest.raises(UsageError, match="expected a bound on psnr_db above 0 and up to 200 dB"):
        parse_budget(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "pruned"},
        {"kind": "palette"},
        {"kind": "palette", "bits": 5},
        {"kind": "int8", "bits": 8},
        {"kind": "int8", "granularity": "block:32"},
        {"kind": "palette", "bits": 4, "granularity": "channel"},
        *({"kind": "palette", "bits": 4, "granularity": f"grouped:{n}"} for n in NOT_DIVISORS),
        *({"kind": "int4", "granularity": f"block:{n}"} for n in NOT_DIVISORS),
        {"kind": "w8a8", "int8_share": 0.0},
        {"kind": "w8a8", "int8_share": 1.1},
        {"kind": "w8a8", "activations": "unsigned"},
        {"kind": "mixed"},
        {"kind": "int8", "budget": "40dB"},
        {"kind": "int8", "method": "best"},
    ],
)
def test_what_cannot_be_made(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Compression(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", ["flux1", "flux2"])
def test_groups_and_blocks_are_of_the_size_that_the_name_says(variant: str) -> None:
    """But in layers of fewer channels: one block of all, and the last one's 3 are single."""
    sites = conv_sites(build_decoder(load_weights(variant, "demo")))
    for size, (channels, inputs, _, _) in itertools.product(GROUP_SIZES, {s.shape for s in sites}):
        grouped, blocks = (
            Scheme("palette", 4, f"grouped:{size}"),
            Scheme("int4", 4, f"block:{size}"),
        )
        assert channels // grouped.tables(channels) == (1 if channels == 3 else size)
        assert inputs // blocks.blocks(inputs) == min(size, inputs)


def test_sizes_that_fit_are_named() -> None:
    with pytest.raises(UsageError, match=r"channels: 1, 2, 4, 8, 16, 32 or 64$"):
        Compression("palette", bits=4, granularity="grouped:48")
    with pytest.raises(UsageError, match=r"channels: 1, 2, 4, 8, 16, 32 or 64$"):
        Compression("int4", granularity="block:7")


@pytest.mark.parametrize(
    ("made", "said"), [("grouped:16", "grouped:32"), ("tensor", "channel-scale")]
)
def test_artifact_is_not_saved_under_the_name_of_another_granularity(
    made: str, said: str, tmp_path: Path
) -> None:
    weights = load_weights("flux2", "demo")
    asked = Compression("palette", bits=1, granularity=said, method="plain")
    decoder = build_decoder(weights)
    scheme = Scheme("palette", 1, made)
    schemes = {s.name: scheme for s in conv_sites(decoder)}
    other = by_schemes(decoder, schemes, "plain", "float16")
    named = Recipe("flux2", sizes=(Size(64, 64),), compression=asked)
    with pytest.raises(CompressionError, match=f"stored with .* tables.*; the recipe says {said}"):
        save_artifact(weights, named, tmp_path / "x.mlpackage", compressed=other)
    assert not list(tmp_path.iterdir())
