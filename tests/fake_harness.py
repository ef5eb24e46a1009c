"""A stand-in for fluxvae-harness: says what a test wants it to say, and keeps what it was told."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluxvae.device.harness import Harness

MOMENT = {
    "time": "2026-01-01T00:00:00Z",
    "thermal_state": None,
    "low_power_mode": None,
    "power_source": None,
    "load_average": [0.5, 0.25, 0],
    "process_memory_bytes": 4096,
}


def feature(name: str, shape: list[int]) -> dict[str, Any]:
    """One fixed float16 feature."""
    return {
        "name": name,
        "kind": "multiArray",
        "dtype": "float16",
        "shape": shape,
        "flexibility": "fixed",
        "shapes": [shape],
        "ranges": None,
    }


def report(command: str, **parts: Any) -> dict[str, Any]:
    """A report as docs/harness.schema.json wants it; ``parts`` replace what is null."""
    return {
        "format": "fluxvae-harness",
        "version": 2,
        "command": command,
        "model": {
            "path": "m.mlmodelc",
            "functions": None,
            "function": None,
            "inputs": [feature("latent", [1, 32, 8, 8])],
            "outputs": [feature("image", [1, 3, 64, 64])],
            "metadata": {"com.github.fluxvae.format": "1"},
        },
        "environment": {
            "backend": "reference",
            "os": "Linux",
            "os_version": "1",
            "os_build": None,
            "arch": "x86_64",
            "chip": "Abacus",
            "cores": 2,
            "memory_bytes": None,
            "swift": "6.3 release",
            "devices": ["cpu"],
            "before": MOMENT,
            "after": MOMENT,
        },
        "input": None,
        "runs": None,
        "validation": None,
        "plan": None,
        "drift": None,
        "failures": [],
        "notes": [],
        **parts,
    }


def bench_run(samples: list[float], units: str = "all") -> dict[str, Any]:
    """One run of ``bench``, its figures by numpy."""
    import numpy as np

    p10, median, p90, p95, p99 = np.percentile(samples, [10, 50, 90, 95, 99])
    return {
        "compute_units": units,
        "load": {"first_ms": 20.0, "second_ms": 10},
        "first_calls": {
            "after_load_ms": [5.0, 3.0, 2.0],
            "idle_s": 6,
            "after_idle_ms": [9.0, 4.0, 2.0],
        },
        "samples_ms": samples,
        "latency": {
            "count": len(samples),
            "mean": float(np.mean(samples)),
            "stddev": float(np.std(samples, ddof=1)) if len(samples) > 1 else 0.0,
            "median": float(median),
            "p10": float(p10),
            "p90": float(p90),
            "p95": float(p95),
            "p99": float(p99),
            "min": min(samples),
            "max": max(samples),
        },
        "peak_memory_bytes": 1000,
    }


def metrics(psnr_db: float | None = 70.0) -> dict[str, Any]:
    """Distances of a finite output."""
    return {
        "max_abs": 0.01,
        "mae": 0.001,
        "rmse": 0.0003,
        "psnr_db": psnr_db,
        "cosine": 1.0,
        "nan": 0,
        "inf": 0,
        "worst": [0, 1, 2, 3],
    }


def validation(verdict: str = "pass") -> dict[str, Any]:
    """One bundle on one set of compute units."""
    return {
        "verdict": verdict,
        "variant": "flux2",
        "size": "64x64",
        "case": "normal",
        "precision": "float16",
        "limit": {"metric": "psnr_db", "bound": 68},
        "results": [{"compute_units": "all", "verdict": verdict, "metrics": metrics()}],
        "notes": [],
    }


PROGRAM = """#!{python}
import json, os, pathlib, signal, sys
here = pathlib.Path(__file__).parent
with (here / "calls.jsonl").open("a") as log:
    log.write(json.dumps([sys.argv[1:], dict(os.environ)]) + "\\n")
answers = json.loads((here / "answers.json").read_text())
number = len((here / "calls.jsonl").read_text().splitlines()) - 1
code, out, err = answers[min(number, len(answers) - 1)]
sys.stdout.write(out)
sys.stderr.write(err)
sys.stdout.flush()
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


class FakeHarness:
    """A program in ``folder`` that answers with ``answers`` in turn, the last one for ever.

    An answer is (exit code, stdout, stderr); a negative code is a signal.
    """

    def __init__(self, folder: Path, *answers: tuple[int, Any, str]) -> None:
        self.folder = folder
        self.program = folder / "fluxvae-harness"
        self.program.write_text(PROGRAM.format(python=sys.executable))
        self.program.chmod(0o755)
        plain = [(c, o if isinstance(o, str) else json.dumps(o), e) for c, o, e in answers]
        (folder / "answers.json").write_text(json.dumps(plain))

    @property
    def harness(self) -> Harness:
        return Harness(self.program, {"SEEN": "yes"})

    @property
    def calls(self) -> list[tuple[list[str], Mapping[str, str]]]:
        """Arguments and environment of every call so far."""
        log = self.folder / "calls.jsonl"
        return [tuple(json.loads(line)) for line in log.read_text().splitlines()]
