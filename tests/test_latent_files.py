"""Latents from files: every format, dtype and layout, and what is no latent."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fluxvae.catalog import CATALOG, demo_contract
from fluxvae.errors import LatentError
from fluxvae.latent_files import Latent, read_latents, size_of, space_metadata

CONTRACT = CATALOG["flux2"].contract  # 32 channels
SHAPES = ((1, 32, 8, 8),)
NOISE = np.random.Generator(np.random.PCG64(3)).standard_normal((1, 32, 8, 8), np.float32)
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


def read(path: Path, shapes: tuple = SHAPES, layout: str = "nchw") -> tuple[Latent, ...]:
    return read_latents(path, CONTRACT, shapes, layout)


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(LatentError) as caught:
        read(path, **options)
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
    shapes = ((1, 32, 16, 8), (1, 32, 8, 8))
    if layout == "nhwc":
        shapes = tuple((1, h, w, c) for _, c, h, w in shapes)
    (latent,) = read(tmp_path / "x.bin", shapes=shapes[1:], layout=layout)
    assert latent.name == "x"
    assert np.array_equal(latent.values, values.astype(np.float32))


def test_raw_bytes_of_another_length_name_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(NOISE.tobytes()[:-4])
    text = refusal(tmp_path / "x.bin")
    assert "8188 bytes; expected 8192 ([1, 32, 8, 8] as float32), or half of it" in text


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((1, 32, 8, 16), (1, 32, 16, 8)), "[1, 32, 8, 16] as float32 or [1, 32, 16, 8] as"),
        (((1, 32, 8, 16), (1, 32, 16, 16)), "as float32 or [1, 32, 16, 16] as float16"),
    ],
)
def test_raw_bytes_that_could_be_two_things_are_refused(
    tmp_path: Path, shapes: tuple, words: str
) -> None:
    (tmp_path / "x.bin").write_bytes(np.zeros((1, 32, 8, 16), np.float32).tobytes())
    text = refusal(tmp_path / "x.bin", shapes=shapes)
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


def test_channels_last_is_recognised(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", NOISE.transpose(0, 2, 3, 1))
    (latent,) = read(tmp_path / "x.npy")
    assert np.array_equal(latent.values, NOISE)


def test_as_many_rows_as_channels_is_read_channels_first(tmp_path: Path) -> None:
    cube = np.random.Generator(np.random.PCG64(4)).standard_normal((1, 32, 32, 32), np.float32)
    np.save(tmp_path / "x.npy", cube)
    (latent,) = read(tmp_path / "x.npy")
    assert np.array_equal(latent.values, cube)


def test_packed_latent_is_refused_with_the_call_that_unpacks_it(tmp_path: Path) -> None:
    packed = torch.nn.functional.pixel_unshuffle(torch.from_numpy(NOISE), 2)
    np.save(tmp_path / "x.npy", packed.numpy())
    text = refusal(tmp_path / "x.npy")
    assert "the shape [1, 128, 4, 4]; expected (1, 32, H/8, W/8)" in text
    assert "torch.nn.functional.pixel_shuffle(latent, 2)" in text
    np.save(tmp_path / "x.npy", torch.nn.functional.pixel_shuffle(packed, 2).numpy())
    (latent,) = read(tmp_path / "x.npy")  # the advice works
    assert np.array_equal(latent.values, NOISE)


@pytest.mark.parametrize("channels", [4, 16])
def test_latent_of_another_model_is_refused(tmp_path: Path, channels: int) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, channels, 8, 8), np.float32))
    assert f"{channels} channels belongs to another model" in refusal(tmp_path / "x.npy")


@pytest.mark.parametrize("shape", [(8, 8), (1, 1, 32, 8, 8), (), (1, 3, 64, 64)])
def test_array_of_another_kind_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, np.float32))
    assert f"has the shape {list(shape)}; expected (1, 32" in refusal(tmp_path / "x.npy")


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
    assert refusal(path).startswith(f"x.{kind} is truncated or no ")


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
    assert "truncated or no .npy array" in refusal(tmp_path / "x.npy")
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
    assert "come as .safetensors, .npy or .bin" in refusal(tmp_path / "x.pt")
    assert "does not exist or is no file" in refusal(tmp_path / "y.npy")
    assert "does not exist or is no file" in refusal(tmp_path)


def test_size_is_written_as_the_size_option_takes_it() -> None:
    assert size_of(Latent("x", np.zeros((1, 32, 96, 96))), CONTRACT) == "768"
    assert size_of(Latent("x", np.zeros((1, 32, 96, 168))), CONTRACT) == "768x1344"
