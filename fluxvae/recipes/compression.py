"""How a decoder is compressed: one frozen Compression inside a Recipe.

Core ML's forms by release (coremltools 9.0's op definitions): tables of 1, 2, 4, 6 and 8 bits for a
whole tensor and int8 weights since iOS16; quantize and dequantize of activations since iOS17;
3 bits, tables for groups, scales for channels of a table, int4 and blocks since iOS18.
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal

from fluxvae.errors import UsageError
from fluxvae.recipes.bounds import check_bound
from fluxvae.recipes.known_trouble import INT4, INTEGER_BLOCKS, PALETTES_4_BIT, SCALED_PALETTES

KINDS = ("palette", "int8", "int4", "mixed", "w8a8")
METHODS = ("compensated", "plain", "trained")
ACTIVATIONS = ("zero-point", "symmetric")
PALETTE_BITS = (1, 2, 3, 4, 6, 8)
# Channels of a group or block: what divides the 64 and 256 that the tiny decoders' convolutions
# take and give. Of the others, the first takes 16 or 32, at most one block of that size; and the
# last gives 3, which have a table each.
GROUP_SIZES = (1, 2, 4, 8, 16, 32, 64)

_SIZES = "|".join(map(str, GROUP_SIZES))
_GRANULARITIES = {
    "palette": rf"tensor|channel-scale|grouped:({_SIZES})",
    "int8": r"tensor|channel",
    "int4": rf"channel|block:({_SIZES})",
    "mixed": r"channel-scale|tensor",
    "w8a8": r"channel",
}
_EXAMPLES = {
    "palette": "tensor, channel-scale or grouped:16",
    "int8": "tensor or channel",
    "int4": "channel or block:32",
    "mixed": "channel-scale or tensor",
    "w8a8": "channel",
}
_LABEL = re.compile(
    r"(?:pal(?P<bits>\d)|(?P<kind>int8|int4|w8a8|mixed)(?:(?<=mixed)-(?P<budget>[\d.]+[A-Za-z]+))?)"
    r"(?:-(?P<granularity>tensor|channel-scale|channel|grouped\d{1,4}|block\d{1,4}))?"
    r"(?:-(?P<method>compensated|plain|trained))?"
    r"(?:-(?P<activations>zero-point|symmetric))?"
    r"(?:-(?P<share>\d+(?:\.\d+)?(?:e-\d+)?))?"
)
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(KB|MB|dB)", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """What a mixed allocation must meet: at most ``value`` bytes, or at least ``value`` dB."""

    unit: str  # "bytes" or "dB"
    value: float


@dataclass(frozen=True)
class Compression:
    """One way to compress a decoder.

    ``kind``: ``palette`` (tables of 2 ** bits values), ``int8``, ``int4``, ``mixed`` (bits by
    layer, within ``budget``) or ``w8a8`` (int8 weights and 8-bit activations; at least
    ``int8_share`` of the multiply-accumulates). ``method``: ``compensated`` (layer by layer, each
    making up for the error before it), ``plain`` (coremltools' arithmetic) or ``trained`` (from a
    checkpoint of ``fluxvae qat``). ``granularity`` None: the finest that the target and the
    kind allow at the same size. Raises UsageError for what cannot be made.
    """

    kind: str
    bits: int | None = None
    granularity: str | None = None
    method: str = "compensated"
    budget: str | None = None
    activations: str = "zero-point"
    int8_share: float = 0.95

    def __post_init__(self) -> None:
        for field, allowed in (("kind", KINDS), ("method", METHODS), ("activations", ACTIVATIONS)):
            value = getattr(self, field)
            if value not in allowed:
                raise UsageError(f"{field} {value!r} is none of {list(allowed)}")
        if (self.kind == "palette") != (self.bits is not None) or (
            self.bits is not None and self.bits not in PALETTE_BITS
        ):
            raise UsageError(
                f"palettes have 1, 2, 3, 4, 6 or 8 bits, other kinds none; got {self.bits}"
            )
        if (self.kind == "mixed") != (self.budget is not None):
            raise UsageError("mixed bits need a budget, such as 900KB or 40dB; other kinds none")
        if self.budget is not None:
            parse_budget(self.budget)
        if self.granularity is not None and not re.fullmatch(
            _GRANULARITIES[self.kind], self.granularity
        ):
            raise UsageError(
                f"granularity {self.granularity!r} is not for {self.kind}: "
                f"use {_EXAMPLES[self.kind]}{_sizes_that_fit(self.kind)}"
            )
        if not 0 < self.int8_share <= 1:
            raise UsageError(f"the int8 share is between 0 and 1, got {self.int8_share:g}")

    @property
    def needs_calibration(self) -> bool:
        """Whether it is found by looking at latents."""
        if self.method == "plain":
            return self.kind in ("mixed", "w8a8")
        return self.method == "compensated"

    def least_target(self) -> str:
        """The oldest release that can hold this; with ``granularity`` None, at its simplest."""
        if self.kind == "w8a8":
            return "iOS17"
        plain = self.granularity in (None, "tensor", "channel")
        if self.kind == "int4" or self.bits == 3 or not plain:
            return "iOS18"
        return "iOS16"

    def wanted_target(self) -> str:
        """The oldest release that holds this at its best: for a recipe that names no target."""
        if self.kind in ("palette", "mixed") and self.granularity is None:
            return "iOS18"  # scales for channels: about 3 dB at 4 bits, for 1 % of bytes
        return self.least_target()

    def resolved_granularity(self, target: str) -> str:
        """``granularity``, or the finest default of the kind on ``target`` (``iOS16``, ...)."""
        if self.granularity is not None:
            return self.granularity
        new = int(target.removeprefix("iOS")) >= 18
        defaults = {
            "palette": "channel-scale" if new else "tensor",
            "mixed": "channel-scale" if new else "tensor",
            "int8": "channel",
            "int4": "block:32",
            "w8a8": "channel",
        }
        return defaults[self.kind]

    def reported_forms(self, target: str) -> tuple[str, ...]:
        """Which of the forms in ``known_trouble`` this is stored in on ``target``."""
        granularity, tables = self.resolved_granularity(target), self.kind in ("palette", "mixed")
        forms = {
            SCALED_PALETTES: tables and granularity == "channel-scale",
            PALETTES_4_BIT: tables and self.bits in (4, None),  # mixed bits: for some layers
            INTEGER_BLOCKS: granularity.startswith("block"),
            INT4: self.kind == "int4",
        }
        return tuple(form for form, held in forms.items() if held)

    def label(self) -> str:
        """Part of a file name: ``pal4``, ``int8``, ``mixed-900KB``, ``w8a8``, ``pal4-plain``."""
        parts = [f"pal{self.bits}" if self.kind == "palette" else self.kind]
        if self.budget:
            parts.append(self.budget.replace(" ", ""))
        if self.granularity:
            parts.append(self.granularity.replace(":", ""))
        if self.method != "compensated":
            parts.append(self.method)
        if self.kind == "w8a8":
            if self.activations != "zero-point":
                parts.append(self.activations)
            if not math.isclose(self.int8_share, 0.95):
                parts.append(f"{self.int8_share * 100:g}")
        return "-".join(parts)


def _sizes_that_fit(kind: str) -> str:
    if _SIZES not in _GRANULARITIES[kind]:
        return ""
    *others, last = map(str, GROUP_SIZES)
    return f"; a size that divides the convolutions' 64 channels: {', '.join(others)} or {last}"


def parse_label(text: str) -> Compression:
    """The inverse of ``Compression.label``: ``pal4-plain``, ``int4-block32``, ``w8a8-85``.

    Raises UsageError for what is not a label, and as Compression does.
    """
    match = _LABEL.fullmatch(text.strip())
    if not match:
        raise UsageError(
            f"recipe {text.strip()!r} is not understood: expected a name such as pal4, "
            "pal6-tensor, int8-plain, int4-block32, mixed-900KB, w8a8, w8a8-85 or w8a8-symmetric"
        )
    found = match.groupdict()
    kind = found["kind"] or "palette"
    if kind != "w8a8" and (found["activations"] or found["share"]):
        raise UsageError(
            f"recipe {text.strip()!r}: symmetric, zero-point and a share are for w8a8 only"
        )
    grain = re.sub(r"^(grouped|block)(?=\d)", r"\1:", found["granularity"] or "")
    return Compression(
        kind,
        bits=int(found["bits"]) if found["bits"] else None,
        granularity=grain or None,
        method=found["method"] or "compensated",
        budget=found["budget"],
        activations=found["activations"] or "zero-point",
        int8_share=float(Decimal(found["share"]) / 100) if found["share"] else 0.95,
    )


def parse_budget(text: str) -> Budget:
    """``900KB`` and ``0.9MB`` (of 1000) to bytes, ``40dB`` to PSNR. Raises UsageError."""
    match = _BUDGET.fullmatch(text.strip())
    if not match or not 0 < float(match[1]) < math.inf:
        raise UsageError(f"budget {text!r} is not understood: give a size or a PSNR, 900KB or 40dB")
    unit = match[2].upper()
    if unit == "DB":
        return Budget("dB", check_bound("psnr_db", float(match[1]), f"budget {text[:40]!r}"))
    return Budget("bytes", float(match[1]) * {"KB": 1e3, "MB": 1e6}[unit])
