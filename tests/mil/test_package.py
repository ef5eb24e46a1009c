"""Packages: what is read equals coremltools' own reading; what is damaged is refused by name."""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from coremltools.converters.mil.frontend.milproto.load import load as load_milproto
from coremltools.converters.mil.mil import types
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fluxvae.convert.program import write_model
from fluxvae.errors import ArtifactError, FluxVAEError, UnsupportedOpError
from fluxvae.mil.compiler import compile_program
from fluxvae.mil.executor import Session
from fluxvae.mil.files import path_inside
from fluxvae.mil.package import check_model, parse_model, read_package
from fluxvae.mil.program import Program
from fluxvae.networks.tiny import Block, LatentClamp
from fluxvae.recipes.functions import INPUT_NAME, OUTPUT_NAME
from fluxvae.validation.metrics import compare
from tests.artifacts import recipe

CHANNELS = 40  # 40 * 40 * 9 weights: above the 10,000 from which coremltools clusters exactly
SPEC = Path("Data", "com.apple.CoreML", "model.mlmodel")
WEIGHTS = Path("Data", "com.apple.CoreML", "weights", "weight.bin")


def small_decoder() -> nn.Sequential:
    """A little decoder of TAEF1's parts; latent (1, 16, h, w) to image (1, 3, 2h, 2w)."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(
        LatentClamp(),
        nn.Conv2d(16, CHANNELS, 3, padding=1),
        nn.ReLU(),
        Block(CHANNELS),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
        Block(CHANNELS),
        nn.Conv2d(CHANNELS, 3, 3, padding=1),
    )
    for value in network.parameters():
        scale = (2 / value[0].numel()) ** 0.5 if value.dim() > 1 else 0.1
        nn.init.normal_(value, 0, scale, generator=generator)
    return network.eval().requires_grad_(False)


LATENT = np.random.default_rng(0).standard_normal((1, 16, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small decoder: fp16 for iOS16 and iOS18, and fp32."""
    folder = tmp_path_factory.mktemp("packages")
    made = {
        "iOS16": recipe("flux1", target="iOS16"),
        "iOS18": recipe("flux1", target="iOS18"),
        "fp32": recipe("flux1", precision="float32"),
    }
    for name, one in made.items():
        write_model(small_decoder(), one, 16, folder / f"{name}.mlpackage")
    return {name: folder / f"{name}.mlpackage" for name in made}


@pytest.fixture
def package(packages: dict[str, Path], tmp_path: Path) -> Path:
    """A package to damage."""
    return Path(shutil.copytree(packages["iOS16"], tmp_path / "small.mlpackage"))


def open_whole(path: Path) -> Session:
    """Read everything, every weight included, as a user's run would."""
    return Session(read_package(path))


# --- against coremltools' reader ---


def load_theirs(path: Path) -> Any:
    """The program as coremltools reads it, by the names of its operations."""
    model = ct.models.MLModel(str(path), skip_model_load=True)
    specification = model.get_spec()
    program = load_milproto(specification, specification.specificationVersion, model.weights_dir)
    return {o.name: o for o in program.functions["main"].operations}


def value_of(var: Any) -> np.ndarray | None:
    """coremltools' value of a weight, decompressed by itself; None where it crashes."""
    if var.op.op_type == "const":
        return np.asarray(var.val)
    try:
        return np.asarray(var.op.materialized_val_inference())
    except AttributeError:  # coremltools 9.0, tables that are compressed themselves
        return None


@pytest.mark.parametrize("name", ["iOS16", "iOS18", "fp32"])
def test_constants_equal_coremltools_reading_bit_for_bit(
    packages: dict[str, Path], name: str
) -> None:
    theirs, compared = load_theirs(packages[name]), 0
    for operation in read_package(packages[name]).function().ops:
        if operation.kind == "const":
            ours, expected = operation.attributes["val"].value(), theirs[operation.name].val.val
            if isinstance(ours, str):
                assert ours == expected
            else:
                assert ours.dtype == np.asarray(expected).dtype
                np.testing.assert_array_equal(ours, expected, err_msg=operation.name)
            compared += 1
    assert compared > 50


def test_types_equal_coremltools_inference(packages: dict[str, Path]) -> None:
    theirs = load_theirs(packages["iOS16"])
    for operation in read_package(packages["iOS16"]).function().ops:
        for ours, expected in zip(operation.outputs, theirs[operation.name].outputs, strict=True):
            dtype = types.builtin_to_string(expected.dtype)
            assert ours.type.dtype == {"str": "string"}.get(dtype, dtype)
            assert ours.type.shape == tuple(expected.shape)


def _config(kind: Any, **options: Any) -> Any:
    return cto.OptimizationConfig(global_config=kind(**options))


def palettize(model: Any, *, joint: bool = False, **options: Any) -> Any:
    # Clusters of up to 4 bits; a table of evenly spaced values is stored alike, without seconds.
    mode = "kmeans" if options["nbits"] <= 4 else "uniform"
    config = _config(cto.OpPalettizerConfig, mode=mode, **options)
    return cto.palettize_weights(model, config, joint_compression=joint)


def quantize(model: Any, *, joint: bool = False, **options: Any) -> Any:
    config = _config(cto.OpLinearQuantizerConfig, **{"mode": "linear_symmetric", **options})
    return cto.linear_quantize_weights(model, config, joint_compression=joint)


def prune(model: Any) -> Any:
    return cto.prune_weights(model, _config(cto.OpMagnitudePrunerConfig, target_sparsity=0.5))


@dataclass(frozen=True)
class Compression:
    """One way to compress: the base package, coremltools' call, the operations it leaves."""

    base: str
    compress: Callable[[Any], Any]
    operations: tuple[str, ...]
    oracle: bool = True  # coremltools can decompress it


LUT, SPARSE = ("constexpr_lut_to_dense",), ("constexpr_sparse_to_dense",)
AFFINE, BLOCKS = ("constexpr_affine_dequantize",), ("constexpr_blockwise_shift_scale",)
COMPRESSIONS = {
    **{
        f"palette-{bits}-bit-{base}": Compression(
            base, lambda m, b=bits: palettize(m, nbits=b), LUT
        )
        for bits in (4, 6, 8)
        for base in ("iOS16", "iOS18")
    },
    "palette-3-bit-iOS18": Compression("iOS18", lambda m: palettize(m, nbits=3), LUT),
    "palette-groups-iOS18": Compression(
        "iOS18",
        lambda m: palettize(m, nbits=4, granularity="per_grouped_channel", group_size=8),
        LUT,
    ),
    "palette-vectors-iOS18": Compression(
        "iOS18", lambda m: palettize(m, nbits=4, cluster_dim=2), LUT
    ),
    "palette-scaled-iOS18": Compression(
        "iOS18",
        lambda m: palettize(m, nbits=4, enable_per_channel_scale=True),
        (*BLOCKS, *LUT),
        oracle=False,
    ),
    "int8-iOS16": Compression("iOS16", quantize, AFFINE),
    "int8-asymmetric-iOS16": Compression("iOS16", lambda m: quantize(m, mode="linear"), AFFINE),
    "int8-iOS18": Compression("iOS18", quantize, BLOCKS),
    "int8-asymmetric-iOS18": Compression("iOS18", lambda m: quantize(m, mode="linear"), BLOCKS),
    "int4-blocks-iOS18": Compression(
        "iOS18",
        lambda m: quantize(m, dtype="int4", granularity="per_block", block_size=8),
        BLOCKS,
    ),
    "uint4-asymmetric-iOS18": Compression(
        "iOS18", lambda m: quantize(m, mode="linear", dtype="uint4"), BLOCKS
    ),
    "sparse-iOS16": Compression("iOS16", prune, SPARSE),
    "sparse-iOS18": Compression("iOS18", prune, SPARSE),
    "sparse-palette-iOS18": Compression(
        "iOS18",
        lambda m: palettize(prune(m), nbits=4, joint=True),
        ("constexpr_lut_to_sparse", *SPARSE),
    ),
    "sparse-int8-iOS18": Compression(
        "iOS18",
        lambda m: quantize(prune(m), joint=True),
        ("constexpr_sparse_blockwise_shift_scale", *SPARSE),
    ),
}


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_compressed_package_has_and_runs_the_weights_that_coremltools_decompresses(
    packages: dict[str, Path], tmp_path: Path, name: str
) -> None:
    way, path = COMPRESSIONS[name], tmp_path / "compressed.mlpackage"
    way.compress(ct.models.MLModel(str(packages[way.base]), skip_model_load=True)).save(str(path))
    assert_weights_equal_coremltools_decompression_bit_for_bit(way, path)
    plain = cto.decompress_weights(ct.models.MLModel(str(path), skip_model_load=True))
    plain.save(str(tmp_path / "plain.mlpackage"))
    assert_runs_like_torch_on_the_decompressed_weights(path, tmp_path / "plain.mlpackage")


def assert_weights_equal_coremltools_decompression_bit_for_bit(
    way: Compression, path: Path
) -> None:
    session, theirs = open_whole(path), load_theirs(path)
    kinds = {o.kind for o in session.function.ops}
    assert set(way.operations) <= kinds
    compared = 0
    for step in session._steps:
        if step.op.kind == "conv":
            expected = value_of(theirs[step.op.name].inputs["weight"])
            if expected is not None:
                ours = step.fixed["weight"].numpy()
                np.testing.assert_array_equal(ours, expected.astype(np.float32))
                compared += 1
    # 9 convolutions; the last is below coremltools' threshold and stays plain.
    assert compared == (9 if way.oracle else 1)


def assert_runs_like_torch_on_the_decompressed_weights(path: Path, plain: Path) -> None:
    network = small_decoder()
    original = network(torch.from_numpy(LATENT)).numpy()
    _load_convolutions(network, plain)
    expected = network(torch.from_numpy(LATENT)).numpy()
    session = open_whole(path)
    got = session.run({INPUT_NAME: LATENT})[OUTPUT_NAME].astype(np.float32)
    peak = float(np.ptp(original))
    # fp16 rounding alone. Measured: 75.8 dB and more; and 52.8 dB or less against the original
    # weights, so that weights that were not used would show.
    assert compare(got, expected, peak=peak).psnr_db >= 73
    assert compare(got, original, peak=peak).psnr_db <= 60


def _load_convolutions(network: nn.Module, package: Path) -> None:
    """Put the convolutions of a plain package, as coremltools reads it, into the network."""
    state = network.state_dict()
    names = {f"p_{name.replace('.', '_')}": name for name in state}
    loaded = 0
    for operation in load_theirs(package).values():
        if operation.op_type == "conv":
            weight = operation.inputs["weight"]
            name = names[weight.name.partition("_to_fp16")[0]]
            state[name] = torch.from_numpy(np.asarray(value_of(weight), np.float32))
            loaded += 1
    assert loaded == 9
    network.load_state_dict(state, strict=True)


# --- damaged and foreign ---


def test_package_that_is_not_there_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.mlpackage does not exist"):
        read_package(tmp_path / "none.mlpackage")


def test_folder_of_something_else_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(ArtifactError, match=r"photos is not an \.mlpackage"):
        read_package(tmp_path / "photos")


def test_file_of_something_else_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(ArtifactError, match=r"photo\.png is neither an \.mlpackage or \.mlmodelc"):
        read_package(tmp_path / "photo.png")


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\x89PNG\r\n", b"<!doctype html><html>"])
def test_mlmodel_of_other_content_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.mlmodel").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.mlmodel is not a Core ML model"):
        read_package(tmp_path / "model.mlmodel")


def test_missing_manifest_is_refused_with_the_packages_name(package: Path) -> None:
    (package / "Manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"small\.mlpackage is not .* no Manifest\.json"):
        read_package(package)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\0",
        b"[]",
        b"{}",
        b"null",
        b'{"rootModelIdentifier": "A", "itemInfoEntries": {}}',
        b'{"rootModelIdentifier": "A", "itemInfoEntries": {"A": {"path": 7}}}',
        b"[" * 100_000,
    ],
)
def test_damaged_manifest_is_refused_with_the_packages_name(package: Path, content: bytes) -> None:
    (package / "Manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"small\.mlpackage has a damaged Manifest\.json"):
        read_package(package)


def set_root(package: Path, root: str) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = root
    (package / "Manifest.json").write_text(json.dumps(manifest))


def test_manifest_that_points_at_nothing_is_refused_with_the_packages_name(package: Path) -> None:
    set_root(package, "com.apple.CoreML/other.mlmodel")
    with pytest.raises(ArtifactError, match=r"small\.mlpackage is incomplete: .*other\.mlmodel"):
        read_package(package)


@pytest.mark.parametrize("root", ["../../outside.mlmodel", "{folder}/outside.mlmodel", "a\0b"])
def test_manifest_that_points_outside_is_refused(package: Path, root: str) -> None:
    outside = package.parent / "outside.mlmodel"
    shutil.copy(package / SPEC, outside)
    set_root(package, root.format(folder=package.parent))
    with pytest.raises(ArtifactError, match=r"small\.mlpackage points outside itself"):
        read_package(package)


def hub_cache(path: Path, hub: Path) -> Path:
    """The file or folder as huggingface_hub keeps it: links in ``snapshots`` into ``blobs``."""
    snapshot = hub / "snapshots" / "0123abc"
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        blob = hub / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        link = snapshot / file.relative_to(path.parent)
        for folder in (blob.parent, link.parent):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot / path.name


def test_package_and_bundle_in_the_hubs_cache_run_to_the_same_bits(
    package: Path, tmp_path: Path
) -> None:
    expected = open_whole(package).run({INPUT_NAME: LATENT})[OUTPUT_NAME]
    linked = hub_cache(package, tmp_path / "hub")
    assert (linked / SPEC).is_symlink()
    bundle = compile_program(linked, tmp_path / "made").path
    assert not any(p.is_symlink() for p in bundle.rglob("*"))
    whole = tmp_path / "link.mlpackage"
    whole.symlink_to(package)
    for path in (linked, hub_cache(bundle, tmp_path / "hub"), whole):
        got = open_whole(path).run({INPUT_NAME: LATENT})[OUTPUT_NAME]
        assert got.tobytes() == expected.tobytes(), path


@pytest.mark.parametrize("file", [Path("Manifest.json"), SPEC, WEIGHTS])
@pytest.mark.parametrize("target", ["gone", "itself"])
def test_link_to_nothing_or_in_a_circle_is_refused_with_the_files_name(
    package: Path, file: Path, target: str
) -> None:
    path = package / file
    path.unlink()
    path.symlink_to(path if target == "itself" else package.parent / "gone")
    why = (
        "Too many levels of symbolic links" if target == "itself" else "link to .*gone, which does"
    )
    with pytest.raises(ArtifactError, match=rf"{file.name} cannot be read: .*{why}"):
        open_whole(package)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 575\n"


@pytest.mark.parametrize("file", [Path("Manifest.json"), SPEC, WEIGHTS])
def test_git_lfs_pointer_in_a_package_is_named_with_the_way_out(package: Path, file: Path) -> None:
    (package / file).write_bytes(POINTER)
    with pytest.raises(
        ArtifactError, match=rf"{file.name} is a Git LFS pointer, not .* `git lfs pull`"
    ):
        open_whole(package)


def test_git_lfs_pointer_in_place_of_a_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.mlmodel").write_bytes(POINTER)
    with pytest.raises(ArtifactError, match=r"net\.mlmodel is a Git LFS pointer, not the model"):
        read_package(tmp_path / "net.mlmodel")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_manifest_with_a_byte_order_mark_is_read(package: Path, encoding: str) -> None:
    manifest = package / "Manifest.json"
    manifest.write_text(manifest.read_text("utf-8"), encoding)
    assert manifest.read_bytes()[:2] in (b"\xef\xbb", b"\xff\xfe", b"\xfe\xff")
    assert read_package(package).kind == "mlprogram"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/a",
        "a/../b",
        "a/..",
        "\\a",
        "a\\..\\b",
        "C:a",
        "C:/a",
        "//host/share/a",
        "a\0",
    ],
)
def test_name_that_could_leave_the_folder_on_some_system_is_refused(name: str) -> None:
    assert path_inside(Path("folder"), name) is None


@pytest.mark.parametrize("name", ["a", "a/b.bin", "./a", "a//b", "..a/b..", "..."])
def test_name_that_goes_downwards_is_taken(name: str) -> None:
    assert path_inside(Path("folder"), name) == Path("folder", name)


def rewrite(package: Path, change: Callable[[Any], None]) -> None:
    """Change the model message of a package."""
    model = parse_model(package / SPEC)
    change(model)
    (package / SPEC).write_bytes(model.SerializeToString())


def stored(model: Any) -> list[Any]:
    """Every constant in a weight file, in program order."""
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    values = [o.attributes["val"] for o in block.operations if o.type == "const"]
    return [v for v in values if v.WhichOneof("value") == "blobFileValue"]


def blobs(model: Any) -> list[Any]:
    """Every reference to a weight file, in program order."""
    return [v.blobFileValue for v in stored(model)]


@pytest.mark.parametrize(
    "file_name", ["@model_path/../../../outside.bin", "{folder}/outside.bin", "../outside.bin"]
)
def test_weights_outside_the_package_are_refused(package: Path, file_name: str) -> None:
    shutil.copy(package / WEIGHTS, package.parent / "outside.bin")
    name = file_name.format(folder=package.parent)
    rewrite(package, lambda m: setattr(blobs(m)[0], "fileName", name))
    with pytest.raises(ArtifactError, match=r"points outside itself for weights: .*outside\.bin"):
        read_package(package)


def test_weight_file_name_that_no_file_can_have_is_refused(package: Path) -> None:
    rewrite(package, lambda m: setattr(blobs(m)[0], "fileName", "@model_path/a\0b"))
    with pytest.raises(ArtifactError, match="for weights"):
        read_package(package)


def test_missing_weight_file_is_refused_with_its_name(package: Path) -> None:
    (package / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match=r"weight\.bin cannot be read"):
        read_package(package)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_weight_file_is_refused_with_its_name(package: Path, share: float) -> None:
    content = (package / WEIGHTS).read_bytes()
    (package / WEIGHTS).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ArtifactError, match=r"weight\.bin"):
        open_whole(package)


def test_shifted_weights_are_refused_with_the_files_name(package: Path) -> None:
    def shift(model: Any) -> None:
        blobs(model)[2].offset += 64

    rewrite(package, shift)
    with pytest.raises(ArtifactError, match=r"weight\.bin is damaged: no blob record at byte"):
        open_whole(package)


def test_weights_of_another_layer_are_refused_by_their_size(package: Path) -> None:
    def swap(model: Any) -> None:
        first, second = blobs(model)[:2]  # a weight and its bias
        first.offset = second.offset

    rewrite(package, swap)
    with pytest.raises(ArtifactError, match=r"weight\.bin holds 80 bytes .* declares 5760 elem"):
        open_whole(package)


def test_declared_type_that_the_blob_has_not_is_refused(package: Path) -> None:
    def retype(model: Any) -> None:
        (block,) = model.mlProgram.functions["main"].block_specializations.values()
        constants = (o for o in block.operations if o.type == "const")
        operation = next(o for o in constants if o.attributes["val"] == stored(model)[0])
        for kind in (operation.attributes["val"].type, operation.outputs[0].type):
            kind.tensorType.dataType = 11  # fp32

    rewrite(package, retype)
    for attempt in (open_whole, check_model):
        with pytest.raises(ArtifactError, match=r"weight\.bin holds fp16 .* declares fp32"):
            attempt(package)


def test_strings_in_place_of_numbers_are_refused(package: Path) -> None:
    def retype(model: Any) -> None:
        (block,) = model.mlProgram.functions["main"].block_specializations.values()
        constants = [o.attributes["val"] for o in block.operations if o.type == "const"]
        pads = next(c for c in constants if c.immediateValue.tensor.WhichOneof("value") == "ints")
        pads.immediateValue.tensor.strings.values.append("valid")

    rewrite(package, retype)
    with pytest.raises(ArtifactError, match="holds strings; the model is damaged"):
        read_package(package)


def missing(file: Path) -> None:
    file.unlink()


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def header(count: int, version: int) -> Callable[[Path], None]:
    return lambda file: patch(file, 0, struct.pack("<II", count, version))


def patch(file: Path, offset: int, content: bytes) -> None:
    whole = bytearray(file.read_bytes())
    whole[offset : offset + len(content)] = content
    file.write_bytes(whole)


def without_its_last(count: int) -> Callable[[Path], None]:
    return lambda file: os.truncate(file, file.stat().st_size - count)


def zeros_from(offset: int) -> Callable[[Path], None]:
    return lambda file: patch(file, offset, bytes(file.stat().st_size - offset))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pointer": (lambda file: file.write_bytes(POINTER), "is a Git LFS pointer, not the weights"),
    "missing": (missing, "cannot be read: No such file"),
    "folder": (folder, "cannot be read: Is a directory"),
    "empty": (lambda file: file.write_bytes(b""), "is empty"),
    "seven bytes": (lambda file: os.truncate(file, 7), "is not a Core ML weight file"),
    "header alone": (lambda file: os.truncate(file, 64), "is truncated"),
    "half": (lambda file: os.truncate(file, file.stat().st_size // 2), "is truncated"),
    "one byte short": (without_its_last(1), "is truncated: a blob ends at byte"),
    "zeros": (zeros_from(0), "begins with zeros"),
    "zeros after the header": (zeros_from(64), "is damaged: no blob record at byte 64"),
    "zeros in the second half": (zeros_from(80_000), "is damaged: no blob record at byte"),
    "a web page": (lambda file: file.write_bytes(b"<html>" * 20), "is not a Core ML weight file"),
    "version 1": (header(18, 1), "is not a Core ML weight file of version 2"),
    "too few blobs counted": (header(3, 2), "counts 3 blobs, and the program refers to more"),
    "too many blobs counted": (header(2**31, 2), "counts 2147483648 blobs, more than"),
    "blob over the header": (
        lambda file: patch(file, 64 + 16, struct.pack("<Q", 32)), "overlaps another one"
    ),
    "blob over the next": (
        lambda file: patch(file, 64 + 16, struct.pack("<Q", 192)), "overlaps another one"
    ),
    "blob past the end": (
        lambda file: patch(file, 64 + 16, struct.pack("<Q", 2**63)), "is truncated: a blob ends"
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_to_weights_is_refused_by_reader_and_compiler_alike(
    package: Path, tmp_path: Path, damage: str
) -> None:
    harm, message = DAMAGES[damage]
    harm(package / WEIGHTS)
    named = rf"small\.mlpackage/{WEIGHTS.as_posix()} .*{message}"
    for attempt in (open_whole, check_model, lambda p: compile_program(p, tmp_path / "made")):
        with pytest.raises(ArtifactError, match=named):
            attempt(package)
    assert not (tmp_path / "made").exists()


def test_check_finds_weights_in_what_the_executor_cannot_run(package: Path) -> None:
    def hide(model: Any) -> None:
        (block,) = model.mlProgram.functions["main"].block_specializations.values()
        last = [o for o in block.operations if o.type == "const"][-1]
        outer = block.operations.add()
        outer.type = "cond"
        outer.blocks.add().operations.add().CopyFrom(last)
        value = outer.blocks[0].operations[0].attributes["val"]
        value.CopyFrom(stored(model)[0])
        value.blobFileValue.offset += 1
        function = model.mlProgram.functions["main"]
        model.pipeline.models.add().mlProgram.functions["main"].CopyFrom(function)

    rewrite(package, hide)
    assert parse_model(package / SPEC).WhichOneof("Type") == "pipeline"
    with pytest.raises(ArtifactError, match=r"weight\.bin is damaged: no blob record at byte 65"):
        check_model(package)


def test_pipeline_is_refused_by_its_kind(package: Path) -> None:
    model = ct.proto.Model_pb2.Model()
    model.specificationVersion = 8
    model.pipeline.models.add()
    (package / SPEC).write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=r"small\.mlpackage .* holds a pipeline; expected"):
        read_package(package)


def test_program_without_functions_is_refused_with_the_packages_name(package: Path) -> None:
    rewrite(package, lambda m: m.mlProgram.functions.clear())
    with pytest.raises(ArtifactError, match=r"small\.mlpackage holds an ML Program without func"):
        read_package(package)


def test_description_of_other_functions_is_refused_with_both(package: Path) -> None:
    def rename(model: Any) -> None:
        model.mlProgram.functions["other"].CopyFrom(model.mlProgram.functions["main"])

    rewrite(package, rename)
    with pytest.raises(
        ArtifactError, match=r"describes .*\['main'\] but holds \['main', 'other'\]"
    ):
        read_package(package)


def test_states_are_refused(package: Path) -> None:
    def add(model: Any) -> None:
        model.description.state.add().name = "cache"

    rewrite(package, add)
    with pytest.raises(ArtifactError, match="has states"):
        read_package(package)


def test_control_flow_is_refused_by_the_operation(package: Path) -> None:
    def nest(model: Any) -> None:
        (block,) = model.mlProgram.functions["main"].block_specializations.values()
        block.operations[-1].blocks.add()

    rewrite(package, nest)
    with pytest.raises(UnsupportedOpError, match=r"operation 'conv' at '.*' has nested blocks"):
        Session(read_package(package))


def attempt(path: Path) -> Program | None:
    """A program that can be planned, or None when it was refused with an error of ours."""
    try:
        program = read_package(path)
        Session(program)
    except FluxVAEError:
        return None
    return program


@pytest.fixture(scope="module")
def victim(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("victim")
    return Path(shutil.copytree(packages["iOS16"], folder / "victim.mlpackage"))


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_model_truncated_anywhere_is_refused(
    packages: dict[str, Path], victim: Path, share: float
) -> None:
    whole = (packages["iOS16"] / SPEC).read_bytes()
    (victim / SPEC).write_bytes(whole[: int(len(whole) * share)])
    assert attempt(victim) is None


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_model_with_any_byte_changed_is_read_or_refused_but_never_crashes(
    packages: dict[str, Path], victim: Path, place: float, value: int
) -> None:
    content = bytearray((packages["iOS16"] / SPEC).read_bytes())
    content[int(len(content) * place)] = value
    (victim / SPEC).write_bytes(content)
    attempt(victim)
