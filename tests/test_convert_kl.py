"""diffusers' full KL decoders, with random weights, converted here and run by the executor."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from torch import Tensor, nn

from fluxvae.convert import INPUT_NAME, OUTPUT_NAME, write_model
from fluxvae.metrics import Metrics, compare
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from tests.artifacts import normal_latent, recipe

pytestmark = pytest.mark.slow

SIZE = "64x96"  # pixels: the op set does not depend on it, and a swapped axis shows
CHANNELS = {"flux1": 16, "flux2": 32}
WIDTHS = (128, 256, 512, 512)
# The project's bar. Measured here: 2.5e-6 and less; with the pass left in 1.7e-5 (FLUX.1) and
# 1.3e-5 (FLUX.2).
FP32_MAX_ABS = 1e-5
# Measured: 65.5 and 65.8 dB (FLUX.1), 67.7 and 68.0 dB (FLUX.2), for iOS17 and iOS18.
FP16_DB = 63.0


class Decode(nn.Module):
    """The decoding half of an autoencoder: latent (B, C, h, w) to image (B, 3, 8h, 8w)."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.before = autoencoder.post_quant_conv  # None for FLUX.1
        self.decoder = autoencoder.decoder

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z if self.before is None else self.before(z))


def autoencoder(variant: str) -> nn.Module:
    """diffusers' own class in FLUX's configuration."""
    common = {
        "block_out_channels": WIDTHS,
        "layers_per_block": 2,
        "latent_channels": CHANNELS[variant],
        "norm_num_groups": 32,
    }
    if variant == "flux2":
        return AutoencoderKLFlux2(**common)
    return AutoencoderKL(
        **common,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def randomise(network: nn.Module) -> None:
    """Weights that keep activations like a trained decoder's, and no affine that is the identity.

    diffusers starts every GroupNorm at gain 1 and shift 0, which would hide a wrong affine.
    """
    generator = torch.Generator().manual_seed(0)
    for name, value in network.named_parameters():
        if value.dim() > 1:
            scale = (2 / value[0].numel()) ** 0.5
            # The branches' last layers, halved, keep the residual stream from growing.
            nn.init.normal_(value, 0, scale / 2 if "conv2" in name else scale, generator=generator)
        elif name.endswith("weight"):
            nn.init.normal_(value, 1, 0.2, generator=generator)
        else:
            nn.init.normal_(value, 0, 0.2, generator=generator)


@dataclass(frozen=True)
class Decoder:
    """A decoder, a latent, and torch's image of it in float32."""

    network: nn.Module
    latent: np.ndarray
    image: np.ndarray


@pytest.fixture(scope="module", params=["flux1", "flux2"])
def kl(request: pytest.FixtureRequest) -> Decoder:
    network = Decode(autoencoder(request.param)).eval().requires_grad_(False)
    randomise(network)
    (size,) = recipe("flux1", SIZE).sizes
    latent = normal_latent(CHANNELS[request.param], size)
    image = network(torch.from_numpy(latent))
    # Photos in [-1, 1] have a standard deviation of about 0.5; the bar is absolute.
    network.decoder.conv_out.weight *= 0.5 / image.std()
    image = network(torch.from_numpy(latent))
    assert image.shape == (1, 3, 64, 96)
    assert 0.4 < image.std() < 0.6
    return Decoder(network, latent, image.numpy())


def measure(kl: Decoder, folder: Path, precision: str, target: str) -> Metrics:
    """The converted decoder against torch. Peak 2: a KL decoder's image is in [-1, 1]."""
    # A recipe names a tiny variant; of it only sizes, precision and target matter here.
    made = recipe("flux1", SIZE, precision=precision, target=target)
    path = folder / f"{precision}-{target}.mlpackage"
    write_model(kl.network, made, kl.latent.shape[1], path)
    got = Session(read_package(path)).run({INPUT_NAME: kl.latent})[OUTPUT_NAME]
    return compare(got.astype(np.float32), kl.image, peak=2)


@pytest.mark.parametrize("target", ["iOS17", "iOS18"])
def test_float32_decoder_equals_torch(kl: Decoder, tmp_path: Path, target: str) -> None:
    assert measure(kl, tmp_path, "float32", target).max_abs <= FP32_MAX_ABS


# iOS18 has an attention operation of its own; 17 computes it step by step.
@pytest.mark.parametrize("target", [pytest.param("iOS17", marks=pytest.mark.full), "iOS18"])
def test_float16_decoder_differs_by_rounding_alone(
    kl: Decoder, tmp_path: Path, target: str
) -> None:
    assert measure(kl, tmp_path, "float16", target).psnr_db >= FP16_DB


def test_with_the_pass_left_in_float32_misses_the_bar(
    kl: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_all: Callable[..., set[str]] = lambda _: set()  # noqa: E731
    monkeypatch.setattr("fluxvae.convert._left_out", keep_all)
    spoilt = measure(kl, tmp_path, "float32", "iOS17")
    assert spoilt.max_abs > FP32_MAX_ABS
    kinds = {o.kind for o in read_package(tmp_path / "float32-iOS17.mlpackage").function().ops}
    assert "batch_norm" in kinds
