"""Weight files of ML Programs ("MIL blob storage", version 2), memory-mapped.

A file is a 64-byte header ``<u32 count, u32 version>`` and, for each blob, a 64-byte record
``<u32 sentinel, u32 dtype, u64 size, u64 offset, u64 padding bits>`` that points at the bytes.
Format: coremltools ``mlmodel/src/MILBlob/Blob/StorageFormat.hpp``. Sub-byte elements are packed
least significant bit first.
"""

import struct
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluxvae.errors import ArtifactError
from fluxvae.mil.files import path_inside, refuse_pointer, unreadable

SENTINEL = 0xDEADBEEF
HEADER_BYTES = RECORD_BYTES = 64
DTYPES = {
    1: "fp16", 2: "fp32", 3: "uint8", 4: "int8", 5: "bf16", 6: "int16", 7: "uint16", 8: "int4",
    9: "uint1", 10: "uint2", 11: "uint4", 12: "uint3", 13: "uint6", 14: "int32", 15: "uint32",
}  # fmt: skip
NUMPY = {
    "fp16": "<f2", "fp32": "<f4", "fp64": "<f8", "bf16": "<u2", "bool": "?",
    "int8": "i1", "int16": "<i2", "int32": "<i4", "int64": "<i8",
    "uint8": "u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8",
}  # fmt: skip
PACKED_BITS = {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}


class BlobFile:
    """One weight file. Raises ArtifactError when it is missing or not of version 2."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: set[int] = set()
        self._extents: list[tuple[int, int]] = []  # of the records and blobs read, sorted
        try:
            self._bytes = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and path.is_file():  # numpy cannot map zero bytes
                raise ArtifactError(f"{path} is empty; expected a Core ML weight file") from error
            raise unreadable(path, error) from error
        header = bytes(self._bytes[:HEADER_BYTES])
        refuse_pointer(path, header, "the weights")
        if not any(header):
            raise ArtifactError(f"{path} begins with zeros; expected a Core ML weight file")
        self._count, version = struct.unpack("<II", header[:8].ljust(8, b"\0"))
        if version != 2 or len(header) < 8:
            raise ArtifactError(f"{path} is not a Core ML weight file of version 2")
        if HEADER_BYTES + self._count * RECORD_BYTES > len(self._bytes):
            raise ArtifactError(
                f"{path} is truncated or damaged: its header counts {self._count} blobs, more "
                f"than {len(self._bytes)} bytes have room for"
            )

    def record(self, offset: int) -> tuple[str, int, int]:
        """(dtype, size in bytes, offset of the data) of the blob recorded at ``offset``.

        Raises ArtifactError when no record is there, when the data do not fit into the file or
        overlap others that were read, or when there are more blobs than the header counts.
        """
        raw = bytes(self._bytes[offset : offset + 32])
        if len(raw) < 32:
            raise ArtifactError(f"{self.path} is truncated: no blob record at byte {offset}")
        sentinel, code, size, data, _ = struct.unpack("<IIQQQ", raw)
        if sentinel != SENTINEL or code not in DTYPES:
            raise ArtifactError(f"{self.path} is damaged: no blob record at byte {offset}")
        if data + size > len(self._bytes):
            raise ArtifactError(
                f"{self.path} is truncated: a blob ends at byte {data + size}, "
                f"the file at {len(self._bytes)}"
            )
        if offset not in self._records:
            self._records.add(offset)
            if len(self._records) > self._count:
                raise ArtifactError(
                    f"{self.path} is damaged: its header counts {self._count} blobs, "
                    "and the program refers to more"
                )
            self._claim(offset, offset + RECORD_BYTES)
            self._claim(data, data + size)
        return DTYPES[code], size, data

    def _claim(self, start: int, end: int) -> None:
        """Note an extent. Raises ArtifactError when it overlaps another without being the same."""
        at = bisect_left(self._extents, (start, end))
        around = [(0, HEADER_BYTES), *self._extents[max(0, at - 1) : at + 1]]
        if start == end or (start, end) in around:
            return
        if any(start < other_end and other_start < end for other_start, other_end in around):
            raise ArtifactError(
                f"{self.path} is damaged: the blob at bytes {start} to {end} overlaps another one "
                "or its record"
            )
        self._extents.insert(at, (start, end))

    def data(self, offset: int, size: int) -> np.ndarray:
        """``size`` raw bytes from ``offset``, as a read-only view of the mapped file."""
        return self._bytes[offset : offset + size]


class WeightFiles:
    """The weight files beside a program, each opened once; ``folder`` is ``@model_path``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, BlobFile] = {}

    def __getitem__(self, name: str) -> BlobFile:
        """The file of a name such as ``@model_path/weights/weight.bin``.

        Raises ArtifactError when it is missing, damaged or outside the folder.
        """
        if name not in self._open:
            self._open[name] = BlobFile(weight_path(self._folder, name))
        return self._open[name]


def weight_path(folder: Path, name: str) -> Path:
    """Where a weight file lies. Raises ArtifactError when its name leads out of ``folder``."""
    path = path_inside(folder, name.removeprefix("@model_path/"))
    if path is None:
        raise ArtifactError(f"the model points outside itself for weights: {name!r}")
    return path


@dataclass(frozen=True)
class BlobRef:
    """Where a constant lives: a weight file and the offset of its record."""

    file: BlobFile
    offset: int

    def read(self, dtype: str, elements: int) -> np.ndarray:
        """Raw bytes of the blob, checked against the declared type and element count."""
        stored, size, start = self.file.record(self.offset)
        # bool constants are stored as uint8; the file format has no bool
        if stored != dtype and not (dtype == "bool" and stored == "uint8"):
            raise ArtifactError(
                f"{self.file.path} holds {stored} at byte {self.offset}, "
                f"where the program declares {dtype}"
            )
        bits = PACKED_BITS.get(dtype) or 8 * np.dtype(NUMPY[dtype]).itemsize
        if size != (elements * bits + 7) // 8:
            raise ArtifactError(
                f"{self.file.path} holds {size} bytes at byte {self.offset}, "
                f"where the program declares {elements} elements of {dtype}"
            )
        return self.file.data(start, size)


def unpack_bits(raw: np.ndarray, dtype: str, elements: int) -> np.ndarray:
    """Raw bytes to ``elements`` values: packed types one to a byte, bf16 widened to float32."""
    if dtype in PACKED_BITS:
        return unpack(raw, PACKED_BITS[dtype], elements, signed=dtype.startswith("int"))
    values = raw.view(NUMPY[dtype])
    if dtype == "bf16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def unpack(raw: np.ndarray, bits: int, elements: int, *, signed: bool = False) -> np.ndarray:
    """``elements`` integers of ``bits`` bits, packed least significant bit first, as (u)int8."""
    if bits == 8:
        values = np.asarray(raw[:elements])
    elif bits in (1, 2, 4):
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        values = ((raw[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)[:elements]
    else:  # 3 and 6 bits straddle bytes
        single = np.unpackbits(raw, count=elements * bits, bitorder="little")
        values = np.packbits(single.reshape(-1, bits), axis=1, bitorder="little").reshape(-1)
    if signed:
        half = 1 << (bits - 1)
        return ((values.astype(np.int16) ^ half) - half).astype(np.int8)
    return values
