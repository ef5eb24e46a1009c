"""What measuring adds to a cell, against stand-ins for Xcode and the harness."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fluxvae.experiments.steps
from fluxvae.errors import ArtifactError
from fluxvae.experiments.file import Settings
from fluxvae.experiments.job import Job
from fluxvae.experiments.steps import measure
from fluxvae.experiments.verify import _artifact
from fluxvae.files import file_sha256
from fluxvae.records.experiment import Cell, Thresholds
from tests.fake_xcode import COMPLETE, install, make_package
from tests.matrix_results import VERSIONS, done


def no_plan(*_: Any) -> Any:
    raise ArtifactError("no compute plan here")


def test_compiled_model_of_apples_compiler_stays_with_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    install(tmp_path / "bin", "coremlcompiler", COMPLETE)
    monkeypatch.setattr(
        fluxvae.experiments.steps,
        "bench",
        lambda *_, **__: SimpleNamespace(processes=(), failures=()),
    )
    monkeypatch.setattr(fluxvae.experiments.steps, "run_harness", no_plan)
    package = make_package(tmp_path / "out", "decoder.mlpackage")
    files = [p for p in package.rglob("*") if p.is_file()]
    own = {str(p.relative_to(package.parent)): file_sha256(p) for p in files}
    size = sum(p.stat().st_size for p in files)
    cell = Cell("flux2", driver="swift")
    made = done(cell, artifact=package.name, artifact_sha256=own, bytes=size)
    job = Job("measure", made.key, cell, {}, Settings(), Thresholds(), made.weights_digest,
              made.inputs_digest, VERSIONS, {}, {"harness": str(tmp_path / "harness")})  # fmt: skip

    measured = measure(job, tmp_path / "out", made, {})

    compiled = {"decoder.mlmodelc/coremldata.bin", "decoder.mlmodelc/model.mil"}
    assert set(measured.artifact_sha256) == {*own, *compiled}
    for path, digest in measured.artifact_sha256.items():
        assert file_sha256(tmp_path / "out" / path) == digest
    assert measured.bytes == size
    assert list(_artifact(tmp_path / "out", measured)) == []  # and verify counts those alone
