"""The Markdown of a Mac report: made from its record alone, so that it can be made again."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fluxvae.records.mac import EACH, Artifact, Cell, Kind, MacRecord, Task

Result = dict[str, Any]
Show = Callable[[Result], str]
UNITS = {
    "cpuOnly": "CPU",
    "cpuAndGPU": "CPU+GPU",
    "cpuAndNeuralEngine": "CPU+NE",
    "all": "all",
}
CPU = "cpuOnly"
OTHERS = tuple(units for units in UNITS if units != CPU)
NOT_RUN = "not run"
NO_RECORD = (
    "No Mac has run this yet, so there is nothing to show: `fluxvae mac-report` on a Mac makes the "
    "record that this table is written from."
)


def report_page(record: MacRecord) -> str:
    """The whole page: what it is, the tables, and what failed."""
    host = record.host
    machine = f"{host.chip or host.arch}, {host.system} {host.release}"
    lines = [
        "# fluxvae on a Mac" if not record.rehearsal else "# Rehearsal of the Mac report",
        "",
        f"{machine}, fluxvae {record.fluxvae}.",
        "",
    ]
    if record.rehearsal:
        lines += [
            "Made without a Mac: the steps ran on the reference executor, and every cell that only "
            f'a Mac can fill says "{NOT_RUN}".',
            "",
        ]
    lines += [*table(record), *_failure_lines(record)]
    return "\n".join(lines) + "\n"


def table(record: MacRecord | None) -> list[str]:
    """Accuracy and speed, a row for each artifact and size; without a record, one sentence."""
    if record is None:
        return [NO_RECORD]
    latency = [f"{name} ms" for name in UNITS.values()]
    quality = [f"{name} dB" for name in UNITS.values()]
    drift = [f"{UNITS[units]} - CPU" for units in OTHERS]
    head = ["model", "size", "MB", "executor dB", *quality, *latency, "ops on NE", "same bits"]
    head += drift
    lines = [_row(head), _row(["---"] * len(head))]
    for artifact in record.artifacts:
        for size in artifact.recipe["sizes"]:
            lines.append(_row(_cells(record, artifact, size)))
    return [
        *lines,
        "",
        "Models are named by their recipe. MB: the package on disk. dB: worst PSNR against float32 "
        "PyTorch, over the cases; executor: fluxvae's reference executor on photo latents (noise "
        "where no encoder belongs to the weights). ms: median of the runs' medians. Ops on NE: "
        "operations that Core ML plans for the Neural Engine with all units. Same bits: whether "
        "repeated predictions gave equal bits on every set of compute units. - CPU: largest "
        "difference from the CPU's output, 0 for equal bits.",
    ]


def _cells(record: MacRecord, artifact: Artifact, size: str) -> Iterator[str]:
    name = artifact.name
    yield name
    yield size
    yield _text(record, Task(name, "convert"), lambda r: f"{r['bytes'] / 1e6:.2f}")
    yield _text(record, Task(name, "executor"), _executor)
    for units in UNITS:
        yield _mac(record, name, "validate", size, units, _worst_psnr)
    for units in UNITS:
        yield _mac(record, name, "bench", size, units, _median)
    yield _mac(record, name, "plan", size, "all", _on_neural_engine)
    yield _mac(record, name, "drift", size, EACH, _same_bits)
    for units in OTHERS:
        yield _mac(record, name, "drift", size, EACH, _against_cpu(units))


def _mac(record: MacRecord, name: str, kind: Kind, size: str, units: str, show: Show) -> str:
    """A cell that only Core ML on a Mac may fill: what was rehearsed is not shown."""
    return _text(record, Task(name, kind, size, units), show, rehearsed=False)


def _text(record: MacRecord, task: Task, show: Show, *, rehearsed: bool = True) -> str:
    cell = record.cell(task)
    if cell is None or cell.status == "not run" or (cell.status == "rehearsed" and not rehearsed):
        return NOT_RUN
    return "failed" if cell.status == "failed" else show(cell.result)


def _executor(result: Result) -> str:
    worst = result["worst_psnr_db"]
    value = worst.get("photo", worst.get("normal"))
    return _db(value) + ("" if result["verdict"] == "pass" else " FAIL")


def _worst_psnr(result: Result) -> str:
    values = [case["psnr_db"] for case in result["cases"]]
    finite = [v for v in values if v is not None]
    return _db(min(finite, default=None)) + ("" if result["verdict"] == "pass" else " FAIL")


def _median(result: Result) -> str:
    (summary,) = result["summaries"]
    return f"{summary['median']:.1f}"


def _on_neural_engine(result: Result) -> str:
    (plan,) = result["results"]
    return f"{plan['devices'].get('neuralEngine', 0)}/{plan['operations']}"


def _same_bits(result: Result) -> str:
    answer = "yes" if all(run["bit_equal"] for run in result["runs"]) else "NO"
    failed = len(result.get("failures", ()))
    return f"{answer} ({failed} failed)" if failed else answer


def _against_cpu(units: str) -> Show:
    def show(result: Result) -> str:
        found = next((c for c in result["against_cpu"] if c["compute_units"] == units), None)
        if found is None:  # these units or the CPU failed
            return "failed"
        largest = found["metrics"]["max_abs"]
        return "0" if found["bit_equal"] else "not finite" if largest is None else f"{largest:.1e}"

    return show


def _db(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.1f}"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _failure_lines(record: MacRecord) -> list[str]:
    if not record.failures:
        return []
    rows = [f"- {c.task.artifact} {c.task.name}: {_reason(c)}" for c in record.failures]
    return ["", "## What failed", "", *rows]


def _reason(cell: Cell) -> str:
    units = (f"{f['compute_units']}: {f['failure']}" for f in cell.result.get("failures", ()))
    return cell.reason or "; ".join(units) or "outside its limit"
