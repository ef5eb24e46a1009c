"""Latents from files: every format, dtype and layout, and what is no latent."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fluxvae.data.latents import Latent, read_latents, size_of, space_metadata
from fluxvae.errors import LatentError
from fluxvae.networks.catalog import CATALOG, LatentContract, demo_contract
from tests.latents import takes

CONTRACT = CATALOG["flux2"].contract  # 32 channels
NOISE = np.random.Generator(np.random.PCG64(3)).standard_normal((1, 32, 8, 8), np.float32)
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


def read(path: Path, *sizes: str, layout: str = "nchw") -> tuple[Latent, ...]:
    return read_latents(path, takes("flux2", *(sizes or ("64",)), layout=layout)).latents


def refusal(path: Path, *sizes: str) -> str:
    with pytest.raises(LatentError) as caught:
        read(path, *sizes)
    return str(caught.value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_safetensors_of_every_float_dtype_is_widened(tmp_path: Path, dtype: str) -> None:
    tensor = torch.from_numpy(NOISE).to(DTYPES[dtype])
    save_file({"cat": tensor}, tmp_path / "l.safetensors")
    (latent,) = read(tmp_path / "l.safetensors")
    assert latent.name == "cat"
    assert (latent.values.dtype, latent.values.shape) == (np.float32, (1, 32, 8, 8))
    assert np.array_equal(latent.values, tensor.float().numpy())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_npy_of_every_float_dtype_is_named_after_its_file(tmp_path: Path, dtype: object) -> None:
    np.save(tmp_path / "dog.npy", NOISE.astype(dtype))
    (latent,) = read(tmp_path / "dog.npy")
    assert latent.name == "dog"
    assert latent.values.dtype == np.dtype("=f4")
    assert np.array_equal(latent.values, NOISE.astype(dtype).astype(np.float32))


def test_fortran_order_is_no_transposition(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.asfortranarray(NOISE))
    (latent,) = read(tmp_path / "f.npy")
    assert np.array_equal(latent.values, NOISE)
    assert latent.values.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_raw_bytes_are_in_the_models_layout(tmp_path: Path, dtype: str, layout: str) -> None:
    values = NOISE.astype(dtype)
    stored = values.transpose(0, 2, 3, 1) if layout == "nhwc" else values
    (tmp_path / "x.bin").write_bytes(np.ascontiguousarray(stored).tobytes())
    (latent,) = read(tmp_path / "x.bin", layout=layout)
    assert latent.name == "x"
    assert np.array_equal(latent.values, values.astype(np.float32))


def test_raw_bytes_of_another_length_name_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(NOISE.tobytes()[:-4])
    text = refusal(tmp_path / "x.bin")
    assert "8188 bytes; expected 8192 ([1, 32, 8, 8] as float32), or half of it" in text


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (("64x128", "128x64"), "[1, 32, 8, 16] as float32 or [1, 32, 16, 8] as float32"),
        (("64x128", "128"), "[1, 32, 8, 16] as float32 or [1, 32, 16, 16] as float16"),
    ],
)
def test_raw_bytes_that_could_be_two_things_are_refused(
    tmp_path: Path, sizes: tuple[str, ...], words: str
) -> None:
    (tmp_path / "x.bin").write_bytes(np.zeros((1, 32, 8, 16), np.float32).tobytes())
    text = refusal(tmp_path / "x.bin", *sizes)
    assert words in text
    assert "save it as .npy or .safetensors" in text


def test_batch_becomes_numbered_latents_in_order(tmp_path: Path) -> None:
    batch = torch.from_numpy(np.concatenate([NOISE, NOISE + 1, NOISE + 2]))
    save_file({"b": batch, "a": batch[:1].clone()}, tmp_path / "l.safetensors")
    latents = {latent.name: latent.values for latent in read(tmp_path / "l.safetensors")}
    assert sorted(latents) == ["a", "b-0", "b-1", "b-2"]
    for i in range(3):
        assert np.array_equal(latents[f"b-{i}"], batch[i : i + 1].numpy())


def test_three_axes_are_one_latent(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", NOISE[0])
    (latent,) = read(tmp_path / "x.npy")
    assert latent.name == "x"
    assert np.array_equal(latent.values, NOISE)


def test_latents_of_another_space_are_refused_by_their_metadata(tmp_path: Path) -> None:
    other = demo_contract(CATALOG["flux2"])
    path = tmp_path / "l.safetensors"
    save_file({"x": torch.from_numpy(NOISE)}, path, space_metadata(other))
    text = refusal(path)
    assert "'fluxvae-demo-flux2', but this decoder wants 'flux2-sampler-unpatchified'" in text
    save_file({"x": torch.from_numpy(NOISE)}, path, space_metadata(CONTRACT))
    assert len(read(path)) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["safetensors", "npy", "bin"])
def test_latent_that_is_not_finite_is_refused(tmp_path: Path, bad: float, kind: str) -> None:
    values = NOISE.copy()
    values[0, 5, 3, 2:4] = bad
    path = tmp_path / f"x.{kind}"
    if kind == "safetensors":
        save_file({"x": torch.from_numpy(values)}, path)
    elif kind == "npy":
        np.save(path, values)
    else:
        path.write_bytes(values.tobytes())
    assert f"x.{kind}: 'x' holds NaN or infinity (values: 2)" in refusal(path)


@pytest.mark.parametrize("keep", [0, 7, 40, 200, -1])
@pytest.mark.parametrize("kind", ["safetensors", "npy"])
def test_truncated_file_is_refused_with_its_name(tmp_path: Path, keep: int, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    if kind == "safetensors":
        save_file({"x": torch.from_numpy(NOISE)}, path)
    else:
        np.save(path, NOISE)
    path.write_bytes(path.read_bytes()[:keep])
    assert refusal(path).startswith(f"x.{kind} is truncated or not a ")


@pytest.mark.parametrize("kind", ["safetensors", "npy"])
def test_integers_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    values = np.zeros((1, 32, 8, 8), np.uint8)
    if kind == "safetensors":
        save_file({"x": torch.from_numpy(values)}, path)
    else:
        np.save(path, values)
    assert "uint8, not floats" in refusal(path)


def test_pickled_array_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (mark,))

    np.save(tmp_path / "x.npy", np.array([Evil()], object), allow_pickle=True)
    assert "truncated or not a .npy array" in refusal(tmp_path / "x.npy")
    assert not mark.exists()


def test_archive_of_arrays_under_an_npy_name_is_refused(tmp_path: Path) -> None:
    archive = io.BytesIO()
    np.savez(archive, x=NOISE)
    (tmp_path / "x.npy").write_bytes(archive.getvalue())
    assert "is an .npz archive; save the one array with numpy.save" in refusal(tmp_path / "x.npy")


def test_safetensors_without_tensors_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "x.safetensors")
    assert refusal(tmp_path / "x.safetensors") == "x.safetensors holds no tensors"


def test_unknown_suffix_and_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"")
    assert "come as .safetensors, .latent, .npy or .bin" in refusal(tmp_path / "x.pt")
    assert "does not exist or is not a file" in refusal(tmp_path / "y.npy")
    assert "does not exist or is not a file" in refusal(tmp_path)


def test_size_is_written_as_the_size_option_takes_it() -> None:
    assert size_of(Latent("x", np.zeros((1, 32, 96, 96))), CONTRACT) == "768"
    assert size_of(Latent("x", np.zeros((1, 32, 96, 168))), CONTRACT) == "768x1344"


def test_one_tensor_of_a_file_is_chosen_by_its_key(tmp_path: Path) -> None:
    path = tmp_path / "l.safetensors"
    second = NOISE + 1
    save_file({"a": torch.from_numpy(NOISE), "b/c:d": torch.from_numpy(second)}, path)
    (latent,) = read(Path(f"{path}:b/c:d"))
    assert latent.name == "b/c:d"
    assert np.array_equal(latent.values, second)
    assert "holds no tensor 'x'; it holds a, b/c:d" in refusal(Path(f"{path}:x"))
    np.save(tmp_path / "x.npy", NOISE)
    assert "x.npy holds one array: leave out ':a'" in refusal(tmp_path / "x.npy:a")
    assert "none.npy:a does not exist" in refusal(tmp_path / "none.npy:a")


def test_a_file_whose_own_name_has_a_colon_is_read_whole(tmp_path: Path) -> None:
    for name in ("a.npy:b.npy", "12:30.npy"):
        np.save(tmp_path / name, NOISE)
        np.save(tmp_path / "a.npy", NOISE)
        (latent,) = read(tmp_path / name)
        assert latent.name == name.removesuffix(".npy")


def test_tensors_that_are_no_latents_are_passed_over_and_named(tmp_path: Path) -> None:
    path = tmp_path / "l.safetensors"
    tensors = {
        "empty": torch.zeros(0), "sigmas": torch.linspace(1, 0, 5), "step": torch.tensor(3),
        "mask": torch.zeros(1, 64, 64), "z": torch.from_numpy(NOISE),
        "wide": torch.zeros(32, 8, 16), "fp8": torch.zeros(1, 32, 8, 8).to(torch.float8_e4m3fn),
    }  # fmt: skip
    save_file(tensors, path)
    found = read_latents(path, takes("flux2", "64"))
    assert [latent.name for latent in found.latents] == ["z"]
    (note,) = found.notes
    for words in (
        "'empty' is empty, of shape [0]",
        "'sigmas' has the shape [5]",
        "'step' holds int64, not floats",
        "'mask' has the shape [1, 64, 64]",
        "'wide' has the shape [32, 8, 16]; expected (1, 32, H/8, W/8) for images of 64. It is for "
        "images of 64x128.",
        "'fp8' holds float8_e4m3fn, not floats of 16, 32 or 64 bits",
    ):
        assert words in note
    del tensors["z"]
    save_file(tensors, path)
    assert refusal(path) == note.replace("passed over ", "")
    assert "'sigmas' has the shape [5]" in refusal(Path(f"{path}:sigmas"))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (np.bool_, "holds bool, not floats"),
        (np.complex64, "holds complex64, not floats"),
        ("V2", "holds 2-byte values without a type (bfloat16?), not floats"),
    ],
)
def test_npy_of_other_types_is_refused(tmp_path: Path, dtype: object, words: str) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 32, 8, 8), dtype))
    assert words in refusal(tmp_path / "x.npy")


def test_npy_without_numbers_or_with_too_large_ones_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 32, 0, 8), np.float32))
    assert "'x' is empty, of shape [1, 32, 0, 8]" in refusal(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.full((1, 32, 8, 8), 1e300))
    assert "holds NaN or infinity (values: 2048)" in refusal(tmp_path / "x.npy")


def test_npy_header_that_promises_more_than_the_file_has_takes_no_memory(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 32, 1048576, 1048576), }"
    size = (len(header) + 1).to_bytes(2, "little")
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + size + header + b"\n")
    assert "x.npy is truncated or not a .npy array" in refusal(tmp_path / "x.npy")


@pytest.mark.parametrize("content", [b"hello", b"\x80\x04abc"])
def test_npy_of_another_kind_is_refused_without_advice_to_unpickle_it(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    text = refusal(tmp_path / "x.npy")
    assert "x.npy is truncated or not a .npy array: it begins otherwise" in text
    assert "pickle" not in text


@pytest.mark.parametrize("name", ["x.safetensors", "x.latent", "x.npy", "x.bin"])
def test_git_lfs_pointer_is_named(tmp_path: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 131200\n"
    (tmp_path / name).write_text(pointer)
    assert f"{name} is a Git LFS pointer, not the latents" in refusal(tmp_path / name)


MARKER = {"latent_format_version_0": torch.zeros(0)}


def test_comfyui_latents_need_no_other_name(tmp_path: Path) -> None:
    flux1 = torch.from_numpy(NOISE[:, :16]).contiguous()
    packed = torch.from_numpy(NOISE.reshape(1, 128, 4, 4))
    save_file({"latent_tensor": flux1, **MARKER}, tmp_path / "one.latent", {"prompt": "{}"})
    save_file({"latent_tensor": packed, **MARKER}, tmp_path / "two.latent")
    for name, values, wanted in (
        ("one", flux1, takes("flux1", "64", latents="vae")),
        ("one", flux1, takes("flux1", "64", decoder="full")),
        ("two", packed, takes("flux2", "64", latents="packed")),
        ("two", packed, takes("flux2", "64", latents="packed", layout="nhwc")),
    ):
        found = read_latents(tmp_path / f"{name}.latent", wanted, strict=True)
        (latent,) = found.latents
        assert (latent.name, found.notes) == ("latent_tensor", ())
        assert np.array_equal(latent.values, values.numpy())


@pytest.mark.parametrize("own", [None, demo_contract(CATALOG["flux1"])])
@pytest.mark.parametrize("name", ["x.latent", "x.safetensors"])
def test_comfyui_latents_name_the_option_that_takes_their_space(
    tmp_path: Path, name: str, own: LatentContract | None
) -> None:
    save_file({"latent_tensor": torch.from_numpy(NOISE[:, :16]).contiguous(), **MARKER},
              tmp_path / name)  # fmt: skip
    with pytest.raises(
        LatentError, match=r"in the VAE's own space, as ComfyUI saves .* --latents vae"
    ):
        read_latents(tmp_path / name, takes("flux1", "64", own=own))
    (latent,) = read_latents(tmp_path / name, takes("flux1", "64", own=own, latents="vae")).latents
    assert latent.name == "latent_tensor"
    with pytest.raises(LatentError, match=r"16 channels belong to another model, FLUX\.1"):
        read_latents(tmp_path / name, takes("flux2", "64"))


def test_comfyui_latents_without_a_marker_are_scaled_as_comfyui_does(tmp_path: Path) -> None:
    values = torch.from_numpy(NOISE[:, :16]).contiguous()
    save_file({"latent_tensor": values}, tmp_path / "x.latent")
    found = read_latents(tmp_path / "x.latent", takes("flux1", "64", latents="vae"))
    np.testing.assert_allclose(found.latents[0].values, values.numpy() / 0.18215, rtol=1e-6)
    assert "divided by 0.18215, as ComfyUI does" in found.notes[0]
    save_file({"latent_tensor": values}, tmp_path / "x.safetensors")  # not ComfyUI's by its name
    (latent,) = read_latents(tmp_path / "x.safetensors", takes("flux1", "64")).latents
    assert np.array_equal(latent.values, values.numpy())
