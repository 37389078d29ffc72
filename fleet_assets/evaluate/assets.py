"""Evaluation as Dagster sees it.

In: the artefact that ships, frames of test drives, the profile of the run. Out: a report with its record, and the verdict, judged
anew from that record. The check on the verdict blocks: in the same run, nothing is packaged or deployed after it failed; and they
verify it again themselves.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from fleet_assets.features.assets import BUNDLE
from fleet_assets.resources import FleetResource, Profile
from fleet_assets.specs import last_metadata
from fleet_assets.train.assets import MODEL, TRAINING_SET

REPORT, VERDICT = (dg.AssetKey(["evaluate", name]) for name in ("report", "verdict"))
_CHECK = "gate"
_OWNERS = ["team:fleet"]
_LOOKED_BACK = 50  # verdicts, for the last that passed


@dg.asset(
    key=REPORT,
    deps=[TRAINING_SET, MODEL, BUNDLE],
    group_name="evaluate",
    owners=_OWNERS,
    kinds={"onnx", "parquet"},
    description="Measures of the artefact that ships, per slice and rehearsal, and the record from which its verdict follows.",
)
def report(context: dg.AssetExecutionContext, fleet: FleetResource, profile: Profile) -> dg.MaterializeResult:
    from fleet_assets.curate.scenarios import scenario_slices
    from fleet_assets.edge.payload import BOUND_FEATURES
    from fleet_assets.evaluate.fetch import fetch_recordings
    from fleet_assets.evaluate.gate_file import gate_path, load_gate
    from fleet_assets.evaluate.run import evaluate
    from fleet_assets.evaluate.scenarios import scenarios_of
    from fleet_assets.evaluate.table import headline, markdown
    from fleet_assets.train.frames import FrameSet

    home, gate = fleet.home, load_gate(gate_path(profile.name), scenario_slices())
    trained = last_metadata(context, MODEL)
    model, commit_id = Path(trained["folder"]), str(trained["lakefs_commit"])
    frames = FrameSet.load(Path(trained["training_set"]) / "test")
    recordings = fetch_recordings(fleet.lake.at(commit_id), frames.drives, home.scratch / "judged")
    folder = home.data / "evaluate" / (context.run.root_run_id or context.run.run_id)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier try of this run
    bound_to = {
        "dataset": str(trained["dataset"]),
        "dataset_commit": commit_id,
        "training_code_sha256": str(trained["code_sha256"]),
        BOUND_FEATURES: str(last_metadata(context, BUNDLE)["bundle"]),
    }
    done = evaluate(
        home, model, frames, gate, folder,
        bound_to=bound_to, recordings=recordings, released=_released(context, profile.name),
        scenarios=scenarios_of(fleet.lake, bound_to["dataset"], gate.scenarios, frames),
    )  # fmt: skip
    if done.report["loosened"] and done.report["approvers"] is None:
        context.log.warning(
            "The gate is looser than before, and there is no root yet: any name counted as an approver. Signing will ask again."
        )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(done.verdict.bound_to["evidence_sha256"]),
        metadata={
            "record": str(folder),
            "model": str(model),
            "verdict": headline(done.verdict),
            "mean_average_precision": done.report["mean_average_precision"],
            "latency_ms": done.report["latency_ms"],
            "frames": done.report["frames"],
            "frames_otherwise": done.report["frames_otherwise"],
            "candidates_judged": done.verdict.candidates_judged,
            "cells": dg.MetadataValue.md(markdown(done.report["cells"])),
            "loosened": dg.MetadataValue.md(markdown(done.report["loosened"])),
            "against_released": dg.MetadataValue.md(
                done.report["not_comparable"] or markdown(done.report["against_released"])
            ),
            "recall_over_offset": dg.MetadataValue.md(markdown(done.report["recall_over_offset"])),
        },
    )


@dg.asset(
    key=VERDICT,
    deps=[REPORT],
    group_name="evaluate",
    owners=_OWNERS,
    kinds={"json"},
    check_specs=[
        dg.AssetCheckSpec(
            _CHECK,
            asset=VERDICT,
            blocking=True,
            description="PASS in every cell of the gate; the verdict is the one on its evidence.",
        )
    ],
    description="PASS, FAIL or INSUFFICIENT per cell of the gate, with counts from which anyone finds the same.",
)
def verdict(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    from fleet_assets.edge.verdict import Status
    from fleet_assets.evaluate.record import verify
    from fleet_assets.evaluate.table import headline, markdown, verdict_rows

    told = last_metadata(context, REPORT)
    found = verify(Path(told["record"]))
    table = dg.MetadataValue.md(markdown(verdict_rows(found)))
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(found.bound_to["evidence_sha256"]),
        metadata={
            "status": str(found.status),
            "profile": found.profile,
            "record": told["record"],
            "model": told["model"],
            "cells": table,
            "bound_to": dg.MetadataValue.json(dict(found.bound_to)),
        },
    )
    yield dg.AssetCheckResult(
        asset_key=VERDICT,
        check_name=_CHECK,
        passed=found.status is Status.PASS,
        severity=dg.AssetCheckSeverity.ERROR,
        description=headline(found),
        metadata={"cells": table, "drives_needed": max((cell.drives_needed for cell in found.cells), default=0)},
    )


def _released(context: dg.AssetExecutionContext, profile: str) -> Any:
    """The last model of the profile that passed, if its files are there: what a candidate is compared with, and whose gate must
    not be loosened without a name."""
    from fleet_assets.evaluate.run import Released

    for record in context.instance.fetch_materializations(VERDICT, limit=_LOOKED_BACK).records:
        found = record.asset_materialization
        told = {name: value.value for name, value in found.metadata.items()} if found else {}
        if told.get("status") == "PASS" and told.get("profile") == profile:
            folder, model = Path(str(told["record"])), Path(str(told["model"]))
            if folder.is_dir() and model.is_dir():
                return Released(folder, model)
    return None
