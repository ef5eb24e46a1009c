"""The record that ``fluxvae validate --json`` prints, as docs/validate.schema.json describes it."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxvae.validation.budget import Budget
    from fluxvae.validation.intermediates import Departure, Intermediates
    from fluxvae.validation.metrics import Metrics
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
    m = case.metrics
    return {
        "case": case.case,
        "kind": case.kind,
        "function": case.function,
        "size": str(case.size),
        "max_abs": _number(m.max_abs),
        "mae": _number(m.mae),
        "rmse": _number(m.rmse),
        "psnr_db": _number(m.psnr_db),
        "cosine": _number(m.cosine),
        "nan": m.nan,
        "inf": m.inf,
        "worst": list(m.worst),
        "limit": {"metric": case.limit.metric, "bound": case.limit.bound},
        "nonfinite": None if case.nonfinite is None else asdict(case.nonfinite),
        "pass": case.passed,
    }


def _departures_json(departures: Intermediates) -> dict[str, Any]:
    def row(d: Departure) -> dict[str, Any]:
        return {
            "index": d.index,
            "kind": d.kind,
            "name": d.name,
            "shape": list(d.shape),
            "max_abs": _number(d.max_abs),
            "snr_db": _number(d.snr_db),
            "largest": _number(d.largest),
            "nonfinite": d.nonfinite,
        }

    return {
        "bound_db": departures.bound_db,
        "first": None if departures.first is None else row(departures.first),
        "operations": [row(d) for d in departures.rows],
    }


def _budget_json(budget: Budget) -> dict[str, Any]:
    def stage(name: str, m: Metrics) -> dict[str, Any]:
        return {
            "stage": name,
            "max_abs": _number(m.max_abs),
            "rmse": _number(m.rmse),
            "psnr_db": _number(m.psnr_db),
        }

    return {
        "size": str(budget.size),
        "cases": [
            {
                "case": row.case,
                "kind": row.kind,
                "stages": [
                    stage(name, m) for name, m in zip(budget.stages, row.metrics, strict=True)
                ],
            }
            for row in budget.cases
        ],
    }


def _number(value: float) -> float | None:
    """JSON has neither NaN nor infinity: both become null."""
    return value if math.isfinite(value) else None
