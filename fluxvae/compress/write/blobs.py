"""A new weight file, written by coremltools' own blob writer, so that two hands meet in a package:
Apple's writes, ours (``fluxvae.mil.blobs``) reads.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fluxvae.errors import CompressionError
from fluxvae.mil.blobs import NUMPY
from fluxvae.mil.program import BITS, Constant, TensorType
from fluxvae.mil.protobuf import message_module
from fluxvae.mil.text.messages import MIL_DTYPES

# coremltools 9.0 keeps smaller tensors in the program itself (should_use_weight_file).
LEAST_ELEMENTS = 10
BLOB_DTYPES = ("fp16", "fp32", "uint8", "int8", "int4", "uint1", "uint2", "uint3", "uint4", "uint6")
_CODES = {name: code for code, name in MIL_DTYPES.items()}
_METHODS = {"fp16": "write_fp16_data", "fp32": "write_float_data"}
_HANDED_AS = {"fp16": "<u2", "int4": "i1", "uint1": "u1", "uint2": "u1", "uint3": "u1",
              "uint4": "u1", "uint6": "u1"}  # fmt: skip


class WeightWriter:
    """Writes one weight file and hands out the Value messages that point into it.

    ``path`` is where it is written, ``name`` what the program calls it. Blobs copied from the old
    file are stored once, however often they are asked for. Raises OSError when the disk is full.
    """

    def __init__(self, path: Path, name: str) -> None:
        from coremltools.libmilstoragepython import _BlobStorageWriter

        self._messages = message_module("MIL_pb2")
        self._path = path
        self._end = 0
        self._writer = self._on_disk(lambda: _BlobStorageWriter(str(path)))
        self._name = name
        self._copied: dict[tuple[Path, int], int] = {}

    def value(self, array: np.ndarray, dtype: str, *, inline: bool = False) -> Any:
        """A Value message of ``array`` as MIL's ``dtype``: a blob, or inside the program where it
        is small or ``inline`` is asked for, as coremltools decides. Integers of fewer than 8 bits
        come one to a byte.
        """
        value = self._messages.Value()
        fill_type(value.type, TensorType(dtype, array.shape))
        if inline or array.size < LEAST_ELEMENTS or dtype not in BLOB_DTYPES:
            _fill_immediate(value.immediateValue.tensor, array, dtype)
        else:
            value.blobFileValue.fileName = self._name
            value.blobFileValue.offset = self._write(array, dtype)
        return value

    def copied(self, constant: Constant) -> int:
        """Offset of a blob of the old file in this one."""
        assert constant.blob is not None
        key = (constant.blob.file.path, constant.blob.offset)
        if key not in self._copied:
            dtype = constant.blob.file.record(constant.blob.offset)[0]
            if constant.type.dtype not in (dtype, "bool"):
                raise CompressionError(f"a blob of {dtype} is declared as {constant.type}")
            values = np.asarray(constant.value())
            self._copied[key] = self._write(values, dtype)
        return self._copied[key]

    def close(self) -> None:
        """Nothing can be added afterwards; the file is complete, or OSError is raised."""
        self._writer = None  # the C++ object closes its file when it goes, whatever comes of it
        if self._path.stat().st_size < self._end:
            raise _full(self._path)

    def _write(self, array: np.ndarray, dtype: str) -> int:
        raw = np.ascontiguousarray(array, NUMPY.get(dtype, array.dtype)).reshape(-1)
        write = getattr(self._writer, _METHODS.get(dtype, f"write_{dtype}_data"), None)
        if write is None:
            raise CompressionError(f"coremltools' blob writer knows no elements of type {dtype}")
        offset: int = self._on_disk(lambda: write(raw.view(_HANDED_AS.get(dtype, raw.dtype))))
        # a record of 64 bytes, and the elements after it
        self._end = max(self._end, offset + 64 + array.size * BITS[dtype] // 8)
        return offset

    def _on_disk(self, call: Callable[[], Any]) -> Any:
        """Apple's writer says "Unknown error" of a full disk, and leaves out the number."""
        try:
            return call()
        except RuntimeError as error:
            if "[MIL FileWriter]" not in str(error):
                raise
            raise _full(self._path) from error


def _full(path: Path) -> OSError:
    number = errno.ENOSPC if path.parent.is_dir() else errno.ENOENT
    return OSError(number, os.strerror(number), str(path.parent))


def fill_type(value_type: Any, declared: TensorType) -> None:
    """Write ``declared`` into a ValueType message."""
    tensor = value_type.tensorType
    tensor.dataType = _CODES[declared.dtype]
    tensor.rank = len(declared.shape)
    for size in declared.shape:
        dimension = tensor.dimensions.add()
        if size is None:
            dimension.unknown.variadic = False
        else:
            dimension.constant.size = size


def text_value(text: str) -> Any:
    """A Value message of a string."""
    value = message_module("MIL_pb2").Value()
    fill_type(value.type, TensorType("string", ()))
    value.immediateValue.tensor.strings.values.append(text)
    return value


def pack(indices: np.ndarray, bits: int) -> np.ndarray:
    """Integers below ``2 ** bits`` as uint8 bytes, least significant bit first."""
    single = np.unpackbits(indices.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(single.reshape(-1), bitorder="little")


def _fill_immediate(tensor: Any, array: np.ndarray, dtype: str) -> None:
    if BITS[dtype] < 8:
        raise CompressionError(f"{array.size} elements of {dtype} are too few for a weight")
    flat = np.ascontiguousarray(array, NUMPY[dtype]).reshape(-1)
    if dtype == "fp32":
        tensor.floats.values.extend(flat.tolist())
    elif dtype == "int32":
        tensor.ints.values.extend(flat.tolist())
    else:
        tensor.bytes.values = flat.tobytes()
