"""Artifacts that take the sampler's or the transformer's own latents."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fluxvae.artifact.backends import make_runner
from fluxvae.artifact.decode import decode_file
from fluxvae.artifact.record import read_record
from fluxvae.data.latents import Latent, read_latents
from fluxvae.data.spaces import LatentTransform, pack, unpack
from fluxvae.device.bundle import Request, export_bundle, read_bundle
from fluxvae.errors import LatentError, UsageError
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_decoder
from fluxvae.networks.catalog import KL_CATALOG, find_decoder
from fluxvae.networks.kl import KLDecoder
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Recipe, parse_sizes
from fluxvae.recipes.axes import LatentInput
from fluxvae.recipes.latents import artifact_contract
from fluxvae.validation.metrics import compare
from fluxvae.validation.validate import validate
from tests.artifacts import recipe, save
from tests.conversion_cache import write_model
from tests.kl_hot import short_decoder
from tests.pipelines import pack_flux1, patchify_flux2, unpack_flux1, unpatchify_flux2

SIZE = "64x96"  # so that swapped axes show
CHANNELS = {"flux1": 16, "flux2": 32}
# Operations above those of the plain decoder: FLUX.1 has transpose, reshape, pixel_shuffle, pad.
MOST_OPS = {("flux1", "packed"): 4, ("flux1", "sampler"): 1, ("flux2", "packed"): 1,
            ("flux2", "sampler"): 1}  # fmt: skip
FP32_MAX_ABS = 1e-5  # measured: 6e-7 and less


def one_stage(variant: str) -> KLDecoder:
    """The KL plan with one short stage of four: what is in front of it is the same."""
    return short_decoder(variant, (32,))


def given(variant: str, form: str) -> tuple[Tensor, Tensor]:
    """A sampler's latent as the artifact takes it, as a map, and unpacked by diffusers."""
    generator = torch.Generator().manual_seed(3)
    if form == "sampler":
        latent = torch.randn(1, CHANNELS[variant], 8, 12, generator=generator)
        return latent, latent
    patches = torch.randn(1, 4 * CHANNELS[variant], 4, 6, generator=generator)
    if variant == "flux1":
        tokens = patches.flatten(2).transpose(1, 2)
        return patches, unpack_flux1(tokens, 64, 96)
    return patches, unpatchify_flux2(patches)


def to_vae(variant: str, latent: Tensor, decoder: KLDecoder) -> Tensor:
    if variant == "flux1":
        return latent / 0.3611 + 0.1159
    assert decoder.bn is not None
    mean, variance = (
        x.view(1, -1, 1, 1) for x in (decoder.bn.running_mean, decoder.bn.running_var)
    )
    return unpatchify_flux2(patchify_flux2(latent) * torch.sqrt(variance + 1e-4) + mean)


@pytest.fixture(scope="module", params=CHANNELS)
def plain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, KLDecoder, Counter]:
    """A variant, its decoder, and the operations of its plain float32 program."""
    decoder = one_stage(request.param)
    path = tmp_path_factory.mktemp("plain") / "x.mlpackage"
    write_model(decoder, kl_recipe(request.param, None), CHANNELS[request.param], path)
    return request.param, decoder, operations(path)


def kl_recipe(variant: str, form: str | None) -> Recipe:
    return recipe(variant, SIZE, decoder="full", precision="float32", latents=form)


def operations(path: Path) -> Counter:
    return Counter(o.kind for o in read_package(path).function().ops if o.kind != "const")


@pytest.mark.parametrize("form", ["sampler", "packed"])
def test_converted_fold_decodes_as_the_pipeline_does(
    plain: tuple[str, KLDecoder, Counter], form: str, tmp_path: Path
) -> None:
    variant, decoder, before = plain
    path = tmp_path / "x.mlpackage"
    write_model(decoder, kl_recipe(variant, form), CHANNELS[variant], path)
    added = operations(path) - before
    assert added.total() - (before - operations(path)).total() <= MOST_OPS[variant, form], added
    latent, unpacked = given(variant, form)
    expected = decoder(to_vae(variant, unpacked, decoder)).numpy()
    program = read_package(path)
    assert all(len(v.type.shape) <= 5 for o in program.function().ops for v in o.outputs)
    got = make_runner(program, None, "nchw", "reference")(latent.numpy())
    assert compare(got, expected, peak=2).max_abs <= FP32_MAX_ABS


@pytest.mark.parametrize("variant", CHANNELS)
def test_tiny_artifact_of_packed_latents_from_conversion_to_decoding(
    variant: str, tmp_path: Path
) -> None:
    weights = load_weights(variant, "demo")
    made = recipe(variant, SIZE, latents="packed", layout="nhwc" if variant == "flux1" else "nchw")
    path = save(weights, made, tmp_path)
    assert "packed-latents" in path.name
    record = read_record(read_package(path))
    assert record is not None
    contract = record.contract
    assert (contract.channels, contract.scale) == (4 * CHANNELS[variant], 16)
    assert contract.tokens == (variant == "flux1")
    assert contract.space == f"fluxvae-demo-{variant}-packed"
    encoder = load_weights(variant, "demo", part="encoder")
    report = validate(path, weights, encoder=encoder, backend="reference")
    assert report.passed
    assert {c.kind for c in report.cases} == {"photo", "normal", "extreme"}
    decode_packed(variant, path, tmp_path)


def decode_packed(variant: str, path: Path, folder: Path) -> None:
    """What a pipeline hands on with ``output_type="latent"``, through the command's own path."""
    latent = torch.randn(1, CHANNELS[variant], 8, 12, generator=torch.Generator().manual_seed(5))
    packed = pack_flux1(latent) if variant == "flux1" else patchify_flux2(latent)
    forms = {"own": packed.contiguous()}
    if variant == "flux2":  # Flux2Pipeline's tokens are accepted too
        forms["tokens"] = packed.flatten(2).transpose(1, 2).contiguous()
    for name, values in forms.items():
        save_file({"x": values}, folder / f"{name}.safetensors")
        out = folder / f"{name}-out.safetensors"
        decode_file(path, folder / f"{name}.safetensors", out, backend="reference")
        from safetensors.numpy import load_file

        got = load_file(out)["x"].astype(np.float32)
        got = got.transpose(0, 3, 1, 2) if variant == "flux1" else got
        expected = build_decoder(load_weights(variant, "demo"))(latent).numpy()
        assert compare(got, expected).psnr_db > 60


def test_bundle_of_tokens_is_read_back(tmp_path: Path) -> None:
    weights = load_weights("flux1", "demo")
    (size,) = parse_sizes(SIZE)
    bundle = export_bundle(weights, Request(size, latents="packed"), tmp_path / "io")
    again = read_bundle(tmp_path / "io")
    assert again.manifest == bundle.manifest
    assert again.input.shape == (1, 24, 64)
    assert again.output.shape == (1, 3, 64, 96)
    assert again.manifest.latent_space == "fluxvae-demo-flux1-packed"
    tokens = torch.from_numpy(again.input.copy())
    expected = build_decoder(weights)(unpack_flux1(tokens, 64, 96))
    assert np.abs(expected.numpy() - again.output).max() < 1e-5


def latent_transform(variant: str, form: str, native: str) -> LatentTransform:
    tensors = {} if variant == "flux1" else dict(one_stage("flux2").state_dict())
    return LatentTransform(variant, form, native, tensors)


@pytest.mark.parametrize("variant", CHANNELS)
@pytest.mark.parametrize("form", ["sampler", "packed"])
def test_passage_is_the_pipelines_and_leads_both_ways(variant: str, form: str) -> None:
    transform = latent_transform(variant, form, "vae")
    latent, unpacked = given(variant, form)
    decoder = one_stage(variant)
    inside = transform.to_decoder(latent.numpy())
    assert np.abs(inside - to_vae(variant, unpacked, decoder).numpy()).max() < 1e-5
    assert np.abs(transform.from_decoder(inside) - latent.numpy()).max() < 1e-5


def test_pack_and_unpack_are_diffusers() -> None:
    latent = torch.randn(2, 16, 4, 6)
    assert np.array_equal(pack(latent.numpy()), patchify_flux2(latent).numpy())
    assert np.array_equal(unpack(pack(latent.numpy())), latent.numpy())


@pytest.mark.parametrize(
    ("variant", "decoder", "form", "space"),
    [
        ("flux1", "full", "vae", "flux1-vae"),
        ("flux1", "full", "sampler", "flux1-sampler"),
        ("flux1", "full", "packed", "flux1-sampler-packed"),
        ("flux1", "tiny", "vae", "flux1-vae"),
        ("flux1", "tiny", "packed", "flux1-sampler-packed"),
        ("flux2", "small", "sampler", "flux2-sampler-unpatchified"),
        ("flux2", "tiny", "packed", "flux2-sampler-packed"),
    ],
)
def test_contract_names_the_space_and_keeps_the_range(
    variant: str, decoder: str, form: str, space: str
) -> None:
    entry = find_decoder(variant, decoder)
    made = recipe(variant, "128", decoder=decoder, latents=form)
    contract = artifact_contract(made, entry.contract)
    assert contract.space == space
    assert contract.span == entry.contract.span
    sides = (8, 8) if form == "packed" else (16, 16)
    expected = (1, contract.channels, *sides)
    if contract.tokens:
        expected = (1, 64, 64)
    assert contract.shape(128, 128) == expected
    assert ("tokens" in contract.to_dict()) == contract.tokens


@pytest.mark.parametrize(
    ("fields", "sizes", "reason"),
    [
        ({"variant": "flux2", "latents": "vae"}, "64", "needs FLUX.2's batch-norm statistics"),
        ({"variant": "flux1", "latents": "packed"}, "72", "must be multiples of 16"),
        (
            {"variant": "flux2", "latents": "sampler", "decoder": "full"},
            "72",
            "must be multiples of 16",
        ),
        (
            {"variant": "flux1", "latents": "packed", "shapes": "enumerated"},
            "64,128",
            "cannot tell sizes apart",
        ),
        (
            {"variant": "flux2", "latents": "packed", "layout": "nhwc", "nhwc_model": True},
            "64",
            "has no NHWC graph",
        ),
    ],
)
def test_latents_that_cannot_be_taken_are_refused(
    fields: dict[str, object], sizes: str, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        Recipe(sizes=parse_sizes(sizes), **fields)  # type: ignore[arg-type]


def test_the_decoders_own_form_is_no_choice() -> None:
    assert recipe("flux1", latents="sampler") == recipe("flux1")
    assert recipe("flux1", decoder="full", latents="vae") == recipe("flux1", decoder="full")


def takes(latents: str, *sides: tuple[int, int]) -> LatentInput:
    """What a full decoder of FLUX.1 takes, in maps of these sides."""
    own = KL_CATALOG["flux1", "full"].contract
    contract = artifact_contract(recipe("flux1", decoder="full", latents=latents), own)
    return LatentInput(contract, "flux1", latents, sides=sides)


def read_tokens(folder: Path, values: Tensor, *sides: tuple[int, int]) -> tuple[Latent, ...]:
    save_file({"x": values}, folder / "x.safetensors")
    return read_latents(folder / "x.safetensors", takes("packed", *sides)).latents


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((1, 24, 16), r"expected \(1, H/16 \* W/16, 64\).* gives 64 numbers a token, not 16"),
        ((1, 16, 8, 12), "These look unpacked: convert with --latents sampler or vae"),
        ((1, 25, 64), "has 25 tokens; expected 24"),
    ],
)
def test_tokens_of_another_kind_are_refused(
    tmp_path: Path, shape: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(LatentError, match=reason):
        read_tokens(tmp_path, torch.zeros(shape), (4, 6))


def test_tokens_that_fit_two_sizes_need_one_named(tmp_path: Path) -> None:
    with pytest.raises(LatentError, match="could be 64x96 or 96x64: give --size"):
        read_tokens(tmp_path, torch.zeros(1, 24, 64), (4, 6), (6, 4))
    (latent,) = read_tokens(tmp_path, torch.zeros(1, 24, 64), (6, 4))
    assert latent.values.shape == (1, 64, 6, 4)


def test_packed_latents_to_an_unpacked_decoder_say_what_to_do(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1, 24, 64)}, tmp_path / "x.safetensors")
    with pytest.raises(LatentError, match=r"These look packed.*convert with --latents packed"):
        read_latents(tmp_path / "x.safetensors", takes("vae"))
