"""An ML Program's protobuf to a ``Document``, as Apple's compiler would write it down.

Not through ``Program``: what the executor cannot run (states, unknown operations, dictionaries) is
written all the same. Every guess is collected as a warning.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fluxvae.errors import ArtifactError
from fluxvae.mil.compiler.shapes import flexible_shapes
from fluxvae.mil.program import TensorType
from fluxvae.mil.text.document import (
    NEW_DIALECT,
    OLD_DIALECT,
    Blob,
    DictType,
    Document,
    TextOp,
    Value,
)
from fluxvae.mil.text.messages import text_functions, text_value

_STRING = TensorType("string", ())
_BUILD_INFO = DictType(_STRING, _STRING)
FIRST_NEW_SPECIFICATION = 9  # writes the newer dialect; so does Apple's, whatever the opset
# Versions that Apple's own output of either dialect carries; others were reported to load too.
_COMPILERS = {OLD_DIALECT: ("3500.14.1", "3500.32.1"), NEW_DIALECT: ("3600.16.1", "3600.25.1")}


def program_document(model: Any) -> tuple[Document, tuple[str, ...]]:
    """The text of a Model message that holds an ML Program, and what in it was guessed.

    Raises ArtifactError as ``text_functions``, and for what Apple's compiler has not been seen to
    write.
    """
    new = model.specificationVersion >= FIRST_NEW_SPECIFICATION
    dialect = NEW_DIALECT if new else OLD_DIALECT
    features = {f.name: f for f in model.description.functions}
    functions, warnings = [], []
    for made in text_functions(model.mlProgram):
        function, name = model.mlProgram.functions[made.name], made.name
        shapes, guesses = flexible_shapes(features.get(name, model.description))
        if shapes is not None:
            attributes = {**made.attributes, "FlexibleShapeInformation": shapes}
            made = replace(made, attributes=attributes)
        functions.append(made)
        warnings += guesses
        if function.opset == "CoreML9":
            warnings.append("the spelling ios26 of opset CoreML9 is a guess")
        if any(len(b.attributes) for b in function.block_specializations.values()):
            warnings.append(f"attributes of the block of function {name!r} were left out")
    attributes = _program_attributes(model.mlProgram, dialect)
    return Document(dialect, attributes, tuple(functions)), tuple(dict.fromkeys(warnings))


def document_blobs(document: Document) -> Iterator[tuple[TextOp, str, Value]]:
    """Every value that lies in a weight file, with its operation and its key there."""
    for function in document.functions:
        for op in function.ops:
            for key, argument in (*op.arguments.items(), *op.attributes.items()):
                for item in argument if isinstance(argument, tuple) else (argument,):
                    if isinstance(item, Value) and isinstance(item.body, Blob):
                        yield op, key, item


def _program_attributes(program: Any, dialect: str) -> dict[str, Value]:
    attributes = {k: text_value(v) for k, v in program.attributes.items()}
    entries = {}
    if "buildInfo" in attributes:
        found = attributes["buildInfo"]
        if found.type != _BUILD_INFO or isinstance(found.body, Blob):
            raise ArtifactError("the program's buildInfo is not a dictionary of strings")
        entries = {key: value for (key,), (value,) in found.body}
    mil, compiler = _COMPILERS[dialect]
    entries |= {"coremlc-component-MIL": mil, "coremlc-version": compiler}
    body = tuple(((k,), (entries[k],)) for k in sorted(entries))
    return {**attributes, "buildInfo": Value(_BUILD_INFO, body)}
