"""Where a release comes from: from the artefact to the verdict, the data, the features, the code and the approvers, offline.

In: the documents of a release, and who signed for it. Out: one JSON object, the same from the folder of releases and from a
vehicle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet_assets.edge.verdict import Verdict

TYPE = "trace"


def trace(release: str, evidence: Mapping[str, Any], verdict: Verdict, approvers: Mapping[str, str]) -> dict[str, Any]:
    """release: id. approvers: key id -> holder. Counts are those that were signed; bounds were found anew."""
    source = evidence["provenance"]
    return {
        "_type": TYPE,
        "release": release,
        "approvers": [{"holder": holder, "key": key_id} for key_id, holder in approvers.items()],
        "verdict": {
            "status": str(verdict.status),
            "profile": verdict.profile,
            "gate": verdict.gate_name,
            "gate_sha256": verdict.gate_sha256,
            "candidates_judged": verdict.candidates_judged,
            "cells": [
                {
                    "cell": cell.name, "status": str(cell.status), "hits": cell.hits, "positives": cell.positives,
                    "drives": cell.drives, "design_effect_ppm": cell.design_effect_ppm, "bound_ppm": cell.bound_ppm,
                    "limit_ppm": cell.limit_ppm,
                }
                for cell in verdict.cells
            ],
            "not_to_be_relied_on": [dict(slice_) for slice_ in verdict.excluded],
        },
        "bound_to": dict(verdict.bound_to),
        "dataset": {"name": source["dataset"], "commit": source["dataset_commit"], "drives": source["drives"]},
        "features": source["features"],
        "training": source["training"],
        "code": source["code"],
        "statements": {key: value for key, value in evidence["un_r156"].items() if isinstance(value, str)},
    }  # fmt: skip
