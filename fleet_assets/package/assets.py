"""Packaging as Dagster sees it.

In: the model and the record of its evaluation, the dataset's manifest, the feature bundle. Out: a release candidate that waits
for its approvers. The verdict is judged anew here: checks do not protect across runs.
"""

from collections.abc import Iterator

import dagster as dg

from fleet_assets.features.assets import BUNDLE
from fleet_assets.resources import FleetResource
from fleet_assets.specs import last_metadata

CANDIDATE = dg.AssetKey(["package", "release_candidate"])
# Their latest materialisations say what was judged: `model` and `record` of the verdict, `dataset` of the model.
MODEL, EVALUATION = dg.AssetKey(["train", "model"]), dg.AssetKey(["evaluate", "verdict"])
HARDWARE = "cpu_x86_64"


@dg.asset(
    key=CANDIDATE,
    deps=[MODEL, EVALUATION, BUNDLE],
    group_name="package",
    owners=["team:fleet"],
    kinds={"onnx", "cyclonedx"},
    check_specs=[
        dg.AssetCheckSpec(
            "verdict", asset=CANDIDATE, blocking=True,
            description="The evaluation, judged anew, gives PASS on exactly these parts.",
        )
    ],
    description="Model, features, verdict, model card, bill of materials and evidence in one archive, unsigned.",
)  # fmt: skip
def release_candidate(
    context: dg.AssetExecutionContext, fleet: FleetResource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    from pathlib import Path

    from fleet_assets.curate.dataset import open_dataset
    from fleet_assets.edge.verdict import Status
    from fleet_assets.evaluate.candidates import refuse_fewer
    from fleet_assets.evaluate.record import read_record
    from fleet_assets.evaluate.table import verdict_rows
    from fleet_assets.package.candidate import build_candidate
    from fleet_assets.package.gather import gather
    from fleet_assets.package.policy import load_release_policy
    from fleet_assets.package.releases import Releases

    releases = Releases(fleet.home.releases)
    judged = last_metadata(context, EVALUATION)
    model, record = Path(judged["model"]), Path(judged["record"])
    manifest, _ = open_dataset(fleet.lake, last_metadata(context, MODEL)["dataset"])
    refuse_fewer(fleet.home, read_record(record))
    parts = gather(fleet.home, model, record, manifest.document)
    id_ = build_candidate(releases, parts, HARDWARE, load_release_policy())
    release = releases.release(id_)
    passed = release.verdict.status is Status.PASS
    yield dg.AssetCheckResult(
        asset_key=CANDIDATE,
        check_name="verdict",
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{cell.name}: {cell.status}" for cell in release.verdict.blocking) or "PASS",
        metadata={"cells": dg.MetadataValue.json(verdict_rows(release.verdict)), "release": id_},
    )
    if not passed:
        raise dg.Failure(
            f"{id_[:12]} has no PASS. It is kept, so that anyone can see why; nobody can sign it.", allow_retries=False
        )
    yield dg.MaterializeResult(
        asset_key=CANDIDATE,
        data_version=dg.DataVersion(id_),
        metadata={
            "release": id_,
            "profile": release.profile,
            "hardware": release.hardware,
            "archive": str(releases.archive(id_)),
            "next": f"each approver: fleet release sign {id_[:12]} --key FILE",
        },
    )
