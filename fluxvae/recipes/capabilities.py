"""What can be made of which network: one table, of which docs/capabilities.md is written.

Standard library only. A cell has no reason, or the very sentence that the command refuses with:
that of the recipe's rules, or of ``COMMANDS``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fluxvae.errors import UsageError
from fluxvae.networks.catalog import PARTS, all_decoders
from fluxvae.recipes.compression import parse_label
from fluxvae.recipes.recipe import Recipe
from fluxvae.recipes.sizes import Size, parse_sizes


@dataclass(frozen=True)
class Network:
    """One column: a variant's decoder or encoder of a kind."""

    variant: str
    kind: str
    part: str

    @property
    def title(self) -> str:
        """As the page has it: ``flux1 full encoder``."""
        return f"{self.variant} {self.kind} {self.part}"


@dataclass(frozen=True)
class Row:
    """One thing that can be asked of a network: recipe fields, or a command."""

    topic: str
    text: str
    fields: Mapping[str, object] = field(default_factory=dict)
    command: str | None = None


NETWORKS = tuple(
    Network(entry.variant, entry.kind, part) for part in PARTS for entry in all_decoders()
)
SIZE = (Size(64, 64),)
_SEVERAL = parse_sizes("64,80")

_MODEL, _INSIDE, _PARTS, _SMALLER, _COMMANDS = (
    "Model",
    "What happens inside",
    "Several programs",
    "Compression",
    "Commands",
)


def _compressed(text: str, label: str, **more: object) -> Row:
    return Row(_SMALLER, text, {"compression": parse_label(label), **more})


ROWS = (
    Row(_MODEL, "float16 (default)", {"precision": "float16"}),
    Row(_MODEL, "`--precision float32`", {"precision": "float32"}),
    Row(_MODEL, "`--io-precision float32`", {"io_precision": "float32"}),
    Row(_MODEL, "`--layout nhwc`", {"layout": "nhwc"}),
    Row(_MODEL, "`--nhwc-model`", {"layout": "nhwc", "nhwc_model": True}),
    Row(_MODEL, "`--shapes multifunction`", {"sizes": _SEVERAL, "shapes": "multifunction"}),
    Row(_MODEL, "`--shapes enumerated`", {"sizes": _SEVERAL, "shapes": "enumerated"}),
    Row(_MODEL, "`--output image`", {"output": "image"}),
    Row(_MODEL, "`--input image`", {"input": "image"}),
    Row(_MODEL, "`--format neuralnetwork`", {"format": "neuralnetwork", "precision": "float32"}),
    Row(_INSIDE, "`--latents vae`", {"latents": "vae"}),
    Row(_INSIDE, "`--latents sampler`", {"latents": "sampler"}),
    Row(_INSIDE, "`--latents packed`", {"latents": "packed"}),
    Row(_INSIDE, "`--attention channels-first`", {"attention": "channels-first"}),
    Row(_INSIDE, "`--attention chunked:N`", {"attention": "chunked:64"}),
    Row(_INSIDE, "`--attention split-einsum`", {"attention": "split-einsum"}),
    Row(_INSIDE, "`--attention sdpa`", {"attention": "sdpa"}),
    Row(_INSIDE, "`--fp16-safety rescale`", {"fp16_safety": "rescale"}),
    Row(_INSIDE, "`--fp16-safety mixed`", {"fp16_safety": "mixed"}),
    Row(_PARTS, "`--chunks 2`", {"chunks": 2}),
    Row(_PARTS, "`--tile PX`", {"tile": 96, "sizes": parse_sizes("192")}),
    Row(
        _PARTS,
        "`--tile PX --tile-statistics whole`",
        {"tile": 96, "tile_statistics": "whole", "sizes": parse_sizes("192")},
    ),
    _compressed("`--palettize BITS`", "pal4"),
    _compressed("`--palettize BITS --granularity grouped:16`", "pal4-grouped16"),
    _compressed("`--quantize-weights int8`", "int8"),
    _compressed("`--quantize-weights int4`", "int4"),
    _compressed("`--mixed-bits SIZE`", "mixed-450KB"),
    _compressed("`--w8a8`", "w8a8"),
    _compressed("any of these with `--latents packed`", "pal4", latents="packed"),
    _compressed("any of these with `--chunks 2`", "int8", chunks=2),
    _compressed("any of these with `--tile PX`", "int4", tile=96, sizes=parse_sizes("192")),
)
"""Every recipe row; ``COMMANDS`` adds the commands."""

# By command: why it does not take networks of a (kind, part); None where it does.
_Reasons = Mapping[tuple[str, str], str]


def _only(part: str, reason: str) -> _Reasons:
    return {(kind, part): reason for kind in ("tiny", "full", "small")}


COMMANDS: Mapping[str, _Reasons] = {
    "validate": {},
    "--latents FILE": _only("encoder", "an encoder takes images: leave --latents out"),
    "decode": _only("encoder", "an encoder turns images into latents: use fluxvae encode"),
    "encode": _only("decoder", "a decoder turns latents into images: use fluxvae decode"),
    "inspect": {},
    "export-io": {},
    "validate-swift": {},
    "compile": {},
    "census": {},
    "qat": {},
    "compare-variants": {},
    "roundtrip": {},
}


def command_rows() -> Iterator[Row]:
    """One row for each command of ``COMMANDS``."""
    for name in COMMANDS:
        text = name if name.startswith("--") else f"fluxvae {name}"
        yield Row(_COMMANDS, f"`{text}`", command=name)


def recipe_of(network: Network, fields: Mapping[str, object]) -> Recipe:
    """A row's recipe for a network. Raises UsageError where there is none."""
    common = {"decoder": network.kind, "part": network.part, "sizes": SIZE}
    return Recipe(network.variant, **{**common, **fields})  # type: ignore[arg-type]


def reason(row: Row, network: Network) -> str | None:
    """Why a network cannot have what the row asks for; None when it can."""
    if row.command is not None:
        return COMMANDS[row.command].get((network.kind, network.part))
    try:
        recipe_of(network, row.fields)
    except UsageError as error:
        return str(error)
    return None


def refuse_command(command: str, kind: str, part: str, name: str | None = None) -> None:
    """Raise UsageError where ``command`` does not take such networks; ``name``: the artifact's."""
    why = COMMANDS[command].get((kind, part))
    if why is not None:
        raise UsageError(f"{name or f'fluxvae {command}'}: {why}")
