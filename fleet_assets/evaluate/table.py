"""Verdicts for people.

In: a verdict, and what is shown beside its cells. Out: rows for a table, and the same as Markdown for the Dagster UI.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fleet_assets.edge.verdict import PPM, Cell, Status, Verdict

if TYPE_CHECKING:
    from fleet_assets.evaluate.gate import CellReport


def verdict_rows(verdict: Verdict) -> list[dict[str, Any]]:
    """One per cell: what counts, and what follows. Those that block come first."""
    cells = sorted(verdict.cells, key=lambda cell: cell.status is Status.PASS)
    return [_row(cell) for cell in cells]


def report_rows(report: Sequence[CellReport]) -> list[dict[str, Any]]:
    """The same with what is not gated beside it."""
    lines = sorted(report, key=lambda line: line.cell.status is Status.PASS)
    return [
        _row(line.cell)
        | {
            "bootstrap_bound": _share(line.bootstrap_bound),
            "recall_at_equal_precision": _share(line.recall_at_equal_precision),
            "average_precision": _share(line.average_precision),
            "error_m": _share(line.error_m),
            "calibration_error": _share(line.calibration_error),
        }
        for line in lines
    ]


def _row(cell: Cell) -> dict[str, Any]:
    return {
        "cell": cell.name,
        "status": str(cell.status),
        "measured": cell.estimate_ppm / PPM,
        "bound": cell.bound_ppm / PPM,
        "limit": cell.limit_ppm / PPM,
        "counted": f"{cell.hits} of {cell.positives}",
        "drives": cell.drives,
        "design_effect": cell.design_effect_ppm / PPM,
        "drives_needed": cell.drives_needed or None,
    }


def headline(verdict: Verdict) -> str:
    """Such as `FAIL by gate full (profile full): pedestrian recall, light=night`."""
    named = "; ".join(cell.name for cell in verdict.blocking)
    return f"{verdict.status} by gate {verdict.gate_name} (profile {verdict.profile})" + (f": {named}" if named else "")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table; empty without rows."""
    if not rows:
        return ""
    names = list(rows[0])
    lines = [[name.replace("_", " ") for name in names], ["---"] * len(names)]
    lines += [[_text(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _share(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
