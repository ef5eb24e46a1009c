"""Time, error and memory of plain palettization: ours beside coremltools', on the same decoder.

    python scripts/bench_compression.py --variant flux1 --weights demo --bits 8,4

Both get the same weights, as a program of ``--precision`` stores them; ours rounds them to float16
first, as it does for every table. Errors are against what both got. ``tables`` is the clustering
alone: coremltools' weight-level function and ours, once for every convolution that coremltools'
default threshold lets through. ``quick`` is ours without the passes that prove the least error
(``kmeans(..., proved=False)``, from which the compensated recipe starts). ``package`` is from a
converted package to a compressed one: ``palettize_weights`` of a loaded model and its save, against
ours and its check. Every measurement runs in a child process of its own, with one thread; times are
CPU times, so that a busy machine slows both alike. coremltools' palettize_weights fails on some
programs (its default passes run first); then only ``tables`` can be compared, and the reason is
printed. The exit code does not depend on the ratios.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

BAR = 0.1  # our time over coremltools'


def main() -> None:
    args = arguments()
    if args.child:
        print(json.dumps(CHILDREN[args.child](args)))
        return
    print("variant  bits  what     ours s  coremltools s  ratio   bar  error, ours over theirs")
    with tempfile.TemporaryDirectory(prefix="fluxvae-bench-") as folder:
        for variant in args.variant.split(","):
            package = Path(folder) / f"{variant}.mlpackage"
            run_child(args, "convert", variant, 0, package)
            for bits in (int(text) for text in args.bits.split(",")):
                for what in ("tables", "quick", "package"):
                    print_row(args, variant, bits, what, package)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variant", default="flux1,flux2", help="default: %(default)s")
    parser.add_argument("--weights", default="demo", help="as for fluxvae convert (demo)")
    parser.add_argument("--bits", default="8,4", help="default: %(default)s")
    parser.add_argument("--precision", choices=("float16", "float32"), default="float16",
                        help="of the weights (%(default)s)")  # fmt: skip
    parser.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    parser.add_argument("--package", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def print_row(args: argparse.Namespace, variant: str, bits: int, what: str, package: Path) -> None:
    ours = run_child(args, f"{what}-ours", variant, bits, package)
    other = "tables" if what == "quick" else what
    theirs = run_child(args, f"{other}-coremltools", variant, bits, package)
    if "trouble" in theirs:
        print(f"{variant:7} {bits:5}  {what:8} {ours['seconds']:6.2f}  failed: {theirs['trouble']}")
        return
    ratio = ours["seconds"] / theirs["seconds"]
    error = f"{ours['error'] / theirs['error']:.9f}" if "error" in ours else ""
    memory = f"peak {ours['megabytes']:.0f} and {theirs['megabytes']:.0f} MB"
    print(
        f"{variant:7} {bits:5}  {what:8} {ours['seconds']:6.2f}  {theirs['seconds']:13.2f} "
        f"{ratio:6.3f}  {BAR:4.2f}  {error}  {memory}"
    )


def run_child(
    args: argparse.Namespace, child: str, variant: str, bits: int, package: Path
) -> dict[str, Any]:
    options = {
        "child": child,
        "variant": variant,
        "weights": args.weights,
        "bits": bits,
        "precision": args.precision,
    }
    command = [sys.executable, __file__, "--package", str(package)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"trouble": (done.stderr.strip().splitlines() or ["no message"])[-1][:90]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(started: float, **more: float) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak * 1024
    return {"seconds": time.process_time() - started, "megabytes": peak_bytes / 1e6, **more}


def stored_weights(args: argparse.Namespace) -> Iterator[Any]:
    """Arrays of the convolutions that coremltools' default threshold lets through."""
    from torch import nn

    from fluxvae.compress.nearest import SMALLEST
    from fluxvae.networks.build import build_decoder
    from fluxvae.networks.weights import load_weights

    decoder = build_decoder(load_weights(args.variant, args.weights))
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() >= SMALLEST:
            yield module.weight.numpy().astype(args.precision)


def squared_error(weight: Any, table: Any, labels: Any) -> float:
    import numpy as np

    exact = weight.astype(np.float64).ravel()
    return float(((exact - np.ravel(table)[np.ravel(labels)]) ** 2).sum())


def tables_ours(args: argparse.Namespace, *, proved: bool = True) -> dict[str, float]:
    import numpy as np

    from fluxvae.compress.kmeans import kmeans

    weights = list(stored_weights(args))
    started = time.process_time()
    halves = (weight.astype(np.float16, copy=False) for weight in weights)
    found = [kmeans(weight, 2 ** int(args.bits), proved=proved) for weight in halves]
    result = measured(started)
    errors = [squared_error(w, f.centres, f.labels) for w, f in zip(weights, found, strict=True)]
    return result | {"error": sum(errors)}


def tables_coremltools(args: argparse.Namespace) -> dict[str, float]:
    from coremltools.models.neural_network.quantization_utils import (
        _get_kmeans_lookup_table_and_weight as cluster,
    )

    weights = list(stored_weights(args))
    import sklearn.cluster  # noqa: F401  (it clusters small weights; its import is not its work)

    started = time.process_time()
    found = [cluster(int(args.bits), weight) for weight in weights]
    result = measured(started)
    errors = [squared_error(w, *f) for w, f in zip(weights, found, strict=True)]
    return result | {"error": sum(errors)}


def package_ours(args: argparse.Namespace) -> dict[str, float]:
    import shutil

    from fluxvae.compress.guard import check_weights
    from fluxvae.compress.plain import compress_weights
    from fluxvae.compress.write import write_compressed
    from fluxvae.convert.program import write_model
    from fluxvae.networks.build import build_decoder
    from fluxvae.networks.weights import load_weights
    from fluxvae.recipes import Recipe, parse_sizes
    from fluxvae.recipes.compression import Compression

    weights = load_weights(args.variant, args.weights)
    decoder = build_decoder(weights)
    compression = Compression("palette", bits=int(args.bits), method="plain")
    started = time.process_time()
    made = compress_weights(decoder, compression, "tensor", args.precision, None)
    clustering = measured(started)["seconds"]
    # The decoder is converted with its rounded weights, which is not part of compressing it.
    draft = args.package.with_name(f"ours-{args.bits}.mlpackage")
    shutil.rmtree(draft, ignore_errors=True)
    recipe = Recipe(args.variant, args.precision, sizes=parse_sizes("64"), target="iOS16")
    write_model(made.decoder, recipe, weights.contract.channels, draft)
    started = time.process_time()
    write_compressed(draft, made, args.precision)
    check_weights(draft, made, args.precision)
    result = measured(started)
    return result | {"seconds": result["seconds"] + clustering}


def package_coremltools(args: argparse.Namespace) -> dict[str, float]:
    import coremltools as ct
    import coremltools.optimize.coreml as cto
    import sklearn.cluster  # noqa: F401

    model = ct.models.MLModel(str(args.package), skip_model_load=True)
    config = cto.OptimizationConfig(cto.OpPalettizerConfig(mode="kmeans", nbits=int(args.bits)))
    started = time.process_time()
    cto.palettize_weights(model, config).save(
        str(args.package.with_name(f"theirs-{args.bits}.mlpackage"))
    )
    return measured(started)


def convert(args: argparse.Namespace) -> dict[str, float]:
    from fluxvae.convert.program import write_model
    from fluxvae.networks.build import build_decoder
    from fluxvae.networks.weights import load_weights
    from fluxvae.recipes import Recipe, parse_sizes

    weights = load_weights(args.variant, args.weights)
    recipe = Recipe(args.variant, args.precision, sizes=parse_sizes("64"), target="iOS16")
    started = time.process_time()
    write_model(build_decoder(weights), recipe, weights.contract.channels, args.package)
    return measured(started)


CHILDREN = {
    "convert": convert,
    "tables-ours": tables_ours,
    "quick-ours": partial(tables_ours, proved=False),
    "tables-coremltools": tables_coremltools,
    "package-ours": package_ours,
    "package-coremltools": package_coremltools,
}

if __name__ == "__main__":
    main()
