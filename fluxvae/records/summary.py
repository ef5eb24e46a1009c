"""Every figure of a matrix's summary, from its results alone: rows, ablation, provenance.

Pure: the same results give the same summary, so that ``verify`` can derive it again.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from fluxvae.records.ablation import combined_psnr
from fluxvae.records.experiment import (
    AXES,
    NONE,
    Ablation,
    Cell,
    Change,
    Compounding,
    ErrorFigures,
    Provenance,
    Result,
    Row,
    Summary,
    Thresholds,
)
from fluxvae.records.statistics import median, outliers, percentile
from fluxvae.schema import json_text

_FIXED = ("variant", "decoder")  # an ablation is of one decoder
NOT_A_MAC = (
    "Latency, loads and memory were measured on the reference executor, not on Core ML: they tell "
    "nothing of a Mac."
)


def summarize(results: Sequence[Result]) -> Summary:
    """Rows in the order of ``results``, one ablation for each decoder, and where it is all from."""
    rows = tuple(_row(result, results) for result in results)
    by_key = {row.key: row for row in rows}
    return Summary(rows, tuple(_ablations(results, by_key)), _provenance(results))


def summary_json(summary: Summary) -> str:
    """The text of ``summary.json``: equal for equal results."""
    return json_text(asdict(summary))


def worst_psnr(result: Result) -> float | None:
    """The worst photo's PSNR in dB; None when all are infinite or any image is not finite.

    Of all inputs where there is no photo. Nasty inputs have limits of their own, which make the
    verdict: flat latents come out 15 to 30 dB below photos, and would be all that is compared.
    """
    if any(e.max_abs is None for e in result.errors):
        return None
    return min((e.psnr_db for e in judged(result) if e.psnr_db is not None), default=None)


def judged(result: Result) -> tuple[ErrorFigures, ...]:
    """The inputs that cells are compared by: photos, or all where there is none."""
    return tuple(e for e in result.errors if e.kind == "photo") or result.errors


def verdict_of(errors: Sequence[ErrorFigures]) -> str:
    """``pass`` when every input is within its limit, ``fail`` also where none was judged."""
    return "pass" if errors and all(e.passed for e in errors) else "fail"


def flags_of(result: Result, limits: Thresholds) -> tuple[str, ...]:
    """Thresholds crossed by the worst PSNR and the median of the runs' medians, in words.

    A figure that is not there crosses none.
    """
    flags = []
    psnr_db, latency_ms = worst_psnr(result), median(run_medians(result))
    floor, most = limits.psnr_db, limits.latency_ms
    if floor is not None and psnr_db is not None and psnr_db < floor:
        flags.append(f"worst PSNR {psnr_db:.2f} dB is below {floor:g} dB")
    if most is not None and latency_ms is not None and latency_ms > most:
        flags.append(f"latency {latency_ms:.3f} ms is above {most:g} ms")
    return tuple(flags)


def run_medians(result: Result) -> tuple[float, ...]:
    """Milliseconds: the median of each run that has samples."""
    return tuple(percentile(run.samples_ms, 50) for run in result.runs if run.samples_ms)


def _row(result: Result, results: Sequence[Result]) -> Row:
    medians = run_medians(result)
    peaks = [r.peak_memory_bytes for r in result.runs if r.peak_memory_bytes is not None]
    plain = _plain_bytes(result.cell, results)
    return Row(
        key=result.key,
        label=result.cell.label(),
        status=result.status,
        verdict=result.verdict,
        reason=result.reason,
        latency_ms=median(medians),
        latency_p10_ms=percentile(medians, 10) if medians else None,
        latency_p90_ms=percentile(medians, 90) if medians else None,
        runs_ms=medians,
        outliers=tuple(i + 1 for i in outliers(medians)),
        first_load_s=median(run.first_load_s for run in result.runs),
        later_load_s=median(run.later_load_s for run in result.runs),
        bytes=result.bytes,
        fraction=result.bytes / plain if result.bytes is not None and plain else None,
        psnr_db=worst_psnr(result),
        energy_mj=math.fsum(result.energy.engines_mj.values()) if result.energy else None,
        peak_memory_bytes=max(peaks, default=None),
        flags=result.flags,
    )


def _plain_bytes(cell: Cell, results: Sequence[Result]) -> int | None:
    """Bytes of the float16 artifact without compression that is most like ``cell`` otherwise."""
    fitting = [
        (len(_changed(cell, r.cell)), r.cell.label(), r.bytes)
        for r in results
        if r.bytes and (r.cell.precision, r.cell.compression) == ("float16", NONE)
        and all(getattr(r.cell, a) == getattr(cell, a) for a in _FIXED)
    ]  # fmt: skip
    return min(fitting)[2] if fitting else None


def _changed(cell: Cell, base: Cell) -> dict[str, str]:
    """The axes in which ``cell`` differs from ``base``, with its own values."""
    return {a: getattr(cell, a) for a in AXES if getattr(cell, a) != getattr(base, a)}


def _ablations(results: Sequence[Result], rows: dict[str, Row]) -> Iterator[Ablation]:
    done = [r for r in results if r.status == "done"]
    decoders = dict.fromkeys(tuple(getattr(r.cell, a) for a in _FIXED) for r in done)
    for decoder in decoders:
        members = [r for r in done if tuple(getattr(r.cell, a) for a in _FIXED) == decoder]
        base = _base(members)
        changes = [_change(r, base, rows) for r in members if r is not base]
        single = tuple(c for c in changes if len(c.axes) == 1)
        yield Ablation(rows[base.key], single, tuple(_compounding(changes, single)))


def _base(members: Sequence[Result]) -> Result:
    """The cell with the most others one axis away; of several, the one nearest the defaults."""

    def rank(result: Result) -> tuple[int, int, str]:
        neighbours = sum(len(_changed(r.cell, result.cell)) == 1 for r in members)
        odd = len(_changed(result.cell, Cell(result.cell.variant, result.cell.decoder)))
        return (-neighbours, odd, result.cell.label())

    return min(members, key=rank)


def _change(result: Result, base: Result, rows: dict[str, Row]) -> Change:
    own, other = rows[result.key], rows[base.key]
    bytes_ = _difference(own.bytes, other.bytes)
    return Change(
        key=result.key,
        label=own.label,
        axes=_changed(result.cell, base.cell),
        psnr_db=_difference(own.psnr_db, other.psnr_db),
        latency_ms=_difference(own.latency_ms, other.latency_ms),
        bytes=None if bytes_ is None else int(bytes_),
    )


def _compounding(changes: Sequence[Change], single: Sequence[Change]) -> Iterator[Compounding]:
    """Cells of several changes at once whose every single change was measured as well."""
    alone = {next(iter(c.axes.items())): c for c in single}
    for change in changes:
        parts = [alone.get(item) for item in change.axes.items()]
        known = [part for part in parts if part is not None]
        if len(parts) > 1 and len(known) == len(parts):
            sizes = _sum(part.bytes for part in known)
            yield Compounding(
                together=change,
                sum_psnr_db=_sum_psnr(part.psnr_db for part in known),
                sum_latency_ms=_sum(part.latency_ms for part in known),
                sum_bytes=None if sizes is None else int(sizes),
            )


def _difference(own: float | None, other: float | None) -> float | None:
    return None if own is None or other is None else own - other


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else math.fsum(v for v in known if v is not None)


def _sum_psnr(changes: Iterable[float | None]) -> float | None:
    """The change of PSNR, in dB, if the squared errors of single changes add up: decibels do not.

    By the base's squared error: 1, plus what each change adds to it. None when nothing is left.
    """
    known = list(changes)
    return None if None in known else combined_psnr(known, surplus=len(known) - 1)


def _provenance(results: Sequence[Result]) -> Provenance:
    measured = [r for r in results if r.runs]
    versions = {json.dumps(r.versions, sort_keys=True): r.versions for r in results}
    notes = [NOT_A_MAC] if any(r.host.system != "Darwin" for r in measured) else []
    if any(r.energy is not None for r in results):
        notes.append("Energy is relative only: compare it within this matrix.")
    return Provenance(
        hosts=tuple(dict.fromkeys(r.host for r in results)),
        versions=tuple(versions.values()),
        weights_digests={_decoder(r.cell): r.weights_digest for r in results},
        inputs_digests={f"{_decoder(r.cell)} {r.cell.sizes}": r.inputs_digest for r in results},
        commands=(
            *(_install(found) for found in versions.values()),
            "fluxvae matrix run matrix.toml --out again",
            "fluxvae matrix verify again",
        ),
        notes=tuple(notes),
    )


def _decoder(cell: Cell) -> str:
    return cell.variant if cell.decoder == "tiny" else f"{cell.variant}-{cell.decoder}"


def _install(versions: dict[str, str]) -> str:
    wanted = [f"{name}=={version}" for name, version in versions.items() if name != "python"]
    return f"pip install {' '.join(wanted)}  # Python {versions.get('python', '?')}"
