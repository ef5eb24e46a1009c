"""``fluxvae weights list | fetch | show``."""

import importlib.resources
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxvae.cli.options import ARTIFACT, Variant, json_option, print_json
from fluxvae.cli.sources import decoder_option, offline_option
from fluxvae.cli.text import rows, size_text
from fluxvae.networks.catalog import Decoder, all_decoders, demo_contract, find_decoder

if TYPE_CHECKING:
    from fluxvae.networks.describe import FileReport


@click.group()
def command() -> None:
    """List, fetch and look at decoder weights.

    Weights come from the Hugging Face Hub, pinned by revision and sha256, into its usual cache.
    The demo weights are shipped with fluxvae.

    \b
    Example:
      fluxvae weights list
    """


@command.command("list", short_help="Show every decoder of the catalogue.")
@json_option
def list_weights(as_json: bool) -> None:
    """Show every decoder of the catalogue: source, digest, licence, and the latent it wants.

    Says whether the pinned file is in the cache, and undamaged. Uses no network.

    \b
    Example:
      fluxvae weights list
    """
    entries = [_entry(decoder) for decoder in all_decoders()]
    if as_json:
        print_json({"variants": entries})
        return
    click.echo("\n\n".join(_entry_text(entry) for entry in entries))


def _entry(decoder: Decoder) -> dict[str, Any]:
    """One decoder of the catalogue as plain data."""
    from fluxvae.networks.hub import look_up

    cached = look_up(decoder.hub)
    problem = cached.problem()
    demo = importlib.resources.files("fluxvae.demo")
    shipped = (
        decoder.kl is None and (demo / f"{decoder.variant}_demo_decoder.safetensors").is_file()
    )
    return {
        "variant": decoder.variant,
        "decoder": decoder.kind,
        "title": decoder.title,
        "author": decoder.author,
        "licence": decoder.licence,
        "hub": {**asdict(decoder.hub), "page": decoder.hub.page},
        "contract": asdict(decoder.contract),
        "sentence": decoder.contract.sentence(),
        "cached": str(cached.path) if cached.path else None,
        "cached_problem": problem and f"{problem}: {cached.way_out(_fetching(decoder))}",
        "demo": asdict(demo_contract(decoder)) if shipped else None,
    }


def _fetching(decoder: Decoder) -> str:
    kind = "" if decoder.kind == "tiny" else f" --decoder {decoder.kind}"
    return f"fluxvae weights fetch --variant {decoder.variant}{kind}"


def _entry_text(entry: dict[str, Any]) -> str:
    hub, contract, demo = entry["hub"], entry["contract"], entry["demo"]
    gate = f"https://huggingface.co/{hub['repo']}" if hub["gated"] else None
    tiny = entry["decoder"] == "tiny"
    chosen = entry["variant"] if tiny else f"{entry['variant']} --decoder {entry['decoder']}"
    lines = [
        ("hub", f"{hub['repo']}/{hub['file']}"),
        ("revision", hub["revision"]),
        ("sha256", hub["sha256"] or "not known: the one seen is recorded in every artifact"),
        *([("gated", f"accept the conditions at {gate}, then set HF_TOKEN")] if gate else []),
        ("licence", f"{entry['licence']}, {entry['author']}"),
        ("latent", f"{contract['channels']} channels, 1/{contract['scale']} of the image"),
        ("wants", entry["sentence"]),
        ("cached", entry["cached"] or f"no: fluxvae weights fetch --variant {chosen}"),
        *([("problem", entry["cached_problem"])] if entry["cached_problem"] else []),
        ("demo", f"--weights demo: shipped. {demo['wants']}" if demo else "not shipped"),
    ]
    return f"{click.style(chosen, bold=True)}  {entry['title']}\n{rows(lines)}"


@command.command(short_help="Fetch pinned weights into the cache.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    type=Variant(),
    help="Which decoder; may be repeated. Default: all.",
)
@decoder_option
@offline_option
@json_option
def fetch(variants: tuple[str, ...], decoder: str, offline: bool, as_json: bool) -> None:
    """Fetch pinned weights into the Hugging Face cache, and verify their sha256.

    A file that is cached already is verified again and not fetched.

    \b
    Example:
      fluxvae weights fetch --variant flux2
    """
    from fluxvae.files import file_sha256
    from fluxvae.networks.hub import fetch_weights

    files = []
    every = sorted({entry.variant for entry in all_decoders() if entry.kind == decoder})
    for variant in variants or every:
        show = _progress(variant)
        path = fetch_weights(variant, kind=decoder, offline=offline, progress=show)
        size, pinned = path.stat().st_size, find_decoder(variant, decoder).hub.sha256
        sha256 = pinned or file_sha256(path)
        files.append({"variant": variant, "path": str(path), "size": size, "sha256": sha256})
        if not as_json:
            digest = "sha256 as pinned" if pinned else f"sha256 {sha256}, which nothing pins"
            click.echo(f"{variant}  {size_text(size)}, {digest}\n  {path}")
    if as_json:
        print_json({"files": files})


def _progress(variant: str) -> Callable[[int, int | None], None] | None:
    """A counter that overwrites itself on a terminal; silence elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int | None) -> None:
        of = f" of {size_text(total)}" if total else ""
        end = "\n" if done == total else ""
        click.echo(f"\r{variant}: {size_text(done)}{of}".ljust(48) + end, err=True, nl=False)

    return show


@command.command(short_help="Say what a checkpoint file is.")
@click.argument("path", type=ARTIFACT)
@json_option
@click.pass_context
def show(context: click.Context, path: Path, as_json: bool) -> None:
    """Say what the checkpoint file PATH is, and which --variant it fits.

    Nothing in a pickle is run. Exit code 1 when the file cannot be used.

    \b
    Example:
      fluxvae weights show taef2.safetensors
    """
    from fluxvae.networks.describe import describe_file

    report = describe_file(path)
    if as_json:
        print_json(_report(report))
    else:
        click.echo(_report_text(report))
    if report.problems or not report.fits:
        context.exit(1)


def _report(report: "FileReport") -> dict[str, Any]:
    fits = [{"variant": v, "decoder": kind, "part": part} for v, kind, part in report.fits]
    return {**asdict(report), "path": str(report.path), "fits": fits}


def _report_text(report: "FileReport") -> str:
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in sorted(report.dtypes.items()))
    fits = ", ".join(
        f"{variant} {part}" if kind == "tiny" else f"{variant} {kind} {part}"
        for variant, kind, part in report.fits
    )
    lines = [
        ("size", size_text(report.size)),
        ("sha256", report.sha256),
        ("known as", report.known or "no published file that fluxvae knows"),
        ("format", report.format or "unreadable"),
        ("keys", report.style or ""),
        ("tensors", f"{dtypes}; {report.parameters:,} parameters" if dtypes else ""),
        ("metadata", ", ".join(f"{k}={v}" for k, v in sorted(report.metadata.items()))[:300]),
        ("fits", fits or "nothing"),
        *(("note", note) for note in report.notes),
        *(("problem", problem) for problem in report.problems),
    ]
    name = click.style(str(report.path), bold=True)
    return f"{name}\n{rows((label, value) for label, value in lines if value)}"
