"""Writes docs/ops.md, the list of operations the reference executor runs.

Run from the root of the checkout: ``python scripts/generate_ops_doc.py``.
"""

from pathlib import Path

from fluxvae.mil import ops as ops  # fills the registry
from fluxvae.mil.registry import REGISTRY

INTRO = """# Operations of the reference executor

<!-- Written by scripts/generate_ops_doc.py from the table in fluxvae/mil/ops. Do not edit. -->

The executor runs saved ML Programs on any operating system. It knows {count} operations: those
that the FLUX.1 and FLUX.2 decoders and encoders become, in every input and output form and every
weight compression that fluxvae writes, and those that other people's models commonly use. A
program with any other operation is refused before anything runs, with the names of all that are
missing; `fluxvae inspect` lists what is in it all the same. `classify` is not in the table: a
classifier's labels belong to its outputs.

- *since*: the first deployment target whose opset has the operation. `const` is part of every
  program and is not listed.
- *rounding*: in an fp16 program every operation computes in float32 and its result is rounded to
  fp16 once. `none needed` marks operations that only pass values on.
- An operation is right in every mode its documentation describes, or refuses the mode. Refused
  are: nearest upsampling and resizing by fractions; `real_div` of integers; transposed
  convolutions whose `output_shape` differs from what strides and padding give; windows of pooling
  that lie outside the input; the activation `scaled_tanh` in recurrent operations, whose constants
  the sources give differently; `local_response_norm` over an even number of channels; and `gru`,
  whose documentation and tests disagree on where the reset gate acts.

Each operation is compared in `tests/mil/test_ops.py` with coremltools' own declaration, type
inference and evaluation or, where coremltools cannot evaluate it, with torch in float64.

"""


def document() -> str:
    """Text of docs/ops.md."""
    return INTRO.format(count=len(list(REGISTRY))) + REGISTRY.table()


def main() -> None:
    target = Path(__file__).resolve().parents[1] / "docs" / "ops.md"
    target.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
