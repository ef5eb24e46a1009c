"""Networks of the first versions: every value is (sequence, batch, channels, height, width).

Oracle: torch in float64 on the same weights, or the arrays that the format's text gives.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.models.datatypes import Array
from coremltools.models.neural_network import NeuralNetworkBuilder
from torch import nn

from fluxvae.errors import ArtifactError, UnsupportedOpError
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from tests.mil import networks
from tests.mil.networks import TOLERANCE, LayerCase, check_case, normal, run, save_network

X = normal(4, 6, 5, seed=1)
V = normal(8, seed=2)
TX = torch.from_numpy(X)
W = normal(6, 4, 3, 3, seed=3)
KERNEL = np.abs(normal(3, 3, 3, 3, seed=8)) / 27
FC = normal(7, 120, seed=4)
FIVE = (1, 1, -1, 1, 1)


layer = partial(networks.layer, rank_5=True)


def five(values: torch.Tensor | np.ndarray) -> np.ndarray:
    return np.asarray(values)[None, None]


HWC = X.transpose(1, 2, 0)
CASES = [
    layer("vector", "add_activation", V, np.tanh(V).reshape(FIVE), non_linearity="TANH"),
    layer(
        "convolution", "add_convolution", X, five(F.conv2d(TX, torch.from_numpy(W), padding=1)),
        kernel_channels=4, output_channels=6, height=3, width=3, stride_height=1, stride_width=1,
        border_mode="same", groups=1, W=W.transpose(2, 3, 1, 0), b=None, has_bias=False,
    ),
    layer(
        "pooling", "add_pooling", X, five(F.max_pool2d(TX, 2)), height=2, width=2,
        stride_height=2, stride_width=2, layer_type="MAX", padding_type="VALID",
    ),
    layer(
        "global pooling", "add_pooling", X, five(X.mean((1, 2), keepdims=True)), height=2,
        width=2, stride_height=2, stride_width=2, layer_type="AVERAGE", padding_type="VALID",
        is_global=True,
    ),
    layer(
        "inner product", "add_inner_product", X, (FC @ X.reshape(-1)).reshape(FIVE), W=FC, b=None,
        input_channels=120, output_channels=7, has_bias=False,
    ),
    layer(
        "response norm", "add_lrn", X,
        five(F.local_response_norm(TX[None], 3, 2.0, 0.5, 0.25)[0]),
        alpha=2.0, beta=0.5, local_size=3, k=0.25,
    ),
    layer("softmax", "add_softmax", X, five(torch.softmax(TX, 0))),
    layer("flatten", "add_flatten", X, X.reshape(FIVE), mode=0),
    layer("flatten, channels last", "add_flatten", X, HWC.reshape(FIVE), mode=1),
    layer(
        "reshape", "add_reshape", X, five(X.reshape(8, 5, 3)), target_shape=(8, 5, 3), mode=0
    ),
    layer(
        "reshape, channels last", "add_reshape", X,
        five(HWC.reshape(5, 3, 8).transpose(2, 0, 1)), target_shape=(8, 5, 3), mode=1,
    ),
    layer(
        "reshape to a sequence", "add_reshape", X, X.reshape(3, 1, 8, 5, 1),
        target_shape=(3, 8, 5, 1), mode=0,
    ),
    layer("permute", "add_permute", X, five(X.transpose(2, 0, 1)), dim=(0, 3, 1, 2)),
    layer(
        "permute to a sequence", "add_permute", X, X.transpose(2, 0, 1)[:, None, :, :, None],
        dim=(3, 1, 2, 0),
    ),
    layer("repeat", "add_sequence_repeat", X, np.repeat(five(X), 3, 0), nrep=3),
    layer(
        "embedding", "add_embedding", np.array([3.0]), FC[:, 3].reshape(FIVE), W=FC, b=None,
        input_dim=120, output_channels=7, has_bias=False,
    ),
    LayerCase(
        "constant",
        lambda b: [
            b.add_load_constant("c", "c", X[:, :1, :1], (4, 1, 1)),
            b.add_elementwise("sum", ["x", "c"], "y0", "ADD"),
        ],
        {"x": X},
        (five(X + X[:, :1, :1]),),
        rank_5=True,
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layer_computes_its_definition_on_rank_5(case: LayerCase, tmp_path: Path) -> None:
    check_case(case, tmp_path)


SEQUENCE = normal(3, 4, 1, seed=5)  # by a permutation: 4 steps of 3 values
HIDDEN = 2


def lstm_of(cell: nn.LSTM, suffix: str = "") -> dict[str, list[np.ndarray]]:
    """Weights of one direction, by the builder's names, gate by gate: i, f, o, z."""

    def gates(name: str) -> list[np.ndarray]:
        i, f, z, o = getattr(cell, name + ("_reverse" if suffix else "")).detach().chunk(4)
        return [v.numpy() for v in (i, f, o, z)]

    biases = zip(gates("bias_ih_l0"), gates("bias_hh_l0"), strict=True)
    return {
        f"W_h{suffix}": gates("weight_hh_l0"),
        f"W_x{suffix}": gates("weight_ih_l0"),
        f"b{suffix}": [a + b for a, b in biases],
    }


@pytest.mark.parametrize("both", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("every", [False, True], ids=["last", "every step"])
def test_recurrent_layer_computes_what_torch_does(both: bool, every: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cell = nn.LSTM(3, HIDDEN, bidirectional=both).double()
    weights = lstm_of(cell) | (lstm_of(cell, "_back") if both else {})
    ways = 2 if both else 1
    names = [f"{kind}{way}" for way in range(ways) for kind in "hc"]

    def add(b: Any) -> None:
        b.add_permute("steps", (2, 1, 0, 3), "x", "steps")
        (b.add_bidirlstm if both else b.add_unilstm)(
            "lstm", hidden_size=HIDDEN, input_size=3, input_names=["steps", *names],
            output_names=["y0", *(f"y{i + 1}" for i in range(2 * ways))], output_all=every,
            **weights,
        )  # fmt: skip

    states = normal(2, ways, HIDDEN, seed=6)  # of h and c
    inputs = {name: states["hc".index(name[0]), int(name[1])] for name in names}
    x = torch.from_numpy(SEQUENCE.transpose(1, 2, 0).copy())
    with torch.no_grad():
        y, (h, c) = cell(x, tuple(torch.from_numpy(s)[:, None] for s in states))
    last = y if every else torch.cat(list(h), -1)[None]
    finals = [s.numpy().reshape(FIVE) for way in zip(h, c, strict=True) for s in way]
    expected = (last.numpy()[..., None, None], *finals)
    check_case(LayerCase("lstm", add, {"x": SEQUENCE, **inputs}, expected, rank_5=True), tmp_path)


def test_recurrent_layer_of_coupled_gates_is_refused_by_name(tmp_path: Path) -> None:
    def add(b: Any) -> None:
        b.add_unilstm("lstm_5", hidden_size=2, input_size=3, input_names=["x"], output_names=["y"],
                      coupled_input_forget_gate=True, **lstm_of(nn.LSTM(3, 2)))  # fmt: skip

    path = save_network(tmp_path / "a.mlmodel", add, {"x": (3,)}, ("y",), rank_5=True)
    with pytest.raises(UnsupportedOpError, match=r"'lstm_5' .*coupled"):
        read_package(path)


def test_output_has_the_described_shape_and_steps_and_samples_are_dropped(tmp_path: Path) -> None:
    def add(b: Any) -> None:
        b.add_activation("square", "LINEAR", "x", "y", [2.0, 1.0])
        b.spec.description.output[0].type.multiArrayType.shape.extend([4, 6, 5])

    path = save_network(tmp_path / "a.mlmodel", add, {"x": X.shape}, ("y",), rank_5=True)
    got = run(read_package(path), {"x": X.astype(np.float32)})["y"]
    assert got.shape == X.shape
    assert np.abs(got - (2 * X + 1)).max() <= TOLERANCE * np.abs(X).max()


def test_impossible_reshape_is_refused_with_the_layers_name(tmp_path: Path) -> None:
    path = save_network(
        tmp_path / "a.mlmodel",
        lambda b: b.add_reshape("shape_2", "x", "y", (8, 5, 4), 0),
        {"x": X.shape},
        ("y",),
        rank_5=True,
    )
    with pytest.raises(ArtifactError, match=r"'shape_2' .*makes"):
        read_package(path)


@pytest.mark.parametrize("labels", [["cat", "dog", "owl"], [7, 8, 9]], ids=["names", "numbers"])
def test_classifier_gives_scores_in_the_order_of_its_labels_and_the_best_label(
    labels: list[Any], tmp_path: Path
) -> None:
    builder = NeuralNetworkBuilder(
        [("image", Array(3, 4, 5))], [("scores", None)], mode="classifier"
    )
    weight = normal(3, 60, seed=7)
    builder.add_inner_product("fc", weight, None, 60, 3, False, "image", "fc")
    builder.add_softmax("softmax", "fc", "scores")
    builder.set_class_labels(labels, prediction_blob="scores")
    image = builder.spec.description.input[0].type.imageType
    image.height, image.width, image.colorSpace = 4, 5, image.BGR
    path = tmp_path / "classifier.mlmodel"
    path.write_bytes(builder.spec.SerializeToString())
    picture = np.random.default_rng(0).integers(0, 4, (4, 5, 3)).astype(np.uint8)
    got = Session(read_package(path)).run({"image": picture})
    logits = weight @ picture[..., ::-1].transpose(2, 0, 1).reshape(-1).astype(np.float64)
    want = torch.softmax(torch.from_numpy(logits), 0).numpy()
    assert got["scores"].shape == (3,)
    assert np.abs(got["scores"] - want).max() <= TOLERANCE
    assert got["classLabel"].item() == labels[int(want.argmax())]


def test_image_to_image_network_of_open_size_computes_what_torch_does(tmp_path: Path) -> None:
    def add(b: Any) -> None:
        b.add_convolution(
            "conv",
            3,
            3,
            3,
            3,
            2,
            2,
            "same",
            1,
            KERNEL.transpose(2, 3, 1, 0),
            None,
            False,
            input_name="x",
            output_name="small",
        )
        b.add_upsample("up", 2, 2, "small", "y")  # fmt: skip
        for feature in (b.spec.description.input[0], b.spec.description.output[0]):
            image = feature.type.imageType
            image.height, image.width, image.colorSpace = 8, 8, image.RGB
            image.imageSizeRange.heightRange.lowerBound = 4
            image.imageSizeRange.heightRange.upperBound = -1
            image.imageSizeRange.widthRange.lowerBound = 4
            image.imageSizeRange.widthRange.upperBound = -1

    path = save_network(tmp_path / "a.mlmodel", add, {"x": (3, 8, 8)}, ("y",), rank_5=True)
    picture = np.random.default_rng(0).integers(0, 256, (6, 10, 3)).astype(np.uint8)
    planes = torch.from_numpy(picture.transpose(2, 0, 1).copy()).double()[None]
    # Windows of 3 by strides of 2 on even sizes: the only element of padding is at the end.
    small = F.conv2d(F.pad(planes, (0, 1, 0, 1)), torch.from_numpy(KERNEL), stride=2)
    want = small.repeat_interleave(2, 2).repeat_interleave(2, 3)[0].permute(1, 2, 0)
    got = Session(read_package(path)).run({"x": picture})["y"]
    assert got.shape == (6, 10, 3)
    assert np.abs(got - want.clamp(0, 255).numpy()).max() <= 0.5 + 255 * TOLERANCE
