"""Checkpoints as people have them: one VAE among other tensors, in several files, in variants."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fluxvae.cli.sources import Sources
from fluxvae.errors import WeightsError
from fluxvae.networks.catalog import find_decoder
from fluxvae.networks.shapes import entry_shapes
from fluxvae.networks.sharded import open_checkpoint
from fluxvae.networks.weights import Weights, _holds, find_encoder, load_entry, load_weights
from tests.checkpoint_files import in_style, write
from tests.cli.run import run
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


def test_a_unet_is_not_the_vae_s_encoder(tmp_path: Path, parts: list[Weights]) -> None:
    # diffusers' UNet has down_blocks and a mid_block of the same names.
    other = {f"unet.{name}": tensor.clone() for name, tensor in parts[1].tensors.items()}
    del other["unet.conv_in.bias"]
    path = write(tmp_path / "sd.safetensors", {**under("vae.", diffusers_names(parts[0])), **other})
    assert load_entry(ENTRY, str(path)).digest == parts[0].digest
    assert _holds(ENTRY, "encoder", path) is False
    assert _holds(ENTRY, "decoder", path) is True


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
    import fluxvae.networks.files as files

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


# --- what a user sees ---------------------------------------------------------------------------


def test_a_command_says_on_stderr_what_was_passed_over(
    tmp_path: Path, tiny: list[Weights], capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {**under("vae.", in_style("diffusers", *tiny)), **OTHERS}
    path = write(tmp_path / "aio.safetensors", tensors)
    Sources("flux1", str(path), None, offline=True).load()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "note: aio.safetensors: took the decoder under 'vae.'; passed over 7 other entries "
        "(text_encoders., model., decoder., encoder.)\n"
    )
    ran = run(capsys, "weights", "show", str(path))
    assert (ran.code, ran.err) == (0, "")
    assert "fits      flux1 decoder, flux1 encoder" in ran.out
    assert "note      the VAE is under 'vae.'" in ran.out
    assert "note      7 other entries (text_encoders., model., decoder., encoder.)" in ran.out


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "ckpt", "pth", "json"])
def test_a_damaged_checkpoint_is_read_or_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    names = [f"vae.decoder.{name}" for name in entry_shapes(find_decoder("flux1"), "decoder")]
    tensors = {name: torch.zeros(2) for name in names}
    path = tmp_path / f"w.{kind}"
    if kind == "safetensors":
        save_file(tensors, path)
    elif kind == "json":
        path.write_text(json.dumps({"weight_map": dict.fromkeys(names, "s.safetensors")}))
        save_file(tensors, tmp_path / "s.safetensors")
    else:
        torch.save({"a": tensors}, path, _use_new_zipfile_serialization=kind == "ckpt")
    whole, random, said = path.read_bytes(), Random(0), []
    for _ in range(100):
        path.write_bytes(mutated(whole, random))
        try:
            checkpoint = open_checkpoint(path)
            checkpoint.read(checkpoint.shapes)
        except WeightsError as error:
            said.append(str(error))
    assert said
    assert all(str(tmp_path) in text and "\n" not in text for text in said)


def mutated(content: bytes, random: Random) -> bytes:
    """A few bytes changed, removed or added."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 3, 20))):
        at = random.randrange(len(data))
        replaced = random.choice((0, 1, 1, 4, 40))
        data[at : at + replaced] = random.randbytes(random.choice((0, 1, 1, 4)))
    return bytes(data or b"x")
