"""Whether a drive is within the bounds of the alignment policy.

In: a drive's clock models, and its frames under the first policy. Out: one Fault per limit that it breaks, with the figure,
and per rule of a contract.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.contracts.loader import load_tables
from fleet_assets.contracts.rules import evaluate_drive
from fleet_assets.synchronise.clock_model import ClockModel
from fleet_assets.synchronise.policy import Limits


@dataclass(frozen=True)
class Fault:
    """rows: rows of the table that are out of bounds. figure, limit: in the unit of the limit; None for a contract's rule."""

    table_name: str
    rule: str
    reason: str
    rows: int
    figure: float | None = None
    limit: float | None = None


def broken_rules(tables: Mapping[str, Iterable[pa.Table]]) -> list[Fault]:
    """Blocking rules of scope drive in the tables' contracts. tables: in pieces; asked for only where there is such a rule."""
    return [
        Fault(name, failure.rule.name, f"{failure.rule.description} {failure.count} rows.", failure.count)
        for name, pieces in tables.items()
        for failure in evaluate_drive(load_tables()[name], pieces)
    ]


def out_of_bounds(
    models: Sequence[ClockModel], frames: pa.Table, required: Collection[str], limits: Limits
) -> list[Fault]:
    """frames: of one policy. required: streams that a complete frame needs. A drive without frames breaks no limit on them."""
    faults = []
    residuals = {
        f"{model.stream}, segment {model.segment}": model.residual_p95_ns
        for model in models
        if model.ok and model.stream in required and model.residual_p95_ns is not None
    }
    beyond = {name: residual_ns for name, residual_ns in residuals.items() if residual_ns > limits.residual_ns}
    if beyond:
        worst = max(beyond, key=lambda name: beyond[name])
        figure, limit = beyond[worst] / 1e6, limits.residual_ns / 1e6
        reason = f"The clock model of {worst} leaves {figure:.1f} ms unexplained (95 %); {limit:g} ms are allowed."
        faults.append(Fault("synchronise.clock_models", "residual_ms", reason, len(beyond), figure, limit))
    off_m = pc.drop_null(frames["misalignment_m"]).to_numpy()
    if off_m.size and (figure := float(np.percentile(off_m, 95))) > limits.misalignment_m:
        count = int((off_m > limits.misalignment_m).sum())
        reason = (
            f"In 5 % of {off_m.size} frames the scene moved by {figure:.1f} m and more between sensors; "
            f"{limits.misalignment_m:g} m are allowed."
        )
        faults.append(Fault("synchronise.frames", "misalignment_m", reason, count, figure, limits.misalignment_m))
    if frames.num_rows and (figure := float(pc.mean(frames["complete"]).as_py())) < limits.complete_share:
        count = frames.num_rows - int(pc.sum(frames["complete"]).as_py())
        reason = (
            f"{figure:.1%} of {frames.num_rows} frames have a match of {', '.join(sorted(required)) or 'any stream'}; "
            f"{limits.complete_share:.0%} are asked for."
        )
        faults.append(Fault("synchronise.frames", "complete_share", reason, count, figure, limits.complete_share))
    return faults
