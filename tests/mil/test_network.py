"""Neural networks converted by coremltools, run by our executor, against torch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fluxvae.errors import ArtifactError, LatentError, UnsupportedOpError
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.mil.program import Constant, Feature, Program, Signature
from fluxvae.mil.protobuf import message_module
from fluxvae.networks.tiny import tiny_decoder, tiny_encoder
from tests.conftest import SHARED
from tests.mil.networks import convert_network, run, save_network

# Float32 on both sides, sums in another order: the difference relative to the largest expected
# value. Measured: at most 3.0e-6 (encoder of TAEF2, real weights, photo), else 2.6e-6 and less.
TOLERANCE = 5e-6
CHANNELS = {"flux1": 16, "flux2": 32}
Save = Callable[..., Path]


class NHWC(nn.Module):
    """A module with channels last on both sides."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Pixels(nn.Module):
    """A decoder that returns 0..255."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x).clamp(0, 1) * 255


class Attention(nn.Module):
    """The attention of the KL decoders' mid block: one head over all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x).flatten(2).transpose(1, 2)).chunk(3, -1)
        mixed = nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])
        return x + self.out(mixed[:, 0]).transpose(1, 2).unflatten(2, x.shape[2:])


def decoder(variant: str) -> nn.Module:
    torch.manual_seed(1)
    return tiny_decoder(CHANNELS[variant], pool=variant == "flux2").eval()


def encoder(variant: str) -> nn.Module:
    torch.manual_seed(2)
    return tiny_encoder(CHANNELS[variant], pool=variant == "flux2").eval()


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def expected(module: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return module(torch.from_numpy(x)).numpy()


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
    assert got.shape == wanted.shape
    return np.abs(got - wanted).max() / np.abs(wanted).max()


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Converts a module for one input shape (or coremltools type) and saves it."""
    import coremltools as ct

    def convert(module: nn.Module, x: np.ndarray, **options: Any) -> Path:
        inputs = options.pop("inputs", None) or ct.TensorType("x", x.shape)
        outputs = options.pop("outputs", None) or ct.TensorType("y")
        path = tmp_path / "network.mlmodel"
        convert_network(module, torch.from_numpy(x), inputs, outputs, **options).save(str(path))
        return path

    return convert


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with a convolution, to be damaged."""
    weight = np.ones((3, 3, 4, 2), np.float32)
    return save_network(
        tmp_path_factory.mktemp("tiny") / "tiny.mlmodel",
        lambda b: b.add_convolution(
            "conv", 4, 2, 3, 3, 1, 1, "valid", 1, weight, np.ones(2), True,
            input_name="x", output_name="y",
        ),
        {"x": (1, 4, 8, 8)},
        ("y",),
    )  # fmt: skip


def edited(path: Path, folder: Path, edit: Callable[[Any], Any]) -> Path:
    """A copy of a model with its message changed."""
    model = message_module("Model_pb2").Model.FromString(path.read_bytes())
    edit(model)
    copy = folder / "edited.mlmodel"
    copy.write_bytes(model.SerializeToString())
    return copy


@pytest.mark.parametrize("part", ["decoder", "encoder"])
@pytest.mark.parametrize("variant", CHANNELS)
def test_decoder_and_encoder_compute_what_torch_does(variant: str, part: str, save: Save) -> None:
    """With the real weights where they are, else with random ones."""
    module = decoder(variant) if part == "decoder" else encoder(variant)
    x = values(1, CHANNELS[variant], 8, 12) if part == "decoder" else photo(64, 96)
    if (SHARED / "weights").is_dir():
        module.load_state_dict(state_dict(SHARED / "weights" / f"taef{variant[-1]}_{part}"))
    got = run(read_package(save(module, x)), {"x": x})["y"]
    assert got.shape == ((1, 3, 64, 96) if part == "decoder" else (1, CHANNELS[variant], 8, 12))
    assert difference(got, expected(module, x)) <= TOLERANCE


def state_dict(stem: Path) -> dict[str, Tensor]:
    """float32 tensors of the file with this stem, whichever format it has."""
    file = stem.with_suffix(".safetensors")
    found = load_file(file) if file.exists() else torch.load(stem.with_suffix(".pth"))
    return {k: v.float() for k, v in found.items()}


def photo(height: int, width: int) -> np.ndarray:
    from skimage.data import astronaut

    crop = astronaut()[:height, 200 : 200 + width].transpose(2, 0, 1)
    return np.ascontiguousarray(crop[None], np.float32) / 255


def test_attention_computes_what_torch_does(save: Save) -> None:
    torch.manual_seed(3)
    module, x = Attention(16), values(1, 16, 6, 4)
    got = run(read_package(save(module, x, trace=True)), {"x": x})["y"]
    assert difference(got, expected(module, x)) <= TOLERANCE


def test_channels_last_decoder_computes_what_torch_does(save: Save) -> None:
    module, x = NHWC(decoder("flux2")), values(1, 8, 12, 32)
    got = run(read_package(save(module, x)), {"x": x})["y"]
    assert got.shape == (1, 64, 96, 3)
    assert difference(got, expected(module, x)) <= TOLERANCE


def test_image_output_is_torchs_rounded_to_nearest(save: Save) -> None:
    import coremltools as ct

    module, x = Pixels(decoder("flux1")), values(1, 16, 8, 12)
    image = ct.ImageType("y", color_layout=ct.colorlayout.RGB)
    program = read_package(save(module, x, outputs=image))
    got = run(program, {"x": x})["y"]
    assert (got.dtype, got.shape) == (np.uint8, (64, 96, 3))
    levels = expected(module, x)[0].transpose(1, 2, 0)
    assert levels.min() == 0  # the comparison crosses the clamp
    # half a level, and 255 times the float tolerance
    assert np.abs(got - levels).max() <= 0.5 + 255 * TOLERANCE


def test_enumerated_shapes_each_compute_what_torch_does(save: Save) -> None:
    import coremltools as ct

    module = decoder("flux2")  # its GroupNorm computes with shapes at run time
    shapes = [(1, 32, 8, 8), (1, 32, 12, 16)]
    path = save(
        module,
        values(*shapes[0]),
        inputs=ct.TensorType("x", ct.EnumeratedShapes(shapes, default=shapes[0])),
        dynamic=({2: torch.export.Dim("h", min=2), 3: torch.export.Dim("w", min=2)},),
    )
    program = read_package(path)
    assert program.signatures["main"].inputs[0].shapes == tuple(shapes)
    assert program.function().inputs[0].type.shape == (1, 32, None, None)
    for shape in shapes:
        x = values(*shape)
        got = run(program, {"x": x})["y"]
        assert difference(got, expected(module, x)) <= TOLERANCE
    with pytest.raises(LatentError, match=r"wants the shape .* got \[1, 32, 8, 16\]"):
        run(program, {"x": values(1, 32, 8, 16)})


def test_ranged_shapes_compute_what_torch_does(save: Save) -> None:
    import coremltools as ct

    whole = decoder("flux2")
    assert isinstance(whole, nn.Sequential)
    module = whole[:8]  # up to the first upsampling, which is all that depends on the size
    sides = (ct.RangeDim(4, 32), ct.RangeDim(4, 32))
    path = save(
        module,
        values(1, 32, 8, 8),
        inputs=ct.TensorType("x", ct.Shape((1, 32, *sides))),
        dynamic=(
            {2: torch.export.Dim("h", min=4, max=32), 3: torch.export.Dim("w", min=4, max=32)},
        ),
    )
    x = values(1, 32, 6, 10)
    got = run(read_package(path), {"x": x})["y"]
    assert difference(got, expected(module, x)) <= TOLERANCE


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_image_input_is_scaled_and_shifted_in_its_own_channel_order(color: str, save: Save) -> None:
    import coremltools as ct

    bias = [0.1, 0.2, 0.3]
    module = nn.Conv2d(3, 2, 1)
    image = ct.ImageType(
        "x", (1, 3, 8, 12), scale=1 / 127, bias=bias, color_layout=getattr(ct.colorlayout, color)
    )
    program = read_package(save(module, values(1, 3, 8, 12), inputs=image))
    assert program.signatures["main"].inputs[0].color == color
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 12)).astype(np.float32)
    got = run(as_tensor(program, pixels.shape), {"x": pixels})["y"]
    ready = pixels / np.float32(127) + np.array(bias, np.float32).reshape(3, 1, 1)
    assert difference(got, expected(module, ready)) <= TOLERANCE
    picture = pixels[0].transpose(1, 2, 0).astype(np.uint8)  # always RGB, as an app has it
    picture = picture[..., ::-1] if color == "BGR" else picture
    np.testing.assert_array_equal(run(program, {"x": picture})["y"], got)
    with pytest.raises(LatentError, match=r"'x' is a ... image .*\[8, 12, 4\]"):
        run(program, {"x": np.zeros((8, 12, 4), np.uint8)})


def as_tensor(program: Program, shape: tuple[int, ...]) -> Program:
    """The program with its image input described as the tensor that its layers get."""
    tensor = Feature("x", "tensor", "fp32", shape)
    signature = Signature((tensor,), program.signatures["main"].outputs)
    return replace(program, signatures={"main": signature})


def test_mean_image_is_subtracted(tmp_path: Path) -> None:
    mean = values(3, 4, 5)

    def edit(model: Any) -> None:
        model.description.input[0].type.imageType.colorSpace = 20  # RGB
        model.description.input[0].type.imageType.height = 4
        model.description.input[0].type.imageType.width = 5
        model.neuralNetwork.imageInputShapeMapping = 1
        step = model.neuralNetwork.preprocessing.add()
        step.meanImage.meanImage.extend(mean.reshape(-1).tolist())

    plain = save_network(
        tmp_path / "a.mlmodel", lambda b: b.add_copy("c", "x", "y"), {"x": (1, 3, 4, 5)}, ("y",)
    )
    program = read_package(edited(plain, tmp_path, edit))
    x = values(1, 3, 4, 5, seed=1)
    np.testing.assert_array_equal(run(as_tensor(program, x.shape), {"x": x})["y"], x - mean)


def test_program_says_what_it_was_read_from(tiny: Path, tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        model.description.metadata.author = "somebody"
        model.description.metadata.userDefined["key"] = "value"

    path = edited(tiny, tmp_path, edit)
    program = read_package(path)
    assert (program.kind, program.specification, program.path) == ("neuralnetwork", 4, path)
    assert (program.metadata.author, program.metadata.user) == ("somebody", {"key": "value"})
    assert list(program.functions) == list(program.signatures) == ["main"]
    (conv,) = program.function().ops
    assert conv.outputs[0].type.shape == (1, 2, 6, 6)
    assert all(isinstance(c, Constant) for c in conv.constants())


def test_reading_twice_gives_the_same_outputs(tiny: Path) -> None:
    x = values(1, 4, 8, 8)
    first, second = (Session(read_package(tiny)).run({"x": x})["y"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused_with_its_name(share: float, tiny: Path, tmp_path: Path) -> None:
    whole = tiny.read_bytes()
    cut = tmp_path / "cut.mlmodel"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ArtifactError, match=r"cut\.mlmodel.*truncated"):
        read_package(cut)


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>\n", b"PK\x03\x04" + bytes(60), bytes(range(256))]
)
def test_foreign_file_is_refused_with_its_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.mlmodel"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"other\.mlmodel is not a Core ML model"):
        read_package(path)


def test_unknown_layers_are_refused_by_name_before_anything_is_translated(tmp_path: Path) -> None:
    def add(b: Any) -> None:
        b.add_copy("damaged", "nothing", "a")  # would fail if it were translated
        b.add_upper_triangular("tri_3", "x", "b")
        b.add_upper_triangular("tri_4", "x", "c")
        b.add_reverse("flip", "c", "y", [True])

    path = save_network(tmp_path / "a.mlmodel", add, {"x": (1, 3, 4, 4)}, ("y",))
    with pytest.raises(UnsupportedOpError) as refused:
        read_package(path)
    message = str(refused.value)
    assert "upperTriangular (2, first at 'tri_3')" in message
    assert "reverse (1, first at 'flip')" in message
    assert "tri_4" not in message


def test_layer_of_a_newer_format_is_refused_by_name(tmp_path: Path, tiny: Path) -> None:
    def edit(model: Any) -> None:
        # a layer with the unknown field 5000, an empty message
        model.neuralNetwork.layers.add().MergeFromString(b"\x0a\x03new\x82\xb8\x02\x00")

    with pytest.raises(UnsupportedOpError, match=r"newer format \(1, first at 'new'\)"):
        read_package(edited(tiny, tmp_path, edit))


def test_value_computed_twice_is_refused_as_core_ml_refuses_it(tmp_path: Path) -> None:
    def add(b: Any) -> None:
        b.add_erf("one", "x", "y")
        b.add_sign("two", "x", "y")

    path = save_network(tmp_path / "a.mlmodel", add, {"x": (1, 3, 4, 4)}, ("y",))
    with pytest.raises(ArtifactError, match="'y' is computed twice"):
        read_package(path)


def test_value_that_nothing_computes_is_refused(tmp_path: Path, tiny: Path) -> None:
    def lose_output(model: Any) -> None:
        model.neuralNetwork.layers[0].output[0] = "elsewhere"

    def lose_input(model: Any) -> None:
        model.neuralNetwork.layers[0].input[0] = "elsewhere"

    with pytest.raises(ArtifactError, match=r"'y' .*before any layer computes it"):
        read_package(edited(tiny, tmp_path, lose_output))
    with pytest.raises(ArtifactError, match=r"'elsewhere' .*before any layer computes it"):
        read_package(edited(tiny, tmp_path, lose_input))


def test_missing_weights_are_refused_with_the_layers_name(tmp_path: Path, tiny: Path) -> None:
    def edit(model: Any) -> None:
        del model.neuralNetwork.layers[0].convolution.weights.floatValue[-1]

    with pytest.raises(ArtifactError, match="weights of 'conv' hold 71 values, expected 72"):
        read_package(edited(tiny, tmp_path, edit))


@pytest.mark.parametrize(
    "edit",
    [
        lambda conv: conv.kernelSize.pop(),
        lambda conv: conv.stride.__setitem__(0, 0),
        lambda conv: conv.valid.paddingAmounts.borderAmounts.pop(),
    ],
    ids=["one kernel side", "stride 0", "one border"],
)
def test_impossible_parameters_are_refused_with_the_layers_name(
    edit: Callable[[Any], Any], tiny: Path, tmp_path: Path
) -> None:
    def damage(model: Any) -> None:
        conv = model.neuralNetwork.layers[0].convolution
        conv.valid.paddingAmounts.borderAmounts[0].startEdgeSize = 1
        edit(conv)

    with pytest.raises(ArtifactError, match=r"'conv' \(convolution\).*damaged"):
        read_package(edited(tiny, tmp_path, damage))


def test_input_of_rank_4_cannot_be_mapped_to_rank_5(tmp_path: Path, tiny: Path) -> None:
    def edit(model: Any) -> None:
        model.neuralNetwork.arrayInputShapeMapping = 0

    with pytest.raises(ArtifactError, match=r"'x' .*rank 5: .*neither \(C\) nor \(C, H, W\)"):
        read_package(edited(tiny, tmp_path, edit))
