"""Whether a run folder is what it says: one matrix, one set of weights, inputs, tools and hosts.

Every digest is computed again, and every figure of the summary derived again from the samples.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from fluxvae.errors import FluxVAEError, MatrixError
from fluxvae.experiments.file import Matrix, read_matrix
from fluxvae.experiments.folder import MATRIX, recorded_digest
from fluxvae.experiments.inputs import Inputs, WeightsRecord, read_inputs, read_weights, sha256_of
from fluxvae.experiments.job import cell_toml
from fluxvae.experiments.plan import cell_key, decoder_name, folder_name
from fluxvae.experiments.status import require_folder
from fluxvae.files import files_of, read_text
from fluxvae.records.experiment import CELLS, RESULT, Cell, Result
from fluxvae.records.summary import flags_of, summarize, summary_json, verdict_of
from fluxvae.schema import load


@dataclass(frozen=True)
class _Known:
    """What every result is compared with."""

    matrix: Matrix
    weights: WeightsRecord
    inputs: Inputs


def verify(folder: Path) -> list[str]:
    """Everything that is wrong with a run folder, one line each; empty if the folder is consistent.

    Raises MatrixError when it is not a run folder.
    """
    require_folder(folder)
    found: list[str] = []
    try:
        weights, inputs = read_weights(folder), read_inputs(folder)
        if weights is None or inputs is None:
            return [
                f"{'inputs' if weights else 'weights.json'}: not there; the run was never begun"
            ]
        known = _Known(read_matrix(folder / MATRIX), weights, inputs)
    except FluxVAEError as error:
        return [str(error)]
    results: dict[Path, Result] = {}
    for where in sorted((folder / CELLS).glob("[!.]*")):
        try:
            results[where] = load(Result, where / RESULT)
        except MatrixError as error:
            found.append(str(error))
    for where, result in results.items():
        found += [f"cells/{where.name}: {text}" for text in _cell(where, result, known)]
    found += _mixed(results)
    found += _missing(list(results.values()), known.matrix.cells)
    found += _summary(folder, list(results.values()))
    return found


def _cell(where: Path, result: Result, known: _Known) -> Iterator[str]:
    if recorded_digest(where) != sha256_of(where / RESULT):
        yield f"{RESULT} was changed after it was measured (its sha256 is not that beside it)"
    cell, name = result.cell, decoder_name(result.cell)
    if cell not in known.matrix.cells or name not in known.weights.decoders:
        yield "is not a cell of matrix.toml"
        return
    weights = known.weights.decoders[name].digest
    inputs = known.inputs.digest(name, cell.sizes)
    if result.weights_digest != weights:
        yield f"is of other weights (digest {result.weights_digest[:12]}, not {weights[:12]})"
    if result.inputs_digest != inputs:
        yield f"is of other inputs (digest {result.inputs_digest[:12]}, not {inputs[:12]})"
    calibration = known.inputs.calibration(name)
    key = cell_key(cell, weights, inputs, calibration, result.versions, known.matrix.settings)
    if result.key != key or where.name != folder_name(key, cell):
        yield "its key does not follow from its recipe, weights, inputs, versions and settings"
    try:
        written = read_text(where / "cell.toml")
    except (OSError, ValueError):
        written = ""
    if written != cell_toml(cell):
        yield f"cell.toml does not say what {RESULT} says"
    yield from _artifact(where, result)
    yield from _figures(result, known.matrix)


def _artifact(where: Path, result: Result) -> Iterator[str]:
    there = {str(path.relative_to(where)): path for path in files_of(where) if path.parent != where}
    for file, digest in result.artifact_sha256.items():
        path = where / file
        if not path.is_file():
            yield f"{file} is missing"
        elif sha256_of(path) != digest:
            yield f"{file} is not the file that was measured"
    for file in sorted(set(there) - set(result.artifact_sha256)):
        yield f"{file} does not belong there"
    own = (
        where / f for f in result.artifact_sha256 if PurePosixPath(f).parts[0] == result.artifact
    )
    size = sum(path.stat().st_size for path in own if path.is_file())  # without a compiled model
    if result.bytes is not None and result.bytes != size:
        yield f"says {result.bytes} bytes, and its files have {size}"


def _figures(result: Result, matrix: Matrix) -> Iterator[str]:
    """What a result says of its own samples."""
    if result.status != "done":
        return
    verdict = verdict_of(result.errors)
    if result.verdict != verdict:
        yield f"its verdict is {result.verdict}, and its inputs make it {verdict}"
    if result.flags != flags_of(result, matrix.thresholds):
        yield "its flags do not follow from its samples and the thresholds"


def _mixed(results: dict[Path, Result]) -> Iterator[str]:
    """Results of other tools or hosts than most of them."""
    done = {where: r for where, r in results.items() if r.status == "done"}
    if not done:
        return
    versions = [tuple(sorted(r.versions.items())) for r in results.values()]
    most_versions = dict(Counter(versions).most_common(1)[0][0])
    most_host = Counter(r.host for r in done.values()).most_common(1)[0][0]
    for where, result in results.items():
        if result.versions != most_versions:
            wrong = [f"{n} {v}" for n, v in result.versions.items() if most_versions.get(n) != v]
            yield (
                f"cells/{where.name}: is of another tool version ({', '.join(wrong) or 'one lacks'}"
                f"; the others: {', '.join(f'{n} {v}' for n, v in most_versions.items())})"
            )
    for where, result in done.items():
        if result.host != most_host:
            yield (
                f"cells/{where.name}: was measured on another host ({_host(result)}; the others: "
                f"{_host(replace(result, host=most_host))})"
            )


def _host(result: Result) -> str:
    host = result.host
    return f"{host.system} {host.release} {host.chip or host.arch}"


def _missing(results: Sequence[Result], cells: Sequence[Cell]) -> Iterator[str]:
    there = Counter(r.cell for r in results)
    for cell in cells:
        if there[cell] == 0:
            yield f"{cell.label()}: missing; run the matrix again"
        elif there[cell] > 1:
            yield f"{cell.label()}: is there {there[cell]} times"


def _summary(folder: Path, results: Sequence[Result]) -> Iterator[str]:
    ordered = sorted(results, key=lambda r: (r.cell.label(), r.key))
    try:
        written = read_text(folder / "summary.json")
    except (OSError, ValueError):
        yield "summary.json is missing: `fluxvae matrix report` writes it"
        return
    if written != summary_json(summarize(ordered)):
        yield (
            "summary.json does not follow from the samples of the cells: one of them was changed, "
            "or `fluxvae matrix report` was not run since"
        )
