"""Passes that a conversion leaves out change nothing: packages have the same bytes with them."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fluxvae.convert.program
from fluxvae.convert.coremltools import PASSES, coremltools, pass_pipeline
from fluxvae.convert.program import write_model
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Recipe, parse_sizes
from tests.kl import narrow_weights
from tests.kl_hot import short_stages

FULL = pytest.mark.full
# One daily: with GroupNorm, attention, casts and an image. All of them (`pytest -m full`) when
# PASSES or the version of coremltools changes.
FORMS: list[Any] = [
    {"variant": "flux2", "decoder": "full", "attention": "chunked:40", "output": "image"},
    *(
        pytest.param(form, marks=FULL)
        for form in (
            {
                "variant": "flux1",
                "sizes": "64x96,128",
                "shapes": "enumerated",
                "io_precision": "float16",
            },
            {
                "variant": "flux1",
                "decoder": "full",
                "attention": "split-einsum",
                "latents": "packed",
            },
            {"variant": "flux2"},
            {"variant": "flux1", "layout": "nhwc", "output": "image", "precision": "float32"},
            {"variant": "flux2", "layout": "nhwc", "nhwc_model": True, "latents": "sampler"},
            {"variant": "flux1", "layout": "nhwc", "nhwc_model": True, "output": "image"},
            {"variant": "flux1", "latents": "packed", "target": "iOS26"},
            {"variant": "flux1", "decoder": "full", "precision": "float32"},
            {"variant": "flux2", "decoder": "small", "attention": "sdpa", "target": "iOS18"},
            {"variant": "flux2", "decoder": "full", "attention": "plain", "layout": "nhwc"},
            {"variant": "flux1", "decoder": "full", "latents": "packed", "layout": "nhwc"},
            {"variant": "flux2", "decoder": "small", "latents": "packed", "output": "image"},
        )
    ),
]


def weights_of(recipe: Recipe) -> Weights:
    """Demo weights; narrow random ones for a full decoder."""
    if recipe.decoder == "tiny":
        return load_weights(recipe.variant, "demo")
    return narrow_weights(recipe.variant, recipe.decoder)


def files(package: Path) -> dict[str, bytes]:
    """What the program is: a package's manifest has identifiers made up anew."""
    return {f.name: f.read_bytes() for f in package.rglob("*") if f.suffix in {".bin", ".mlmodel"}}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
def test_passes_left_out_change_no_byte(
    form: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(**{**form, "sizes": parse_sizes(form.get("sizes", "64x96"))})
    with nullcontext() if recipe.decoder == "tiny" else short_stages():
        weights = weights_of(recipe)
        decoder = build_decoder(weights)
        for name, every in (("few", False), ("all", True)):
            monkeypatch.setattr(
                fluxvae.convert.program, "pass_pipeline", partial(pass_pipeline, every=every)
            )
            package = tmp_path / f"{name}.mlpackage"
            write_model(decoder, recipe, weights.contract.channels, package)
    few, whole = files(tmp_path / "few.mlpackage"), files(tmp_path / "all.mlpackage")
    assert set(few) == {"model.mlmodel", "weight.bin"}
    assert few == whole


def test_default_pipeline_is_the_one_we_chose_from() -> None:
    """94 passes of coremltools 9.0: another version may have one more that our programs need."""
    with coremltools(verbose=False) as ct:
        default = ct.PassPipeline.DEFAULT.passes
        legacy = Recipe("flux2", format="neuralnetwork", precision="float32")
        every = pass_pipeline(ct, legacy).passes
    assert len(default) == 95
    assert set(PASSES) < set(default)
    left_out = {"common::fuse_elementwise_to_batchnorm", "common::add_fp16_cast"}  # float32
    assert set(default) - set(every) == left_out


@pytest.mark.parametrize(
    ("values", "beyond"),
    [
        ([[65504.0, -65504.0], [0.0, 1e-9]], False),
        ([65505.0], True),
        ([1.0, -7e4], True),
        ([7e4, 2e38], True),
        ([-np.inf, 2.0], False),  # a mask: infinite in float16 as well
        ([np.nan, 1.0], False),
        ([], False),
        (1e5, True),
    ],
)
def test_a_weight_beyond_float16_is_told_as_coremltools_tells_it(values: Any, beyond: bool) -> None:
    from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision

    from fluxvae.convert.fp16_cast import add_fp16_cast

    constant = SimpleNamespace(
        op=SimpleNamespace(op_type="const", val=SimpleNamespace(val=np.float32(values))),
        is_tensor_or_scalar_of=lambda dtype: dtype == "fp32",
    )
    activation = SimpleNamespace(op=None)
    for given in ({"x": activation, "weight": constant}, {"values": (activation, constant)}):
        op = SimpleNamespace(inputs=given)
        assert FP16ComputePrecision.fp16_overflow(op) is beyond
        assert add_fp16_cast.fp16_overflow(op) is beyond
