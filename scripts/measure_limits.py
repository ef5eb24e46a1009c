"""Measure what ``fluxvae validate``'s limits are set from (docs/validation.md).

    python scripts/measure_limits.py --size 256 flux1=demo flux2=demo flux1=PATH flux2=PATH

Prints one Markdown row for each variant, weights, precision and kind of case: the worst figures
of the reference executor against the float32 torch decoder.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

from fluxvae.package import save_artifact
from fluxvae.recipes import PRECISIONS, Recipe, parse_sizes
from fluxvae.validate import Report, validate
from fluxvae.weights import find_encoder, load_weights


def measure(variant: str, spec: str, precision: str, size: str) -> Report:
    """Convert, validate, and throw the artifact away."""
    weights = load_weights(variant, spec)
    recipe = Recipe(variant, precision=precision, sizes=parse_sizes(size))
    with tempfile.TemporaryDirectory() as folder:
        path = save_artifact(weights, recipe, Path(folder) / "model.mlpackage")
        return validate(path, weights, encoder=find_encoder(variant, spec), backend="reference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="256")
    parser.add_argument("pairs", nargs="+", metavar="VARIANT=WEIGHTS")
    options = parser.parse_args()
    print("| variant | weights | size | precision | kind | worst max abs | worst PSNR dB |")
    print("|---|---|---|---|---|---|---|")
    for pair in options.pairs:
        variant, _, spec = pair.partition("=")
        for precision in PRECISIONS:
            rows = defaultdict(list)
            for case in measure(variant, spec, precision, options.size).cases:
                rows[case.kind].append(case.metrics)
            for kind, found in rows.items():
                worst, psnr = max(m.max_abs for m in found), min(m.psnr_db for m in found)
                what = f"{variant} | {Path(spec).name} | {options.size} | {precision} | {kind}"
                print(f"| {what} | {worst:.1e} | {psnr:.1f} |", flush=True)


if __name__ == "__main__":
    main()
