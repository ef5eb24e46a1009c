"""One channel that float16 cannot hold: found by name, and repaired in two ways.

The decoder has two short stages instead of four, and so a third of the operations: every kind of
stream is in it (from ``conv_in``, from an upsampler, from a shortcut). A slow test has all stages.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fluxvae.artifact.record import read_record
from fluxvae.artifact.save import save_artifact
from fluxvae.convert.census import FP16_LIMIT, Census, take_census
from fluxvae.convert.fp16_safety import MARGIN, _probe_recipe, mixed_cost
from fluxvae.convert.rewrite.rescale import choose_exponents, peak_magnitudes, rescaled
from fluxvae.data.latents import Latent
from fluxvae.errors import ConvertError, LatentError, UsageError
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.networks.kl import KLDecoder
from fluxvae.recipes import Recipe, Size, parse_sizes
from fluxvae.recipes.functions import INPUT_NAME, OUTPUT_NAME
from fluxvae.validation.metrics import Metrics, compare
from fluxvae.validation.validate import validate
from tests.artifacts import recipe
from tests.conversion_cache import write_model
from tests.kl_hot import heat, hot_weights, short_decoder, short_stages

# At 1e3 a norm's squares overflow, at 1e5 the stream itself does; 1e4 lies between.
HOTS = (1e3, pytest.param(1e4, marks=pytest.mark.full), 1e5)
SIZE = Size(64, 64)
# The bars. Measured: 67.9 dB and more rescaled, 68.3 mixed; 21.8 or NaN in plain float16.
RESCALED_DB, MIXED_DB = 63.0, 64.0


@dataclass(frozen=True)
class Hot:
    """A decoder with a hot channel, a latent, and torch's image of it in float64."""

    decoder: KLDecoder
    latent: Tensor
    image: np.ndarray

    def run(self, path: Path) -> tuple[Metrics, list[str]]:
        """A saved model against the image; names of the operations that are not finite."""
        strange: list[str] = []

        def watch(op: object, outputs: dict[str, Tensor]) -> None:
            strange.extend(name for name, value in outputs.items() if not value.isfinite().all())

        session = Session(read_package(path))
        got = session.run({INPUT_NAME: self.latent.numpy()}, on_op=watch)[OUTPUT_NAME]  # type: ignore[arg-type]
        return compare(got.astype(np.float32), self.image, peak=2), strange


def made(**fields: object) -> Recipe:
    return recipe("flux1", "64", decoder="full", **fields)


def two_stages() -> KLDecoder:
    return short_decoder("flux1", (32, 64))


@pytest.fixture(scope="module", params=HOTS)
def hot(request: pytest.FixtureRequest) -> Hot:
    decoder = two_stages()
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 16, 8, 8, generator=generator)
    heat(decoder, latent, request.param)
    image = copy.deepcopy(decoder).double()(latent.double()).numpy()
    return Hot(decoder, latent, image)


@pytest.fixture(scope="module")
def census(hot: Hot) -> Census:
    one = replace(made(), attention="channels-first")
    return take_census(hot.decoder, one, 16, [Latent("noise", hot.latent.numpy())])


def test_plain_float16_is_caught_by_name(hot: Hot, census: Census, tmp_path: Path) -> None:
    write_model(hot.decoder, made(), 16, tmp_path / "x.mlpackage")
    metrics, strange = hot.run(tmp_path / "x.mlpackage")
    assert not metrics.psnr_db > 40  # NaN, or a picture that is finite and wrong
    beyond = census.beyond()
    assert beyond[0].kind in ("conv", "square")
    named = {name.removesuffix("_cast_fp16") for name in strange}
    assert beyond[0].name in named
    # ... and before any conversion, by the module's name.
    first = [row for row in peak_magnitudes(hot.decoder, [hot.latent]) if row.largest > FP16_LIMIT]
    assert ("mid_block.resnets.0.norm1", "square") in {(row.layer, row.kind) for row in first}


def test_rescaled_float16_is_right_without_float32(hot: Hot, tmp_path: Path) -> None:
    exponents = choose_exponents(hot.decoder, [hot.latent])
    path = tmp_path / "x.mlpackage"
    write_model(rescaled(hot.decoder, exponents), made(), 16, path)
    metrics, strange = hot.run(path)
    assert not strange
    assert metrics.psnr_db >= RESCALED_DB
    program = read_package(path)
    assert mixed_cost(program).ops == mixed_cost(program).casts == 0


def test_mixed_is_right_and_says_what_it_costs(
    hot: Hot, census: Census, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    names = frozenset(tap.name for tap in census.beyond(FP16_LIMIT / MARGIN))
    path = tmp_path / "x.mlpackage"
    write_model(hot.decoder, made(), 16, path, keep={SIZE: names})
    metrics, strange = hot.run(path)
    assert not strange
    assert metrics.psnr_db >= MIXED_DB
    program = read_package(path)
    cost = mixed_cost(program)
    assert cost.ops > 0
    assert cost.casts > 0
    stored = {
        op.name: op.outputs[0].type
        for op in program.function().ops
        if op.kind == "const" and op.outputs[0].type.dtype == "fp32"
    }
    weights = sum(2 * np.prod(t.shape) for t in stored.values() if np.prod(t.shape) > 10)
    assert cost.bytes == weights
    if request.node.callspec.params["hot"] == 1e5:  # the stream itself: convolutions too
        assert cost.bytes > 0


def test_values_that_are_not_in_the_program_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match="has no no_such_value, which was to stay float32"):
        write_model(
            two_stages(), made(), 16, tmp_path / "x.mlpackage",
            keep={SIZE: frozenset({"no_such_value"})},
        )  # fmt: skip


@pytest.mark.parametrize("sizes", ["512", "1024", "832x1216", "2048"])
def test_the_small_program_has_as_many_turns_as_the_large_one(sizes: str) -> None:
    asked = Recipe("flux1", sizes=parse_sizes(sizes), decoder="full").resolved()
    probe, parts = _probe_recipe(asked, asked.sizes[0])
    (size,) = probe.sizes
    places, queries = size.height * size.width // 64, int(probe.attention.split(":")[1])
    large = asked.sizes[0].height * asked.sizes[0].width // 64
    assert -(-places // queries) == parts == -(-large // 1024)
    assert places <= 2048


@pytest.fixture
def all_stages_short() -> Iterator[None]:
    with short_stages():
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("all_stages_short")
@pytest.mark.parametrize(
    "mode",
    # The others' whole way is tests/cli/test_fp16_cli.py's, of a tiny decoder.
    ["rescale", *(pytest.param(mode, marks=pytest.mark.full) for mode in ("report", "mixed"))],
)
def test_artifact_of_all_stages(tmp_path: Path, mode: str) -> None:
    latent = torch.from_numpy(
        np.random.Generator(np.random.PCG64(0)).standard_normal((1, 16, 16, 16), np.float32)
    )
    weights = hot_weights("flux1", latent / 0.3611 + 0.1159, 1e5)
    said: list[str] = []
    (path,) = save_artifact(
        weights, made(fp16_safety=mode, latents="sampler"), tmp_path / "x.mlpackage",
        report=said.append,
    )  # fmt: skip
    record = read_record(read_package(path))
    assert record is not None
    case = validate(path, weights, encoder=None, backend="reference").cases[0]
    assert case.kind == "normal"
    if mode == "report":
        assert not case.passed
        assert case.nonfinite is not None
        assert "values go beyond float16's 65504" in said[0]
        assert "use --fp16-safety rescale or mixed" in said[0]
        return
    assert case.nonfinite is None
    assert case.metrics.psnr_db >= {"rescale": RESCALED_DB, "mixed": MIXED_DB}[mode]
    if mode == "rescale":
        assert "rescaled" in said[-1]
        assert set(record.safety["exponents"]) >= {"conv_in"}
    else:
        assert record.safety["cost"]["bytes"] > 0
        assert f"take {record.safety['cost']['bytes']} bytes more than in float16" in said[-1]


def test_a_census_takes_latents_of_one_size() -> None:
    with pytest.raises(LatentError, match="a census takes latents of one size"):
        take_census(two_stages(), made(), 16, [])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"fp16_safety": "rescale"}, "is for the KL decoders"),
        ({"fp16_safety": "mixed", "precision": "float32"}, "float32 does not overflow"),
        (
            {"fp16_safety": "rescale", "decoder": "full", "precision": "float32"},
            "float32 does not overflow",
        ),
    ],
)
def test_what_cannot_be_made_safe_is_refused(fields: dict[str, str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        recipe("flux1", **fields)
