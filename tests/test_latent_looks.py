"""Latents that do not say their space: what is noted of them, and what never is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fluxvae.data.latents import read_latents, space_metadata
from fluxvae.data.photos import (
    CALIBRATION_PHOTOS,
    EVALUATION_PHOTOS,
    crop_image,
    photo_crops,
    photo_image,
)
from fluxvae.data.spaces import unlike
from fluxvae.errors import LatentError
from fluxvae.networks.build import build_encoder
from fluxvae.networks.catalog import CATALOG, demo_contract, random_contract
from fluxvae.networks.weights import load_weights
from fluxvae.recipes.axes import FIRST, LAST, LatentInput
from tests.latents import takes

ENCODERS = {"flux1": "taef1_encoder.safetensors", "flux2": "taef2_encoder.pth"}
WIDENED = 1.8  # what FLUX.2's inverse batch norm does to photos' latents, about


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, np.ndarray]:
    return load_file(shared / "golden" / "taef_golden.safetensors")


def to_vae(variant: str, latent: np.ndarray) -> np.ndarray:
    """The VAE's own space, written out here again: reference latents.md."""
    return latent / 0.3611 + 0.1159 if variant == "flux1" else latent * WIDENED


def as_patches(latent: np.ndarray) -> np.ndarray:
    """A map (1, 4 C, h / 2, w / 2) of 2 x 2 patches, by torch."""
    patches: np.ndarray = torch.nn.functional.pixel_unshuffle(torch.from_numpy(latent), 2).numpy()
    return patches


def written(folder: Path, values: np.ndarray, kind: str) -> Path:
    path = folder / f"x.{kind}"
    values = np.ascontiguousarray(values, np.float32)
    if kind == "safetensors":
        save_file({"x": values}, path)
    elif kind == "npy":
        np.save(path, values)
    else:
        path.write_bytes(values.tobytes())
    return path


@pytest.mark.parametrize("kind", ["safetensors", "npy", "bin"])
@pytest.mark.parametrize(
    ("variant", "fields", "option"),
    [
        ("flux1", {}, "VAE's own space: convert with --latents vae"),
        (
            "flux1",
            {"decoder": "full", "latents": "sampler"},
            "own space: convert with --latents vae",
        ),
        ("flux1", {"latents": "packed"}, "VAE's own space: convert with --latents vae"),
        ("flux2", {}, "after the inverse batch norm: leave that step out"),
        ("flux2", {"latents": "packed"}, "after the inverse batch norm: leave that step out"),
    ],
)
def test_the_vaes_own_space_is_noted_and_strictly_refused(
    tmp_path: Path, golden: dict[str, np.ndarray], kind: str, variant: str,
    fields: dict[str, str], option: str,
) -> None:  # fmt: skip
    wanted = takes(variant, "128", **fields)
    values = to_vae(variant, golden[f"{variant}.astronaut.latent"])
    if wanted.packed:
        values = as_patches(values)
        if wanted.contract.tokens:
            values = values.reshape(1, 64, 64).transpose(0, 2, 1)
    path = written(tmp_path, values, kind)
    (note,) = read_latents(path, wanted).notes
    assert note.startswith(f"x.{kind}: x (standard deviation ")
    assert option in note
    with pytest.raises(LatentError, match=r"standard deviation .* because of --strict"):
        read_latents(path, wanted, strict=True)


@pytest.mark.parametrize("variant", CATALOG)
def test_sampler_latents_for_the_full_decoder_are_noted(
    golden: dict[str, np.ndarray], variant: str
) -> None:
    latent = golden[f"{variant}.{'astronaut' if variant == 'flux1' else 'coffee'}.latent"]
    for decoder in ("tiny", "full") if variant == "flux1" else ("full",):
        text = unlike(latent * 0.9, takes(variant, decoder=decoder, latents="vae"), FIRST)
        assert text is not None
        assert "look like the sampler's latents: convert with --latents sampler" in text
    assert unlike(to_vae(variant, latent), takes(variant, decoder="full"), FIRST) is None


@pytest.mark.parametrize("photo", ["astronaut", "coffee"])
@pytest.mark.parametrize("variant", CATALOG)
def test_numbers_in_another_order_are_noted_with_the_option_that_takes_it(
    tmp_path: Path, golden: dict[str, np.ndarray], variant: str, photo: str
) -> None:
    latent = golden[f"{variant}.{photo}.latent"]
    _, _, rows, columns = latent.shape
    size = f"{8 * rows}x{8 * columns}"
    patches = as_patches(latent)
    layout = " --layout nhwc" if variant == "flux2" else ""
    nchw, nhwc = takes(variant, size), takes(variant, size, layout="nhwc")
    packed = takes(variant, size, latents="packed")
    for values, wanted, option in (
        (patches.transpose(0, 2, 3, 1), nchw, f"--latents packed{layout} to"),
        (patches.transpose(0, 2, 3, 1), nhwc, f"--latents packed{layout} to"),
        (latent.transpose(0, 2, 3, 1), nchw, "convert with --layout nhwc"),
        (latent, nhwc, "convert with --layout nchw"),
        (latent, packed, "convert with --latents sampler --layout nchw"),
        (latent.transpose(0, 2, 3, 1), packed, "convert with --latents sampler --layout nhwc"),
        *([(patches, nchw, "--latents packed to")] if variant == "flux2" else []),
    ):
        path = written(tmp_path, values, "bin")
        (note,) = read_latents(path, wanted).notes
        assert "correlation of neighbours" in note
        assert option in note


def silent(latent: np.ndarray, wanted: LatentInput, order: str = FIRST) -> bool:
    return unlike(latent.astype(np.float32), wanted, order) is None


@pytest.mark.parametrize("variant", ENCODERS)
def test_none_of_our_pictures_is_noted(
    shared: Path, golden: dict[str, np.ndarray], variant: str
) -> None:
    weights = load_weights(
        variant, str(shared / "weights" / ENCODERS[variant]), part="encoder", kind="tiny"
    )
    network = build_encoder(weights)
    crops = [crop for photo in CALIBRATION_PHOTOS for crop in photo_crops(photo, 128)]
    crops += [photo_image(p, side, side) for p in EVALUATION_PHOTOS for side in (64, 96, 256)]
    flat = [np.full((64, 64, 3), level, np.uint8) for level in (0, 30, 128, 255)]
    flat += [np.broadcast_to(np.arange(0, 256, 4, np.uint8)[:, None, None], (64, 64, 3))]
    crops += [crop_image(pixels, 0, 0, 64, 64) for pixels in flat]
    with torch.no_grad():
        latents = [network(torch.from_numpy(crop)).numpy() for crop in crops]
    latents += [v for k, v in golden.items() if k.startswith(variant) and k.endswith("latent")]
    for index, latent in enumerate(latents):
        for order in (FIRST, LAST):
            assert silent(latent, takes(variant), order), index
            assert silent(as_patches(latent), takes(variant, latents="packed"), order), index
        assert silent(to_vae(variant, latent), takes(variant, decoder="full"), order), index


def test_noise_and_constants_belong_to_every_space() -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    for variant in CATALOG:
        for side in (8, 12, 32):
            shape = (1, CATALOG[variant].contract.channels, side, side)
            noise = generator.standard_normal(shape, np.float32)
            for values in (noise, 8 * np.sign(noise), 3 * noise, np.ones(shape), np.zeros(shape)):
                for decoder in ("tiny", "full"):
                    assert silent(values, takes(variant, decoder=decoder))


def test_decoders_with_a_space_of_their_own_and_files_that_state_theirs_are_not_measured(
    tmp_path: Path, golden: dict[str, np.ndarray]
) -> None:
    values = to_vae("flux1", golden["flux1.astronaut.latent"])
    for own in (demo_contract(CATALOG["flux1"]), random_contract(CATALOG["flux1"])):
        assert silent(values, takes("flux1", own=own))
    wanted = takes("flux1", "128")
    assert not silent(values, wanted)
    save_file({"x": values}, tmp_path / "x.safetensors", space_metadata(wanted.contract))
    assert read_latents(tmp_path / "x.safetensors", wanted, strict=True).notes == ()


def test_many_latents_share_one_note(tmp_path: Path, golden: dict[str, np.ndarray]) -> None:
    values = to_vae("flux1", golden["flux1.astronaut.latent"])
    path = written(tmp_path, np.concatenate([values] * 8), "npy")
    (note,) = read_latents(path, takes("flux1", "128")).notes
    assert note.startswith("x.npy: x-0, x-1, x-2, x-3, x-4 and 3 more (standard deviation 2.28")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_huge_and_tiny_values_are_measured_without_overflow(scale: float) -> None:
    ramp = np.linspace(1, 2, 16 * 8 * 8, dtype=np.float32).reshape(1, 16, 8, 8) * np.float32(scale)
    said = unlike(ramp, takes("flux1", "64"), FIRST)
    assert (said is not None and "far beyond the latents" in said) == (scale > 1)
