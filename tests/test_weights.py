"""Finding, reading, checking and digesting weights, and what a user is told when that fails."""

import hashlib
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor

from fluxvae.errors import UsageError, WeightsError
from fluxvae.networks.catalog import CATALOG
from fluxvae.networks.describe import describe_file
from fluxvae.networks.locate import PARTS
from fluxvae.networks.weights import Weights, find_encoder, load_weights, tensor_digest
from tests.checkpoint_files import KINDS, STYLES, in_style, write

VARIANTS = sorted(CATALOG)


@pytest.fixture(scope="module")
def decoder() -> Weights:
    return load_weights("flux1", "random")


@pytest.fixture(scope="module")
def encoder() -> Weights:
    return load_weights("flux1", "random", part="encoder")


@pytest.fixture
def tensors(decoder: Weights) -> dict[str, Tensor]:
    """A flux1 decoder's tensors, to be spoiled."""
    return {name: tensor.clone() for name, tensor in decoder.tensors.items()}


def refusal(path: Path, variant: str = "flux1", part: str = "decoder") -> str:
    """The one line a user gets; it must start with what they gave."""
    with pytest.raises(WeightsError) as caught:
        load_weights(variant, str(path), part=part)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(path))
    return message


# --- digest -----------------------------------------------------------------------------------


def test_digest_is_sha256_of_sorted_names_shapes_and_little_endian_floats() -> None:
    tensors = {"b": torch.tensor([[1.0, -2.5]]), "a": torch.tensor([0.1], dtype=torch.float64)}
    text = b"a 1\n" + struct.pack("<f", 0.1) + b"b 1x2\n" + struct.pack("<ff", 1.0, -2.5)
    assert tensor_digest(tensors) == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [*KINDS, ".pt", ".bin"])
@pytest.mark.parametrize("style", STYLES)
def test_same_values_have_the_same_digest_in_every_container_style_and_dtype(
    tensors: dict[str, Tensor], decoder: Weights, tmp_path: Path, style: str, kind: str, dtype
) -> None:
    # Values that every one of the dtypes holds exactly.
    values = {name: t.bfloat16().half().float() for name, t in tensors.items()}
    names = dict(zip(in_style(style, decoder), values, strict=True))
    path = write(
        tmp_path / f"w{kind}", {name: values[key].to(dtype) for name, key in names.items()}
    )
    loaded = load_weights("flux1", str(path))
    assert loaded.digest == tensor_digest(values)
    assert {t.dtype for t in loaded.tensors.values()} == {torch.float32}
    assert all(torch.equal(loaded.tensors[name], values[name]) for name in values)


@pytest.mark.parametrize("change", ["value", "shape", "name"])
def test_digest_changes_with_any_value_shape_or_name(
    tensors: dict[str, Tensor], decoder: Weights, change: str
) -> None:
    if change == "value":
        tensors["18.conv.2.bias"][7] += 1e-6
    elif change == "shape":
        tensors["1.bias"] = tensors["1.bias"].reshape(8, 8)
    else:
        tensors["1.biax"] = tensors.pop("1.bias")
    assert tensor_digest(tensors) != decoder.digest


# --- files and folders ------------------------------------------------------------------------


def test_key_style_of_diffusers_is_that_of_its_own_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(AutoencoderTiny(latent_channels=16).state_dict(), path)
    for part in PARTS:
        assert load_weights("flux1", str(path), part=part).part == part


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_file_may_hold_both_parts(variant: str, tmp_path: Path) -> None:
    both = [load_weights(variant, "random:2", part=part) for part in PARTS]
    for style in ("diffusers", "taesd prefixed"):
        path = write(tmp_path / "both.safetensors", in_style(style, *both))
        for weights in both:
            assert load_weights(variant, str(path), part=weights.part).digest == weights.digest


def test_source_names_the_file_without_its_folder(decoder: Weights, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.safetensors", dict(decoder.tensors))
    source = load_weights("flux1", str(path)).source
    assert (source.kind, source.name) == ("file", "mine.safetensors")
    assert source.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("wrap", [lambda d: {"state_dict": d}, lambda d: d])
@pytest.mark.parametrize("zipped", [True, False])
def test_pth_may_be_wrapped_and_of_the_old_format(
    decoder: Weights, tmp_path: Path, wrap: Callable[[dict], dict], zipped: bool
) -> None:
    parameters = {name: torch.nn.Parameter(t) for name, t in decoder.tensors.items()}
    path = tmp_path / "w.pth"
    torch.save(wrap(parameters), path, _use_new_zipfile_serialization=zipped)
    loaded = load_weights("flux1", str(path))
    assert loaded.digest == decoder.digest
    assert not any(t.requires_grad for t in loaded.tensors.values())


def test_folder_gives_the_one_file_that_fits_variant_and_part(shared: Path) -> None:
    for variant, suffix in (("flux1", "safetensors"), ("flux2", "pth")):
        for part in PARTS:
            weights = load_weights(variant, str(shared / "weights"), part=part)
            name = f"{variant.replace('flux', 'taef')}_{part}.{suffix}"
            assert weights.source.name == name


def test_folder_without_candidates_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    assert "has no .safetensors, .sft, .pth, .pt, .bin, .ckpt file in it" in refusal(tmp_path)


def test_folder_with_several_fitting_files_names_them(decoder: Weights, tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.pth"):
        write(tmp_path / name, dict(decoder.tensors))
    assert "several files fit (a.safetensors, b.pth)" in refusal(tmp_path)


def test_folder_where_nothing_fits_says_why_of_each_file(encoder: Weights, tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", dict(encoder.tensors))
    (tmp_path / "b.bin").write_bytes(b"")
    message = refusal(tmp_path)
    assert "no flux1 decoder in the folder" in message
    assert "a.safetensors: holds the encoder" in message
    assert "b.bin: is empty" in message


def test_path_that_does_not_exist_is_named_with_the_choices(tmp_path: Path) -> None:
    message = refusal(tmp_path / "gone.safetensors")
    assert "does not exist" in message
    assert "'demo'" in message


# --- damaged and foreign files ----------------------------------------------------------------


@pytest.mark.parametrize("kept", [4, 9, 2000, 0.5, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_truncated_file_is_refused_with_its_name(
    tensors: dict[str, Tensor], tmp_path: Path, kind: str, kept: float
) -> None:
    path = write(tmp_path / f"cut{kind}", tensors)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept) if kept == 0.5 else int(kept)])
    message = refusal(path)
    assert "download it again" in message


class Trap:
    """Unpickled by an unrestricted reader, it makes a folder."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.sprung),)


@pytest.mark.parametrize("container", ["zip", "nested", "pickle 2", "pickle 4"])
def test_pickle_with_code_is_refused_and_its_code_does_not_run(
    tensors: dict[str, Tensor], tmp_path: Path, container: str
) -> None:
    sprung = tmp_path / "sprung"
    path = tmp_path / "evil.pth"
    trapped = {**tensors, "1.weight": Trap(sprung)}
    if container.startswith("pickle"):
        path.write_bytes(pickle.dumps(trapped["1.weight"], int(container[-1])))
    else:
        torch.save({"state_dict": trapped} if container == "nested" else trapped, path)
    message = refusal(path)
    assert "refused, nothing of it was run" in message
    if container != "pickle 4":  # which torch's reader gives up before it reaches the name
        assert f"is a pickle with code in it ({os.mkdir.__module__}.mkdir)" in message
    assert describe_file(path).problems == (message,)
    assert not sprung.exists()
    # The trap is live: an unrestricted reader springs it.
    if container.startswith("pickle"):
        pickle.loads(path.read_bytes())  # noqa: S301
    else:
        torch.load(path, weights_only=False)
    assert sprung.exists()


@pytest.mark.parametrize("end", [b"\n.", b"", b"\xc3\xa9\n."], ids=["whole", "no-end", "not-ascii"])
def test_pickle_with_an_endless_name_is_refused_at_once(tmp_path: Path, end: bytes) -> None:
    """torch's own reader takes minutes over its message about such a name."""
    path = tmp_path / "x.pth"
    path.write_bytes(b"\x80\x02ctorch._utils\n" + bytes(3_000_000) + end)
    message = refusal(path)
    assert "code in it, or damage" in message
    assert len(message) < 700


def test_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    message = refusal(path)
    assert "torch.nn.modules.linear.Linear" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1.0, 2.0], "holds a list"),
        ({"epoch": 3, "loss": 0.5}, "no tensors in it, but epoch, loss"),
    ],
)
def test_pth_of_other_things_is_refused(tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    assert words in refusal(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9848636\n",
            "is a Git LFS pointer, not the weights",
        ),
        (b"<!doctype html>\n<html>", "is a web page"),
        (b"once upon a time", "download it again"),
    ],
)
def test_file_that_is_no_checkpoint_says_what_it_is(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "taef1.safetensors"
    path.write_bytes(content)
    assert words in refusal(path)


def test_full_kl_autoencoder_is_refused_by_name(tmp_path: Path) -> None:
    kl = AutoencoderKL(block_out_channels=(32,), latent_channels=16)
    path = tmp_path / "vae.safetensors"
    save_file(kl.state_dict(), path)
    assert "full KL autoencoder (FLUX.1 VAE), not of TAEF1" in refusal(path)
    assert "use --variant flux1 --decoder full" in refusal(path)
    # Black Forest Labs' own names for the same thing.
    names = ["decoder.up.3.block.0.conv1.weight", "decoder.mid.attn_1.q.weight"]
    save_file({name: torch.zeros(1) for name in names}, path)
    assert "the weights of a full KL autoencoder" in refusal(path)


def test_file_of_another_model_shows_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({f"text_model.layer{i}.weight": torch.zeros(1) for i in range(5)}, path)
    message = refusal(path)
    assert "no FLUX VAE's weights in it" in message
    assert "text_model.layer0.weight" in message
    assert "and 2 more" in message


# --- keys, shapes and values ------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_missing_and_extra_keys_are_counted_and_named(
    decoder: Weights, tmp_path: Path, style: str
) -> None:
    tensors = in_style(style, decoder)
    for name in [name for name in tensors if ".conv.4." in name][:5]:
        del tensors[name]
    extra = {"taesd": "20.bias", "taesd prefixed": "decoder.20.bias"}.get(style, "decoder.x.bias")
    tensors[extra] = torch.zeros(1)
    message = refusal(write(tmp_path / "w.safetensors", tensors))
    missing = "3.conv.4.weight, 3.conv.4.bias, 4.conv.4.weight and 2 more"
    assert f"missing keys (5): {missing}" in message
    assert f"extra keys (1): {extra}" in message


def test_wrong_shapes_are_named_with_both_shapes(
    tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors["8.conv.2.weight"] = torch.zeros(64, 32, 3, 3)
    message = refusal(write(tmp_path / "w.safetensors", tensors))
    assert "wrong shapes (1): 8.conv.2.weight is 64x32x3x3 instead of 64x64x3x3" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_infinity_are_refused_with_the_tensor_s_name(
    tensors: dict[str, Tensor], tmp_path: Path, kind: str, value: float
) -> None:
    tensors["12.weight"][0, 0, 0, :2] = value
    message = refusal(write(tmp_path / f"w{kind}", tensors))
    assert "12.weight holds NaN or infinity in float32 (values: 2)" in message


def test_float64_beyond_float32_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    wide = {name: t.double() for name, t in tensors.items()}
    wide["1.bias"][0] = 1e300
    assert "1.bias holds NaN or infinity" in refusal(write(tmp_path / "w.safetensors", wide))


def test_integers_are_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    tensors["1.bias"] = tensors["1.bias"].to(torch.int8)
    message = refusal(write(tmp_path / "w.safetensors", tensors))
    assert "1.bias is int8; expected plain floating-point weights" in message


@pytest.mark.parametrize(
    ("given", "asked", "words"),
    [
        (
            "flux1",
            "flux2",
            "these are TAEF1's (16 latent channels), not flux2's: use --variant flux1",
        ),
        (
            "flux2",
            "flux1",
            "these are TAEF2's (32 latent channels), not flux1's: use --variant flux2",
        ),
    ],
)
@pytest.mark.parametrize("part", PARTS)
def test_weights_of_the_other_variant_say_which_to_ask_for(
    tmp_path: Path, given: str, asked: str, words: str, part: str
) -> None:
    weights = load_weights(given, "random", part=part)
    path = write(tmp_path / "w.safetensors", dict(weights.tensors))
    assert words in refusal(path, asked, part)


def test_decoder_of_another_family_is_refused_by_its_latent_channels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "taesd.safetensors"
    save_file(AutoencoderTiny(latent_channels=4).state_dict(), path)
    assert "1.weight is 64x4x3x3 instead of 64x16x3x3" in refusal(path)


@pytest.mark.parametrize("style", STYLES)
def test_encoder_in_place_of_a_decoder_and_back_is_said(
    decoder: Weights, encoder: Weights, tmp_path: Path, style: str
) -> None:
    path = write(tmp_path / "w.safetensors", in_style(style, encoder))
    assert "holds the encoder; give the file of the decoder" in refusal(path)
    path = write(tmp_path / "w.safetensors", in_style(style, decoder))
    assert "holds the decoder; give the file of the encoder" in refusal(path, part="encoder")


def test_unknown_variant_and_part_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="known: flux1, flux2"):
        load_weights("sd3", "random")
    with pytest.raises(UsageError, match="known: decoder, encoder"):
        load_weights("flux1", "random", part="middle")


# --- demo and random --------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_demo_weights_load_and_say_they_are_not_flux(variant: str, part: str) -> None:
    weights = load_weights(variant, "demo", part=part)
    assert (weights.source.kind, weights.source.name) == ("demo", "demo")
    assert weights.contract.space == f"fluxvae-demo-{variant}"
    assert "NOT FLUX's" in weights.contract.wants


def test_demo_file_given_as_a_path_keeps_its_own_latent_space(tmp_path: Path) -> None:
    import fluxvae.demo

    name = "flux1_demo_decoder.safetensors"
    copy = tmp_path / "renamed.safetensors"
    copy.write_bytes((Path(fluxvae.demo.__path__[0]) / name).read_bytes())
    weights = load_weights("flux1", str(copy))
    assert weights.source.kind == "file"
    assert weights.contract.space == "fluxvae-demo-flux1"


# Recorded once on Linux x86-64; every machine and every numpy must give the same.
RANDOM_DIGESTS = {
    ("flux1", "decoder"): "8c2bdcb710b94a1bd51af46e7da54133ee13362fe8dcb347a60de6a65f6c6f9a",
    ("flux1", "encoder"): "35bdb7d7cdff5078d1b4c16215da9ed7e6941bc529d968eec8338d3efc4aa515",
    ("flux2", "decoder"): "7ac4b77fec501383c7b790e798f49ef0427b57ebf31493b5cbfbc196e7d1a82f",
    ("flux2", "encoder"): "d8d349572189a0bf71eae87fcff0b858d86eb6fdc5ca815636d916b583ceae76",
}


@pytest.mark.parametrize(("variant", "part"), sorted(RANDOM_DIGESTS))
def test_random_weights_are_the_same_on_every_machine(variant: str, part: str) -> None:
    weights = load_weights(variant, "random", part=part)
    assert weights.digest == RANDOM_DIGESTS[variant, part]
    assert weights.source.name == "random:0"
    assert weights.source.file_sha256 is None
    assert weights.contract.space == "random-weights"


def test_random_seeds_differ_and_parts_of_a_seed_differ() -> None:
    one, again, other = (load_weights("flux1", f"random:{seed}") for seed in (1, 1, 2))
    assert one.digest == again.digest != other.digest
    encoder = load_weights("flux1", "random:1", part="encoder")
    assert not torch.equal(one.tensors["3.conv.0.weight"], encoder.tensors["3.conv.0.weight"])


def test_random_weights_have_no_zero_bias() -> None:
    weights = load_weights("flux2", "random")
    biases = [t for name, t in weights.tensors.items() if name.endswith("bias")]
    assert all(bias.abs().min() > 0 for bias in biases)


@pytest.mark.parametrize("spec", ["random:", "random:x", "random:-1", "random:1.5", "random:²"])
def test_bad_seed_is_a_usage_error(spec: str) -> None:
    with pytest.raises(UsageError, match="the seed must be a whole number"):
        load_weights("flux1", spec)


# --- the encoder that belongs -----------------------------------------------------------------


@pytest.mark.parametrize("spec", ["demo", "random:4"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_demo_and_random_bring_their_own_encoder(variant: str, spec: str) -> None:
    found = find_encoder(variant, spec)
    assert found is not None
    assert found.digest == load_weights(variant, spec, part="encoder").digest


def test_encoder_is_found_in_the_same_file_the_sibling_or_the_folder(
    decoder: Weights, encoder: Weights, tmp_path: Path
) -> None:
    both = write(tmp_path / "both.safetensors", in_style("diffusers", decoder, encoder))
    folder = tmp_path / "pair"
    folder.mkdir()
    alone = write(folder / "my_decoder.safetensors", dict(decoder.tensors))
    write(folder / "my_encoder.safetensors", dict(encoder.tensors))
    for spec in (both, alone, folder):
        found = find_encoder("flux1", str(spec))
        assert found is not None
        assert found.digest == encoder.digest


def test_no_encoder_is_none_and_a_broken_one_is_an_error(decoder: Weights, tmp_path: Path) -> None:
    path = write(tmp_path / "my_decoder.safetensors", dict(decoder.tensors))
    assert find_encoder("flux1", str(path)) is None
    assert find_encoder("flux1", str(tmp_path)) is None
    unnamed = write(tmp_path / "weights.safetensors", dict(decoder.tensors))
    assert find_encoder("flux1", str(unnamed)) is None
    (tmp_path / "my_encoder.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"my_encoder.safetensors: is empty"):
        find_encoder("flux1", str(path))


# --- describe ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fits", "dtypes"),
    [
        ("taef1_decoder.safetensors", ("flux1", "tiny", "decoder"), {"bfloat16": 67}),
        ("taef1_encoder.safetensors", ("flux1", "tiny", "encoder"), {"bfloat16": 67}),
        ("taef2_decoder.pth", ("flux2", "tiny", "decoder"), {"float16": 79}),
        ("taef2_encoder.pth", ("flux2", "tiny", "encoder"), {"float16": 79}),
    ],
)
def test_published_files_are_described_and_known(
    shared: Path, name: str, fits: tuple[str, str, str], dtypes: dict[str, int]
) -> None:
    report = describe_file(shared / "weights" / name)
    assert report.fits == (fits,)
    assert report.style == "taesd Sequential"
    assert report.format == ("pytorch" if name.endswith("pth") else "safetensors")
    assert report.dtypes == dtypes
    assert report.known == f"{name} of madebyollin/taesd"
    assert report.pinned is None
    assert report.problems == ()
    assert report.sha256 in (shared / "weights" / "README.md").read_text()


def test_description_counts_parameters_and_shows_metadata(
    decoder: Weights, encoder: Weights, tmp_path: Path
) -> None:
    path = write(tmp_path / "both.safetensors", in_style("diffusers", decoder, encoder))
    report = describe_file(path)
    assert set(report.fits) == {("flux1", "tiny", "decoder"), ("flux1", "tiny", "encoder")}
    assert report.style == "diffusers AutoencoderTiny"
    # diffusers' own count of the same architecture.
    theirs = AutoencoderTiny(latent_channels=16)
    assert report.parameters == sum(p.numel() for p in theirs.parameters())
    assert report.tensors == len(theirs.state_dict())
    assert report.metadata == {"format": "pt"}
    assert report.size == path.stat().st_size
    assert report.known is None


def test_description_says_what_is_wrong_instead_of_raising(
    tensors: dict[str, Tensor], encoder: Weights, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    del tensors["1.bias"]
    assert describe_file(write(path, tensors)).fits == ()
    assert "missing keys (1): 1.bias" in describe_file(path).problems[0]

    spoiled = {name: t.clone() for name, t in encoder.tensors.items()}
    spoiled["0.bias"][0] = float("nan")
    report = describe_file(write(path, spoiled))
    assert report.fits == (("flux1", "tiny", "encoder"),)
    assert "0.bias holds NaN" in report.problems[0]

    save_file({"down_blocks.0.resnets.0.conv1.weight": torch.zeros(1)}, path)
    assert "not a flux1 encoder" in describe_file(path).problems[0]
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "Git LFS pointer" in describe_file(path).problems[0]
    assert describe_file(path).format is None


def test_description_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        describe_file(tmp_path / "gone.safetensors")
    with pytest.raises(WeightsError, match="is a folder"):
        describe_file(tmp_path)
