"""The record that ``fluxvae validate --json`` prints, as docs/validate.schema.json describes it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxvae.validation.metrics import Metrics
    from fluxvae.validation.stages import Budget, Intermediates
    from fluxvae.validation.validate import CaseResult, Report


def report_json(
    report: Report, departures: Intermediates | None, budget: Budget | None = None
) -> dict[str, Any]:
    """The record of a validation; null for what was not asked for."""
    record = report.record
    return {
        "artifact": report.path.name,
        "path": str(report.path),
        "verdict": "pass" if report.passed else "fail",
        "backend": report.backend,
        "compute_units": report.compute_units,
        "recipe": record.recipe.to_dict(),
        "weights": {"source": record.source.name, "digest": record.weights_digest},
        "latent_space": record.contract.space,
        "versions": record.versions,
        "cases": [_case_json(c) for c in report.cases],
        "intermediates": None if departures is None else _departures_json(departures),
        "budget": None if budget is None else _budget_json(budget),
        "notes": list(report.notes),
    }


def _case_json(case: CaseResult) -> dict[str, Any]:
    return {
        "case": case.case,
        "kind": case.kind,
        "function": case.function,
        "size": str(case.size),
        **asdict(case.metrics),
        "limit": asdict(case.limit),
        "nonfinite": None if case.nonfinite is None else asdict(case.nonfinite),
        "pass": case.passed,
    }


def _departures_json(departures: Intermediates) -> dict[str, Any]:
    first, operations = departures.first, [asdict(row) for row in departures.rows]
    return {
        "bound_db": departures.bound_db,
        "first": None if first is None else asdict(first),
        "operations": operations,
    }


def _budget_json(budget: Budget) -> dict[str, Any]:
    def stage(name: str, m: Metrics) -> dict[str, Any]:
        return {"stage": name, "max_abs": m.max_abs, "rmse": m.rmse, "psnr_db": m.psnr_db}

    return {
        "size": str(budget.size),
        "cases": [
            {
                "case": row.case,
                "kind": row.kind,
                "stages": list(map(stage, budget.stages, row.metrics)),
            }
            for row in budget.cases
        ],
    }
