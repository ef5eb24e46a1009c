"""``convert``'s options for compression, and what they ask for as data."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.encoders import choose_encoder
from fluxvae.cli.options import FiniteRange, say
from fluxvae.errors import UsageError
from fluxvae.recipes import ACTIVATIONS, PALETTE_BITS, Compression, Recipe

METHODS = ("compensated", "plain")

if TYPE_CHECKING:
    from fluxvae.compress.forms import CompressedDecoder
    from fluxvae.compress.mixed import Allocation
    from fluxvae.networks.weights import Weights

_OPTIONS = (
    click.option(
        "--palettize",
        type=click.Choice([str(b) for b in PALETTE_BITS]),
        metavar="BITS",
        help="Weights from tables of 2^BITS values; BITS is 1, 2, 3, 4, 6 or 8.",
    ),
    click.option(
        "--quantize-weights", type=click.Choice(("int8", "int4")), help="Weights as integers."
    ),
    click.option(
        "--w8a8", is_flag=True, help="int8 weights and 8-bit inputs of convolutions (iOS17)."
    ),
    click.option(
        "--mixed-bits",
        metavar="BUDGET",
        help="Tables with bits chosen by layer, within a size (900KB) or a PSNR (40dB).",
    ),
    click.option(
        "--granularity",
        metavar="G",
        help="One table or scale for what: tensor, grouped:16, channel-scale; channel; block:32. "
        "[default: the finest the target allows at the same size]",
    ),
    click.option(
        "--recipe",
        "recipe_name",
        metavar="NAME",
        help="How values are found: compensated (default), plain (coremltools' arithmetic), or "
        "the .json of an allocation that --mixed-bits saved.",
    ),
    click.option(
        "--calibration",
        metavar="SOURCE",
        help="Images or latents to calibrate with: a folder, or 'photos'. [default: photos]",
    ),
    click.option(
        "--activations",
        type=click.Choice(ACTIVATIONS),
        help="--w8a8: ranges with a zero point, or symmetric. [default: zero-point]",
    ),
    click.option(
        "--int8-share",
        type=FiniteRange(0, 1, min_open=True),
        metavar="SHARE",
        help="--w8a8: least share of multiply-accumulates in int8. [default: 0.95]",
    ),
    click.option(
        "--qat",
        type=click.Path(path_type=Path),
        metavar="CHECKPOINT",
        help="--w8a8 or --palettize: a checkpoint of `fluxvae qat` instead of calibrating.",
    ),
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


def compression_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets one argument ``request`` in their place."""

    @functools.wraps(command)
    def with_request(
        palettize: str | None,
        quantize_weights: str | None,
        w8a8: bool,
        mixed_bits: str | None,
        granularity: str | None,
        recipe_name: str | None,
        calibration: str | None,
        activations: str | None,
        int8_share: float | None,
        qat: Path | None,
        **others: Any,
    ) -> Any:
        request = _request(
            {
                "--palettize": palettize,
                "--quantize-weights": quantize_weights,
                "--w8a8": w8a8 or None,
                "--mixed-bits": mixed_bits,
            },
            {
                "--granularity": granularity,
                "--recipe": recipe_name,
                "--calibration": calibration,
                "--qat": qat,
            },
            {"--activations": activations, "--int8-share": int8_share},
        )
        return command(request=request, **others)

    for option in reversed(_OPTIONS):
        with_request = option(with_request)
    return with_request


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
    request: CompressionRequest,
    recipe: Recipe,
    weights: Weights,
    spec: str | None,
    encoder: str | None,
    offline: bool,
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
    from fluxvae.networks.build import build_decoder

    calibration = None
    if recipe.compression.needs_calibration:
        found = choose_encoder(weights.variant, spec, encoder, offline=offline)
        calibration = load_calibration(
            request.calibration or "photos",
            weights.variant,
            found,
            contract=weights.contract,
            layout=recipe.layout,
        )
        for note in calibration.notes:
            say(f"note: {note}")
    say(f"compressing: {recipe.compression.label()}")
    allocation = None if request.allocation is None else _read_allocation(request.allocation)
    return compress(build_decoder(weights), recipe, calibration, allocation=allocation, log=say)


def save_allocation(compressed: CompressedDecoder, artifact: Path) -> None:
    """Beside the artifact, the bits of each layer that --mixed-bits chose, for --recipe."""
    from fluxvae.files import write_text

    allocation = compressed.notes.get("allocation")
    if allocation is not None:
        path = artifact.with_suffix(".allocation.json")
        text = json.dumps(allocation, indent=2) + "\n"
        write_text(path, text, overwrite=True)
        say(f"bits by layer: {path}")


def _read_allocation(path: Path) -> Allocation:
    from fluxvae.compress.mixed import Allocation
    from fluxvae.files import read_text

    try:
        return Allocation.from_dict(json.loads(read_text(path)))
    except OSError as error:
        raise UsageError(
            f"the allocation {path} cannot be read ({error.strerror}): expected the .json file "
            "that --mixed-bits saved beside its artifact"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path} is not an allocation of --mixed-bits: {error}") from error
