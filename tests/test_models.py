"""The torch networks, against upstream's own outputs and against diffusers."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from torch import Tensor, nn

from fluxvae.errors import WeightsError
from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.catalog import CATALOG
from fluxvae.networks.locate import PARTS
from fluxvae.networks.shapes import entry_shapes
from fluxvae.networks.tiny import Block
from fluxvae.networks.weights import Weights, load_weights
from tests.checkpoint_files import KINDS, in_style, write

CASES = {"decoder": ("astronaut", "coffee", "normal"), "encoder": ("astronaut", "coffee")}
# The project's limit. Measured: 0 on one thread; 1.7e-6 on two, where sums take another order.
GOLDEN_TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Tensor]:
    return load_file(shared / "golden" / "taef_golden.safetensors")


def real(shared: Path, variant: str, part: str) -> Weights:
    return load_weights(variant, str(shared / "weights"), part=part)


def build(weights: Weights) -> nn.Sequential:
    return build_decoder(weights) if weights.part == "decoder" else build_encoder(weights)


def largest_difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a.double() - b.double()).abs().max().item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", ["taesd", "diffusers"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("variant", sorted(CATALOG))
def test_every_golden_case_is_met_from_both_key_styles_and_file_kinds(
    shared: Path,
    golden: dict[str, Tensor],
    tmp_path: Path,
    variant: str,
    part: str,
    style: str,
    kind: str,
) -> None:
    names = in_style(style, real(shared, variant, part))
    path = write(tmp_path / f"weights{kind}", names)
    network = build(load_weights(variant, str(path), part=part))
    fed, wanted = ("latent", "decoded") if part == "decoder" else ("image", "latent")
    for case in CASES[part]:
        output = network(golden[f"{variant}.{case}.{fed}"])
        difference = largest_difference(output, golden[f"{variant}.{case}.{wanted}"])
        assert difference <= GOLDEN_TOLERANCE, case


def test_taef1_equals_the_one_of_diffusers(shared: Path, golden: dict[str, Tensor]) -> None:
    weights = [real(shared, "flux1", part) for part in PARTS]
    theirs = AutoencoderTiny(latent_channels=16)
    theirs.load_state_dict(in_style("diffusers", *weights), strict=True)
    theirs.eval().requires_grad_(False)
    decoder, encoder = (build(w) for w in weights)
    for case in CASES["decoder"]:
        latent = golden[f"flux1.{case}.latent"]
        # diffusers gives [-1, 1]: its last step is * 2 - 1, one rounding. Measured 3e-8.
        image = theirs.decode(latent).sample
        assert largest_difference(decoder(latent), (image + 1) / 2) <= 5e-6
    for case in CASES["encoder"]:
        image = golden[f"flux1.{case}.image"]
        # diffusers' first step is (x + 1) / 2, which rounds the image. Measured 2.4e-6.
        assert largest_difference(encoder(image), theirs.encode(image * 2 - 1).latents) <= 2e-5


_WIDTH = 64
_POOL_WIDTH = 4 * _WIDTH
# Indices in the Sequentials of taesd.py: residual blocks, those at latent resolution (which have
# TAEF2's GroupNorm branch), and the convolutions between stages, which have no bias.
_BLOCKS = {
    "decoder": (3, 4, 5, 8, 9, 10, 13, 14, 15, 18),
    "encoder": (1, 3, 4, 5, 7, 8, 9, 11, 12, 13),
}
_LATENT_BLOCKS = {"decoder": (3, 4, 5), "encoder": (11, 12, 13)}
_BETWEEN = {"decoder": (7, 12, 17), "encoder": (2, 6, 10)}


def shapes_by_hand(part: str, latent_channels: int, pool: bool) -> dict[str, tuple[int, ...]]:
    """Every parameter name and shape of a tiny network as ``taesd.py`` has them."""
    ends = {
        "decoder": {1: (_WIDTH, latent_channels), 19: (3, _WIDTH)},
        "encoder": {0: (_WIDTH, 3), 14: (latent_channels, _WIDTH)},
    }[part]
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (channels_out, channels_in) in ends.items():
        shapes[f"{index}.weight"] = (channels_out, channels_in, 3, 3)
        shapes[f"{index}.bias"] = (channels_out,)
    for index in _BETWEEN[part]:
        shapes[f"{index}.weight"] = (_WIDTH, _WIDTH, 3, 3)
    for index in _BLOCKS[part]:
        for conv in (0, 2, 4):
            shapes[f"{index}.conv.{conv}.weight"] = (_WIDTH, _WIDTH, 3, 3)
            shapes[f"{index}.conv.{conv}.bias"] = (_WIDTH,)
    for index in _LATENT_BLOCKS[part] if pool else ():
        shapes[f"{index}.pool.0.weight"] = (_POOL_WIDTH, _WIDTH, 1, 1)
        shapes[f"{index}.pool.1.weight"] = (_POOL_WIDTH,)
        shapes[f"{index}.pool.1.bias"] = (_POOL_WIDTH,)
        shapes[f"{index}.pool.3.weight"] = (_WIDTH, _POOL_WIDTH, 1, 1)
    return shapes


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("variant", sorted(CATALOG))
def test_expected_shapes_are_those_of_taesd_by_hand(variant: str, part: str) -> None:
    entry = CATALOG[variant]
    by_hand = shapes_by_hand(part, entry.contract.channels, entry.pool)
    assert entry_shapes(entry, part) == by_hand


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("variant", sorted(CATALOG))
def test_built_networks_are_frozen_float32_and_change_size_by_8(variant: str, part: str) -> None:
    network = build(load_weights(variant, "random", part=part))
    assert not network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in network.parameters())
    channels = CATALOG[variant].contract.channels
    image, latent = (1, 3, 40, 24), (1, channels, 5, 3)
    fed, given = (latent, image) if part == "decoder" else (image, latent)
    assert network(torch.zeros(fed)).shape == given


def test_weights_of_the_other_part_are_refused() -> None:
    decoder = load_weights("flux1", "random")
    encoder = load_weights("flux1", "random", part="encoder")
    with pytest.raises(WeightsError, match="these are decoder weights; expected the encoder's"):
        build_encoder(decoder)
    with pytest.raises(WeightsError, match="these are encoder weights; expected the decoder's"):
        build_decoder(encoder)


def block_deviations(network: nn.Sequential, x: Tensor) -> list[float]:
    """Standard deviation after each residual block."""
    deviations = []
    for layer in network:
        x = layer(x)
        if isinstance(layer, Block):
            deviations.append(x.std().item())
    return deviations


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("variant", sorted(CATALOG))
def test_random_decoders_have_activations_like_a_trained_one(
    shared: Path, golden: dict[str, Tensor], variant: str, seed: int
) -> None:
    latent = golden[f"{variant}.normal.latent"]
    random = block_deviations(build(load_weights(variant, f"random:{seed}")), latent)
    # Measured: TAEF1's blocks lie between 0.24 and 2.2, TAEF2's between 0.14 and 0.40, random
    # ones (seeds 0 to 7) between 0.44 and 1.0.
    trained = [
        block_deviations(build(real(shared, v, "decoder")), golden[f"{v}.normal.latent"])
        for v in sorted(CATALOG)
    ]
    for index, value in enumerate(random):
        both = [blocks[index] for blocks in trained]
        assert min(both) / 3 < value < max(both) * 5, index


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("variant", sorted(CATALOG))
def test_random_decoders_give_pictures_of_about_normal_contrast(variant: str, seed: int) -> None:
    channels = CATALOG[variant].contract.channels
    latent = torch.randn((1, channels, 16, 16), generator=torch.Generator().manual_seed(seed))
    image = build(load_weights(variant, f"random:{seed}"))(latent)
    # Measured over seeds 0 to 7: deviation 0.10 to 0.38, mean 0.25 to 0.74. Real decoders on
    # photos: 0.27 and 0.55.
    assert 0.08 < image.std() < 0.45
    assert 0.2 < image.mean() < 0.8


@pytest.mark.parametrize("variant", sorted(CATALOG))
def test_random_decoders_stay_far_inside_float16_on_saturated_latents(variant: str) -> None:
    channels = CATALOG[variant].contract.channels
    x = torch.full((1, channels, 8, 8), 50.0)
    largest = 0.0
    for layer in build(load_weights(variant, "random")):
        x = layer(x)
        largest = max(largest, x.abs().max().item())
    assert largest < torch.finfo(torch.float16).max / 100
    assert torch.isfinite(x).all()
