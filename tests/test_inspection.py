"""What ``inspect`` counts, against torch's own counts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fluxvae.errors import ArtifactError
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Recipe, Size
from fluxvae.validation.inspect import FunctionReport, Inspection, inspect_model
from tests.artifacts import SMALL, TWO, VARIANTS, recipe, save

CHANNELS = {"flux1": 16, "flux2": 32}
Inspect = Callable[[Recipe], Inspection]


@pytest.fixture(scope="module")
def weights() -> dict[str, Weights]:
    return {v: load_weights(v, "demo") for v in VARIANTS}


@pytest.fixture(scope="module")
def inspect(weights: dict[str, Weights], tmp_path_factory: pytest.TempPathFactory) -> Inspect:
    """What ``inspect`` finds in the artifact of a recipe, each made once."""
    folder = tmp_path_factory.mktemp("inspected")
    found: dict[Recipe, Inspection] = {}

    def look(made: Recipe) -> Inspection:
        if made not in found:
            found[made] = inspect_model(save(weights[made.variant], made, folder))
        return found[made]

    return look


def only(report: Inspection) -> FunctionReport:
    (function,) = report.functions
    return function


def counted_macs(weights: Weights, size: Size) -> int:
    """torch's count on the torch decoder: two operations for each multiply-accumulate."""
    latent = torch.zeros(1, weights.contract.channels, size.height // 8, size.width // 8)
    with FlopCounterMode(display=False) as counter:
        build_decoder(weights)(latent)
    return counter.get_total_flops() // 2


FORMS: dict[str, dict[str, Any]] = {
    "nchw": {},
    "nhwc": {"precision": "float32", "layout": "nhwc"},
    "nhwc-model": {"precision": "float32", "layout": "nhwc", "nhwc_model": True},
    "float32": {"precision": "float32"},
    "neuralnetwork": {"precision": "float32", "format": "neuralnetwork"},
}


@pytest.mark.parametrize(
    ("variant", "form"), [*(("flux2", form) for form in FORMS), ("flux1", "nchw")]
)
def test_arithmetic_and_weights_equal_torchs_own_count(
    weights: dict[str, Weights], inspect: Inspect, variant: str, form: str
) -> None:
    made = recipe(variant, SMALL, **FORMS[form])
    report = inspect(made)
    function = only(report)
    expected = counted_macs(weights[variant], made.sizes[0])
    assert function.macs == expected
    assert sum(s.macs for s in function.stages) == expected
    assert sum(function.op_counts.values()) == sum(function.dtype_counts.values())
    parameters = sum(t.numel() for t in weights[variant].tensors.values())
    width = 2 if made.precision == "float16" else 4
    stored = sum(report.weights.values())
    # On top of the parameters: scalars, pads and strides, and copies of nothing.
    assert 0 <= stored - parameters * width < 8000
    assert report.bytes_on_disk >= stored


@pytest.mark.parametrize("form", FORMS)
def test_stages_are_the_maps_from_latent_to_image(inspect: Inspect, form: str) -> None:
    function = only(inspect(recipe("flux2", SMALL, **FORMS[form])))
    assert [s.map for s in function.stages] == ["8x12", "16x24", "32x48", "64x96"]


def test_activation_bytes_are_those_of_every_result(inspect: Inspect) -> None:
    """TAEF1 at 64 x 96, counted by hand from its definition; two bytes for each number."""
    stages = only(inspect(recipe("flux1", SMALL))).stages
    latent, wide = 16 * 8 * 12, 64 * 8 * 12
    block = 7  # three convolutions, two activations between them, the sum, the last activation
    first = 3 * latent + 2 * wide + 3 * block * wide  # clamp is three operations; conv and relu
    middle = 2 + 3 * block  # upsampling and its convolution, three blocks
    assert [s.activation_bytes for s in stages] == [
        2 * first,
        2 * middle * wide * 4,
        2 * middle * wide * 16,
        2 * ((2 + block) * wide + 3 * 8 * 12) * 64,
    ]
    assert [s.ops for s in stages] == [5 + 21, 23, 23, 10]


@pytest.mark.parametrize("variant", VARIANTS)
def test_nhwc_layout_costs_exactly_two_transposes_at_the_ends(
    inspect: Inspect, variant: str
) -> None:
    first, last = only(inspect(recipe(variant, SMALL, **FORMS["nhwc"]))).placed
    assert (first.kind, first.index, first.shape) == ("transpose", 1, (1, CHANNELS[variant], 8, 12))
    assert (last.kind, last.index, last.shape) == ("transpose", last.of, (1, 64, 96, 3))


@pytest.mark.parametrize("variant", VARIANTS)
def test_nchw_layout_has_no_transposes_and_no_casts(inspect: Inspect, variant: str) -> None:
    assert only(inspect(recipe(variant, SMALL))).placed == ()


def test_float32_io_on_float16_shows_its_two_casts(inspect: Inspect) -> None:
    function = only(inspect(recipe("flux2", SMALL, io_precision="float32")))
    assert [(p.kind, p.index) for p in function.placed] == [
        ("cast", 1),
        ("cast", function.placed[1].of),
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_nhwc_model_places_its_transposes_around_what_wants_channels_second(
    inspect: Inspect, variant: str
) -> None:
    function = only(inspect(recipe(variant, SMALL, **FORMS["nhwc-model"])))
    assert {p.kind for p in function.placed} == {"transpose"}
    # One pair around each convolution. A norm or an upsampling stands next to a convolution, and
    # the pair between the two cancels.
    convolutions = function.op_counts["conv"]
    assert convolutions == {"flux1": 35, "flux2": 41}[variant]
    assert len(function.placed) == function.op_counts["transpose"] == 2 * convolutions
    to_nchw, to_nhwc = function.placed[0::2], function.placed[1::2]
    assert to_nchw[0].shape == (1, CHANNELS[variant], 8, 12)
    assert to_nhwc[-1].shape == (1, 64, 96, 3)
    assert to_nhwc[-1].index == to_nhwc[-1].of  # the very last operation
    assert all(a.index < b.index for a, b in zip(to_nchw, to_nhwc, strict=True))
    assert {p.shape[1] for p in to_nchw} == {CHANNELS[variant], 64} | (
        {256} if variant == "flux2" else set()
    )


def test_flexible_model_is_counted_at_its_default_size(
    weights: dict[str, Weights], inspect: Inspect
) -> None:
    made = recipe("flux2", TWO, shapes="enumerated")
    function = only(inspect(made))
    assert function.macs == counted_macs(weights["flux2"], made.sizes[0])
    assert function.inputs[0].shapes == ((1, 32, 8, 12), (1, 32, 16, 16))


def test_functions_are_counted_each_and_their_weights_once(
    weights: dict[str, Weights], inspect: Inspect
) -> None:
    several = recipe("flux2", TWO, shapes="multifunction")
    report = inspect(several)
    found = {f.name: f.macs for f in report.functions}
    assert found == {s.function: counted_macs(weights["flux2"], s) for s in several.sizes}
    single = inspect(recipe("flux2", SMALL))
    assert report.weights["fp16"] == single.weights["fp16"]


def test_what_the_model_is_comes_along(inspect: Inspect) -> None:
    program = inspect(recipe("flux2", SMALL, precision="float32", target="iOS17"))
    assert (program.kind, program.specification, only(program).opset) == ("mlprogram", 8, "CoreML7")
    network = inspect(recipe("flux2", SMALL, **FORMS["neuralnetwork"]))
    assert network.kind == "neuralnetwork"
    assert network.path.suffix == ".mlmodel"


def test_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "latent.npy", np.zeros(3))
    with pytest.raises(ArtifactError, match=r"not an \.mlpackage"):
        inspect_model(tmp_path)
