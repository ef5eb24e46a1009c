"""A variant taken apart: one part changed at a time against float32, then all together.

A part's contribution is its loss alone. When all together cost more than the parts' errors added
(as powers), the parts make each other worse: they compound.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from fluxvae.recipes import Recipe
from fluxvae.records.statistics import decibels

CONVERTED = "fp32 program"  # the reference: what conversion alone changes
ALL = "all"  # every part together

_NHWC: dict[str, object] = {"layout": "nhwc", "nhwc_model": True}


@dataclass(frozen=True)
class Part:
    """What is changed, and the recipe with that change alone."""

    name: str
    recipe: Recipe


def parts_of(recipe: Recipe) -> tuple[Part, ...]:
    """The parts of a variant, the float32 reference first, all of them together last.

    ``recipe`` has one size. The NHWC rewrite of a tiny decoder is a part whether the variant has it
    or not, since it could be chosen for each.
    """
    base = Recipe(recipe.variant, "float32", "float32", sizes=recipe.sizes, decoder=recipe.decoder)
    nhwc = _NHWC if recipe.decoder == "tiny" else {}
    changes: list[tuple[str, dict[str, object]]] = []
    if recipe.precision == "float16":
        changes.append(("precision", {"precision": "float16"}))
    if recipe.io_dtype == "float16":
        changes.append(("I/O precision", {"io_precision": "float16"}))
    if recipe.compression is not None:
        changes.append((recipe.compression.label(), {"compression": recipe.compression}))
    if recipe.output == "image":
        changes.append(("8-bit image output", {"output": "image"}))
    if nhwc:
        changes.append(("NHWC inside", nhwc))
    alone = [Part(name, _changed(base, change)) for name, change in changes]
    return (Part(CONVERTED, base), *alone, Part(ALL, _changed(recipe, nhwc)))


def _changed(recipe: Recipe, change: dict[str, object]) -> Recipe:
    return replace(recipe, **change)  # type: ignore[arg-type]


def combined_psnr(psnrs: Iterable[float | None], surplus: float = 0.0) -> float | None:
    """PSNR in dB if independent errors with these PSNRs came together; None: no error at all.

    The mean square errors, ``10 ** (-psnr / 10)``, of independent errors add. ``surplus``: what of
    their sum is counted more than once, as a base's error that each of them holds.
    """
    errors = [10 ** (-psnr / 10) for psnr in psnrs if psnr is not None]
    total = math.fsum([*errors, -surplus])
    return decibels(total) if total > 0 else None
