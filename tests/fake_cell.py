"""A stand-in for the process of a cell: quick, without torch, and it fails where it is told to.

``experiments.process`` starts ``env NAME=VALUE ... python -m fluxvae.experiments.cell FOLDER``; a
program called ``env`` that comes first on PATH takes its place. ``FAKE_CELL`` names a folder: each
start leaves a line in ``calls``; ``delay`` holds seconds, ``hang`` and ``fail`` parts of
``kind-label``, ``reason`` the words of a failure.
"""

import hashlib
import json
import os
import select
import sys
from pathlib import Path


def install(folder: Path, **plan: str) -> dict[str, str]:
    """Variables of an environment in which cells are stand-ins; ``plan``: delay, hang, fail."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "env"
    own = Path(__file__).resolve()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {own} "$@"\n')
    program.chmod(0o755)
    for name, text in plan.items():
        (folder / name).write_text(text)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "FAKE_CELL": str(folder)}


def matrix_text(*settings: str, **axes: list[str]) -> str:
    """TOML of a matrix of flux2's demo decoder at 64 px."""
    lines = ["[matrix]", *settings, "[matrix.weights]", 'flux2 = "demo"', "[axes]"]
    lines += ['variant = ["flux2"]', 'sizes = ["64"]']
    return "\n".join(["", *lines, *(f"{k} = {json.dumps(v)}" for k, v in axes.items()), ""])


def calls(folder: Path) -> list[str]:
    """``kind label`` of every start so far."""
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def _told(name: str) -> str:
    path = Path(os.environ["FAKE_CELL"]) / name
    return path.read_text() if path.exists() else ""


def _wait(seconds: float) -> None:
    """Sleep; end when who started this is gone, as real cells do."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    if readable:
        os._exit(1)


def _label(cell: dict[str, str]) -> str:
    return f"{cell['layout']}-{cell['precision']}-{cell['compression']}"


def _main(folder: Path) -> int:
    job = json.loads((folder / "job.json").read_text())
    label = _label(job["cell"])
    with (Path(os.environ["FAKE_CELL"]) / "calls").open("a") as file:
        file.write(f"{job['kind']} {label}\n")
    whole = f"{job['kind']}-{label}"
    if any(word in whole for word in _told("hang").split()):
        _wait(60)
    _wait(float(_told("delay") or 0))
    if any(word in whole for word in _told("fail").split()):
        print(f"fluxvae: {_told('reason') or 'it was told to fail'}", file=sys.stderr)
        return 1
    out = folder / "out"
    out.mkdir(exist_ok=True)
    if job["kind"] == "solve":
        (out / "solved.safetensors").write_text(job["key"])
    elif job["kind"] == "stage":
        (out / "stage.json").write_text("{}")
    else:
        _cell(job, out)
    return 0


def _cell(job: dict, out: Path) -> None:
    for role, path in job["files"].items():
        assert role == "store" or Path(path).exists(), (role, path)  # the cell makes the store
    package = out / "model.mlpackage" / "Data"
    package.mkdir(parents=True, exist_ok=True)  # it is there for `measure`
    (package / "weights.bin").write_text(job["key"] * 10)
    digest = hashlib.sha256((package / "weights.bin").read_bytes()).hexdigest()
    (out / "cell.toml").write_text(
        "".join(f"{n} = {json.dumps(v)}\n" for n, v in job["cell"].items())
    )
    number = int(job["key"][:6], 16)
    psnr = 40 + number % 1000 / 50
    error = {"input": "chelsea", "kind": "photo", "psnr_db": psnr, "max_abs": 0.01, "ssim": 0.99,
             "limit": ">= 20 dB", "passed": True}  # fmt: skip
    run = {"first_load_s": 0.1, "later_load_s": 0.05, "samples_ms": [5.0, 6.0 + number % 7, 7.0],
           "peak_memory_bytes": 10**8}  # fmt: skip
    host = {"system": "Linux", "release": "6", "build": None, "arch": "x86_64", "chip": None,
            "memory": 8 * 10**9, "python": job["versions"]["python"]}  # fmt: skip
    result = {
        "format": "fluxvae-matrix-cell", "version": 2, "key": job["key"], "cell": job["cell"],
        "status": "done", "reason": None, "verdict": "pass",
        "weights_digest": job["weights_digest"], "inputs_digest": job["inputs_digest"],
        "versions": job["versions"], "host": host, "seconds": {"convert": 1.0},
        "bytes": (package / "weights.bin").stat().st_size, "artifact": "model.mlpackage",
        "artifact_sha256": {"model.mlpackage/Data/weights.bin": digest}, "errors": [error],
        "budget": {"conversion": 90.0}, "runs": [run] * (job["settings"]["runs"] * job["measured"]),
        "placement": {},
        "energy": None, "flags": [],
    }  # fmt: skip
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[-1])))
