"""KL weights: both key styles, every dtype, and what is refused in which words."""

from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors.torch import save_file
from torch import Tensor

from fluxvae.convert.fp16_safety import probe_inputs
from fluxvae.convert.rewrite.latents import with_latents
from fluxvae.data.spaces import latent_transform
from fluxvae.errors import DownloadError, FluxVAEError, UsageError, WeightsError
from fluxvae.networks.build import build_decoder
from fluxvae.networks.catalog import KL_CATALOG, find_decoder
from fluxvae.networks.describe import describe_file
from fluxvae.networks.kl import KLDecoder, KLEncoder
from fluxvae.networks.locate import PARTS
from fluxvae.networks.shapes import entry_shapes
from fluxvae.networks.weights import Weights, find_encoder, load_entry, load_weights
from fluxvae.recipes import Recipe, parse_sizes
from tests.hub_server import serving
from tests.kl import (
    KINDS,
    autoencoder,
    bfl_names,
    diffusers_names,
    narrow_entry,
    narrow_weights,
)

STYLES = {"diffusers": diffusers_names, "bfl": lambda *parts: bfl_names(diffusers_names(*parts))}


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)
    return path


def refusal(path: Path, variant: str, kind: str, part: str = "decoder") -> str:
    with pytest.raises(FluxVAEError) as caught:
        load_weights(variant, str(path), kind=kind, part=part)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("variant", "kind"), KINDS)
def test_expected_shapes_are_diffusers_and_those_of_the_modules(variant: str, kind: str) -> None:
    entry = find_decoder(variant, kind)
    assert entry.kl is not None
    with torch.device("meta"):
        theirs = autoencoder(entry).state_dict()
        ours = {
            "decoder": KLDecoder(entry.contract.channels, entry.kl),
            "encoder": KLEncoder(entry.contract.channels, entry.kl),
        }
    found: set[str] = set()
    for part in PARTS:
        shapes = entry_shapes(entry, part)
        assert shapes == {n: tuple(t.shape) for n, t in ours[part].state_dict().items()}
        for name, shape in shapes.items():
            apart = name.startswith(("post_quant_conv.", "quant_conv.", "bn."))
            found.add(name if apart else f"{part}.{name}")
            assert shape == tuple(theirs[name if apart else f"{part}.{name}"].shape)
    assert found == {n for n in theirs if n != "bn.num_batches_tracked"}


def test_test_s_bfl_names_are_those_that_diffusers_translates() -> None:
    parts = [narrow_weights("flux1", part=part) for part in PARTS]
    named = diffusers_names(*parts)
    config = dict.fromkeys(("down_block_types", "up_block_types"), (0, 1, 2, 3))
    translated = convert_ldm_vae_checkpoint(bfl_names(named), config)
    assert translated.keys() == named.keys()
    assert all(torch.equal(translated[name], named[name]) for name in named)


@pytest.mark.parametrize(("variant", "kind"), KINDS)
@pytest.mark.parametrize("style", STYLES)
def test_both_key_styles_give_the_same_weights(
    tmp_path: Path, variant: str, kind: str, style: str
) -> None:
    parts = [narrow_weights(variant, kind, part=part) for part in PARTS]
    tensors = STYLES[style](*parts)
    if variant == "flux2":
        tensors["bn.num_batches_tracked"] = torch.tensor(7)  # a counter, as in published files
    path = write(tmp_path / "vae.safetensors", tensors)
    entry = narrow_entry(variant, kind)
    for weights in parts:
        loaded = load_entry(entry, str(path), part=weights.part)
        assert loaded.digest == weights.digest
        assert (loaded.kind, loaded.contract) == (kind, entry.contract)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_float_dtype_is_brought_to_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = narrow_weights("flux2")
    tensors = {name: t.to(dtype) for name, t in diffusers_names(weights).items()}
    loaded = load_entry(narrow_entry("flux2"), str(write(tmp_path / "vae.safetensors", tensors)))
    for name, tensor in loaded.tensors.items():
        assert torch.equal(tensor, weights.tensors[name].to(dtype).float())


def test_decoder_alone_with_bare_bfl_names_is_read(tmp_path: Path) -> None:
    weights = narrow_weights("flux2", "small")
    named = bfl_names(diffusers_names(weights))
    bare = {name.removeprefix("decoder."): tensor for name, tensor in named.items()}
    path = write(tmp_path / "small_decoder.safetensors", bare)
    assert load_entry(narrow_entry("flux2", "small"), str(path)).digest == weights.digest


def test_folder_of_a_whole_pipeline_is_searched_in_its_vae_folder(tmp_path: Path) -> None:
    weights = narrow_weights("flux1")
    (tmp_path / "vae").mkdir()
    write(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", diffusers_names(weights))
    assert load_entry(narrow_entry("flux1"), str(tmp_path)).digest == weights.digest


def test_tiny_weights_under_full_say_what_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "taef1.safetensors", dict(load_weights("flux1", "random").tensors))
    message = refusal(path, "flux1", "full")
    assert "the weights of a tiny autoencoder (TAEF1), not of FLUX.1 VAE" in message
    assert "use --variant flux1 --decoder tiny" in message


@pytest.mark.parametrize("style", STYLES)
def test_full_weights_under_tiny_say_what_they_are(tmp_path: Path, style: str) -> None:
    path = write(tmp_path / "ae.safetensors", STYLES[style](narrow_weights("flux2")))
    message = refusal(path, "flux2", "tiny")
    assert "the weights of a full KL autoencoder (FLUX.2 VAE), not of TAEF2" in message
    assert "use --variant flux2 --decoder full" in message


def test_full_weights_of_the_other_variant_are_said(tmp_path: Path) -> None:
    for given, asked, words in (
        ("flux1", "flux2", "these are FLUX.1 VAE's (16 latent channels), not FLUX.2 VAE's"),
        ("flux2", "flux1", "these are FLUX.2 VAE's (32 latent channels), not FLUX.1 VAE's"),
    ):
        path = write(tmp_path / f"{given}.safetensors", diffusers_names(narrow_weights(given)))
        message = refusal(path, asked, "full")
        assert words in message
        assert f"use --variant {given} --decoder full" in message


def test_missing_statistics_nan_and_foreign_names_are_refused(tmp_path: Path) -> None:
    entry, path = narrow_entry("flux2"), tmp_path / "ae.safetensors"
    tensors = diffusers_names(narrow_weights("flux2"))

    def message(**changed: Tensor | None) -> str:
        mixed = {**tensors, **{k.replace("__", "."): v for k, v in changed.items()}}
        write(path, {k: v.clone() for k, v in mixed.items() if v is not None})
        with pytest.raises(WeightsError) as caught:
            load_entry(entry, str(path))
        return str(caught.value)

    assert "missing keys (1): bn.running_var" in message(bn__running_var=None)
    assert "extra keys (1): decoder.lora" in message(decoder__lora=torch.zeros(1))
    assert "extra keys (1): bn.weight" in message(bn__weight=torch.zeros(1))
    broken = torch.full_like(tensors["decoder.conv_in.bias"], float("nan"))
    assert "decoder.conv_in.bias holds NaN or infinity" in message(decoder__conv_in__bias=broken)


def test_there_are_no_demo_weights_and_no_small_decoder_of_flux1() -> None:
    with pytest.raises(UsageError, match="demo weights of the tiny decoders only"):
        load_weights("flux1", "demo", kind="full")
    with pytest.raises(UsageError, match="flux1 has no 'small' decoder; it has tiny, full"):
        load_weights("flux1", "random", kind="small")


def test_encoder_comes_from_the_same_file_or_not_at_all(tmp_path: Path) -> None:
    both = tmp_path / "both.safetensors"
    alone = tmp_path / "alone.safetensors"
    parts = [narrow_weights("flux1", part=part) for part in PARTS]
    write(both, diffusers_names(*parts))
    write(alone, diffusers_names(parts[0]))
    assert find_encoder("flux1", str(alone), kind="full") is None
    with pytest.raises(WeightsError, match="not a flux1 encoder: missing keys"):  # it was found
        find_encoder("flux1", str(both), kind="full")


@pytest.mark.parametrize("mode", ["gated", "hidden repository"])
def test_gated_repository_without_a_token_says_what_to_accept_and_to_set(
    tmp_path: Path, mode: str
) -> None:
    entry = find_decoder("flux2", "full")
    with serving(entry.hub, b"") as server:
        server.mode = mode
        with pytest.raises(DownloadError) as caught:
            load_entry(entry, cache_dir=tmp_path, endpoint=server.endpoint)
    message = str(caught.value)
    assert "\n" not in message
    assert "accept its conditions at https://huggingface.co/black-forest-labs/FLUX.2-dev" in message
    assert "set HF_TOKEN" in message
    assert "--weights PATH" in message
    assert "demo" not in message  # there are none of it


def test_file_without_a_known_digest_is_recorded_with_the_one_seen(tmp_path: Path) -> None:
    parts = [narrow_weights("flux2", part=part) for part in PARTS]
    path = write(tmp_path / "vae.safetensors", diffusers_names(*parts))
    entry = narrow_entry("flux2")
    assert entry.hub.sha256 is None
    with serving(entry.hub, path.read_bytes()) as server:
        loaded = load_entry(entry, cache_dir=tmp_path / "cache", endpoint=server.endpoint)
    assert loaded.source.file_sha256 == describe_file(path).sha256
    assert loaded.digest == parts[0].digest


def test_every_pin_is_a_commit_and_a_digest_or_says_there_is_none() -> None:
    for entry in KL_CATALOG.values():
        assert len(bytes.fromhex(entry.hub.revision)) == 20
        assert entry.hub.sha256 is None or len(bytes.fromhex(entry.hub.sha256)) == 32
        assert entry.contract.span == (-1.0, 1.0)


# --- without batch-norm statistics --------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> Weights:
    return narrow_weights("flux2")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, whole: Weights) -> Weights:
    path = tmp_path_factory.mktemp("bare") / "decoder.safetensors"
    own = bfl_names(diffusers_names(whole))
    alone = {n.removeprefix("decoder."): t for n, t in own.items() if not n.startswith("bn.")}
    return load_entry(narrow_entry("flux2"), str(write(path, alone)))


def test_a_decoder_without_statistics_decodes_alike(bare: Weights, whole: Weights) -> None:
    assert bare.tensors.keys() | {"bn.running_mean", "bn.running_var"} == whole.tensors.keys()
    assert bare.digest != whole.digest
    latent = torch.ones(1, 32, 8, 8)
    with torch.no_grad():
        images = [build_decoder(weights)(latent) for weights in (bare, whole)]
    assert torch.equal(*images)


@pytest.mark.parametrize("form", ["sampler", "packed"])
def test_a_decoder_without_statistics_refuses_the_sampler_s_latents(
    bare: Weights, form: str
) -> None:
    decoder = build_decoder(bare)
    recipe = Recipe("flux2", sizes=parse_sizes("64"), decoder="full", latents=form)
    latent = torch.ones(1, 32, 8, 8).numpy()
    for action in (
        lambda: with_latents(decoder, "flux2", form),
        lambda: latent_transform(recipe, bare).from_decoder(latent),
    ):
        with pytest.raises(WeightsError, match=r"no batch-norm statistics .* use --latents vae"):
            action()
    assert with_latents(decoder, "flux2", "vae") is decoder


def test_fp16_safety_of_a_decoder_without_statistics_measures_on_noise(bare: Weights) -> None:
    (size,) = parse_sizes("64")
    recipe = Recipe("flux2", sizes=(size,), decoder="full", latents="vae")
    (latent,) = probe_inputs(bare, None, size, recipe)
    assert latent.values.shape == (1, 32, 8, 8)


def test_show_compares_with_the_nearest_decoder(tmp_path: Path) -> None:
    shapes = entry_shapes(find_decoder("flux2", "small"), "decoder")
    tensors = {
        name if name.startswith("post_quant_conv.") else f"decoder.{name}": torch.zeros(
            shape, dtype=torch.bfloat16
        )
        for name, shape in shapes.items()
        if not name.startswith("bn.")
    }
    path = tmp_path / "small.safetensors"
    save_file(tensors, path)
    report = describe_file(path)
    assert report.fits == (("flux2", "small", "decoder"),)
    assert report.problems == ()
    assert report.notes == ("no batch-norm statistics: for --latents vae alone",)
    del tensors["decoder.conv_in.bias"]
    save_file(tensors, path)
    (problem,) = describe_file(path).problems
    assert "missing keys (1): conv_in.bias. Give an unmodified FLUX.2 small decoder" in problem
    with pytest.raises(WeightsError, match="use --variant flux2 --decoder small"):
        load_weights("flux2", str(path), kind="full")
