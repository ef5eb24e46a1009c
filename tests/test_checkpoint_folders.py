"""Checkpoints of several files, and which file of a folder is taken."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fluxvae.errors import WeightsError
from fluxvae.networks.describe import describe_file
from fluxvae.networks.sharded import checkpoint_sha256
from fluxvae.networks.weights import Weights, load_entry
from tests.checkpoint_files import write
from tests.kl import diffusers_names, narrow_entry, narrow_weights

ENTRY = narrow_entry("flux2")


@pytest.fixture(scope="module")
def parts() -> list[Weights]:
    return [narrow_weights("flux2", part=part) for part in ("decoder", "encoder")]


@pytest.fixture(scope="module")
def named(parts: list[Weights]) -> dict[str, Tensor]:
    return diffusers_names(*parts)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        load_entry(ENTRY, str(path), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    index.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "is a Git LFS pointer, not the index" in refusal(index)
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
