"""A variant taken apart: one part changed at a time against float32, then all together.

Blame is what a part costs alone. When all together cost more than the parts' errors added (as
powers), the parts make each other worse: they compound.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from fluxvae.recipes import Recipe

NOTHING = "nothing"  # the float32 program as converted: what conversion alone costs
ALL = "all"  # the variant as it is
EVERYTHING = "all and rewrites"

_REWRITES: tuple[tuple[str, dict[str, object]], ...] = (
    ("NHWC input and output", {"layout": "nhwc"}),
    ("NHWC inside", {"layout": "nhwc", "nhwc_model": True}),
    ("8-bit image output", {"output": "image"}),
)


@dataclass(frozen=True)
class Part:
    """What is changed, and the recipe with that change alone."""

    name: str
    recipe: Recipe


def parts_of(recipe: Recipe) -> tuple[Part, ...]:
    """The parts of a variant, the float32 reference first, the whole variant last but one.

    ``recipe`` has one size. Rewrites are parts whether the variant has them or not, since each
    could be chosen; ``EVERYTHING`` adds those it has not.
    """
    base = Recipe(recipe.variant, "float32", "float32", sizes=recipe.sizes)
    parts = [Part(NOTHING, base)]
    if recipe.precision == "float16":
        parts.append(Part("precision", replace(base, precision="float16")))
    if recipe.io_dtype == "float16":
        parts.append(Part("I/O precision", replace(base, io_precision="float16")))
    if recipe.compression is not None:
        label = recipe.compression.label()
        parts.append(Part(label, replace(base, compression=recipe.compression)))
    parts += [Part(name, _changed(base, change)) for name, change in _REWRITES]
    every = recipe
    for _, change in _REWRITES:
        every = _changed(every, change)
    parts.append(Part(ALL, recipe))
    return (*parts, Part(EVERYTHING, every)) if every != recipe else tuple(parts)


def _changed(recipe: Recipe, change: dict[str, object]) -> Recipe:
    return replace(recipe, **change)  # type: ignore[arg-type]


def combined_psnr(psnrs: Iterable[float | None]) -> float | None:
    """PSNR in dB if independent errors with these PSNRs came together; None: no error at all.

    The mean square errors, ``10 ** (-psnr / 10)``, of independent errors add.
    """
    total = math.fsum(10 ** (-psnr / 10) for psnr in psnrs if psnr is not None)
    return -10 * math.log10(total) if total else None
