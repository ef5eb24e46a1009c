"""What a Hub folder says of itself: ``config.json`` for programs, the model card for people.

Written from the models' own records and the results of the matrix alone.
"""

from collections.abc import Sequence
from typing import Any

from huggingface_hub import ModelCardData

from fluxvae import __version__
from fluxvae.networks.catalog import KNOWN_FILES, Decoder, find_decoder
from fluxvae.publish.models import Model
from fluxvae.recipes import MAC_TARGETS, Recipe, latent_shape
from fluxvae.recipes.functions import INPUT_NAME, OUTPUT_NAME
from fluxvae.records.experiment import ErrorFigures, Result, Row
from fluxvae.records.summary import judged, summarize
from fluxvae.schema import json_text

FORMAT, VERSION = "fluxvae-hub", 1
_MAC = {ios: mac for mac, ios in MAC_TARGETS.items()}


def config_text(models: Sequence[Model]) -> str:
    """``config.json``: for every model its files, latents, sizes and oldest systems."""
    data = {"format": FORMAT, "version": VERSION, "models": [_entry(model) for model in models]}
    return json_text(data, indent=2)


def _entry(model: Model) -> dict[str, Any]:
    record, recipe = model.record, model.record.recipe
    channels = _decoder(model).contract.channels
    functions = {str(s): s.function for s in recipe.sizes} if len(recipe.sizes) > 1 else {}
    return {
        "package": f"packages/{model.name}",
        "compiled": f"compiled/{model.compiled}" if model.compiled else None,
        "variant": recipe.variant,
        "decoder": recipe.decoder,
        "precision": recipe.precision,
        "compression": recipe.compression.label() if recipe.compression else None,
        "latent_contract": record.contract.to_dict(),
        "input": {
            "name": INPUT_NAME,
            "dtype": recipe.io_dtype,
            "layout": recipe.layout,
            "shapes": {str(s): list(latent_shape(recipe, s, channels)) for s in recipe.sizes},
        },
        "output": {
            "name": OUTPUT_NAME,
            "dtype": recipe.io_dtype,
            "layout": recipe.layout,
            "range": list(record.contract.span),
        },
        "sizes": [[size.height, size.width] for size in recipe.sizes],
        "functions": functions if recipe.shapes == "multifunction" else None,
        "minimum_os": minimum_os(recipe),
        "weights": {"source": record.source.name, "digest": record.weights_digest},
        "versions": record.versions,
        "cells": [result.cell.label() for result in model.cells],
    }


def minimum_os(recipe: Recipe) -> dict[str, str]:
    """The oldest systems that load the artifact: ``{"iOS": "16", "macOS": "13"}``.

    From the deployment target it was converted for; neural networks need iOS 13, macOS 10.15.
    """
    target = recipe.deployment_target
    if target is None:
        return {"iOS": "13", "macOS": "10.15"}
    return {"iOS": target.removeprefix("iOS"), "macOS": _MAC[target].removeprefix("macOS")}


def card_text(repo: str, models: Sequence[Model]) -> str:
    """The model card ``README.md``: front matter, files, latents, figures, how to check them."""
    results = [result for model in models for result in model.cells]
    summary = summarize(results)
    parts = [
        f"---\n{_front_matter(models)}\n---",
        f"# {repo.partition('/')[2]}",
        "Decoders of FLUX latents as Core ML models, converted and measured by fluxvae "
        f"{__version__}. Every model here was held against the float32 PyTorch decoder and is "
        "within fluxvae's limits.",
        *_warnings(models),
        f"## Models\n\n{_models_table(models)}",
        f"## Latents\n\n{_latents(models)}",
        f"## Measured\n\n{_measured(models, summary.rows, results)}",
        "## Use\n\nAdd a package to an app, or open it with coremltools; `config.json` names "
        "input, output, sizes and the oldest systems. `fluxvae inspect` and `fluxvae validate` "
        "work on every OS.",
        f"## Where it is from\n\n{_provenance(models, results)}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(models: Sequence[Model]) -> str:
    licences = sorted({_licence(model) for model in models})
    several = len(licences) > 1
    bases = sorted({_decoder(m).hub.repo for m in models if _is_published(m)})
    variants = sorted({model.record.recipe.variant for model in models})
    data = ModelCardData(
        license="other" if several else licences[0],
        license_name="-and-".join(licences) if several else None,
        library_name="coreml",
        tags=["coreml", "flux", "vae", "fluxvae", *variants],
        base_model=bases or None,
    )
    return data.to_yaml().strip()


def _decoder(model: Model) -> Decoder:
    return find_decoder(model.record.recipe.variant, model.record.recipe.decoder)


def _is_published(model: Model) -> bool:
    """Whether the weights are, byte for byte, the file that the catalogue pins."""
    source, hub = model.record.source, _decoder(model).hub
    return source.kind == "hub" or (hub.sha256 is not None and source.file_sha256 == hub.sha256)


def _is_ours(model: Model) -> bool:
    return model.record.source.kind in ("demo", "random")


def _licence(model: Model) -> str:
    return "mit" if _is_ours(model) else _decoder(model).licence.lower()


def _warnings(models: Sequence[Model]) -> list[str]:
    if not any(map(_is_ours, models)):
        return []
    return ["> **Not FLUX's weights.** Models of demo or random weights show the format only."]


def _models_table(models: Sequence[Model]) -> str:
    rows = []
    for model in models:
        recipe = model.record.recipe
        oldest = ", ".join(f"{name} {number}" for name, number in minimum_os(recipe).items())
        rows.append(
            (
                f"`packages/{model.name}`",
                ", ".join(f"{s.height} x {s.width}" for s in recipe.sizes),
                recipe.precision,
                recipe.compression.label() if recipe.compression else "none",
                oldest,
                f"{_bytes(model) / 1e6:.2f} MB",
            )
        )
    return _table(("File", "Pixels", "Precision", "Compression", "From", "Size"), rows)


def _bytes(model: Model) -> int:
    return sum(
        (model.folder / path).stat().st_size
        for path in model.files
        if path.partition("/")[0] == model.name
    )


def _latents(models: Sequence[Model]) -> str:
    wanted: dict[str, list[str]] = {}
    for model in models:
        wanted.setdefault(model.record.contract.sentence(), []).append(f"`{model.name}`")
    return "\n".join(f"- {', '.join(names)}: {text}" for text, names in wanted.items())


def _measured(models: Sequence[Model], rows: Sequence[Row], results: Sequence[Result]) -> str:
    names = {r.key: model.name for model in models for r in model.cells}
    by_key = {result.key: result for result in results}
    table = _table(
        (
            *("Cell", "PSNR, worst photo", "worst of all"),
            *("Latency, median [p10-p90]", "Peak memory", "Energy a decode"),
        ),
        [
            (
                f"{row.label} (`{names[row.key]}`)",
                _worst(judged(by_key[row.key])),
                _worst(by_key[row.key].errors),
                _latency(row),
                "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:.0f} MB",
                "" if row.energy_mj is None else f"{row.energy_mj:.1f} mJ",
            )
            for row in rows
        ],
    )
    flags = [f"- {row.label}: {flag}" for row in rows for flag in row.flags]
    return "\n\n".join([table, "\n".join([*_words(results), *flags])])


def _worst(errors: Sequence[ErrorFigures]) -> str:
    worst = min((e.psnr_db for e in errors if e.psnr_db is not None), default=None)
    if worst is None:
        return "equal" if errors else ""
    return f"{worst:.1f} dB"


def _latency(row: Row) -> str:
    if row.latency_ms is None:
        return ""
    spread = ", one run"
    if len(row.runs_ms) > 1 and None not in (row.latency_p10_ms, row.latency_p90_ms):
        spread = f" [{row.latency_p10_ms:.1f}-{row.latency_p90_ms:.1f}]"
    return f"{row.latency_ms:.1f} ms{spread}"


def _words(results: Sequence[Result]) -> list[str]:
    """What the figures are and are not, one line each."""
    inputs = sorted({error.input for result in results for error in result.errors})
    lines = [
        f"- PSNR is against the float32 PyTorch decoder, over {len(inputs)} inputs "
        f"({', '.join(inputs)}): photos, and latents no photo has. The peak is the range of the "
        "output."
    ]
    for host in dict.fromkeys(result.host for result in results):
        machine = ", ".join(
            part for part in (f"{host.system} {host.release}", host.arch, host.chip) if part
        )
        judge = (
            "through Core ML"
            if host.system == "Darwin"
            else "by fluxvae's reference executor, not by Core ML. Its latency and memory tell "
            "nothing of an Apple device, and nothing here was shown to run on one"
        )
        lines.append(f"- Measured on {machine}: {judge}.")
    if any(result.energy is not None for result in results):
        lines.append("- Energy is relative only: compare it within this table, on one machine.")
    return lines


def _provenance(models: Sequence[Model], results: Sequence[Result]) -> str:
    weights = {
        (m.record.source.name, m.record.weights_digest, _licence_words(m)): None for m in models
    }
    lines = [
        f"- Weights: {name}, digest `{digest}`. {licence}" for name, digest, licence in weights
    ]
    versions = dict.fromkeys(
        ", ".join(f"{name} {number}" for name, number in r.versions.items()) for r in results
    )
    lines += [f"- Made with {text}." for text in versions]
    lines.append("- `manifest.json` has the sha256 of every file here.")
    return "\n".join(lines)


def _licence_words(model: Model) -> str:
    if _is_ours(model):
        return "Licence: MIT, the fluxvae developers."
    decoder, digest = _decoder(model), model.record.source.file_sha256
    page = f"https://huggingface.co/{decoder.hub.repo}"
    text = f"Licence: {decoder.licence}, {decoder.author} ({page})."
    if _is_published(model):
        return text
    if digest in KNOWN_FILES:
        return f"{text} By its sha256 the file is {KNOWN_FILES[digest]}."
    return f"{text} These are not the file published there; who uploads them answers for them."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_plain(text) for text in line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text that stays in its cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
