"""Bits by layer: the choice against every choice, budgets met, and allocations replayed."""

import json
import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from fluxvae.compress.forms import CompressedDecoder, Scheme, dense
from fluxvae.compress.kmeans import kmeans
from fluxvae.compress.mixed import (
    CLOSE,
    Allocation,
    allocate,
    compress_allocation,
)
from fluxvae.compress.plain import by_schemes
from fluxvae.compress.sensitivity import (
    BLOB,
    Option,
    best_within,
    blob_bytes,
    measure_options,
    other_bytes,
)
from fluxvae.compress.write import write_compressed
from fluxvae.errors import CompressionError, UsageError
from fluxvae.experiments.maker import weight_bytes
from fluxvae.networks.build import build_decoder
from fluxvae.networks.structure import conv_sites
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Recipe, parse_sizes
from fluxvae.recipes.compression import Compression
from tests.compress.packages import LATENT, SITES, small_decoder
from tests.compress.test_compensate import calibration
from tests.conversion_cache import write_model

MIXED = Compression("mixed", budget="16KB")


def summed(chosen: Mapping[str, Option]) -> tuple[int, float]:
    return sum(o.bytes for o in chosen.values()), sum(o.error for o in chosen.values())


def test_the_choice_for_a_size_is_the_best_of_all() -> None:
    generator = np.random.Generator(np.random.PCG64(8))
    options = {
        name: tuple(
            Option(Scheme("palette", bits, "tensor"), int(size) * BLOB, float(error))
            for bits, size, error in zip(
                (2, 4, 8), generator.integers(1, 12, 3), generator.random(3), strict=True
            )
        )
        for name in "abcde"
    }
    budgets = [BLOB * blocks for blocks in (3, 10, 17, 25, 60)]
    every = [
        summed(dict(zip(options, choice, strict=True))) for choice in product(*options.values())
    ]
    for budget, found in zip(budgets, best_within(options, budgets), strict=True):
        fitting = [error for size, error in every if size <= budget]
        if found is None:
            assert not fitting
            continue
        size, error = summed(found)
        assert size <= budget
        assert error == pytest.approx(min(fitting))
    assert best_within(options, [-1]) == [None]


def test_predicted_errors_are_those_of_one_rounded_layer() -> None:
    """Gains against the decoder with this one layer rounded, on noise: within a factor of two."""
    decoder = small_decoder()
    latents = calibration(6, 8).latents
    options = measure_options(decoder, "tensor", (4,), "float16", latents)
    inputs = [torch.from_numpy(z) for z in latents]
    for name in ("1", "3.conv.2", "7", "10.conv.4", "11"):
        option = options[name][0]
        changed = small_decoder()
        weight = changed.get_submodule(name).weight
        rows = weight.numpy()
        clusters = kmeans(rows, 16, proved=False)
        weight.copy_(torch.from_numpy(clusters.centres[clusters.labels]).float())
        errors = [float((changed(z) - decoder(z)).square().mean()) for z in inputs]
        ratio = option.error / (sum(errors) / len(errors))
        assert 0.5 < ratio < 2, (name, ratio)


@pytest.mark.parametrize("method", ["compensated", "plain"])
def test_a_size_is_met_and_the_allocation_replays(method: str) -> None:
    decoder = small_decoder()
    asked = Compression("mixed", budget="16KB", method=method)
    allocation = allocate(decoder, asked, "channel-scale", "float16", calibration())
    made = compress_allocation(decoder, allocation, "float16", calibration())
    saved = json.loads(json.dumps(made.notes["allocation"]))
    again = Allocation.from_dict(saved)
    assert again.compression == Compression(
        "mixed", budget="16KB", method=method, granularity="channel-scale"
    )
    assert set(again.bits) == set(SITES)
    assert len(set(again.bits.values())) > 1
    assert again.measured["bytes"] <= 16_000  # type: ignore[operator]
    replayed = compress_allocation(decoder, again, "float16", calibration())
    assert Allocation.from_dict(replayed.notes["allocation"]) == again
    assert replayed.weights.keys() == made.weights.keys()
    for name, form in made.weights.items():
        assert np.array_equal(dense(form, "float16"), dense(replayed.weights[name], "float16"))


@pytest.mark.parametrize(
    ("variant", "granularity"), [("flux1", "tensor"), ("flux2", "channel-scale")]
)
def test_the_written_weight_file_is_no_larger_than_said(
    variant: str, granularity: str, tmp_path: Path
) -> None:
    """Bits of every kind in a real package of the whole decoder; not fitted, to save time."""
    decoder = build_decoder(load_weights(variant, "demo"))
    choices = (2, 4, 6, 8) if granularity == "tensor" else (2, 3, 4, 6)
    sites = conv_sites(decoder)
    schemes = {
        site.name: Scheme("palette", choices[i % len(choices)], granularity)
        for i, site in enumerate(sites)
    }
    made = by_schemes(decoder, schemes, "plain", "float16")
    kept = {site.name: site for site in sites if site.name not in made.weights}
    recipe = Recipe(
        variant,
        sizes=parse_sizes("64"),
        target="iOS16" if granularity == "tensor" else "iOS18",
    )
    package = tmp_path / "made.mlpackage"
    write_model(made.decoder, recipe, 16 if variant == "flux1" else 32, package)
    write_compressed(package, CompressedDecoder(made.decoder, made.weights), "float16")
    said = other_bytes(decoder, "float16")
    for site in sites:
        floats = 2 * math.prod(site.shape)
        said += 2 * BLOB + floats if site.name in kept else 0
        said += 0 if site.name in kept else blob_bytes(site, schemes[site.name], "float16")
    found = weight_bytes(package)
    assert found <= said
    assert said - found < 0.02 * said  # the bound counts norms' constants that may be shared


def test_a_quality_is_met_by_the_smallest_file_found() -> None:
    decoder = small_decoder()
    asked = Compression("mixed", budget="50dB")
    lines: list[str] = []
    found = allocate(decoder, asked, "channel-scale", "float16", calibration(6), log=lines.append)
    trials = found.measured["trials"]
    assert isinstance(trials, list)
    assert found.measured["psnr_db"] >= 50  # type: ignore[operator]
    met = [trial["bytes"] for trial in trials if trial["psnr_db"] >= 50]
    assert found.measured["bytes"] == min(met)
    assert len(trials) <= 4
    assert any("measure" in line for line in lines)
    made = compress_allocation(decoder, found, "float16", calibration(6))
    generator = np.random.Generator(np.random.PCG64(101))
    unseen = [
        torch.from_numpy(generator.standard_normal((1, LATENT, 6, 6), np.float32)) for _ in range(4)
    ]
    errors = [float((made.decoder(z) - decoder(z)).square().mean()) for z in unseen]
    assert -10 * math.log10(sum(errors) / 4) >= 50 - CLOSE


def test_a_quality_out_of_reach_says_by_how_much_it_is_missed() -> None:
    lines: list[str] = []
    found = allocate(
        small_decoder(),
        Compression("mixed", budget="150dB", method="plain"),
        "tensor",
        "float16",
        calibration(),
        log=lines.append,
    )
    assert set(found.bits.values()) == {8}
    assert found.measured["missed_by_db"] > 50  # type: ignore[operator]
    assert "missed by" in lines[-1]


def test_a_size_below_the_fewest_bits_is_refused() -> None:
    with pytest.raises(CompressionError, match=r"give at least \d+KB"):
        allocate(
            small_decoder(),
            Compression("mixed", budget="1KB"),
            "tensor",
            "float16",
            calibration(),
        )


def test_an_allocation_of_another_decoder_is_refused() -> None:
    other = Allocation(MIXED, "tensor", {"1": 4, "99": 2})
    with pytest.raises(CompressionError, match="another decoder"):
        compress_allocation(small_decoder(), other, "float16", calibration())


GOOD = {
    "format": 1,
    "budget": "900KB",
    "method": "compensated",
    "granularity": "tensor",
    "bits": {"1": 4},
}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"bits": {}},
        {"bits": {"1": 3}},  # 3 bits came with iOS18, where scales of channels are
        {"bits": {"1": 5}},
        {"bits": {"1": True}},
        {"bits": {"1": "4"}},
        {"bits": [4]},
        {"budget": 900},
        {"budget": None},
        {"measured": 3},
        {"granularity": None},
    ],
)
def test_damaged_allocations_are_refused(change: dict[str, object]) -> None:
    assert Allocation.from_dict(GOOD).bits == {"1": 4}
    with pytest.raises(ValueError, match="expected"):
        Allocation.from_dict(GOOD | change)


@pytest.mark.parametrize(
    "change", [{"budget": "900"}, {"granularity": "channel"}, {"method": "best"}]
)
def test_impossible_allocations_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Allocation.from_dict(GOOD | change)


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an object"):
        Allocation.from_dict([GOOD])
