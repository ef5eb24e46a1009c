"""How a recipe is asked for: ``convert``'s option groups, and what they ask for as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.cache import compressions
from fluxvae.cli.options import FiniteRange, option, say
from fluxvae.cli.sources import Sources, say_notes
from fluxvae.errors import UsageError
from fluxvae.recipes import (
    ACTIVATIONS,
    FP16_SAFETY,
    LATENTS,
    PALETTE_BITS,
    TILE_STATISTICS,
    Compression,
    Recipe,
)

METHODS = ("compensated", "plain")

if TYPE_CHECKING:
    from fluxvae.compress.forms import CompressedDecoder
    from fluxvae.compress.mixed import Allocation
    from fluxvae.networks.weights import Weights

latent_form_option = click.option(
    "--latent-form",
    type=click.Choice(LATENTS),
    help="Which latent it is: the VAE's own, the sampler's, or the transformer's packed one. "
    "[default: sampler for tiny, vae for full and small]",
)


@dataclass(frozen=True)
class FormOptions:
    """Fields of the recipe: what the artifact takes, and how the decoder is rewritten or cut."""

    attention: str = option(
        "--attention",
        metavar="FORM",
        default="auto",
        show_default=True,
        help="Form of a KL decoder's attention: auto, plain, channels-first, chunked:N (N queries "
        "at a time), split-einsum or sdpa (iOS18).",
    )
    latents: str | None = option(
        "--latents",
        type=click.Choice(LATENTS),
        help="Which latent the artifact takes: the VAE's own, the sampler's, or the transformer's "
        "packed one; the rest happens inside. [default: sampler for tiny, vae for full and small]",
    )
    fp16_safety: str = option(
        "--fp16-safety",
        type=click.Choice(FP16_SAFETY),
        default="report",
        show_default=True,
        help="Against values that float16 cannot hold: warn; rescale groups of channels (KL "
        "decoders, exact); keep what makes and reads them in float32 (mixed); or nothing.",
    )
    chunks: int = option(
        "--chunks",
        type=click.IntRange(1, 2),
        default=1,
        show_default=True,
        help="2: two packages of even weights, run one after the other.",
    )
    tile: int | None = option(
        "--tile",
        type=int,
        metavar="PX",
        help="One package that makes any large image in tiles of this size, such as 512; a KL "
        "decoder's for images of --size.",
    )
    tile_statistics: str = option(
        "--tile-statistics",
        type=click.Choice(TILE_STATISTICS),
        default=TILE_STATISTICS[0],
        show_default=True,
        help="GroupNorm statistics of a KL decoder's tiles: from passes over every second block of "
        "rows and columns (about 45 dB), or from a whole pass (exact; all its memory).",
    )

    def recipe_fields(self) -> dict[str, Any]:
        """Keyword arguments of ``Recipe``."""
        return asdict(self)


@dataclass(frozen=True)
class CompressionOptions:
    """The options for compression, as they were given."""

    palettize: str | None = option(
        "--palettize",
        type=click.Choice([str(b) for b in PALETTE_BITS]),
        metavar="BITS",
        help="Weights from tables of 2^BITS values; BITS is 1, 2, 3, 4, 6 or 8.",
    )
    quantize_weights: str | None = option(
        "--quantize-weights", type=click.Choice(("int8", "int4")), help="Weights as integers."
    )
    w8a8: bool = option(
        "--w8a8", is_flag=True, help="int8 weights and 8-bit inputs of convolutions (iOS17)."
    )
    mixed_bits: str | None = option(
        "--mixed-bits",
        metavar="BUDGET",
        help="Tables with bits chosen by layer, within a size (900KB) or a PSNR (40dB).",
    )
    granularity: str | None = option(
        "--granularity",
        metavar="G",
        help="One table or scale for what: tensor, grouped:16, channel-scale; channel; block:32. "
        "[default: the finest the target allows at the same size]",
    )
    recipe_name: str | None = option(
        "--recipe",
        metavar="NAME",
        help="How values are found: compensated (default), plain (coremltools' arithmetic), or "
        "the .json of an allocation that --mixed-bits saved.",
    )
    calibration: str | None = option(
        "--calibration",
        metavar="SOURCE",
        help="Images or latents to calibrate with: a folder, or 'photos'. [default: photos]",
    )
    activations: str | None = option(
        "--activations",
        type=click.Choice(ACTIVATIONS),
        help="--w8a8: ranges with a zero point, or symmetric. [default: zero-point]",
    )
    int8_share: float | None = option(
        "--int8-share",
        type=FiniteRange(0, 1, min_open=True),
        metavar="SHARE",
        help="--w8a8: least share of multiply-accumulates in int8. [default: 0.95]",
    )
    qat: Path | None = option(
        "--qat",
        type=click.Path(path_type=Path),
        metavar="CHECKPOINT",
        help="--w8a8 or --palettize: a checkpoint of `fluxvae qat` instead of calibrating.",
    )

    def request(self) -> CompressionRequest:
        """What they ask for. Raises UsageError for options that contradict each other."""
        return _request(
            {
                "--palettize": self.palettize,
                "--quantize-weights": self.quantize_weights,
                "--w8a8": self.w8a8 or None,
                "--mixed-bits": self.mixed_bits,
            },
            {
                "--granularity": self.granularity,
                "--recipe": self.recipe_name,
                "--calibration": self.calibration,
                "--qat": self.qat,
            },
            {"--activations": self.activations, "--int8-share": self.int8_share},
        )


@dataclass(frozen=True)
class CompressionRequest:
    """What the options ask for. ``compression`` None: nothing, or what ``allocation`` says."""

    compression: Compression | None = None
    allocation: Path | None = None
    checkpoint: Path | None = None
    calibration: str | None = None

    def recipe_compression(self) -> Compression | None:
        """The compression of the recipe to make; reads the allocation's or checkpoint's file."""
        if self.allocation is not None:
            return _read_allocation(self.allocation).compression
        if self.checkpoint is None or self.compression is None:
            return self.compression
        from fluxvae.compress.checkpoint import read_checkpoint

        found = read_checkpoint(self.checkpoint).compression
        if (found.kind, found.bits) != (self.compression.kind, self.compression.bits):
            return self.compression  # refused when it is loaded
        return replace(found, method="trained")


def _request(
    kinds: dict[str, Any], details: dict[str, Any], only_w8a8: dict[str, Any]
) -> CompressionRequest:
    """Raises UsageError for options that contradict each other."""
    chosen = [name for name, value in kinds.items() if value is not None]
    name = details["--recipe"]
    allocation = Path(name) if name is not None and name not in METHODS else None
    if allocation is not None:
        if allocation.suffix != ".json":
            raise UsageError(
                f"--recipe {name!r} is not known: expected compensated, plain, or the .json file "
                "of an allocation"
            )
        chosen.append("--recipe FILE")
    if len(chosen) > 1:
        raise UsageError(
            f"{' and '.join(chosen)} exclude each other: choose one (--w8a8 stores int8 weights "
            "already; --palettize alone is smaller)"
        )
    if not chosen:
        _refuse(details | only_w8a8, "one of --palettize, --quantize-weights, --w8a8, --mixed-bits")
        return CompressionRequest()
    if chosen != ["--w8a8"]:
        _refuse(only_w8a8, "--w8a8")
    checkpoint = details["--qat"]
    if checkpoint is not None:
        if chosen[0] not in ("--w8a8", "--palettize"):
            raise UsageError(f"--qat goes with --w8a8 or --palettize, not with {chosen[0]}")
        found = {k: v for k, v in (details | only_w8a8).items() if k != "--qat"}
        _refuse(found, "no --qat: the checkpoint has all of that")
    compression = None if allocation else _compression(kinds, details, only_w8a8)
    return CompressionRequest(compression, allocation, checkpoint, details["--calibration"])


def _refuse(options: dict[str, Any], wanted: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UsageError(f"{given[0]} goes with {wanted}")


def _compression(
    kinds: dict[str, Any], details: dict[str, Any], only_w8a8: dict[str, Any]
) -> Compression:
    method = details["--recipe"] or ("trained" if details["--qat"] else "compensated")
    common: dict[str, Any] = {"granularity": details["--granularity"], "method": method}
    if kinds["--palettize"]:
        return Compression("palette", bits=int(kinds["--palettize"]), **common)
    if kinds["--mixed-bits"]:
        return Compression("mixed", budget=kinds["--mixed-bits"], **common)
    if kinds["--quantize-weights"]:
        return Compression(kinds["--quantize-weights"], **common)
    return Compression(
        "w8a8",
        activations=only_w8a8["--activations"] or "zero-point",
        int8_share=only_w8a8["--int8-share"] or 0.95,
        **common,
    )


def compress(
    request: CompressionRequest, recipe: Recipe, weights: Weights, sources: Sources
) -> CompressedDecoder | None:
    """The recipe's compression of these weights, with progress and advice; None without any."""
    if recipe.compression is None:
        return None
    from fluxvae.compress.advice import advice

    say(advice(recipe.compression))
    if request.checkpoint is not None:
        from fluxvae.compress.checkpoint import load_checkpoint

        return load_checkpoint(request.checkpoint, weights, recipe.compression)

    from fluxvae.compress import compress
    from fluxvae.data.calibration import load_calibration

    calibration = None
    if recipe.compression.needs_calibration:
        calibration = load_calibration(
            request.calibration or "photos",
            weights.variant,
            sources.find_encoder(),
            contract=weights.contract,
            kind=weights.kind,
            part=weights.part,
            layout=recipe.layout,
        )
        say_notes(calibration.notes)
    say(f"compressing: {recipe.compression.label()}")
    allocation = None if request.allocation is None else _read_allocation(request.allocation)
    return compress(
        weights, recipe, calibration, allocation=allocation, store=compressions(), log=say
    ).compressed


def save_allocation(compressed: CompressedDecoder, artifact: Path) -> None:
    """Beside the artifact, the bits of each layer that --mixed-bits chose, for --recipe."""
    from fluxvae.files import write_text
    from fluxvae.schema import json_text

    allocation = compressed.notes.get("allocation")
    if allocation is not None:
        path = artifact.with_suffix(".allocation.json")
        write_text(path, json_text(allocation, indent=2), overwrite=True)
        say(f"bits by layer: {path}")


def _read_allocation(path: Path) -> Allocation:
    from fluxvae.compress.mixed import Allocation
    from fluxvae.files import read_text
    from fluxvae.schema import parse_json

    try:
        return Allocation.from_dict(parse_json(read_text(path)))
    except OSError as error:
        raise UsageError(
            f"the allocation {path} cannot be read ({error.strerror}): expected the .json file "
            "that --mixed-bits saved beside its artifact"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path} is not an allocation of --mixed-bits: {error}") from error


def say_choices(recipe: Recipe) -> None:
    """What ``auto`` stands for in a recipe, and why, to stderr."""
    if recipe.decoder != "tiny" and recipe.attention == "auto":
        form, why = recipe.auto_attention()
        say(f"attention: {form}: {why}")
