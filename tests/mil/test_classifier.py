"""Classifiers of image inputs, as other people convert them, against torch."""

import warnings
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from torch import nn

from fluxvae.mil.compiler import compile_program
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package


@pytest.mark.filterwarnings("ignore:Output, .*renamed:UserWarning")
@pytest.mark.parametrize("labels", [["cat", "dog", "owl"], [7, 8, 9]], ids=["names", "numbers"])
def test_ml_program_gives_scores_in_the_order_of_its_labels_and_the_best_label(
    labels: list[Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3, 2), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    module = nn.Sequential(*layers, nn.Softmax(1)).eval()
    example = torch.rand(1, 3, 14, 14)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of tracing, in torch itself
        traced = torch.jit.trace(module, example)
    model = ct.convert(
        traced,
        inputs=[ct.ImageType("image", example.shape, scale=1 / 255)],
        classifier_config=ct.ClassifierConfig(labels),
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=ct.target.iOS16,
        skip_model_load=True,
    )
    path = tmp_path / "classifier.mlpackage"
    model.save(str(path))
    picture = np.random.default_rng(0).integers(0, 256, (14, 14, 3)).astype(np.uint8)
    with torch.no_grad():
        planes = torch.from_numpy(picture.transpose(2, 0, 1).copy()).double()[None] / 255
        want = module.double()(planes)[0].numpy()
    for form in (path, compile_program(path, tmp_path).path):
        got = Session(read_package(form)).run({"image": picture})
        assert np.abs(got["classLabel_probs"] - want).max() <= 1e-6
        assert got["classLabel"].item() == labels[int(want.argmax())]
