"""What the reference executor costs beside torch: CPU time, peak memory, and the start of the CLI.

    python scripts/bench_executor.py --weights demo --size 768

Every measurement runs in a child process of its own. This one stays small and imports nothing
heavy: a child's peak memory as the system reports it begins at its parent's. Times are CPU times
of one thread, torch and executor in turn, so that a busy machine slows both alike. The ratios are
printed beside the project's bars; the exit code does not depend on them.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BARS = {"float32": 1.05, "float16": 1.2}  # executor CPU time over torch's, at 768 pixels
HELP_BAR = 0.3  # seconds
HEAVY = ("torch", "coremltools", "numpy", "skimage", "huggingface_hub")


def main() -> None:
    args = arguments()
    if args.child:
        print(json.dumps(CHILDREN[args.child](args)))
        return
    print_help_time(args.runs)
    print(f"\nOne image of {args.size} x {args.size} pixels, weights: {args.weights}, one thread")
    print("variant  program  torch s  executor s  ratio    bar  torch MB  executor MB  max abs")
    with tempfile.TemporaryDirectory(prefix="fluxvae-bench-") as folder:
        for variant in args.variant.split(","):
            for precision in args.precision.split(","):
                print_row(args, variant, precision, Path(folder))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variant", default="flux1,flux2", help="default: %(default)s")
    parser.add_argument("--precision", default="float32,float16", help="default: %(default)s")
    parser.add_argument("--weights", default="demo", help="as for fluxvae convert (demo)")
    parser.add_argument("--size", type=int, default=768, help="pixels (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="of each, in turn (%(default)s)")
    parser.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def print_help_time(runs: int) -> None:
    """Wall time of ``fluxvae --help`` in a fresh process, and what it imported."""
    call = "import sys; from fluxvae.cli import main; sys.argv = ['fluxvae', '--help']\n"
    proof = f"print('imported:', [m for m in {HEAVY} if m in sys.modules], file=sys.stderr)\n"
    code = f"{call}try: main()\nexcept SystemExit: pass\n{proof}"
    times = []
    for _ in range(max(runs, 5)):
        start = time.perf_counter()
        ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    best = min(times)  # wall time: anything above it is the rest of the machine
    median = statistics.median(times)
    print(
        f"fluxvae --help: {best:.2f} s, best of {len(times)} (median {median:.2f}); "
        f"bar {HELP_BAR} s: {verdict(best, HELP_BAR)}"
    )
    print(f"of {', '.join(HEAVY)}, {ran.stderr.decode().strip()}")


def print_row(args: argparse.Namespace, variant: str, precision: str, folder: Path) -> None:
    model = folder / f"{variant}-{precision}.mlpackage"

    def child(name: str) -> Any:
        options = {"variant": variant, "precision": precision, "model": model}
        options |= {"weights": args.weights, "size": args.size, "runs": args.runs}
        command = [sys.executable, __file__, "--child", name]
        for option, value in options.items():
            command += [f"--{option}", str(value)]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        return json.loads(ran.stdout)

    child("convert")
    torch_mb, executor_mb, times = child("torch"), child("executor"), child("time")
    torch_s, executor_s = (statistics.median(times[k]) for k in ("torch", "executor"))
    ratio, bar = executor_s / torch_s, BARS[precision]
    print(
        f"{variant:8} {precision:8} {torch_s:7.2f} {executor_s:11.2f} {ratio:6.2f} {bar:6} "
        f"{torch_mb:9.0f} {executor_mb:12.0f}  {times['max_abs']:.1e}  {verdict(ratio, bar)}",
        flush=True,
    )


def verdict(value: float, bar: float) -> str:
    return "within" if value <= bar else "ABOVE"


def convert(args: argparse.Namespace) -> None:
    """Save the model that the other children run."""
    from fluxvae.convert.program import write_model
    from fluxvae.networks.build import build_decoder
    from fluxvae.networks.weights import load_weights
    from fluxvae.recipes import Recipe, Size

    weights = load_weights(args.variant, args.weights)
    recipe = Recipe(args.variant, precision=args.precision, sizes=(Size(args.size, args.size),))
    write_model(build_decoder(weights), recipe, weights.contract.channels, args.model)


def run_torch(args: argparse.Namespace) -> Callable[[], Any]:
    """The plain decoder on a seeded latent, in float32 without gradients."""
    import torch

    from fluxvae.networks.build import build_decoder
    from fluxvae.networks.weights import load_weights

    torch.set_num_threads(1)
    weights = load_weights(args.variant, args.weights)
    decoder = build_decoder(weights)
    latent = torch.from_numpy(make_latent(args, weights.contract.channels))

    def run() -> Any:
        with torch.inference_mode():
            return decoder(latent).numpy()

    return run


def run_executor(args: argparse.Namespace) -> Callable[[], Any]:
    """The saved model on the same latent."""
    import torch

    from fluxvae.mil.executor import Session
    from fluxvae.mil.package import read_package

    torch.set_num_threads(1)
    session = Session(read_package(args.model))
    (latent,), (image,) = session.signature.inputs, session.signature.outputs
    values = make_latent(args, latent.shape[1])
    return lambda: session.run({latent.name: values})[image.name]


def make_latent(args: argparse.Namespace, channels: int) -> Any:
    import numpy as np

    side = args.size // 8
    generator = np.random.Generator(np.random.PCG64(0))
    return generator.standard_normal((1, channels, side, side), np.float32)


def peak_megabytes(run: Callable[[], Any]) -> float:
    """Peak resident memory of this process after two runs: the second can be the higher one."""
    for _ in range(2):
        run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def measure_times(args: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of each run, in turn, after one run of each to warm up."""
    import numpy as np

    runs = {"torch": run_torch(args), "executor": run_executor(args)}
    images = {name: run() for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(max(args.runs, 3)):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    error = images["executor"].astype(np.float32) - images["torch"]
    return {**times, "max_abs": float(np.abs(error).max())}


CHILDREN: dict[str, Callable[[argparse.Namespace], Any]] = {
    "convert": convert,
    "torch": lambda args: peak_megabytes(run_torch(args)),
    "executor": lambda args: peak_megabytes(run_executor(args)),
    "time": measure_times,
}


if __name__ == "__main__":
    main()
