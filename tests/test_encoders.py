"""Encoders converted, and run by the executor: diffusers and upstream's own outputs are oracles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from fluxvae.artifact.encode import encode_files
from fluxvae.artifact.open import open_artifact
from fluxvae.convert.fp16_safety import make_safe
from fluxvae.convert.rewrite.latents import with_encoded_latents
from fluxvae.data.images import open_image
from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.errors import UsageError, WeightsError
from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.kl import KLEncoder
from fluxvae.networks.structure import conv_sites
from fluxvae.networks.weights import Weights, load_weights, tensor_digest
from fluxvae.recipes import Recipe, parse_sizes
from fluxvae.validation.metrics import compare
from fluxvae.validation.validate import validate
from tests.artifacts import recipe, save
from tests.kl import autoencoder, narrow_entry, narrow_weights
from tests.kl_hot import heat, small_weights
from tests.pipelines import pack_flux1, patchify_flux2, unpatchify_flux2

NETWORKS = (("flux1", "tiny"), ("flux2", "tiny"), ("flux1", "full"), ("flux2", "full"))
SIZE = "96x128"  # not square, so that a swapped axis shows
# The project's limits; measured: 1.1e-5 and less, 62.6 dB and more at this size.
FP32_MAX_ABS = 2e-5
FP16_DB = 60.0
FOLDED = 1e-12  # of float64; measured: 1.1e-13 and less


def weights_of(variant: str, kind: str) -> Weights:
    """The demo encoder, or a narrow KL one."""
    if kind == "tiny":
        return load_weights(variant, "demo", part="encoder")
    return narrow_weights(variant, kind, part="encoder")


def photo(index: int = 0, size: str = SIZE) -> np.ndarray:
    """An evaluation photo of 256 levels, (1, 3, H, W) float32 in [0, 1]."""
    (one,) = parse_sizes(size)
    levels = np.rint(photo_image(EVALUATION_PHOTOS[index], one.height, one.width) * 255)
    return (levels / 255).astype(np.float32)


def upstream(weights: Weights, image: np.ndarray, form: str) -> np.ndarray:
    """The latent in float64: diffusers' encoder and its pipelines' arithmetic.

    Of a tiny encoder our own module, which tests/test_models.py holds against upstream's outputs.
    FLUX.1's tokens are given as they are.
    """
    x, variant = torch.from_numpy(image).double(), weights.variant
    with torch.no_grad():
        if weights.kind == "tiny":
            latent, own = build_encoder(weights).double()(x), "sampler"
        else:
            theirs = autoencoder(narrow_entry(variant), weights).double()
            latent, own = theirs.encode(x * 2 - 1).latent_dist.mean, "vae"
    if (own == "vae") != (form == "vae"):
        latent = to_sampler(weights, latent) if own == "vae" else latent / 0.3611 + 0.1159
    if form == "packed":
        latent = pack_flux1(latent) if variant == "flux1" else patchify_flux2(latent)
    result: np.ndarray = latent.numpy()
    return result


def to_sampler(weights: Weights, latent: Tensor) -> Tensor:
    """From the VAE's own space, as the pipelines do it."""
    if weights.variant == "flux1":
        return (latent - 0.1159) * 0.3611
    mean, variance = (weights.tensors[f"bn.running_{n}"].double() for n in ("mean", "var"))
    packed = patchify_flux2(latent)
    deviation = torch.sqrt(variance + 1e-4)[:, None, None]
    return unpatchify_flux2((packed - mean[:, None, None]) / deviation)


def run(path: Path, image: np.ndarray, size: str = SIZE) -> np.ndarray:
    """The artifact's own output of an image, NHWC turned to NCHW."""
    opened = open_artifact(path)
    function = next(f for f, s in opened.functions_and_sizes() if str(s) == size)
    nhwc = opened.record.recipe.layout == "nhwc"
    if opened.record.recipe.input == "image":
        given = np.rint(image[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    else:
        given = np.ascontiguousarray(image.transpose(0, 2, 3, 1)) if nhwc else image
    output = opened.raw_runner(function, "reference")(given).astype(np.float32)
    return output.transpose(0, 3, 1, 2) if nhwc and output.ndim == 4 else output


def encoder_recipe(variant: str, kind: str, sizes: str = SIZE, **fields: object) -> Recipe:
    return recipe(variant, sizes, decoder=kind, part="encoder", **fields)


@pytest.mark.parametrize("form", ["vae", "sampler", "packed"])
@pytest.mark.parametrize(("variant", "kind"), NETWORKS)
def test_folded_latents_are_the_pipelines_in_float64(variant: str, kind: str, form: str) -> None:
    weights, image = weights_of(variant, kind), photo(size="64x96")
    if (variant, kind, form) == ("flux2", "tiny", "vae"):
        with pytest.raises(UsageError, match="the tiny encoder has not"):
            encoder_recipe(variant, kind, latents=form)
        return
    folded = with_encoded_latents(build_encoder(weights).double(), variant, form)
    with torch.no_grad():
        got = folded(torch.from_numpy(image).double()).numpy()
    assert np.abs(got - upstream(weights, image, form)).max() <= FOLDED


@pytest.mark.parametrize(
    ("variant", "kind", "fields"),
    [
        ("flux1", "tiny", {"latents": "packed", "input": "image"}),
        ("flux1", "tiny", {"latents": "vae", "layout": "nhwc", "nhwc_model": False}),
        ("flux2", "tiny", {"layout": "nhwc", "nhwc_model": True, "input": "image"}),
        ("flux2", "tiny", {"latents": "packed", "layout": "nhwc"}),
        ("flux1", "full", {}),
        ("flux1", "full", {"latents": "packed", "layout": "nhwc", "input": "image"}),
        ("flux2", "full", {"latents": "sampler", "input": "image"}),
        ("flux2", "full", {"latents": "packed", "layout": "nhwc"}),
    ],
)
def test_saved_encoder_gives_upstream_s_latent(
    tmp_path: Path, variant: str, kind: str, fields: dict[str, object]
) -> None:
    weights, image = weights_of(variant, kind), photo()
    exact = encoder_recipe(variant, kind, precision="float32", **fields)
    expected = upstream(weights, image, exact.latent_form)
    assert np.abs(run(save(weights, exact, tmp_path), image) - expected).max() <= FP32_MAX_ABS
    half = run(save(weights, replace(exact, precision="float16"), tmp_path), image)
    assert compare(half, expected, peak=float(np.ptp(expected))).psnr_db >= FP16_DB


@pytest.mark.parametrize(
    ("kind", "shapes", "fields"),
    [
        ("tiny", "enumerated", {"input": "image"}),
        ("tiny", "enumerated", {"latents": "packed"}),
        ("full", "multifunction", {"input": "image"}),
    ],
)
def test_every_size_of_several_is_encoded(
    tmp_path: Path, kind: str, shapes: str, fields: dict[str, object]
) -> None:
    weights = weights_of("flux1", kind)
    made = encoder_recipe("flux1", kind, "64x96,64", shapes=shapes, precision="float32", **fields)
    path = save(weights, made, tmp_path)
    for size in ("64x96", "64"):
        image = photo(size=size)
        expected = upstream(weights, image, made.latent_form)
        assert np.abs(run(path, image, size) - expected).max() <= FP32_MAX_ABS


@pytest.mark.parametrize("variant", ["flux1", "flux2"])
def test_real_encoder_gives_the_golden_latent(shared: Path, tmp_path: Path, variant: str) -> None:
    weights = load_weights(variant, str(shared / "weights"), part="encoder")
    golden = load_file(shared / "golden" / "taef_golden.safetensors")
    image, latent = (golden[f"{variant}.coffee.{n}"].numpy() for n in ("image", "latent"))
    made = encoder_recipe(variant, "tiny", "96x160", precision="float32")
    got = run(save(weights, made, tmp_path), image, "96x160")
    assert np.abs(got - latent).max() <= FP32_MAX_ABS


@pytest.mark.parametrize("kind", ["tiny", "full"])
def test_round_trip_by_artifacts_is_torch_s(tmp_path: Path, kind: str) -> None:
    encoder = weights_of("flux2", kind)
    tiny = kind == "tiny"
    decoder = load_weights("flux2", "demo") if tiny else narrow_weights("flux2")
    common = {"precision": "float32", "latents": "packed"}
    there = save(encoder, encoder_recipe("flux2", kind, **common), tmp_path)
    back = save(decoder, recipe("flux2", SIZE, decoder=kind, **common), tmp_path)
    for index in range(len(EVALUATION_PHOTOS)):
        image = photo(index)
        with torch.no_grad():
            theirs = build_decoder(decoder)(build_encoder(encoder)(torch.from_numpy(image)))
        ours = open_artifact(back).raw_runner(None, "reference")(run(there, image))
        assert np.abs(ours - theirs.numpy()).max() <= FP32_MAX_ABS


def test_weights_of_a_flux2_encoder_without_statistics_give_the_vae_s_latent_only() -> None:
    plain = narrow_weights("flux2", part="encoder")
    tensors = {n: t for n, t in plain.tensors.items() if not n.startswith("bn.")}
    network = build_encoder(replace(plain, tensors=tensors))
    with_encoded_latents(network, "flux2", "vae")
    with pytest.raises(WeightsError, match="no batch-norm statistics"):
        with_encoded_latents(network, "flux2", "sampler")


def test_both_parts_of_random_weights_have_one_batch_norm() -> None:
    parts = [narrow_weights("flux2", seed=3, part=part) for part in ("decoder", "encoder")]
    for name in ("bn.running_mean", "bn.running_var"):
        assert torch.equal(parts[0].tensors[name], parts[1].tensors[name])


def test_sites_of_an_encoder_are_measured_in_latent_pixels() -> None:
    scales = [site.scale for site in conv_sites(build_encoder(weights_of("flux1", "tiny")))]
    assert (scales[0], scales[4], scales[-1]) == (8, 4, 1)  # index 4: the first of stride 2
    assert scales == sorted(scales, reverse=True)


@pytest.mark.parametrize("mode", ["rescale", "mixed"])
def test_hot_encoder_is_kept_within_float16(tmp_path: Path, mode: str) -> None:
    plain = small_weights("flux1", part="encoder")
    network = build_encoder(plain)
    assert isinstance(network, KLEncoder)
    heat(network, torch.from_numpy(photo()), 1e5)
    tensors = {name: network.state_dict()[name] for name in plain.tensors}
    weights = replace(plain, tensors=tensors, digest=tensor_digest(tensors))
    warned = make_safe(network, encoder_recipe("flux1", "full").resolved(), weights).warnings
    assert "go beyond float16" in warned[0]
    made = encoder_recipe("flux1", "full", fp16_safety=mode)
    report = validate(save(weights, made, tmp_path), weights, encoder=None)
    # A grey image has hardly anything but the hot channel: 20 dB and more, and finite.
    assert all(case.nonfinite is None for case in report.cases)
    assert all(case.passed for case in report.cases if case.case != "constant")


def test_file_of_encoded_images_says_its_space_and_has_equal_bytes(tmp_path: Path) -> None:
    from PIL import Image

    weights = weights_of("flux1", "tiny")
    path = save(weights, encoder_recipe("flux1", "tiny", latents="packed", input="image"), tmp_path)
    (tmp_path / "in").mkdir()
    pixels = np.rint(photo()[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in" / "a b.png")
    files = [tmp_path / f"{n}.safetensors" for n in (1, 2)]
    for file in files:
        (encoded,) = encode_files(path, tmp_path / "in", file)
    assert (encoded.name, encoded.size) == ("a_b", "96x128")
    assert files[0].read_bytes() == files[1].read_bytes()
    with safe_open(files[0], "np") as file:
        assert file.metadata()["fluxvae.latent_space"] == "fluxvae-demo-flux1-packed"
        latent = file.get_tensor("a_b")
    assert open_image(tmp_path / "in" / "a b.png").changes == ()
    expected = upstream(weights, photo(), "packed")
    assert compare(latent, expected, peak=float(np.ptp(expected))).psnr_db >= FP16_DB
