"""Checkpoints as people have them: one VAE among other tensors, in several files, in variants."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fluxvae.catalog import find_decoder
from fluxvae.errors import WeightsError
from fluxvae.fp16_safety import probe_latents
from fluxvae.latent_spaces import passage
from fluxvae.models.build import build_decoder
from fluxvae.recipes import Recipe, parse_sizes
from fluxvae.rewrite.latents import with_latents
from fluxvae.weights import Weights, describe_file, find_encoder, load_entry, load_weights
from fluxvae.weights.keys import entry_shapes
from fluxvae.weights.sharded import checkpoint_sha256
from tests.checkpoint_files import in_style, write
from tests.kl import bfl_names, diffusers_names, narrow_entry, narrow_weights

PREFIXES = {
    "vae.": "bfl",
    "first_stage_model.": "bfl",
    "model.first_stage_model.": "diffusers",
    "module.": "diffusers",
    "my.own._orig_mod.": "diffusers",
}
# Names of ComfyUI's all-in-one files; both text encoders and transformers have keys like a VAE's.
OTHERS = {
    "model.diffusion_model.double_blocks.0.img_mlp.0.weight": torch.zeros(2, 2),
    "model.diffusion_model.double_blocks.0.img_mlp.2.weight": torch.zeros(2, 2),
    "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(1),
    "text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight": torch.ones(1),
    "text_encoders.clip_l.logit_scale": torch.ones(1, dtype=torch.int64),
    "encoder.block.0.layer.1.DenseReluDense.wi_0.weight": torch.ones(1, dtype=torch.float8_e4m3fn),
    "decoder.layers.0.self_attn.q_proj.weight": torch.ones(1),
}
ENTRY = narrow_entry("flux2")


@pytest.fixture(scope="module")
def parts() -> list[Weights]:
    return [narrow_weights("flux2", part=part) for part in ("decoder", "encoder")]


@pytest.fixture(scope="module")
def tiny() -> list[Weights]:
    return [load_weights("flux1", "random:1", part=part) for part in ("decoder", "encoder")]


@pytest.fixture(scope="module")
def named(parts: list[Weights]) -> dict[str, Tensor]:
    return diffusers_names(*parts)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor.clone() for name, tensor in tensors.items()}


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        load_entry(ENTRY, str(path), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- under a prefix ---------------------------------------------------------------------------


@pytest.mark.parametrize(("prefix", "style"), PREFIXES.items())
def test_a_vae_under_any_prefix_among_other_tensors_is_found(
    tmp_path: Path, parts: list[Weights], named: dict[str, Tensor], style: str, prefix: str
) -> None:
    own = named if style == "diffusers" else bfl_names(named)
    path = write(tmp_path / "aio.safetensors", {**under(prefix, own), **OTHERS})
    for weights in parts:
        loaded = load_entry(ENTRY, str(path), part=weights.part)
        assert loaded.digest == weights.digest
        (note,) = loaded.notes
        assert f"took the {weights.part} under {prefix!r}; passed over 7 other entries" in note


@pytest.mark.parametrize("style", ["taesd prefixed", "diffusers"])
def test_a_tiny_autoencoder_under_a_prefix_is_found(
    tmp_path: Path, tiny: list[Weights], style: str
) -> None:
    path = write(
        tmp_path / "aio.safetensors", {**under("taesd.vae.", in_style(style, *tiny)), **OTHERS}
    )
    for weights in tiny:
        loaded = load_weights("flux1", str(path), part=weights.part)
        assert loaded.digest == weights.digest
        assert "under 'taesd.vae.'" in loaded.notes[0]


def test_a_text_encoder_is_not_a_vae_s_encoder(
    tmp_path: Path, parts: list[Weights], tiny: list[Weights]
) -> None:
    path = write(tmp_path / "aio.safetensors", dict(OTHERS))
    assert "no FLUX VAE's weights in it" in refusal(path)
    only = diffusers_names(parts[0])
    path = write(tmp_path / "decoder.safetensors", {**under("vae.", only), **OTHERS})
    assert "holds the decoder; give the file of the encoder" in refusal(path, part="encoder")
    path = write(
        tmp_path / "tiny.safetensors",
        {**in_style("diffusers", tiny[0]), "encoder.block.0.layer.0.x.weight": torch.ones(1)},
    )
    assert find_encoder("flux1", str(path)) is None


def test_the_same_part_twice_is_refused_with_both_prefixes(
    tmp_path: Path, named: dict[str, Tensor]
) -> None:
    both = {**under("vae.", named), **under("vae_ema.", named)}
    message = refusal(write(tmp_path / "ema.safetensors", both))
    assert "holds the flux2 decoder 2 times, under 'vae.' and under 'vae_ema.'" in message
    # An incomplete second one is passed over.
    del both["vae_ema.decoder.conv_in.bias"]
    loaded = load_entry(ENTRY, str(write(tmp_path / "most.safetensors", both)))
    assert f"passed over {len(named) - 1} other entries (vae_ema.)" in loaded.notes[0]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("vae.decoder.conv_in.scale_weight", "extra keys (1): vae.decoder.conv_in.scale_weight"),
        ("vae.decoder.up_blocks.3.resnets.3.conv1.weight", "extra keys (1)"),
        ("vae.bn.weight", "extra keys (1): vae.bn.weight"),
    ],
)
def test_extra_keys_of_the_part_itself_are_refused_under_a_prefix_too(
    tmp_path: Path, named: dict[str, Tensor], extra: str, words: str
) -> None:
    tensors = {**under("vae.", named), extra: torch.ones(1), **OTHERS}
    assert words in refusal(write(tmp_path / "aio.safetensors", tensors))


def test_missing_keys_and_wrong_shapes_are_named_under_a_prefix_too(
    tmp_path: Path, named: dict[str, Tensor]
) -> None:
    tensors = {**under("vae.", named), **OTHERS}
    del tensors["vae.decoder.conv_out.bias"]
    tensors["vae.decoder.conv_in.bias"] = torch.zeros(3)
    message = refusal(write(tmp_path / "aio.safetensors", tensors))
    assert "missing keys (1): conv_out.bias; wrong shapes (1): conv_in.bias is 3" in message


def test_values_of_other_tensors_are_not_read(
    tmp_path: Path, named: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fluxvae.weights.files as files

    read: list[str] = []
    path = write(tmp_path / "aio.safetensors", {**under("vae.", named), **OTHERS})
    true = files.safe_open

    class Watched:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.file = true(*args, **kwargs)

        def __enter__(self) -> "Watched":
            self.file.__enter__()
            return self

        def __exit__(self, *args: Any) -> None:
            self.file.__exit__(*args)

        def get_tensor(self, name: str) -> Tensor:
            read.append(name)
            return self.file.get_tensor(name)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    monkeypatch.setattr(files, "safe_open", Watched)
    load_entry(ENTRY, str(path))
    assert read
    assert all(
        name.startswith(("vae.decoder.", "vae.bn.", "vae.post_quant_conv.")) for name in read
    )


@pytest.mark.parametrize("length", [0x3C20, 0x3C0A])  # begin with " <" and a line end with "<"
def test_a_header_s_length_is_not_a_web_page(
    tmp_path: Path, named: dict[str, Tensor], parts: list[Weights], length: int
) -> None:
    path = write(tmp_path / "w.safetensors", diffusers_names(parts[0]))
    whole = path.read_bytes()
    own = int.from_bytes(whole[:8], "little")
    padded = whole[8 : 8 + own] + b" " * (length - own)  # JSON allows spaces at its end
    path.write_bytes(length.to_bytes(8, "little") + padded + whole[8 + own :])
    assert load_entry(ENTRY, str(path)).digest == parts[0].digest


# --- pickles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["state_dict", "model", "vae", "ema"])
def test_a_nested_pickle_gives_its_one_vae_and_says_what_else_it_held(
    tmp_path: Path, parts: list[Weights], named: dict[str, Tensor], key: str
) -> None:
    path = tmp_path / "last.ckpt"
    state = {0: {"exp_avg": torch.zeros(2)}}
    torch.save({key: named, "epoch": 3, "optimizer": {"state": state, "lr": 1e-4}}, path)
    loaded = load_entry(ENTRY, str(path))
    assert loaded.digest == parts[0].digest
    assert f"under '{key}.'; passed over 3 other entries" in loaded.notes[0]


def test_a_pickle_with_a_copy_is_refused_with_both_names(
    tmp_path: Path, named: dict[str, Tensor]
) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"model": named, "ema": dict(named)}, path)
    assert "2 times, under 'ema.' and under 'model.'" in refusal(path)


def test_a_dict_that_holds_itself_is_read_once(tmp_path: Path, parts: list[Weights]) -> None:
    path = tmp_path / "w.ckpt"
    endless: dict[str, Any] = {**diffusers_names(*parts), "a": {}}
    endless["again"] = endless["a"]["again"] = endless
    torch.save(endless, path)
    assert load_entry(ENTRY, str(path)).digest == parts[0].digest


# --- several files ----------------------------------------------------------------------------


def sharded(folder: Path, tensors: dict[str, Tensor], suffix: str = "safetensors") -> Path:
    """As ``save_pretrained(max_shard_size=...)`` writes it, in two files."""
    stem = "diffusion_pytorch_model" if suffix == "safetensors" else "pytorch_model"
    names, where = sorted(tensors), {}
    for number, own in enumerate((names[::2], names[1::2]), 1):
        file = f"{stem}-{number:05}-of-00002.{suffix}"
        write(folder / file, {name: tensors[name].clone() for name in own})
        where |= dict.fromkeys(own, file)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_sharded_weights_are_read_by_their_index_or_folder(
    tmp_path: Path, parts: list[Weights], named: dict[str, Tensor], suffix: str
) -> None:
    index = sharded(tmp_path, named, suffix)
    for weights, spec in zip(parts, (index, tmp_path), strict=True):
        loaded = load_entry(ENTRY, str(spec), part=weights.part)
        assert loaded.digest == weights.digest
    assert loaded.source.name == index.name
    shards = sorted(tmp_path.glob(f"*.{suffix}"))
    lines = "".join(f"{checkpoint_sha256(shard)}  {shard.name}\n" for shard in shards)
    listing = tmp_path / "listing"
    listing.write_text(lines)
    assert loaded.source.file_sha256 == checkpoint_sha256(listing)
    report = describe_file(index)
    assert (report.tensors, report.sha256) == (len(named), loaded.source.file_sha256)
    assert report.size == sum(shard.stat().st_size for shard in shards)


def test_sharded_weights_in_the_hub_s_cache_are_read_through_its_links(
    tmp_path: Path, parts: list[Weights], named: dict[str, Tensor]
) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    sharded(blobs, named)
    for number, file in enumerate(sorted(blobs.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    assert load_entry(ENTRY, str(snapshot)).digest == parts[0].digest


def test_a_broken_index_says_what_is_wrong(tmp_path: Path, named: dict[str, Tensor]) -> None:
    index = sharded(tmp_path, named)
    content = json.loads(index.read_text())
    one, two = sorted(tmp_path.glob("*.safetensors"))
    some = content["weight_map"]

    def said(**changed: object) -> str:
        index.write_text(json.dumps({**content, **changed}))
        message = refusal(index)
        assert describe_file(index).problems == (message,)
        return message

    outside = tmp_path.parent / "outside.safetensors"
    outside.write_bytes(one.read_bytes())
    for file in ("../outside.safetensors", str(outside), "..\\x", "", 7):
        first = {next(iter(some)): file}
        assert "expected a file beside the index" in said(weight_map={**some, **first})
    assert "no weight_map" in said(weight_map={})
    assert "no weight_map" in said(weight_map=[1])
    wrong = dict.fromkeys(some, one.name)
    assert f"is in {one.name}, which does not hold it" in said(weight_map=wrong)
    less = {n: f for n, f in some.items() if n != "decoder.conv_in.bias"}
    assert "missing keys (1): conv_in.bias" in refusal_of(index, {**content, "weight_map": less})

    index.write_text(json.dumps(content))
    two.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert f"{two.name}: is a Git LFS pointer, not the weights" in refusal(index)
    two.unlink()
    assert f"lacks {two.name} beside it" in refusal(index)
    index.write_text("{")
    assert "is not JSON" in refusal(index)
    index.unlink()
    assert "is one of several files: download their *.index.json too" in refusal(tmp_path)


def refusal_of(index: Path, content: object) -> str:
    index.write_text(json.dumps(content))
    return refusal(index)


def test_a_key_that_no_index_lists_is_passed_over_and_said(
    tmp_path: Path, named: dict[str, Tensor]
) -> None:
    index = sharded(tmp_path, {**named, "x": torch.ones(1)})
    content = json.loads(index.read_text())
    del content["weight_map"]["x"]
    index.write_text(json.dumps(content))
    assert load_entry(ENTRY, str(index)).notes == (
        f"{index.name}: took the decoder; passed over 1 other entries (x)",
    )


# --- folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["model.sft"], "model.sft"),
        (["model.CKPT"], "model.CKPT"),
        (["x.safetensors", "x.fp16.safetensors", "x.bin", "x.fp16.bin"], "x.safetensors"),
        (["x.bin", "x.fp16.safetensors"], "x.bin"),
        (["x.fp16.safetensors", "x.fp16.bin"], "x.fp16.safetensors"),
        (["x.safetensors", "._x.safetensors"], "x.safetensors"),
    ],
)
def test_a_folder_s_file_is_chosen_as_diffusers_does(
    tmp_path: Path, parts: list[Weights], named: dict[str, Tensor], names: list[str], taken: str
) -> None:
    folder = tmp_path / "vae"
    folder.mkdir()
    for name in names:
        if name.startswith("."):
            (folder / name).write_bytes(b"\0\5\x16\7")  # AppleDouble
        elif name.endswith((".safetensors", ".sft")):
            save_file({name: t.contiguous() for name, t in named.items()}, folder / name)
        else:
            torch.save(named, folder / name)
    (tmp_path / "flux.safetensors").write_bytes(b"")  # a pipeline's other file
    others = [name for name in sorted(names) if name != taken and name[0] != "."]
    loaded = load_entry(ENTRY, str(tmp_path))
    assert (loaded.source.name, loaded.digest) == (taken, parts[0].digest)
    said = (f"took {taken}; passed over {', '.join(others)}",) if others else ()
    assert loaded.notes == said


def test_two_files_of_which_none_is_the_plain_one_are_refused(
    tmp_path: Path, named: dict[str, Tensor]
) -> None:
    for name in ("x.bf16.safetensors", "x.fp16.safetensors"):
        write(tmp_path / name, dict(named))
    assert "several files fit (x.bf16.safetensors, x.fp16.safetensors)" in refusal(tmp_path)


# --- without batch-norm statistics --------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, parts: list[Weights]) -> Weights:
    path = tmp_path_factory.mktemp("bare") / "decoder.safetensors"
    own = bfl_names(diffusers_names(parts[0]))
    alone = {n.removeprefix("decoder."): t for n, t in own.items() if not n.startswith("bn.")}
    return load_entry(ENTRY, str(write(path, alone)))


def test_a_decoder_without_statistics_decodes_alike(bare: Weights, parts: list[Weights]) -> None:
    assert bare.tensors.keys() | {"bn.running_mean", "bn.running_var"} == parts[0].tensors.keys()
    assert bare.digest != parts[0].digest
    latent = torch.ones(1, 32, 8, 8)
    with torch.no_grad():
        images = [build_decoder(weights)(latent) for weights in (bare, parts[0])]
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
        lambda: passage(recipe, bare).outwards(latent),
    ):
        with pytest.raises(WeightsError, match=r"no batch-norm statistics .* use --latents vae"):
            action()
    assert with_latents(decoder, "flux2", "vae") is decoder


def test_fp16_safety_of_a_decoder_without_statistics_measures_on_noise(bare: Weights) -> None:
    (size,) = parse_sizes("64")
    recipe = Recipe("flux2", sizes=(size,), decoder="full", latents="vae")
    (latent,) = probe_latents(bare, None, size, recipe)
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
