"""coremltools' protobuf messages, without importing coremltools.

Importing coremltools takes 3 to 4 seconds and pulls in torch's front end; its generated message
modules alone load in 30 ms. They are loaded from the installed package under a private name. The
messages live in protobuf's one descriptor pool, so a later ``import coremltools`` gets the same
classes.
"""

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

from fluxvae.errors import ToolError

_PRIVATE = "_fluxvae_coreml_proto"


def message_module(name: str) -> Any:
    """A generated module such as ``Model_pb2``. Raises ToolError when coremltools is missing."""
    if _PRIVATE not in sys.modules:
        spec = importlib.util.find_spec("coremltools")
        if spec is None or spec.origin is None:
            raise ToolError(
                "coremltools is not installed; its protobuf messages are needed to read a model: "
                "pip install coremltools==9.0"
            )
        package = types.ModuleType(_PRIVATE)
        package.__path__ = [str(Path(spec.origin).parent / "proto")]
        sys.modules[_PRIVATE] = package
    return importlib.import_module(f"{_PRIVATE}.{name}")
