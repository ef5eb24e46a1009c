"""Weight files, against files that coremltools wrote and against numpy's own bit packing."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from coremltools.libmilstoragepython import _BlobStorageWriter as BlobWriter
from coremltools.optimize._utils import pack_elements_into_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxvae.errors import ArtifactError
from fluxvae.mil.blobs import (
    DTYPES,
    NUMPY,
    PACKED_BITS,
    SENTINEL,
    BlobFile,
    BlobRef,
    unpack,
    unpack_bits,
)

WRITERS = {
    "fp16": "write_fp16_data", "fp32": "write_float_data",
    "int8": "write_int8_data", "int16": "write_int16_data", "int32": "write_int32_data",
    "uint8": "write_uint8_data", "uint16": "write_uint16_data", "uint32": "write_uint32_data",
    "int4": "write_int4_data", "uint1": "write_uint1_data", "uint2": "write_uint2_data",
    "uint3": "write_uint3_data", "uint4": "write_uint4_data", "uint6": "write_uint6_data",
}  # fmt: skip


def limits(dtype: str) -> tuple[int, int]:
    """Smallest and largest integer of an element type."""
    if dtype in PACKED_BITS:
        bits = PACKED_BITS[dtype]
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if dtype == "int4" else (0, (1 << bits) - 1)
    info = np.iinfo(NUMPY[dtype])
    return int(info.min), int(info.max)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    """An element type and values of it, every bit pattern possible."""
    dtype, size = draw(st.sampled_from(sorted(WRITERS))), draw(st.integers(1, 67))
    if dtype in ("fp16", "fp32"):
        width = 16 if dtype == "fp16" else 32
        floats = st.floats(width=width, allow_nan=False)
        values = draw(st.lists(floats, min_size=size, max_size=size))
        return dtype, np.array(values, NUMPY[dtype])
    low, high = limits(dtype)
    values = draw(st.lists(st.integers(low, high), min_size=size, max_size=size))
    storage = {"int4": "i1"}.get(dtype) or ("u1" if dtype in PACKED_BITS else NUMPY[dtype])
    return dtype, np.array(values, storage)


def write(path: Path, dtype: str, values: np.ndarray) -> int:
    """Let coremltools write a blob file of one blob, as it does when it saves a model."""
    stored = values.view(np.uint16) if dtype == "fp16" else values
    return int(getattr(BlobWriter(str(path)), WRITERS[dtype])(stored))


@settings(max_examples=200, deadline=None)
@given(drawn=arrays())
def test_blob_that_coremltools_wrote_is_read_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[str, np.ndarray]
) -> None:
    dtype, values = drawn
    path = tmp_path_factory.mktemp("blob") / "weight.bin"
    offset = write(path, dtype, values)
    got = unpack_bits(BlobRef(BlobFile(path), offset).read(dtype, values.size), dtype, values.size)
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got.view(np.uint8), values.view(np.uint8))


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from([1, 2, 3, 4, 6, 8]), st.integers(1, 61), st.booleans())
def test_unpacking_undoes_coremltools_packing(
    data: st.DataObject, bits: int, size: int, signed: bool
) -> None:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    values = data.draw(st.lists(st.integers(low, high), min_size=size, max_size=size))
    elements = np.array(values, np.int8 if signed else np.uint8)
    packed = pack_elements_into_bits(elements, bits)
    np.testing.assert_array_equal(unpack(packed, bits, size, signed=signed), elements)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_every_unpacked_value_is_that_of_numpys_bits(bits: int) -> None:
    raw = np.random.default_rng(bits).integers(0, 256, 96).astype(np.uint8)
    stream = np.unpackbits(raw, bitorder="little").reshape(-1, bits)
    expected = (stream << np.arange(bits)).sum(1)  # least significant bit first
    np.testing.assert_array_equal(unpack(raw, bits, len(expected)), expected)


def test_bf16_is_widened_exactly() -> None:
    values = torch.tensor([1.0, -2.5, 3.140625, 1e38, -0.0, float("inf")], dtype=torch.bfloat16)
    raw = values.view(torch.uint8).numpy()
    np.testing.assert_array_equal(unpack_bits(raw, "bf16", 6), values.float().numpy())


# --- damaged files ---


VALUES = np.arange(100, dtype=np.float32)


@pytest.fixture
def blob(tmp_path: Path) -> tuple[Path, int]:
    path = tmp_path / "weight.bin"
    return path, write(path, "fp32", VALUES)


def patch(path: Path, offset: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)


def read(path: Path, offset: int, dtype: str = "fp32", elements: int = 100) -> np.ndarray:
    return BlobRef(BlobFile(path), offset).read(dtype, elements)


def test_record_says_type_size_and_place(blob: tuple[Path, int]) -> None:
    path, offset = blob
    dtype, size, start = BlobFile(path).record(offset)
    assert (dtype, size) == ("fp32", 400)
    np.testing.assert_array_equal(np.frombuffer(path.read_bytes()[start:][:400], "<f4"), VALUES)


def test_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"weight\.bin cannot be read"):
        BlobFile(tmp_path / "weight.bin")


def test_folder_in_place_of_the_file_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "weight.bin").mkdir()
    with pytest.raises(ArtifactError, match=r"weight\.bin cannot be read"):
        BlobFile(tmp_path / "weight.bin")


@pytest.mark.parametrize(
    "content", [b"", b"\1\0\0\0", b"\1\0\0\0\1\0\0\0" + bytes(56), b"<html>.."]
)
def test_file_of_another_kind_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weight.bin").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"weight\.bin (is not a Core ML|is empty)"):
        BlobFile(tmp_path / "weight.bin")


@pytest.mark.parametrize("keep", [8, 64, 100, 127, 130, 528])  # the blob ends at byte 528
def test_truncated_file_is_refused_with_its_name(blob: tuple[Path, int], keep: int) -> None:
    path, offset = blob
    content = path.read_bytes()
    assert keep <= len(content)
    path.write_bytes(content[:keep])
    if keep == 528:
        np.testing.assert_array_equal(read(path, offset).view("<f4"), VALUES)
        return
    with pytest.raises(ArtifactError, match=r"weight\.bin is truncated"):
        read(path, offset)


def test_wrong_sentinel_is_refused_with_the_files_name(blob: tuple[Path, int]) -> None:
    path, offset = blob
    patch(path, offset, struct.pack("<I", SENTINEL ^ 1))
    with pytest.raises(ArtifactError, match=rf"weight\.bin is damaged: no blob .* {offset}"):
        read(path, offset)


def test_unknown_type_code_is_refused_with_the_files_name(blob: tuple[Path, int]) -> None:
    path, offset = blob
    patch(path, offset + 4, struct.pack("<I", max(DTYPES) + 1))
    with pytest.raises(ArtifactError, match=r"weight\.bin is damaged"):
        read(path, offset)


@pytest.mark.parametrize("shift", [-64, -4, 4, 64, 10**6, 2**62])
def test_shifted_offset_is_refused_with_the_files_name(blob: tuple[Path, int], shift: int) -> None:
    path, offset = blob
    with pytest.raises(ArtifactError, match=r"weight\.bin is (damaged|truncated): no blob record"):
        read(path, offset + shift)


def test_other_type_than_declared_is_refused_with_both(blob: tuple[Path, int]) -> None:
    with pytest.raises(ArtifactError, match=r"weight\.bin holds fp32 .* declares fp16"):
        read(*blob, "fp16", 200)


@pytest.mark.parametrize("elements", [0, 99, 101])
def test_other_count_than_declared_is_refused_with_both(
    blob: tuple[Path, int], elements: int
) -> None:
    with pytest.raises(ArtifactError, match=rf"holds 400 bytes .* declares {elements} elements"):
        read(*blob, "fp32", elements)


def test_data_outside_the_file_is_refused_with_its_name(blob: tuple[Path, int]) -> None:
    path, offset = blob
    patch(path, offset + 16, struct.pack("<Q", 2**63))  # where the data start
    with pytest.raises(ArtifactError, match=r"weight\.bin is truncated"):
        read(path, offset)


def test_bool_is_read_from_uint8(tmp_path: Path) -> None:
    path, values = tmp_path / "weight.bin", np.array([1, 0, 1], np.uint8)
    offset = write(path, "uint8", values)
    got = unpack_bits(read(path, offset, "bool", 3), "bool", 3)
    np.testing.assert_array_equal(got, [True, False, True])
