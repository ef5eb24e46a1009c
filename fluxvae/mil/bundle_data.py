"""``coremldata.bin`` of a compiled model: a header, the description, one record per function.

Little endian: u32 kind; three i64 of the compiler's version; a string (the variant,
``generic``); three i64 of the specification's version; a string (another variant, empty); the
serialised ModelDescription as a string; 16 bytes for each function. A string is a u64 length and
its bytes. The format has no published definition; it is known from Apple's compiler's output.
"""

import struct
from dataclasses import dataclass

from fluxvae.errors import ArtifactError

NEURAL_NETWORK, ML_PROGRAM, PIPELINE = 500, 502, 202  # field numbers of Model.proto
VARIANT = b"generic"
_KINDS = {NEURAL_NETWORK: "a neural network", PIPELINE: "a pipeline"}
_HEADER = 4 + 3 * 8


@dataclass(frozen=True)
class CompiledData:
    """``compiler`` is the major version; ``description`` a serialised ModelDescription."""

    compiler: int
    specification: int
    description: bytes
    functions: int = 1


def pack_data(data: CompiledData) -> bytes:
    """The bytes of a ``coremldata.bin`` of an ML Program."""
    record = struct.pack("<IIQ", ML_PROGRAM, 0, 0)
    return b"".join(
        (
            struct.pack("<I3q", ML_PROGRAM, data.compiler, 0, 0),
            pack_string(VARIANT),
            struct.pack("<3q", data.specification, 0, 0),
            pack_string(b""),
            pack_string(data.description),
            record * data.functions,
        )
    )


def parse_data(content: bytes, what: str) -> CompiledData:
    """What a ``coremldata.bin`` says. Raises ArtifactError, naming ``what``."""
    if len(content) < _HEADER:
        raise ArtifactError(f"{what}: coremldata.bin is truncated ({len(content)} bytes)")
    kind, compiler, _, _ = struct.unpack_from("<I3q", content)
    if kind in _KINDS:
        raise ArtifactError(f"{what} holds {_KINDS[kind]}; only compiled ML Programs can be read")
    if kind != ML_PROGRAM:
        raise ArtifactError(f"{what}: coremldata.bin is not a Core ML file")
    try:
        _, at = _string(content, _HEADER)
        (specification,) = struct.unpack_from("<q", content, at)
        _, at = _string(content, at + 24)
        description, at = _string(content, at)
    except (struct.error, IndexError) as error:
        raise ArtifactError(f"{what}: coremldata.bin is truncated or damaged") from error
    return CompiledData(compiler, specification, description, (len(content) - at) // 16)


def pack_string(text: bytes) -> bytes:
    """Length and bytes."""
    return struct.pack("<Q", len(text)) + text


def _string(content: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("<Q", content, at)
    end = at + 8 + length
    if end > len(content):
        raise IndexError
    return content[at + 8 : end], end
