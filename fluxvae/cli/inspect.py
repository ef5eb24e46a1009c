"""``fluxvae inspect``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.newest import artifact_argument
from fluxvae.cli.options import json_option, print_json
from fluxvae.cli.text import hanging, size_text

if TYPE_CHECKING:
    from fluxvae.mil.program import Feature
    from fluxvae.validation.evidence import Evidence
    from fluxvae.validation.inspect import FunctionReport, Inspection

SHOWN = 12  # transposes and casts listed in full; --json has all


@click.command("inspect")
@artifact_argument("artifact")
@json_option
def command(artifact: Path, as_json: bool) -> None:
    """Say what is inside a saved model.

    Inputs and outputs, functions, operations, weight bytes, multiply-accumulates, the memory of
    activations in program order, where transposes and casts stand, what is compressed and
    computed in 8 bits, and the metadata. A model that the executor cannot run is listed too, with
    the operations that it lacks. Without ARTIFACT, the newest one in coreml_out/.

    \b
    Examples:
      fluxvae inspect
      fluxvae inspect coreml_out/flux2_tiny_decoder_nchw_float16_hw1024.mlpackage
    """
    from fluxvae.validation.inspect import inspect_model

    report = inspect_model(artifact)
    if as_json:
        print_json(inspection_json(report))
    else:
        _print(report)


def inspection_json(report: Inspection) -> dict[str, Any]:
    """The inspection as plain data; metadata under its own key."""
    metadata = report.program.metadata
    return {
        "path": str(report.path),
        "kind": report.kind,
        "specification": report.specification,
        "bytes_on_disk": report.bytes_on_disk,
        "weight_bytes": dict(report.weights),
        "default_function": report.program.default_function,
        "functions": [asdict(f) for f in report.functions],
        "metadata": {**asdict(metadata), "user": dict(metadata.user)},
    }


def _print(report: Inspection) -> None:
    program = report.program
    kind = {"mlprogram": "ML Program", "neuralnetwork": "neural network"}.get(
        report.kind, report.kind
    )
    click.echo(f"{report.path.name}: {kind}, specification {report.specification}, "
               f"{size_text(report.bytes_on_disk)} on disk")  # fmt: skip
    weights = ", ".join(f"{kind} {size_text(n)}" for kind, n in report.weights.items())
    click.echo(f"weights: {weights or 'none'}")
    for function in report.functions:
        default = function.name == program.default_function and len(report.functions) > 1
        _print_function(function, default)
    metadata = program.metadata
    click.echo("\nmetadata")
    for label, value in (
        ("title", metadata.description),
        ("author", metadata.author),
        ("licence", metadata.license),
        ("version", metadata.version),
        *sorted(metadata.user.items()),
    ):
        if value:
            click.echo(f"  {label}: {value}")


def _print_function(function: FunctionReport, default: bool) -> None:
    mark = " (default)" if default else ""
    click.echo(f"\nfunction {function.name}{mark}, opset {function.opset}")
    for direction, features in (
        ("input", function.inputs),
        ("output", function.outputs),
        ("state", function.states),
    ):
        for feature in features:
            click.echo(f"  {direction:<6} {feature.name}: {_feature(feature)}")
            if feature.description:
                click.echo(f"         {feature.description}")
    ops = ", ".join(f"{kind} {n}" for kind, n in function.op_counts.items())
    types = ", ".join(f"{kind} {n}" for kind, n in function.dtype_counts.items())
    click.echo(f"  operations: {ops}")
    if function.unsupported:
        lacking = ", ".join(f"{kind} {n}" for kind, n in function.unsupported.counts.items())
        click.echo(f"  the executor lacks: {lacking or 'see the next line'}")
        click.echo(f"  cannot be run: {function.unsupported.reason}")
    click.echo(f"  output types: {types}")
    without = f" (operations of unknown shape, not counted: {function.unknown_shapes})"
    click.echo(
        f"  multiply-accumulates: {function.macs / 1e9:.2f} G"
        f"{without if function.unknown_shapes else ''}"
    )
    live = function.live
    if live.bytes:
        click.echo(
            f"  activations alive at once, in program order: {size_text(live.bytes)} at most, at "
            f"operation {live.index} ({live.kind} {live.op})"
        )
    click.echo("    map          ops     GMAC      share  activations")
    for stage in function.stages:
        share = stage.macs / function.macs if function.macs else 0
        click.echo(
            f"    {stage.map:<10} {stage.ops:>5} {stage.macs / 1e9:>8.2f} {share:>9.1%}  "
            f"{size_text(stage.activation_bytes):>11}"
        )
    _print_placed(function)
    _print_evidence(function.evidence)


def _print_evidence(evidence: Evidence) -> None:
    """How weights are stored and what computes with 8-bit values, in words and counts."""
    click.echo(f"  compression: {evidence.classification}")
    if evidence.classification in ("not compressed", "not known"):
        return
    stored = ", ".join(f"{kind} {n}" for kind, n in evidence.weights.items())
    click.echo(f"    weights stored as: {hanging(stored, 23)}")
    expanding = ", ".join(f"{kind} {n}" for kind, n in evidence.constexpr.items()) or "none"
    click.echo(f"    expanded when loaded by: {hanging(expanding, 29)}")
    click.echo(f"    quantize {evidence.quantize}, dequantize {evidence.dequantize}")
    if not evidence.dequantize:
        return
    readers = ", ".join(f"{kind} {n}" for kind, n in evidence.consumers.items()) or "nothing"
    click.echo(f"    dequantized values are read by: {readers}")
    click.echo(
        f"    convolutions with 8-bit inputs: {evidence.quantized_convs} of {evidence.convs}; "
        f"their own quantize and dequantize directly before: {evidence.paired}"
    )
    adds = evidence.quantized_adds
    click.echo(f"    skip paths quantized: {len(adds) or 'none'}{': ' if adds else ''}"
               f"{hanging(', '.join(adds[:SHOWN]), 6)}")  # fmt: skip
    click.echo(
        f"    multiply-accumulates with 8-bit weights and activations: {evidence.int8_macs:.1%}"
    )


def _print_placed(function: FunctionReport) -> None:
    for kind in ("transpose", "cast"):
        placed = [p for p in function.placed if p.kind == kind]
        click.echo(f"  {kind}s: {len(placed) or 'none'}")
        for p in placed[:SHOWN]:
            shape = "x".join(map(str, p.shape))
            click.echo(f"    operation {p.index} of {p.of}, giving {shape}: {p.name}")
        if len(placed) > SHOWN:
            click.echo(f"    … and {len(placed) - SHOWN} more (--json lists all)")


def _feature(feature: Feature) -> str:
    shapes = feature.shapes or (feature.shape,)
    sizes = " or ".join("x".join(map(str, s)) for s in shapes)
    if feature.ranges:
        sizes = " x ".join(f"{low}..{high if high >= 0 else ''}" for low, high in feature.ranges)
    if feature.kind not in ("tensor", "image"):
        return feature.kind
    what = f"{feature.color} image" if feature.kind == "image" else feature.dtype
    return f"{what} {sizes or '(no fixed shape)'}"
