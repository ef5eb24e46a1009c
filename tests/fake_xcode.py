"""Stand-ins for Xcode's tools: small shell scripts that behave as the real ones do.

Known of the real ones: ``coremlcompiler compile SOURCE FOLDER`` writes
``FOLDER/<stem>.mlmodelc``; without Xcode, xcrun ends with 72 and ``unable to find utility``
(https://github.com/apple/ml-stable-diffusion/issues/17,
https://github.com/hollance/MobileNet-CoreML/issues/3).
"""

import json
from pathlib import Path

from fluxvae.mil.protobuf import message_module

FIND = """
if [ "$1" = --find ]; then
  if [ "$2" = {has} ]; then echo "/Xcode/$2"; exit 0; fi
  echo "xcrun: error: unable to find utility \\"$2\\", not a developer tool or in PATH" >&2
  exit 72
fi
shift
"""

WRITE = """
name="${2##*/}"
made="$3/${name%.*}.mlmodelc"
mkdir -p "$made/analytics"
echo "$0 $*" > "$made/model.mil"
"""
COMPLETE = WRITE + 'echo data > "$made/coremldata.bin"\n'
REFUSE = (
    WRITE
    + """
echo "2025-01-01 10:00:00.000 coremlcompiler[1:2] reading the model" >&2
echo "coremlc: error: Error reading protobuf spec. validator error: no such layer" >&2
exit 1
"""
)
HALF = WRITE + "exit 0\n"
HANG = WRITE + "sleep 60\n"


def install(folder: Path, name: str, behaviour: str, *, finds: str | None = None) -> Path:
    """Put the tool ``name`` into ``folder``; with ``finds`` it is an xcrun that finds that."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    prologue = FIND.format(has=finds) if finds is not None else ""
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{prologue}{behaviour}")
    path.chmod(0o755)
    return path


def make_package(folder: Path, name: str = "decoder_v1.0.mlpackage") -> Path:
    """A package with next to nothing in it; the stand-ins do not read it, ``compile`` does."""
    package = folder / name
    model = make_network(package / "Data" / "com.apple.CoreML" / "model.mlmodel")
    manifest = {
        "rootModelIdentifier": "root",
        "itemInfoEntries": {"root": {"path": f"com.apple.CoreML/{model.name}"}},
    }
    (package / "Manifest.json").write_text(json.dumps(manifest))
    return package


def make_network(path: Path) -> Path:
    """A neural network without layers."""
    model = message_module("Model_pb2").Model(specificationVersion=4)
    model.neuralNetwork.SetInParent()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path
