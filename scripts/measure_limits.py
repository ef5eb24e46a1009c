"""Measure what ``fluxvae validate``'s limits are set from (docs/validation.md).

    python scripts/measure_limits.py --size 256 flux1=demo flux2=demo flux1=PATH flux2=PATH
    python scripts/measure_limits.py --size 128 flux1:full=random:0 flux2:small=random:1
    python scripts/measure_limits.py --size 256 --recipes int8,pal4,w8a8 flux1=demo flux2=PATH

Prints one Markdown row for each variant, weights, precision (or compression) and kind of case: the
worst figures of the reference executor against the float32 torch decoder.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from fluxvae.artifact.save import save_artifact
from fluxvae.compress import compress
from fluxvae.data.calibration import Calibration, photo_calibration
from fluxvae.networks.build import build_decoder
from fluxvae.networks.weights import Weights, find_encoder, load_weights
from fluxvae.recipes import PRECISIONS, Recipe, parse_label, parse_sizes
from fluxvae.validation.validate import Report, validate


def measure(
    recipe: Recipe, weights: Weights, encoder: Weights | None, calibration: Calibration | None
) -> Report:
    """Convert, validate, and throw the artifact away."""
    compressed = None
    if recipe.compression is not None:
        compressed = compress(build_decoder(weights), recipe, calibration)
    with tempfile.TemporaryDirectory() as folder:
        (path,) = save_artifact(
            weights, recipe, Path(folder) / "model.mlpackage", compressed=compressed
        )
        return validate(path, weights, encoder=encoder, backend="reference")


def recipes_of(
    variant: str, kind: str, size: str, labels: str | None
) -> Iterator[tuple[str, Recipe]]:
    """Both precisions; or every compression asked for, at float16."""
    sizes = parse_sizes(size)
    if labels is None:
        yield from (
            (p, Recipe(variant, precision=p, sizes=sizes, decoder=kind)) for p in PRECISIONS
        )
        return
    for label in labels.split(","):
        yield label, Recipe(variant, sizes=sizes, compression=parse_label(label))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="256")
    parser.add_argument("--recipes", help="compressions, instead of the two precisions")
    parser.add_argument("pairs", nargs="+", metavar="VARIANT[:DECODER]=WEIGHTS")
    options = parser.parse_args()
    what = "recipe" if options.recipes else "precision"
    print(f"| variant | weights | size | {what} | kind | worst max abs | worst PSNR dB |")
    print("|---|---|---|---|---|---|---|")
    for pair in options.pairs:
        named, _, spec = pair.partition("=")
        variant, _, kind = named.partition(":")
        kind = kind or "tiny"
        weights = load_weights(variant, spec, kind=kind)
        encoder = find_encoder(variant, spec, kind=kind)
        seen = photo_calibration(encoder) if options.recipes and encoder else None
        for name, recipe in recipes_of(variant, kind, options.size, options.recipes):
            rows = defaultdict(list)
            for case in measure(recipe, weights, encoder, seen).cases:
                rows[case.kind].append(case.metrics)
            for case_kind, found in rows.items():
                worst, psnr = max(m.max_abs for m in found), min(m.psnr_db for m in found)
                place = f"{named} | {Path(spec).name} | {options.size} | {name} | {case_kind}"
                print(f"| {place} | {worst:.1e} | {psnr:.1f} |", flush=True)


if __name__ == "__main__":
    main()
